// Blocks whose newest committed image is in the journal but not in place yet, and the writing of them in place. What is
// written is the image as it committed, never the buffer, which the running transaction may have changed since.
//
// A block freed by a transaction is not written any more from then on, but the record with its image is needed until
// that transaction has committed.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "core/base/error.h"
#include "core/device/settled_io.h"
#include "core/fs/buffer_cache.h"
#include "core/runtime/sync.h"
#include "core/runtime/task_group.h"
#include "journal/ring_space.h"

namespace cawfs {

// A block as a transaction left it, stamped. Pins its buffer until it is in place.
struct BlockImage {
  BlockNo block;
  LockTag tag;
  BufferRef buffer;
  std::shared_ptr<const IoBuffer> bytes;
};

class CommittedBlocks {
 public:
  // All outlive it. `progress` is notified whenever a write in place has ended.
  CommittedBlocks(SettledIo& io, RingSpace& space, Condition& progress) : io_(io), space_(space), progress_(progress) {}

  // `image`, of transaction `id`, has committed; older images of the block are not needed any more.
  void install(BlockImage image, TxId id);
  // Transaction `id`, which has not committed, frees the block.
  void free(BlockNo block, TxId id) { freed_[block] = id; }
  // Transaction `id`, which freed the block, has committed. No write of the block is in flight.
  void forget_freed(BlockNo block, TxId id);

  // In flight: in place, or the flush that makes it durable.
  bool writing(BlockNo block) const;
  bool writing_any() const;
  // The transaction that frees it and has not committed, or none.
  TxId freed_by(BlockNo block) const;
  bool writable(BlockNo block) const;
  // Blocks under the lock that are not in place.
  std::vector<BlockNo> under(LockName lock) const;
  bool any_under(LockName lock) const { return by_lock_.contains(lock); }
  std::vector<BlockNo> all() const;
  bool empty() const { return blocks_.empty(); }

  // Writes blocks in place, all of them writable(), in parallel; durable when it returns. Images installed meanwhile
  // stay.
  Task<Result<>> write_in_place(std::vector<BlockNo> blocks);

  // The log ends: buffers are let go, whatever is in place. No write is in flight.
  void abandon();

 private:
  struct Entry {
    BlockImage image;
    TxId id;
    bool writing = false;
  };
  struct Write {
    BlockNo block;
    TxId id;
    std::shared_ptr<const IoBuffer> bytes;
    Result<> result{};
  };

  Task<void> write_one(Write& write, Durability durability, Semaphore& slots);
  void in_place(const Write& write, bool durable);
  void erase(std::map<BlockNo, Entry>::iterator it);

  SettledIo& io_;
  RingSpace& space_;
  Condition& progress_;
  std::map<BlockNo, Entry> blocks_;
  std::map<LockName, std::set<BlockNo>> by_lock_;
  std::map<BlockNo, TxId> freed_;
};

}  // namespace cawfs
