// The superblock and its copies, slot records, heartbeats, mailboxes, the global lock block, journals.
#include <algorithm>
#include <cstring>

#include "core/format/cluster_verify.h"
#include "core/format/journal_verify.h"
#include "core/format/superblock_io.h"
#include "core/format/verify.h"
#include "utils/fsck/check.h"

namespace cawfs {
namespace {

using namespace format;

template <class T>
T copy_of(std::span<const std::byte> bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof(value));
  return value;
}

// All but the header, which names its own place.
bool same_contents(const Superblock& a, const Superblock& b) {
  constexpr std::size_t kHeader = sizeof(BlockHeader);
  const auto bytes = [](const Superblock& s) { return std::as_bytes(std::span(&s, 1)).subspan(kHeader); };
  return std::ranges::equal(bytes(a), bytes(b));
}

}  // namespace

Task<Result<>> Check::check_superblocks() {
  const BlockNo home{kSuperblockBlock};
  IoBuffer block(kBlockSize);
  if (superblock.header.address.value() != home.value) {
    found(Problem::kSuperblockDamaged, home.value, "the copy in block {} was used", superblock.header.address.value());
  }
  for (const BlockNo copy : {first_superblock_copy(geometry), last_superblock_copy(geometry)}) {
    const Result<bool> loaded =
        co_await load(copy, BlockType::kSuperblock, block.bytes(), Problem::kSuperblockCopyDamaged);
    if (!loaded) co_return fail(loaded.error());
    use({copy, 1}, "superblock copy", copy.value);
    if (*loaded && !same_contents(copy_of<Superblock>(block.bytes()), superblock)) {
      found(Problem::kSuperblockCopyDiffers, copy.value, "its sequence is {}, the superblock's {}",
            copy_of<Superblock>(block.bytes()).sequence.value(), superblock.sequence.value());
    }
  }
  co_return Result<>{};
}

Task<Result<>> Check::check_journal(SlotNo slot, const std::vector<BlockRange>& extents, bool clean) {
  for (const BlockRange& extent : extents) {
    if (!geometry.allocatable(extent)) {
      found(Problem::kJournalExtentsBad, slot.value, "the extent at {} of {} blocks crosses a group's own blocks",
            extent.start.value, extent.count);
      co_return Result<>{};
    }
  }
  for (const BlockRange& extent : extents) use(extent, "the journal of slot", slot.value);
  IoBuffer block(kBlockSize);
  std::optional<JournalHeaderInfo> newest;
  std::vector<BlockNo> bad;
  for (std::uint32_t copy = 0; copy < kJournalHeaderCopies; ++copy) {
    const BlockNo place = extents.front().start + copy;
    const Result<> done = co_await device.read(place.offset_bytes(), block.bytes());
    if (!done && done.error().code != Errc::kMedium) co_return done;
    const auto header = done ? verify_journal_header(block.bytes(), place, geometry, slot, ring_blocks(extents))
                             : Result<JournalHeaderInfo>(fail(done.error()));
    if (!header) bad.push_back(place);
    if (header && (!newest || header->writes > newest->writes)) newest = *header;
  }
  if (!newest) {
    found(Problem::kJournalHeaderDamaged, slot.value, "both copies, in blocks {} and {}", extents.front().start.value,
          extents.front().start.value + 1);
    co_return Result<>{};
  }
  // A node that dies may leave the copy torn that it was writing; one that leaves, neither.
  if (clean && !bad.empty()) found(Problem::kJournalHeaderDamaged, slot.value, "the copy in block {}", bad[0].value);
  if (clean && newest->incarnation.value != 0) {
    found(Problem::kJournalNotEmpty, slot.value, "it is incarnation {}'s", newest->incarnation.value);
  }
  co_return Result<>{};
}

Task<Result<>> Check::check_slot(SlotNo slot) {
  IoBuffer block(geometry.logical_block);
  const std::uint64_t offset = geometry.slot_record_offset(slot);
  const Result<bool> done = co_await read(offset, block.bytes(), Problem::kSlotRecordDamaged, slot.value);
  if (!done) co_return fail(done.error());
  if (!*done) co_return Result<>{};
  const Result<> ok = verify_slot_record(block.bytes(), offset, geometry.fs_id);
  if (!ok) {
    found(Problem::kSlotRecordDamaged, slot.value, "{}", describe(ok.error().code));
    co_return Result<>{};
  }
  const auto record = copy_of<SlotRecord>(block.bytes());
  const auto state = static_cast<SlotState>(record.state);
  const bool has_journal =
      std::ranges::any_of(record.journal, [](const JournalExtent& extent) { return extent.count.value() != 0; });
  if (slot.value >= geometry.slots && (state != SlotState::kFree || has_journal)) {
    found(Problem::kSlotUnexpected, slot.value, "state {} in a slot beyond the {} there are", record.state,
          geometry.slots);
    co_return Result<>{};
  }
  if (state == SlotState::kFree || state == SlotState::kWantsJournal) {
    const bool tentative = (record.flags & kSlotTentative) != 0;
    if (has_journal && !tentative)
      found(Problem::kSlotUnexpected, slot.value, "a journal without a state that has one");
    co_return Result<>{};
  }
  const bool clean = state == SlotState::kClean;
  if (!clean) {
    ++report.slots_to_recover;
    if (!options.tolerate_dirty_journals) {
      found(Problem::kSlotNeedsRecovery, slot.value, "incarnation {} of host '{}' has not left it",
            record.incarnation.value(),
            std::string_view(record.host_name.data(), strnlen(record.host_name.data(), record.host_name.size())));
    }
  }
  const auto extents = journal_extents(record, geometry);
  if (!extents) {
    found(Problem::kJournalExtentsBad, slot.value, "{}", describe(extents.error().code));
    co_return Result<>{};
  }
  const Result<> journal = co_await check_journal(slot, *extents, clean);
  co_return journal;
}

// Heartbeat and mailbox row of a slot. A node that dies writes none of them by halves: each is one logical block.
Task<Result<>> Check::check_messages(SlotNo slot) {
  IoBuffer block(geometry.logical_block);
  const std::uint64_t heartbeat = geometry.heartbeat_offset(slot);
  const Result<bool> beat = co_await read(heartbeat, block.bytes(), Problem::kHeartbeatDamaged, slot.value);
  if (!beat) co_return fail(beat.error());
  if (*beat) {
    const Result<> ok = verify_heartbeat(block.bytes(), heartbeat, geometry.fs_id, slot);
    if (!ok) found(Problem::kHeartbeatDamaged, slot.value, "{}", describe(ok.error().code));
  }
  IoBuffer row(std::size_t{kSlots} * geometry.logical_block);
  const Result<bool> mail =
      co_await read(geometry.mailbox_offset(slot, SlotNo{0}), row.bytes(), Problem::kMailboxDamaged, slot.value);
  if (!mail) co_return fail(mail.error());
  for (std::uint16_t from = 0; *mail && from < kSlots; ++from) {
    const auto bytes = row.bytes().subspan(std::size_t{from} * geometry.logical_block, geometry.logical_block);
    const Result<> ok =
        verify_mailbox(bytes, geometry.mailbox_offset(slot, SlotNo{from}), geometry.fs_id, slot, SlotNo{from});
    if (!ok) found(Problem::kMailboxDamaged, slot.value, "from slot {}: {}", from, describe(ok.error().code));
  }
  co_return Result<>{};
}

Task<Result<bool>> Check::check_fixed_areas() {
  const Result<> superblocks = co_await check_superblocks();
  if (!superblocks) co_return fail(superblocks.error());
  for (std::uint16_t slot = 0; slot < kSlots; ++slot) {
    const Result<> record = co_await check_slot(SlotNo{slot});
    if (!record) co_return fail(record.error());
    const Result<> messages = co_await check_messages(SlotNo{slot});
    if (!messages) co_return fail(messages.error());
  }
  const Result<> lock = co_await check_lock_block(geometry.global_lock);
  if (!lock) co_return fail(lock.error());
  co_return report.slots_to_recover == 0 || options.tolerate_dirty_journals;
}

}  // namespace cawfs
