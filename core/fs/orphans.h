// Orphans: inodes without links that some node still has open. Each slot has a list, a B+tree of inode numbers in a
// system inode, so that after a crash whoever comes first finds what is to be freed.
//
// The list's lock is the system inode's, taken EX (local use exclusive) to change it, in the order of all inode locks.
// An OrphanList is one operation's view of it and plans like a BTree (core/fs/btree.h).
#pragma once

#include <cstdint>
#include <vector>

#include "core/base/error.h"
#include "core/base/types.h"
#include "core/fs/btree.h"
#include "core/fs/buffer_cache.h"
#include "core/fs/transaction.h"
#include "core/runtime/task.h"

namespace cawfs {

class OrphanList {
 public:
  // The slot's list, whose lock the caller holds. kBadValue where the system inode is none; kNotFound where the
  // superblock names none for this slot.
  static Task<Result<OrphanList>> open(BufferCache& buffers, SlotNo slot);
  // The system inode, whose lock is the list's; 0 where the slot has none.
  static InodeNo inode_of(const Geometry& geometry, SlotNo slot);

  // Up to `limit` inodes with numbers above `after`, in ascending order.
  Task<Result<std::vector<InodeNo>>> list(InodeNo after, std::size_t limit);
  Task<Result<bool>> contains(InodeNo inode);

  // Plans: kExists if it stands there already, kNotFound if it does not, kBadValue where the list's size is wrong.
  Task<Result<>> add(InodeNo inode);
  Task<Result<>> remove(InodeNo inode);
  const TreeNeeds& needs() { return tree_.needs(); }
  // Puts the plan in place, with the system inode's own counts.
  void apply(TxHandle& tx, const LockHold& hold, MetadataBlocks& blocks);

 private:
  OrphanList(BufferCache& buffers, BufferRef inode, LockName lock);

  // The size that the plan comes to so far.
  std::uint64_t counted() const;

  BufferRef inode_;
  BTree tree_;
  std::int64_t delta_ = 0;  // entries planned
};

}  // namespace cawfs
