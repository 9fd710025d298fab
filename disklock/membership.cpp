#include "disklock/membership.h"

#include "disklock/slot_table.h"

namespace cawfs {

Task<Result<bool>> Membership::is_stale(NodeId node) {
  if (node.slot.value >= kSlots) co_return fail(Errc::kBadValue, "slot number", node.slot.value);
  Result<format::SlotRecord> record = co_await read_slot(node.slot);
  if (!record) co_return fail(record.error());
  const Result<SlotView> view = view_slot(node.slot, *record);
  if (!view) co_return fail(view.error());
  co_return !view->stands_for(node);
}

Task<Result<bool>> Membership::is_vacant(SlotNo slot) {
  if (slot.value >= kSlots) co_return fail(Errc::kBadValue, "slot number", slot.value);
  Result<format::SlotRecord> record = co_await read_slot(slot);
  if (!record) co_return fail(record.error());
  const Result<SlotView> view = view_slot(slot, *record);
  if (!view) co_return fail(view.error());
  co_return !view->in_use();
}

}  // namespace cawfs
