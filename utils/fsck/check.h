// One run of the checker: what its passes share, and the passes, in their order. Each pass reports what it finds and
// goes on; a Result that is an error ends the run.
#pragma once

#include <fmt/format.h>

#include <optional>
#include <vector>

#include "core/device/io_buffer.h"
#include "core/format/block_header.h"
#include "core/format/disk_format.h"
#include "core/format/geometry.h"
#include "utils/fsck/block_use.h"
#include "utils/fsck/fsck.h"
#include "utils/fsck/inode_map.h"

namespace cawfs {

class Check {
 public:
  Check(BlockDevice& device, const format::Superblock& superblock, const FsckOptions& options);

  template <class... Args>
  void found(Problem problem, std::uint64_t address, fmt::format_string<Args...> format, Args&&... args) {
    ++report.problem_count;
    if (report.findings.size() >= options.max_findings) return;
    report.findings.push_back({problem, address, fmt::format(format, std::forward<Args>(args)...)});
  }

  // Reads `length` bytes; false after reporting `problem` if the medium cannot give them.
  Task<Result<bool>> read(std::uint64_t offset, std::span<std::byte> out, Problem problem, std::uint64_t address);
  // Reads a block and verifies it; false after reporting `problem`.
  Task<Result<bool>> load(BlockNo block, format::BlockType type, std::span<std::byte> out, Problem problem);
  // Reads and verifies a lock block.
  Task<Result<>> check_lock_block(BlockNo block);
  // Marks blocks as used by what `user` names; reports those that were used before, and returns whether there were any.
  bool use(BlockRange range, std::string_view user, std::uint64_t number);

  // Passes. The superblock's copies, slot records, heartbeats, mailboxes, global lock block and journals. False if a
  // dead node's journal makes it pointless to go on.
  Task<Result<bool>> check_fixed_areas();
  // Headers, chunk indexes and the inodes in the chunks, with their trees.
  Task<Result<>> check_groups();
  // One group header's chunk index and what it leads to.
  Task<Result<>> check_chunks(GroupNo group, const format::GroupHeader& header);
  Task<Result<>> check_inodes(GroupNo group, BlockNo chunk, std::uint16_t free_mask);
  // Directory entries.
  Task<Result<>> check_directories();
  // Orphan lists; then link counts, parents and reachability, from what the passes before found.
  Task<Result<>> check_orphans();
  void check_connections();
  // Bitmaps and summaries against use.
  Task<Result<>> check_bitmaps();

  BlockDevice& device;
  const format::Superblock superblock;
  const Geometry geometry;
  const FsckOptions& options;
  FsckReport report;
  BlockUse blocks;
  InodeMap inodes;

 private:
  Task<Result<>> check_superblocks();
  Task<Result<>> check_slot(SlotNo slot);
  Task<Result<>> check_journal(SlotNo slot, const std::vector<BlockRange>& extents, bool clean);
  Task<Result<>> check_messages(SlotNo slot);
  Task<Result<>> check_inode(InodeNo number, const format::Inode& inode);
  Task<Result<>> check_file(InodeNo number, const format::Inode& inode);
  Task<Result<>> check_directory_tree(InodeNo number, const format::Inode& inode);
  Task<Result<>> check_entries(InodeNo directory);
  Task<Result<>> check_group_bitmaps(GroupNo group, const format::GroupHeader& header);
  Task<Result<>> check_orphan_list(SlotNo slot);
  void check_links(InodeNo number, const InodeFacts& facts);
  void check_parents();
};

// Follows a tree whose root is embedded in the block `owner`.
class TreeVisitor {
 public:
  virtual ~TreeVisitor() = default;
  virtual void record(std::uint64_t key, std::span<const std::byte> payload) = 0;
  // A node below the root; false: do not look into it.
  virtual bool node(BlockNo /*block*/) { return true; }
};

// Calls the visitor for each record in the order of keys, and reports nodes that do not verify or do not belong where
// they are. Returns whether all of the tree was sound. `area` outlives the task.
Task<Result<bool>> walk_tree(Check& check, BlockNo owner, format::TreeKind kind, format::TreeRoot root,
                             std::span<const std::byte> area, TreeVisitor& visitor);
// Of an inode whose content is kTree.
Task<Result<bool>> walk_inode_tree(Check& check, InodeNo number, const format::Inode& inode, TreeVisitor& visitor);

}  // namespace cawfs
