// A slot record: where it is accepted, its journal lies where a journal may, and `cawfs status` shows it.
#include <cstring>

#include "core/base/assert.h"
#include "core/format/cluster_verify.h"
#include "core/format/journal_verify.h"
#include "core/runtime/virtual_loop.h"
#include "disklock/slot_table.h"
#include "journal/ring.h"
#include "tests/fuzz/block_input.h"
#include "tests/fuzz/fresh_image.h"
#include "utils/status/cluster_status.h"

namespace cawfs::fuzz {
namespace {

using format::SlotRecord;

constexpr std::uint8_t kLogicalBlock512 = 4;
constexpr std::uint32_t kLookOneIn = 8;  // at what `cawfs status` says
constexpr SlotNo kSlot{1};

void check_journal(const std::vector<BlockRange>& extents, const Geometry& geometry) {
  const JournalRing ring(extents);
  CAWFS_ASSERT(ring.blocks() + format::kJournalHeaderCopies >= format::kMinJournalBlocks);
  CAWFS_ASSERT(ring.blocks() + format::kJournalHeaderCopies <= format::kMaxJournalBlocks);
  CAWFS_ASSERT(ring.contains(ring.header_copy(0)) && ring.contains(ring.header_copy(1)));
  for (std::size_t i = 1; i < extents.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      const bool before = extents[i].start.value + extents[i].count <= extents[j].start.value;
      const bool behind = extents[j].start.value + extents[j].count <= extents[i].start.value;
      CAWFS_ASSERT(before || behind);
    }
  }
  std::uint64_t count = 0;
  for (const BlockRange& piece : ring.pieces(ring.blocks() / 2, ring.blocks())) {
    CAWFS_ASSERT(piece.count > 0 && geometry.in_groups(piece.start));
    CAWFS_ASSERT(geometry.in_groups(piece.start + (piece.count - 1)));
    CAWFS_ASSERT(ring.contains(piece.start) && ring.contains(piece.start + (piece.count - 1)));
    count += piece.count;
  }
  CAWFS_ASSERT(count == ring.blocks());
}

void check_view(const SlotView& view, const SlotRecord& record) {
  CAWFS_ASSERT(view.slot == kSlot && view.incarnation.value == record.incarnation.value());
  CAWFS_ASSERT(view.host_name.size() <= record.host_name.size());
  CAWFS_ASSERT(view.initiator_name.size() <= record.initiator_name.size());
  CAWFS_ASSERT(view.highest() >= view.incarnation);
  if (!view.used_up()) CAWFS_ASSERT(view.next().incarnation > view.incarnation);
  if (view.recovered_from_within()) CAWFS_ASSERT(view.in_use());
}

// What `cawfs status` says of the slot.
void check_status(std::span<const std::byte> block, const FreshImage& fresh, bool good) {
  VirtualLoop loop;
  SeededRandom random(1);
  SimulatedLun lun(loop.clock(), random, fresh.lun_options());
  fresh.disk.put(lun);
  lun.poke(fresh.geometry.slot_record_offset(kSlot), block);
  Executor& executor = loop.add_executor();
  const auto device = lun.connect(executor, "cawfs");
  const auto status = loop.run(executor, read_cluster_status(executor, *device));
  loop.run(executor, device->close());
  CAWFS_ASSERT(status);
  CAWFS_ASSERT(!status_text(*status).empty() && !status_json(*status).empty());
  const auto node = std::ranges::find(status->nodes, kSlot, &NodeStatus::slot);
  if (!good) CAWFS_ASSERT(node != status->nodes.end() && node->damaged);
}

void run(FuzzInput input) {
  const std::uint8_t flags = input.byte();
  const FreshImage& fresh = fresh_image((flags & kLogicalBlock512) != 0 ? 512 : 4096);
  const Geometry& geometry = fresh.geometry;
  const std::uint64_t offset = geometry.slot_record_offset(kSlot);
  Block whole;
  input.fill(whole);
  const auto block = std::span(whole).first(geometry.logical_block);
  right_cluster_block(block, flags, format::kSlotMagic, offset, geometry.fs_id);
  SlotRecord record;
  std::memcpy(&record, block.data(), sizeof(record));

  const auto verdict = format::verify_slot_record(block, offset, geometry.fs_id);
  const auto view = verdict ? view_slot(kSlot, record) : Result<SlotView>(fail(verdict.error()));
  if (verdict) {
    Block again = whole;
    format::seal_slot_record(std::span(again).first(block.size()), offset, geometry.fs_id);
    CAWFS_ASSERT(again == whole);
    if (const auto extents = format::journal_extents(record, geometry); extents) check_journal(*extents, geometry);
  }
  if (view) check_view(*view, record);
  if (geometry.logical_block == 512 && input.one_in(kLookOneIn)) check_status(block, fresh, view.has_value());
}

}  // namespace
}  // namespace cawfs::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  cawfs::fuzz::run({data, size});
  return 0;
}
