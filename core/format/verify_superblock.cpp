// What a superblock may say. Everything that later code computes addresses from is proved here, so that none can point
// outside the file system.
#include "core/format/checksums.h"
#include "core/format/journal_format.h"
#include "core/format/layout.h"
#include "core/format/verify_internal.h"

namespace cawfs::format {
namespace {

bool groups_are_possible(const Superblock& s) {
  const std::uint64_t blocks = s.block_count.value();
  const std::uint64_t first = s.first_group.value();
  const std::uint64_t group = s.group_blocks.value();
  const std::uint64_t count = s.group_count.value();
  if (blocks > kMaxBlockCount || first % kChunkBlocks != 0 || first >= blocks || count == 0) return false;
  if (group % kChunkBlocks != 0 || group < kMinGroupBlocks || group > kMaxGroupBlocks) return false;
  if ((blocks - first + group - 1) / group != count) return false;
  return blocks - first - (count - 1) * group >= kMinLastGroupBlocks;
}

// The areas follow each other in the order of their fields, without overlap, behind the superblock.
bool fixed_areas_are_possible(const Superblock& s) {
  const std::uint64_t limit = s.first_group.value();
  std::uint64_t end = kSuperblockBlock + 1;
  const auto area = [&](std::uint64_t start, std::uint64_t blocks) {
    if (start < end || start > limit || blocks > limit - start) return false;
    end = start + blocks;
    return true;
  };
  return area(s.node_table.value(), kSlots) && area(s.heartbeats.value(), kSlots) &&
         area(s.mailboxes.value(), mailbox_blocks(s.logical_block.value())) && area(s.global_lock.value(), 1) &&
         area(s.scratch.value(), 1);
}

bool is_inode_address(const Superblock& s, std::uint64_t inode) {
  return inode % kChunkBlocks != 0 && inode > s.first_group.value() && inode < s.block_count.value();
}

bool inodes_are_possible(const Superblock& s) {
  if (!is_inode_address(s, s.root_inode.value())) return false;
  for (std::size_t i = 0; i < kSlots; ++i) {
    const std::uint64_t inode = s.orphan_inodes[i].value();
    if (i >= s.slots.value()) {
      if (inode != 0) return false;
      continue;
    }
    if (!is_inode_address(s, inode) || inode == s.root_inode.value()) return false;
    for (std::size_t j = 0; j < i; ++j) {
      if (s.orphan_inodes[j].value() == inode) return false;
    }
  }
  return true;
}

}  // namespace

Result<> check_features(const Superblock& s) {
  if ((s.incompat.value() & ~kIncompatKnown) != 0) {
    return fail(Errc::kBadFeature, "superblock", s.header.address.value());
  }
  return {};
}

bool superblock_is_possible(const Superblock& s) {
  const std::uint32_t logical = s.logical_block.value();
  return fs_id_of(s.uuid) == s.header.fs_id.value() && padded_with_zeros(s.label) &&
         (logical == 512 || logical == 4096) && s.slots.value() >= 1 && s.slots.value() <= kSlots &&
         s.dead_time_ms.value() >= kMinDeadTimeMs && s.dead_time_ms.value() <= kMaxDeadTimeMs &&
         s.journal_blocks.value() >= kMinJournalBlocks && s.journal_blocks.value() <= kMaxJournalBlocks &&
         groups_are_possible(s) && fixed_areas_are_possible(s) && inodes_are_possible(s) && all_zero(s.reserved);
}

}  // namespace cawfs::format
