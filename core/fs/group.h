// One allocation group whose lock this node holds EX: its header and, as they are needed, its bitmaps.
//
// A block is in one of these states: in use; free; reserved (free on disk, spoken for in memory); pooled (reserved for
// metadata and physically written); leaving (free on disk, by a transaction that has not committed). Only `free` blocks
// are found by the searches, and only in bitmaps that are loaded.
//
// Users: everything that uses the group across a wait counts as one, so that the group is not forgotten meanwhile.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "core/base/types.h"
#include "core/format/geometry.h"
#include "core/fs/bitmap.h"
#include "core/fs/buffer_cache.h"
#include "core/fs/lock_service.h"
#include "core/fs/transaction.h"
#include "core/runtime/sync.h"

namespace cawfs {

class Group {
 public:
  // `header` was read under the lock that `hold` is of. `tenure` tells this state from earlier ones of the group.
  Group(Executor& executor, const Geometry& geometry, GroupNo number, BufferRef header, const LockHold& hold,
        std::uint64_t tenure);

  GroupNo number() const { return number_; }
  LockName lock() const { return lock_; }
  Generation generation() const { return generation_; }
  std::uint64_t tenure() const { return tenure_; }
  const BufferRef& header_buffer() const { return header_; }
  const format::GroupHeader& header() const { return header_->as<format::GroupHeader>(); }

  std::uint32_t bitmap_count() const { return static_cast<std::uint32_t>(bitmaps_.size()); }
  bool loaded(std::uint32_t bitmap) const { return bitmaps_[bitmap] != nullptr; }
  bool uninitialised(std::uint32_t bitmap) const;
  std::uint32_t free_in_summary(std::uint32_t bitmap) const;
  // Errors: kBadValue if its free bits are not as many as the header says.
  Result<> add_bitmap(std::uint32_t bitmap, BufferRef buffer);

  // Blocks that could be had, loaded or not, and those of them that can be found now.
  std::uint64_t available() const { return available_; }
  std::uint64_t ready() const;
  // Free once transactions have committed.
  std::uint64_t uncommitted() const { return uncommitted_; }

  bool holds(BlockRange blocks) const;  // in its data area
  // The bitmaps of these blocks of the group are loaded.
  bool loaded(BlockRange blocks) const;
  // They are in use on disk; loaded.
  bool in_use(BlockRange blocks) const;
  std::uint32_t first_bitmap(BlockRange blocks) const;
  std::uint32_t last_bitmap(BlockRange blocks) const;

  // Reserves one run of at most `most` blocks: what starts at `goal` if that is free, else the next one that is long
  // enough, else the longest. `goal` may lie outside the group. Nothing if no block is ready.
  std::optional<BlockRange> reserve(BlockNo goal, std::uint64_t most);
  // Reserves exactly `count` blocks that start at a multiple of `alignment`.
  std::optional<BlockRange> reserve_aligned(BlockNo goal, std::uint64_t count, std::uint64_t alignment);
  void unreserve(BlockRange blocks);

  // In a transaction; `hold` is of the group's lock. Reserved blocks become used; used ones leave.
  void take(TxHandle& tx, const LockHold& hold, BlockRange blocks);
  void free(TxHandle& tx, const LockHold& hold, BlockRange blocks);
  // The transaction that freed them has committed.
  void freed(BlockRange blocks);

  // Pooled blocks (reserved), last in first out.
  std::vector<BlockNo> pool;
  bool leaving = false;  // the lock will be given up: only promised space is taken from here
  bool closed = false;   // it is being settled: nothing is
  std::uint32_t users = 0;
  SharedMutex index;  // see Allocator::index_mutex

 private:
  struct Loaded {
    BufferRef buffer;
    BusyMap busy;
  };

  std::uint64_t bit_of(BlockNo block) const { return block.value - start_.value; }
  BlockRange blocks_of(std::uint32_t bitmap, BitRun run) const;
  // Calls f(bitmap's number, run inside it) for each part.
  template <class F>
  void for_parts(BlockRange blocks, F f) const;
  void change(TxHandle& tx, const LockHold& hold, BlockRange blocks, bool used);
  BlockRange claim(std::uint32_t bitmap, BitRun run);

  const GroupNo number_;
  const LockName lock_;
  const Generation generation_;
  const std::uint64_t tenure_;
  const BlockNo start_;
  const BlockNo data_;
  const std::uint64_t blocks_;
  BufferRef header_;
  std::vector<std::unique_ptr<Loaded>> bitmaps_;
  std::uint64_t available_ = 0;
  std::uint64_t uncommitted_ = 0;
};

}  // namespace cawfs
