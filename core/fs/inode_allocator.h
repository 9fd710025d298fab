// Inode numbers: chunks of 15 inodes, found through their group's chunk index, a record per chunk with a mask of the
// free ones.
//
// A create takes a free inode whose lock this node has already, without waiting: claim(). The node prepares such inodes
// ahead, outside all locks: refill(), with the locks of free inodes in existing chunks, or with a new chunk, whose 15
// locks come with it for one write.
//
// A chunk is never freed, so the lock entry of an inode that is in a live chunk is a lock entry for ever; a number from
// outside is checked with is_inode() before its lock block is touched.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "core/base/error.h"
#include "core/base/types.h"
#include "core/fs/allocator.h"
#include "core/fs/btree.h"
#include "core/fs/lock_service.h"
#include "core/fs/transaction.h"
#include "core/runtime/sync.h"
#include "core/runtime/task.h"

namespace cawfs {

// The right to change one inode's bit in its chunk's mask: holds the group (EX, local use shared). Not to be kept
// across a wait for a lock; an operation has one at a time.
class InodeMaskChange {
 public:
  InodeMaskChange() = default;
  InodeMaskChange(InodeMaskChange&&) noexcept;
  InodeMaskChange& operator=(InodeMaskChange&&) noexcept;
  // A claim that was not applied leaves its inode among the prepared ones.
  ~InodeMaskChange();

  static constexpr std::uint32_t kCredits = 2;  // the group's header and a node of its chunk index
  InodeNo inode() const { return inode_; }
  // In the transaction that makes the inode, or frees it.
  void apply(TxHandle& tx);

 private:
  friend class InodeAllocator;
  void swap(InodeMaskChange& other) noexcept;

  class InodeAllocator* owner_ = nullptr;  // null once applied
  InodeNo inode_;
  bool free_ = false;  // what the bit becomes
  LockHold group_;
  SharedMutex::Guard index_;  // goes before the hold does
  BufferRef header_;
  TreeSlot slot_;
};

struct InodeClaim {
  LockHold hold;  // of the inode: EX, local use exclusive
  InodeMaskChange mask;
  InodeNo inode() const { return mask.inode(); }
};

class InodeAllocator {
 public:
  InodeAllocator(Executor& executor, BlockDevice& device, const Geometry& geometry, LockService& locks,
                 BufferCache& buffers, TransactionLog& log, Allocator& allocator);
  ~InodeAllocator();
  InodeAllocator(const InodeAllocator&) = delete;

  // A free inode for a create, preferably in the group of `near` (0: anywhere). May read blocks, waits for no lock: it
  // may be called with locks held. kAgain: none is prepared: let all locks go, refill(), start over. Its block is to be
  // read (its generation goes on) and is free: mode 0.
  Task<Result<InodeClaim>> claim(InodeNo near);
  // The caller holds nothing. kNoSpace where no group has a free inode or room for a chunk.
  Task<Result<>> refill(InodeNo near);

  // For freeing an inode, whose lock the caller holds EX: waits for no lock. kAgain: let all locks go,
  // prepare_free(), start over. kBadValue: its chunk is not there or has it free already.
  Task<Result<InodeMaskChange>> release(InodeNo inode);
  // The caller holds nothing.
  Task<Result<>> prepare_free(InodeNo inode);

  // Is this the number of an inode in use? The caller holds nothing. Of a number that lies anywhere, false.
  Task<Result<bool>> is_inode(InodeNo inode);

  // Inodes prepared; for figures and tests.
  std::size_t prepared() const;

 private:
  friend class InodeMaskChange;
  void put_back(InodeNo inode);

  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace cawfs
