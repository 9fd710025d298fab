#include "journal/replay.h"

#include <cstring>
#include <map>
#include <utility>

#include "core/base/planted_fault.h"
#include "core/format/cluster_format.h"
#include "core/format/verify.h"
#include "disklock/caw.h"
#include "journal/headers.h"

namespace cawfs {

namespace {

constexpr std::uint64_t kWritesInFlight = 32;
constexpr std::size_t kBlocksInOneStep = 256;  // then it is others' turn
// How long a lock block's read is tried again while the device does not answer.
constexpr Duration kPatience = kForever;

// The newest image of a block in the log.
struct Newest {
  std::uint64_t sequence = 0;
  format::JournalImage image;
};
using NewestImages = std::map<BlockNo, Newest>;

// The newest image of each block that no transaction after it, or its own, has freed.
NewestImages newest_images(const JournalLogView& log, ReplayReport& report) {
  NewestImages newest;
  std::uint64_t revoked = 0;
  for (const auto& record : log.records) {
    for (const auto& image : record.contents.images) newest[image.block] = {record.info.sequence, image};
    report.images += record.contents.images.size();
    if (planted(PlantedFault::kRevokesForgotten)) continue;
    for (const BlockRange& range : record.contents.revokes) {
      const auto first = newest.lower_bound(range.start);
      const auto last = newest.lower_bound(range.start + range.count);
      revoked += static_cast<std::uint64_t>(std::distance(first, last));
      newest.erase(first, last);
    }
  }
  report.revoked = revoked;
  report.blocks = newest.size() + revoked;
  return newest;
}

// The lock blocks of a log, each read once.
class LockBlocks {
 public:
  LockBlocks(const ReplayParts& parts, const JournalPlace& place)
      : geometry_(parts.geometry),
        place_(place),
        editor_(parts.device, parts.executor, parts.random, parts.geometry.fs_id, kPatience) {}

  // Does the image's lock entry still say EX by the dead node with the image's generation?
  Task<Result<bool>> stands(const format::JournalImage& image) {
    auto it = blocks_.find(image.lock_block);
    if (it == blocks_.end()) {
      const auto block = co_await read(image.lock_block);
      if (!block) co_return fail(block.error());
      it = blocks_.emplace(image.lock_block, *block).first;
    }
    const format::LockEntry& entry = it->second.entries[image.lock_entry];
    const bool same_tenure =
        entry.generation.value() == image.generation.value || planted(PlantedFault::kReplayWithoutGeneration);
    co_return entry.mode == static_cast<std::uint8_t>(format::LockModeOnDisk::kExclusive) &&
        entry.owner_slot.value() == place_.node.slot.value&& entry.owner_incarnation.value() ==
            place_.node.incarnation.value&& same_tenure;
  }

 private:
  Task<Result<format::LockBlock>> read(BlockNo block) {
    if (!geometry_.in_groups(block) && block != geometry_.global_lock) {
      co_return fail(Errc::kBadValue, "lock block named by the journal", block.value);
    }
    const auto image = co_await editor_.read(block.offset_bytes(), format::kLockMagic);
    if (!image) co_return fail(image.error());
    co_return image->as<format::LockBlock>();
  }

  const Geometry& geometry_;
  const JournalPlace& place_;
  CawEditor editor_;
  std::map<BlockNo, format::LockBlock> blocks_;
};

// The whole block of an image, checked: a journal can put nothing in place that a verifier would refuse, and nothing
// over another structure than its own header says.
Result<IoBuffer> expand(const format::JournalImage& image, const JournalRing& ring, const Geometry& geometry) {
  if (ring.contains(image.block)) return fail(Errc::kBadValue, "journaled block inside the journal", image.block.value);
  IoBuffer block(kBlockSize);
  std::memcpy(block.data(), image.used.data(), image.used.size());
  format::BlockHeader header;
  std::memcpy(&header, block.data(), sizeof(header));
  const auto type = static_cast<format::BlockType>(header.type.value());
  switch (type) {
    case format::BlockType::kSuperblock:
    case format::BlockType::kGroupHeader:
    case format::BlockType::kBitmap:
    case format::BlockType::kTreeNode:
    case format::BlockType::kInode:
      break;
    default:
      return fail(Errc::kBadValue, "journaled block", image.block.value);
  }
  if (const auto ok = format::verify_block(block.bytes(), type, image.block, geometry); !ok) return fail(ok.error());
  return block;
}

struct Write {
  BlockNo block;
  IoBuffer bytes;
  Result<> result{};
};

Task<void> write_one(SettledIo& io, Write& write, Semaphore& slots) {
  co_await slots.acquire();
  write.result = co_await io.write(write.block.offset_bytes(), write.bytes.bytes(), Durability::kCached);
  slots.release();
}

Task<Result<>> write_all(SettledIo& io, std::vector<Write>& writes) {
  TaskGroup group(io.executor());
  Semaphore slots(io.executor(), kWritesInFlight);
  for (Write& write : writes) group.spawn(write_one(io, write, slots));
  co_await group.join();
  for (const Write& write : writes) {
    if (!write.result) co_return write.result;
  }
  if (planted(PlantedFault::kReplayNotFlushed)) co_return Result<>{};
  const auto flushed = co_await io.flush();
  co_return flushed;
}

// What is to be written in place.
Task<Result<std::vector<Write>>> plan_writes(const ReplayParts& parts, const JournalPlace& place,
                                             const JournalRing& ring, const JournalLogView& log, ReplayReport& report) {
  const NewestImages newest = newest_images(log, report);
  LockBlocks locks(parts, place);
  std::vector<Write> writes;
  for (const auto& [block, found] : newest) {
    if (!place.local) {
      const auto stands = co_await locks.stands(found.image);
      if (!stands) co_return fail(stands.error());
      if (!*stands) {
        ++report.stale;
        continue;
      }
    }
    auto bytes = expand(found.image, ring, parts.geometry);
    if (!bytes) co_return fail(bytes.error());
    writes.push_back({.block = block, .bytes = std::move(*bytes)});
    if (writes.size() % kBlocksInOneStep == 0) co_await parts.executor.yield();
  }
  report.applied = writes.size();
  co_return writes;
}

}  // namespace

Task<Result<ReplayReport>> replay_journal(ReplayParts parts, JournalPlace place, ReplayMode mode) {
  const JournalRing ring(place.extents);
  StopSource never(parts.executor);
  SettledIo io(parts.executor, parts.device, never);
  JournalHeaders headers(io, parts.geometry, ring, place.node.slot);
  const auto header = co_await headers.read();
  if (!header) co_return fail(header.error());

  ReplayReport report;
  report.ring_blocks = ring.blocks();
  report.first_sequence = header->tail_sequence;
  report.empty = header->incarnation == Incarnation{};
  // The node died before it made the journal its own, and it had found it empty.
  if (report.empty) co_return report;

  const auto log = co_await read_log(io, parts.geometry, ring, place, *header);
  if (!log) co_return fail(log.error());
  report.records = log->records.size();
  for (const auto& record : log->records) report.used_blocks += record.info.blocks;
  if (!log->records.empty() && header->incarnation != place.node.incarnation) {
    co_return fail(Errc::kBadIdentity, "journal of another incarnation", place.node.slot.value);
  }
  auto writes = co_await plan_writes(parts, place, ring, *log, report);
  if (!writes) co_return fail(writes.error());
  if (mode == ReplayMode::kDryRun) co_return report;

  const auto written = co_await write_all(io, *writes);
  if (!written) co_return fail(written.error());
  const auto emptied = co_await headers.write_both(
      {.incarnation = Incarnation{}, .tail_sequence = log->next_sequence, .tail = log->next_ring_block});
  if (!emptied) co_return fail(emptied.error());
  co_return report;
}

Result<JournalPlace> journal_place(const format::SlotRecord& record, NodeId node, const Geometry& geometry) {
  auto extents = format::journal_extents(record, geometry);
  if (!extents) return fail(extents.error());
  return JournalPlace{.node = node, .local = (record.flags & format::kSlotLocal) != 0, .extents = std::move(*extents)};
}

Task<Result<>> JournalRecovery::replay(const format::SlotRecord& dead, NodeId dead_node) {
  auto place = journal_place(dead, dead_node, parts_.geometry);
  if (!place) co_return fail(place.error());
  const auto report = co_await replay_journal(parts_, std::move(*place), ReplayMode::kReplay);
  if (!report) {
    const Error& error = report.error();
    parts_.messages.error("replay of slot {} incarnation {} failed: {} ({} {})", dead_node.slot.value,
                          dead_node.incarnation.value, describe(error.code), error.where, error.address);
    co_return fail(error);
  }
  parts_.messages.info(
      "replayed slot {} incarnation {}: {} transactions, {} blocks in place, {} given up before, {} freed",
      dead_node.slot.value, dead_node.incarnation.value, report->records, report->applied, report->stale,
      report->revoked);
  co_return Result<>{};
}

}  // namespace cawfs
