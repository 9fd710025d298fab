// Metadata blocks in memory. A buffer is read and verified once, changed only inside a transaction, written in place
// only by the transaction log, and forgotten when the lock that covers it goes. Whoever changes or trusts a buffer
// holds that lock. One thread; a BufferRef pins its buffer.
#pragma once

#include <boost/intrusive/list.hpp>
#include <boost/intrusive_ptr.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <unordered_map>

#include "core/base/error.h"
#include "core/base/types.h"
#include "core/device/device.h"
#include "core/device/io_buffer.h"
#include "core/format/block_header.h"
#include "core/format/geometry.h"
#include "core/fs/lock_service.h"
#include "core/runtime/sync.h"

namespace cawfs {

// Transactions are numbered from 1 by the log; 0 is none.
using TxId = Strong<struct TxIdTag, std::uint64_t>;

// What replay must find in the block's lock entry for a record of it to count (design §8).
struct LockTag {
  LockName name;
  Generation generation;
};

class BufferCache;

class Buffer : public boost::intrusive::list_base_hook<> {
 public:
  BlockNo block() const { return block_; }
  std::span<std::byte> bytes() { return data_.bytes(); }
  std::span<const std::byte> bytes() const { return data_.bytes(); }
  template <class T>
  T& as() {
    static_assert(sizeof(T) == kBlockSize && alignof(T) == 1);
    return *reinterpret_cast<T*>(data_.data());
  }
  template <class T>
  const T& as() const {
    static_assert(sizeof(T) == kBlockSize && alignof(T) == 1);
    return *reinterpret_cast<const T*>(data_.data());
  }

  // The log's: which lock it was last changed under, the running transaction that changed it, and the last one
  // before that, sealed or committed, whose image is not in place yet.
  LockTag tag;
  TxId running;
  TxId committed;
  bool writing = false;  // a write in place is in flight
  // What must have committed for the present contents to be durable; commit() of what has committed already returns at
  // once. A transaction on its way to the device is in `committed`.
  TxId last_change() const { return running.value != 0 ? running : committed; }
  bool dirty() const { return running.value != 0 || committed.value != 0 || writing; }

 private:
  friend class BufferCache;
  friend void intrusive_ptr_add_ref(Buffer* buffer);
  friend void intrusive_ptr_release(Buffer* buffer);

  BufferCache* cache_ = nullptr;
  BlockNo block_;
  LockName lock_;  // what it was read or made under
  IoBuffer data_{kBlockSize};
  std::uint32_t pins_ = 0;
  bool cached_ = true;                              // false: forgotten by the cache, dies with its last pin
  boost::intrusive::list_member_hook<> idle_hook_;  // in the cache's list of unpinned buffers
  boost::intrusive::list_member_hook<> lock_hook_;  // in its list of those under one lock
};

void intrusive_ptr_add_ref(Buffer* buffer);
void intrusive_ptr_release(Buffer* buffer);

using BufferRef = boost::intrusive_ptr<Buffer>;

class BufferCache {
 public:
  // `limit_bytes`: clean, unpinned buffers beyond it are evicted, least recently used first.
  BufferCache(Executor& executor, BlockDevice& device, const Geometry& geometry, std::uint64_t limit_bytes);
  ~BufferCache();

  // Once, before the first read(): `confirm` waits until the lock that a block was just read under is known to have
  // been held still, and fails if it was not. Nothing is made of the block before: a node that has stood still for long
  // reads what others have written since, and finds damage where none is.
  void confirm_reads_by(std::function<Task<Result<>>()> confirm);

  // The buffer of `block`, read and verified as `type` if it is not cached (core/format/verify.h). `lock` is held, and
  // no transaction frees the block meanwhile. kBadIdentity if it is cached as another type or under another lock: two
  // structures claim the block. Other errors: the verifier's, the device's and those of confirm_reads_by().
  Task<Result<BufferRef>> read(BlockNo block, format::BlockType type, LockName lock);
  // The cached buffer or null; never waits.
  BufferRef find(BlockNo block);
  // A new, zeroed buffer with its BlockHeader filled in, for a block just allocated; an older buffer of it must not be
  // dirty and is forgotten.
  BufferRef make(BlockNo block, format::BlockType type, LockName lock);

  // Forgets the buffers read or made under `lock`. Asserts that none is dirty. One that is still pinned dies with its
  // last pin: who has let the lock go may keep a pin for a while, but reads the block anew once it has the lock again.
  void forget(LockName lock);
  // Forgets one block that was freed (its record is revoked by the caller); it may be dirty, and then is not written
  // any more.
  void forget(BlockNo block);

  const Geometry& geometry() const;
  BlockDevice& device() const;
  std::uint64_t bytes() const;

 private:
  friend void intrusive_ptr_add_ref(Buffer* buffer);
  friend void intrusive_ptr_release(Buffer* buffer);
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace cawfs
