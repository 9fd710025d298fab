#include "disklock/slot_table.h"

#include <algorithm>
#include <cstring>

#include "core/format/cluster_verify.h"
#include "disklock/readable_blocks.h"

namespace cawfs {

Result<SlotView> view_slot(SlotNo slot, const format::SlotRecord& record) {
  const auto bad = [slot] { return fail(Errc::kBadValue, "slot record", slot.value); };
  SlotView view;
  view.slot = slot;
  view.state = static_cast<format::SlotState>(record.state);
  view.flags = record.flags;
  view.incarnation = Incarnation{record.incarnation.value()};
  view.key = PrKey{record.pr_key.value()};
  view.host_name = field_text(record.host_name);
  view.initiator_name = field_text(record.initiator_name);
  view.isid = record.isid.value();
  view.recoverer = {SlotNo{record.recoverer_slot.value()}, Incarnation{record.recoverer_incarnation.value()}};
  view.recoverer_key = PrKey{record.recoverer_key.value()};
  view.record = &record;
  if (view.in_use() && view.incarnation.value == 0) return bad();
  if (view.state == format::SlotState::kRecovering) {
    const bool slotless = view.recoverer.slot == kNoSlotOfItsOwn;
    if (!slotless && (view.recoverer.slot.value >= kSlots || view.recoverer.incarnation.value == 0)) return bad();
  } else if (view.fenced() || view.damaged()) {
    return bad();
  }
  if ((view.flags & format::kSlotFenceAgain) != 0 && !view.fenced()) return bad();
  return view;
}

HeartbeatValue heartbeat_value(std::span<const std::byte> logical_block) {
  const auto& beat = *reinterpret_cast<const format::Heartbeat*>(logical_block.data());
  return {beat.counter.value(), beat.incarnation.value(), beat.crc.value()};
}

SlotTable::SlotTable(BlockDevice& device, CawEditor& editor, const Geometry& geometry)
    : device_(device), editor_(editor), geometry_(geometry), incoming_(std::size_t{geometry.slots} * kBlockSize) {}

const SlotView* SlotTable::view(SlotNo slot) const {
  return views_[slot.value] ? &*views_[slot.value] : nullptr;
}

Task<Result<>> SlotTable::read() {
  Result<> done =
      co_await read_readable_blocks(device_, geometry_.node_table.offset_bytes(), incoming_.bytes(), kBlockSize);
  if (!done) co_return done;

  std::uint64_t in_use = 0;
  for (std::uint16_t i = 0; i < geometry_.slots; ++i) {
    const SlotNo slot{i};
    const auto bytes = incoming_.bytes().subspan(std::size_t{i} * kBlockSize, geometry_.logical_block);
    const std::uint64_t offset = geometry_.slot_record_offset(slot);
    if (format::verify_slot_record(bytes, offset, geometry_.fs_id)) {
      std::memcpy(&records_[i], bytes.data(), sizeof(format::SlotRecord));
      corrupt_[i] = false;
    } else if (!corrupt_[i] || std::memcmp(&records_[i], bytes.data(), sizeof(format::SlotRecord)) != 0) {
      Result<CawImage> again = co_await editor_.read(offset, format::kSlotMagic);
      if (!again && !is_damage(again.error().code)) co_return fail(again.error());
      corrupt_[i] = !again;
      if (again) {
        records_[i] = again->as<format::SlotRecord>();
      } else {
        std::memcpy(&records_[i], bytes.data(), sizeof(format::SlotRecord));
      }
    }
    if (corrupt_[i]) {
      views_[i].reset();
      in_use |= std::uint64_t{1} << i;
      continue;
    }
    const Result<SlotView> view = view_slot(slot, records_[i]);
    views_[i].reset();
    if (view) views_[i] = *view;
    if (!view || view->in_use()) in_use |= std::uint64_t{1} << i;
  }
  in_use_ = in_use;
  co_return Result<>{};
}

bool others_keep_the_reservation(const SlotTable& table, const RegisteredKeys& keys, PrKey own, bool had_gone) {
  bool others = false;
  for (std::uint16_t i = 0; i < table.slots(); ++i) {
    const SlotView* view = table.view(SlotNo{i});
    if (!view) continue;
    PrKey key;
    if (view->state == format::SlotState::kActive) key = view->key;
    if (view->recovered_from_within()) key = view->recoverer_key;
    if (key == own) return false;
    const bool claimed = view->state == format::SlotState::kRecovering && !view->fenced() && view->key == own;
    if (claimed && !had_gone) return false;
    others = others || (key.value != 0 && std::ranges::find(keys.keys, key) != keys.keys.end());
  }
  return others;
}

bool key_is_known(const SlotTable& table, PrKey key) {
  for (std::uint16_t i = 0; i < table.slots(); ++i) {
    const SlotView* view = table.view(SlotNo{i});
    if (!view || view->key == key || view->recoverer_key == key) return true;
  }
  return false;
}

HeartbeatTable::HeartbeatTable(BlockDevice& device, const Geometry& geometry)
    : device_(device), geometry_(geometry), buffer_(std::size_t{geometry.slots} * kBlockSize) {}

Task<Result<>> HeartbeatTable::read() {
  Result<> done =
      co_await read_readable_blocks(device_, geometry_.heartbeats.offset_bytes(), buffer_.bytes(), kBlockSize);
  co_return done;
}

HeartbeatValue HeartbeatTable::value(SlotNo slot) const {
  return heartbeat_value(buffer_.bytes().subspan(std::size_t{slot.value} * kBlockSize, geometry_.logical_block));
}

Result<format::Heartbeat> HeartbeatTable::heartbeat(SlotNo slot) const {
  const auto bytes = buffer_.bytes().subspan(std::size_t{slot.value} * kBlockSize, geometry_.logical_block);
  const Result<> good = format::verify_heartbeat(bytes, geometry_.heartbeat_offset(slot), geometry_.fs_id, slot);
  if (!good) return fail(good.error());
  format::Heartbeat beat;
  std::memcpy(&beat, bytes.data(), sizeof beat);
  return beat;
}

}  // namespace cawfs
