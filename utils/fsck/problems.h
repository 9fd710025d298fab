// What fsck.cawfs can find. Each problem has a stable name, printed with every finding, and a documented meaning
// (`fsck.cawfs --problems`). A name is never reused for something else.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace cawfs {

enum class Problem : std::uint8_t {
  // Fixed areas.
  kSuperblockDamaged,
  kSuperblockCopyDamaged,
  kSuperblockCopyDiffers,
  kSlotRecordDamaged,
  kSlotUnexpected,
  kSlotNeedsRecovery,
  kHeartbeatDamaged,
  kMailboxDamaged,
  kLockBlockDamaged,
  // Journals.
  kJournalExtentsBad,
  kJournalHeaderDamaged,
  kJournalNotEmpty,
  // Groups.
  kGroupHeaderDamaged,
  kBitmapDamaged,
  kBlockUsedButFree,
  kBlockUnusedButTaken,
  kGroupFreeCountWrong,
  kGroupFreeInodesWrong,
  kGroupChunkCountWrong,
  kChunkMisplaced,
  kInodeUsedButFree,
  kInodeFreeButTaken,
  // Trees.
  kTreeNodeDamaged,
  kTreeNodeMisplaced,
  kTreeKeyOutOfRange,
  // Inodes.
  kInodeDamaged,
  kBlockUsedTwice,
  kExtentOverlap,
  kExtentBeyondEnd,
  kInodeBlocksWrong,
  kSymlinkBad,
  kSystemInodeBad,
  // Directories.
  kRootBad,
  kEntryHashWrong,
  kEntryDuplicate,
  kEntryTargetFree,
  kEntryTargetSystem,
  kEntryTypeWrong,
  kDirectorySizeWrong,
  kDirectoryTwoParents,
  kDirectoryParentWrong,
  kDirectoryLoop,
  kInodeUnreachable,
  kLinkCountWrong,
  // Orphans.
  kOrphanEntryBad,
  kOrphanNotListed,
};

struct ProblemInfo {
  Problem problem;
  std::string_view name;
  std::string_view meaning;
};

// In the order of the enumeration.
std::span<const ProblemInfo> all_problems();
const ProblemInfo& info(Problem problem);

}  // namespace cawfs
