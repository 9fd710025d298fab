// Where a file's blocks are: its extents, in the tree of its inode. A FileMap is one operation's view and plans like a
// BTree (core/fs/btree.h); the inode's lock is held.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/fs/btree.h"
#include "core/fs/inode.h"

namespace cawfs {

// Blocks [first, first + count) of a file.
struct MappedRun {
  std::uint64_t first = 0;
  std::uint64_t count = 0;
  BlockNo start;           // on the device; 0: a hole
  bool unwritten = false;  // allocated, but reads as zeros
  bool readable() const { return start.value != 0 && !unwritten; }
};

constexpr std::uint64_t blocks_for(std::uint64_t bytes) {
  return (bytes >> kBlockShift) + (bytes % kBlockSize != 0 ? 1 : 0);
}

// Makes the inode's content an empty extent tree, or one with this one extent at its start.
void make_extent_root(format::Inode& raw, std::optional<BlockRange> first = std::nullopt);
// The same content, seen as a tree: an inode with inline content maps nothing.
bool has_extents(const Inode& inode);

class FileMap {
 public:
  FileMap(BufferCache& buffers, const Inode& inode);

  // The runs that cover [first, first + count), in order and without gaps.
  Task<Result<std::vector<MappedRun>>> map(std::uint64_t first, std::uint64_t count);
  // Is anything mapped at `first` or after it?
  Task<Result<bool>> any_from(std::uint64_t first);

  // Plans: the blocks, not mapped so far or unwritten, are at `start` now. Joins the extent before where it can.
  Task<Result<>> add(std::uint64_t first, BlockRange blocks);
  // Plans: cuts off what is mapped at `from` and after it, from the end, at most `limit` extents of it and nothing
  // before the last `most` blocks of the file; returns what is freed.
  Task<Result<std::vector<BlockRange>>> cut(std::uint64_t from, std::size_t limit, std::uint64_t most = UINT64_MAX);

  const TreeNeeds& needs() { return tree_.needs(); }
  bool has_changes() const { return tree_.has_changes(); }
  void apply(TxHandle& tx, const LockHold& hold, MetadataBlocks& blocks) { tree_.apply(tx, hold, blocks); }

 private:
  // Behind the last block that is mapped.
  Task<Result<std::uint64_t>> end();

  bool empty_;  // the content is inline
  BTree tree_;
};

}  // namespace cawfs
