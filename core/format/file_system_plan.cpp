#include "core/format/file_system_plan.h"

#include <algorithm>
#include <optional>

#include "core/base/assert.h"
#include "core/format/cluster_format.h"
#include "core/format/journal_format.h"
#include "core/format/layout.h"
#include "core/format/superblock_io.h"

namespace cawfs {
namespace {

using namespace format;

constexpr std::uint64_t kSmallDevice = std::uint64_t{1} << 30;
constexpr std::uint32_t kSmallSlots = 4;
constexpr std::uint32_t kDefaultSlots = 8;
constexpr std::uint64_t kManyGroups = 4096;
constexpr std::uint64_t kJournalShare = 16;  // of the device, for all slots
constexpr std::uint64_t kLargestDefaultJournal = (64 << 20) / kBlockSize;
constexpr std::uint64_t kSmallestExtent = 64;  // of a journal
constexpr std::uint64_t kLeastFreeBlocks = 1024;
constexpr std::uint64_t kInodesPerChunk = kChunkBlocks - 1;

Result<> check_options(std::uint32_t logical_block, const MakeOptions& options) {
  if (logical_block != 512 && logical_block != 4096) return fail(Errc::kInvalid, "logical block size");
  if (options.label.size() > sizeof(Superblock::label) || options.label.contains('\0')) {
    return fail(Errc::kInvalid, "label");
  }
  if (options.slots > kSlots) return fail(Errc::kInvalid, "slots");
  if (options.journal_blocks != 0 &&
      (options.journal_blocks < kMinJournalBlocks || options.journal_blocks > kMaxJournalBlocks)) {
    return fail(Errc::kInvalid, "journal size");
  }
  if (options.dead_time_ms < kMinDeadTimeMs || options.dead_time_ms > kMaxDeadTimeMs) {
    return fail(Errc::kInvalid, "dead-time");
  }
  const std::uint64_t group = options.group_blocks;
  if (group != 0 && (group < kMinGroupBlocks || group > kMaxGroupBlocks || group % kChunkBlocks != 0)) {
    return fail(Errc::kInvalid, "group size");
  }
  return {};
}

std::uint64_t choose_group_blocks(std::uint64_t blocks, std::uint32_t slots) {
  if (blocks / kBitsPerBitmapBlock < slots) {
    return std::max(kMinGroupBlocks, blocks / slots / kChunkBlocks * kChunkBlocks);
  }
  const std::uint64_t bitmaps = blocks / kBitsPerBitmapBlock / kManyGroups + 1;
  return std::min<std::uint64_t>(bitmaps, kMaxBitmapBlocks) * kBitsPerBitmapBlock;
}

Result<Geometry> plan_areas(std::uint64_t size_bytes, std::uint32_t logical_block, const MakeOptions& options) {
  Geometry g;
  g.logical_block = logical_block;
  g.clustered = options.clustered;
  g.slots = static_cast<std::uint16_t>(options.slots != 0          ? options.slots
                                       : size_bytes < kSmallDevice ? kSmallSlots
                                                                   : kDefaultSlots);
  g.node_table = BlockNo{kFixedAreasBlock};
  g.heartbeats = g.node_table + kSlots;
  g.mailboxes = g.heartbeats + kSlots;
  g.global_lock = g.mailboxes + mailbox_blocks(logical_block);
  g.scratch = scratch_block(logical_block);
  g.first_group = BlockNo{first_group_block(logical_block)};

  const std::uint64_t blocks = std::min(size_bytes / kBlockSize, kMaxBlockCount);
  if (blocks < g.first_group.value + kMinLastGroupBlocks) return fail(Errc::kNoSpace, "device too small");
  const std::uint64_t in_groups = blocks - g.first_group.value;
  const std::uint64_t group =
      options.group_blocks != 0 ? options.group_blocks : choose_group_blocks(in_groups, g.slots);
  std::uint64_t count = in_groups / group;
  const std::uint64_t rest = in_groups % group;
  g.block_count = g.first_group.value + count * group;
  if (rest >= kMinLastGroupBlocks) {
    ++count;
    g.block_count = blocks;
  }
  g.group_blocks = static_cast<std::uint32_t>(group);
  g.group_count = static_cast<std::uint32_t>(count);
  return g;
}

// Hands out the blocks of the groups, each from its front.
class Space {
 public:
  explicit Space(FileSystemPlan& plan) : plan_(plan) {
    const Geometry& g = plan.geometry;
    for (std::uint32_t i = 0; i < g.group_count; ++i) {
      const GroupNo group{i};
      const BlockNo start = g.group_start(group);
      const BlockNo data = g.group_data(group);
      plan.groups.push_back({{{start, data.value - start.value}}});
      next_.push_back(data);
      end_.push_back(start + g.blocks_in_group(group));
    }
    // The superblock's copies. Group 0's space begins behind its own.
    const BlockNo first_copy = first_superblock_copy(g);
    plan.groups.front().used.push_back({first_copy, 1});
    next_.front() = first_copy + kChunkBlocks;
    static_assert(kCopyInFirstGroup % kChunkBlocks == 0);
    end_.back() = last_superblock_copy(g);
  }

  // Up to `count` blocks of a group, none if it has fewer than `least`.
  std::optional<BlockRange> take(std::uint32_t group, std::uint64_t count, std::uint64_t least) {
    const std::uint64_t room = end_[group].value > next_[group].value ? end_[group].value - next_[group].value : 0;
    const std::uint64_t taken = std::min(room, count);
    if (taken < least) return std::nullopt;
    const BlockRange range{next_[group], taken};
    plan_.groups[group].used.push_back(range);
    next_[group] = range.start + taken;
    return range;
  }

  // After the last take().
  void finish() {
    const BlockNo copy = last_superblock_copy(plan_.geometry);
    plan_.groups.back().used.push_back({copy, 1});
  }

 private:
  FileSystemPlan& plan_;
  std::vector<BlockNo> next_;
  std::vector<BlockNo> end_;
};

Result<> plan_chunks(FileSystemPlan& plan, Space& space) {
  const std::uint64_t inodes = 1 + plan.geometry.slots;
  const std::uint64_t chunks = (inodes + kInodesPerChunk - 1) / kInodesPerChunk;
  const auto range = space.take(0, chunks * kChunkBlocks, chunks * kChunkBlocks);
  if (!range) return fail(Errc::kNoSpace, "device too small");
  for (std::uint64_t i = 0; i < chunks; ++i) plan.chunks.push_back(range->start + i * kChunkBlocks);

  std::uint64_t number = 0;
  const auto next_inode = [&] {
    const BlockNo chunk = plan.chunks[number / kInodesPerChunk];
    return InodeNo{(chunk + 1 + number++ % kInodesPerChunk).value};
  };
  plan.geometry.root = next_inode();
  for (std::uint32_t slot = 0; slot < plan.geometry.slots; ++slot) plan.geometry.orphan_inodes[slot] = next_inode();
  return {};
}

Result<std::vector<BlockRange>> plan_journal(const FileSystemPlan& plan, Space& space, std::uint32_t slot) {
  std::vector<BlockRange> extents;
  std::uint64_t left = plan.journal_blocks;
  for (std::uint32_t i = 0; i < plan.geometry.group_count && left > 0 && extents.size() < kJournalExtents; ++i) {
    const std::uint32_t group = (slot + i) % plan.geometry.group_count;
    const auto range = space.take(group, left, std::min(left, kSmallestExtent));
    if (!range) continue;
    extents.push_back(*range);
    left -= range->count;
  }
  if (left > 0) return fail(Errc::kNoSpace, "device too small for the journals");
  return extents;
}

std::uint64_t free_blocks(const FileSystemPlan& plan) {
  std::uint64_t free = plan.geometry.block_count - plan.geometry.first_group.value;
  for (const GroupPlan& group : plan.groups) {
    for (const BlockRange& range : group.used) free -= range.count;
  }
  return free;
}

}  // namespace

Result<FileSystemPlan> plan_file_system(std::uint64_t size_bytes, std::uint32_t logical_block,
                                        const MakeOptions& options) {
  if (const auto ok = check_options(logical_block, options); !ok) return fail(ok.error());
  const auto areas = plan_areas(size_bytes, logical_block, options);
  if (!areas) return fail(areas.error());
  FileSystemPlan plan;
  plan.geometry = *areas;
  const std::uint64_t share = areas->block_count / kJournalShare / areas->slots;
  plan.journal_blocks =
      options.journal_blocks != 0
          ? options.journal_blocks
          : static_cast<std::uint32_t>(std::clamp<std::uint64_t>(share, kMinJournalBlocks, kLargestDefaultJournal));
  if (areas->group_count == 1 && areas->blocks_in_group(GroupNo{0}) < kMinGroupBlocks) {
    return fail(Errc::kNoSpace, "device too small");
  }
  Space space(plan);
  if (const auto ok = plan_chunks(plan, space); !ok) return fail(ok.error());
  for (std::uint32_t slot = 0; slot < areas->slots; ++slot) {
    auto journal = plan_journal(plan, space, slot);
    if (!journal) return fail(journal.error());
    plan.journals.push_back(std::move(*journal));
  }
  space.finish();
  if (free_blocks(plan) < kLeastFreeBlocks) return fail(Errc::kNoSpace, "device too small");
  return plan;
}

std::uint64_t minimum_size_bytes(std::uint32_t logical_block, const MakeOptions& options) {
  const auto fits = [&](std::uint64_t blocks) {
    return plan_file_system(blocks * kBlockSize, logical_block, options).has_value();
  };
  std::uint64_t high = kMinGroupBlocks;
  while (!fits(high) && high < kMaxBlockCount) high *= 2;
  std::uint64_t low = high / 2;
  while (high - low > 1) {
    const std::uint64_t middle = low + (high - low) / 2;
    (fits(middle) ? high : low) = middle;
  }
  return high * kBlockSize;
}

}  // namespace cawfs
