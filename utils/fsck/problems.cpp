#include "utils/fsck/problems.h"

#include <array>

namespace cawfs {
namespace {

using enum Problem;

constexpr std::array kProblems = {
    ProblemInfo{kSuperblockDamaged, "superblock-damaged",
                "the superblock at 64 KiB does not verify; a copy of it was used"},
    ProblemInfo{kSuperblockCopyDamaged, "superblock-copy-damaged", "a copy of the superblock does not verify"},
    ProblemInfo{kSuperblockCopyDiffers, "superblock-copy-differs",
                "a copy of the superblock says something else than the superblock"},
    ProblemInfo{kSlotRecordDamaged, "slot-record-damaged", "a slot record does not verify: no node can take the slot"},
    ProblemInfo{
        kSlotUnexpected, "slot-unexpected",
        "a slot record says what its state rules out: in use beyond the number of slots, or free with a journal"},
    ProblemInfo{kSlotNeedsRecovery, "slot-needs-recovery",
                "a node died in this slot; its journal is replayed by the next mount, or by cawfs-replay"},
    ProblemInfo{kHeartbeatDamaged, "heartbeat-damaged", "a heartbeat block does not verify"},
    ProblemInfo{kMailboxDamaged, "mailbox-damaged", "a mailbox does not verify"},
    ProblemInfo{kLockBlockDamaged, "lock-block-damaged",
                "a lock block does not verify, or names slots that are not there: what it covers cannot be used"},
    ProblemInfo{kJournalExtentsBad, "journal-extents-bad",
                "a slot's journal lies outside the groups, overlaps itself, or is too small or too large"},
    ProblemInfo{kJournalHeaderDamaged, "journal-header-damaged",
                "no header copy of a journal verifies, or one does not though its node had left"},
    ProblemInfo{kJournalNotEmpty, "journal-not-empty", "a slot is clean, but its journal names an incarnation"},
    ProblemInfo{kGroupHeaderDamaged, "group-header-damaged", "the header of an allocation group does not verify"},
    ProblemInfo{kBitmapDamaged, "bitmap-damaged", "a bitmap block does not verify"},
    ProblemInfo{kBlockUsedButFree, "block-used-but-free",
                "blocks that something uses are free in the bitmap: they may be given away again"},
    ProblemInfo{kBlockUnusedButTaken, "block-unused-but-taken",
                "blocks that nothing uses are taken in the bitmap: lost space"},
    ProblemInfo{kGroupFreeCountWrong, "group-free-count-wrong",
                "a group's summary of a bitmap block differs from the bitmap"},
    ProblemInfo{kGroupFreeInodesWrong, "group-free-inodes-wrong",
                "a group's count of free inodes differs from its chunk index"},
    ProblemInfo{kGroupChunkCountWrong, "group-chunk-count-wrong",
                "a group's count of inode chunks differs from its chunk index"},
    ProblemInfo{kChunkMisplaced, "chunk-misplaced", "a chunk index names a chunk of another group"},
    ProblemInfo{kInodeUsedButFree, "inode-used-but-free",
                "an inode in use is free in its chunk's mask: it may be given away again"},
    ProblemInfo{kInodeFreeButTaken, "inode-free-but-taken", "a free inode is taken in its chunk's mask: it is lost"},
    ProblemInfo{kTreeNodeDamaged, "tree-node-damaged", "a node of a B+tree does not verify"},
    ProblemInfo{kTreeNodeMisplaced, "tree-node-misplaced",
                "a node belongs to another tree (owner, kind), has the wrong level, or is empty"},
    ProblemInfo{kTreeKeyOutOfRange, "tree-key-out-of-range",
                "a node holds keys outside the range that its parent gives it: lookups miss them"},
    ProblemInfo{kInodeDamaged, "inode-damaged", "an inode does not verify"},
    ProblemInfo{kBlockUsedTwice, "block-used-twice", "a block has two users"},
    ProblemInfo{kExtentOverlap, "extent-overlap", "two extents of a file cover the same part of it"},
    ProblemInfo{kExtentBeyondEnd, "extent-beyond-end",
                "a file has written blocks behind its end: old data would show if it grew"},
    ProblemInfo{kInodeBlocksWrong, "inode-blocks-wrong", "an inode's count of its blocks is wrong"},
    ProblemInfo{kSymlinkBad, "symlink-bad", "a symbolic link is empty or longer than 4095 bytes"},
    ProblemInfo{kSystemInodeBad, "system-inode-bad",
                "a slot's orphan list is no system inode, or a system inode is nobody's"},
    ProblemInfo{kRootBad, "root-bad", "the root is not a directory that is its own parent"},
    ProblemInfo{kEntryHashWrong, "entry-hash-wrong", "a directory entry's key is not its name's hash: lookups miss it"},
    ProblemInfo{kEntryDuplicate, "entry-duplicate", "a directory holds the same name twice"},
    ProblemInfo{kEntryTargetFree, "entry-target-free", "a directory entry names an inode that is free or none"},
    ProblemInfo{kEntryTargetSystem, "entry-target-system", "a directory entry names a system inode"},
    ProblemInfo{kEntryTypeWrong, "entry-type-wrong", "a directory entry's type differs from its inode's"},
    ProblemInfo{kDirectorySizeWrong, "directory-size-wrong", "a directory's size is not its number of entries"},
    ProblemInfo{kDirectoryTwoParents, "directory-two-parents", "a directory is named by two entries"},
    ProblemInfo{kDirectoryParentWrong, "directory-parent-wrong",
                "a directory's parent pointer is not the directory that names it"},
    ProblemInfo{kDirectoryLoop, "directory-loop", "directories contain each other and hang from nothing else"},
    ProblemInfo{kInodeUnreachable, "inode-unreachable",
                "an inode in use is named by no directory entry and no orphan list"},
    ProblemInfo{kLinkCountWrong, "link-count-wrong", "an inode's link count is not the number of its names"},
    ProblemInfo{kOrphanEntryBad, "orphan-entry-bad",
                "an orphan list names an inode that is free, has links, or does not say that it is in that list"},
    ProblemInfo{kOrphanNotListed, "orphan-not-listed", "an inode says that it is in an orphan list that lacks it"},
};

constexpr bool in_order() {
  for (std::size_t i = 0; i < kProblems.size(); ++i) {
    if (static_cast<std::size_t>(kProblems[i].problem) != i) return false;
  }
  return kProblems.size() == static_cast<std::size_t>(kOrphanNotListed) + 1;
}
static_assert(in_order());

}  // namespace

std::span<const ProblemInfo> all_problems() {
  return kProblems;
}

const ProblemInfo& info(Problem problem) {
  return kProblems[static_cast<std::size_t>(problem)];
}

}  // namespace cawfs
