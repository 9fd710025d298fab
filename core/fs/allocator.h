// Space: allocation groups, and the reservations through which operations take and free blocks.
//
// A group's state (its header, bitmaps, and what of them is spoken for) lives from the first prepare() that takes the
// group's lock EX until settle(); the lock stays here, cached, meanwhile. An operation works in two kinds of steps:
//
//   try_reserve()  never waits. It reserves exact blocks in groups that this node has, and holds their locks (EX, local
//                  use shared) for as long as the Reservation lives. May be called with any locks held.
//   prepare()      when try_reserve() said kAgain: the operation lets all its locks go, prepare() takes and loads
//                  groups (waiting for other nodes), and the operation starts over. It decides kNoSpace.
//
// So nothing waits for a group's lock while it holds another. The data of an operation is written to its reserved
// blocks *before* its transaction; the blocks become used when taken within it, and return when the Reservation goes.
//
// Freed blocks are clear in the bitmap at once but not handed out before their transaction has committed, nor, with
// `discard`, before the device has been told that their contents do not matter any more. New metadata blocks come from
// a small pool whose blocks have been written physically (design §4 rule 11).
//
// Delayed allocation: try_promise() promises space in the groups held, without naming blocks; a reservation with
// SpaceRequest::promised turns it into blocks. A group may only go when the others cover all promises:
//
//   LockClient::invalidate(group lock): leave(group); write back dirty data until promises_resting_on(group) is 0
//   LockClient::settle(group lock):     write back what still rests on it (nothing, as a rule); settle(group)
//
// Nodes spread over the groups: a node's home is the group its slot's share of the device starts in.
//
// One thread. Everything that a group's blocks say was verified, and its counts are compared with its bitmaps.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/base/error.h"
#include "core/base/types.h"
#include "core/device/device.h"
#include "core/format/geometry.h"
#include "core/fs/btree.h"
#include "core/fs/buffer_cache.h"
#include "core/fs/lock_service.h"
#include "core/fs/transaction.h"
#include "core/runtime/executor.h"
#include "core/runtime/task.h"

namespace cawfs {

struct SpaceRequest {
  // Where data is wanted best: at this block or soon after it. 0: anywhere, from the node's home on.
  BlockNo goal{};
  std::uint64_t data = 0;       // blocks; runs as long as can be had
  std::uint64_t data_min = 0;   // enough, if `data` cannot be had at once; 0: all of `data` is needed
  std::uint32_t alignment = 1;  // above 1: all of `data` in one run that starts at a multiple of it
  std::uint32_t metadata = 0;   // single blocks
  // So many of the blocks above were promised: they are taken off the promises.
  std::uint64_t promised = 0;
  // What the operation is going to free, data and metadata: the groups are held, and each block is seen to be in use.
  // Ranges may be as long as extents are.
  std::vector<BlockRange> frees{};
};

class Allocator;

// Blocks reserved for one operation, and the holds of their groups. Must end before the Allocator, and not outlive the
// operation: a group cannot go meanwhile.
class Reservation final : public MetadataBlocks {
 public:
  Reservation();
  Reservation(Reservation&&) noexcept;
  Reservation& operator=(Reservation&&) noexcept;
  ~Reservation() override;

  explicit operator bool() const { return state_ != nullptr; }

  // The data runs that have not been taken, in ascending order of the wish: the one nearest to the goal first.
  std::span<const BlockRange> runs() const;
  std::uint64_t data_blocks() const;
  std::uint32_t metadata_blocks() const;
  // Buffers (group headers and bitmaps) that taking everything and freeing everything announced changes, at most. To be
  // added to the operation's other credits.
  std::uint32_t credits() const;

  // Within a transaction; none of these waits or fails.
  // Takes part of what runs() says; the blocks are in use from here on.
  void take_data(TxHandle& tx, BlockRange blocks);
  BlockNo take_metadata(TxHandle& tx) override;
  // Frees file data. Blocks must have been announced in SpaceRequest::frees.
  void free_data(TxHandle& tx, BlockRange blocks);
  void free_metadata(TxHandle& tx, BlockNo block) override;

  // For the inode allocator: the group's header, and the hold that covers it. `group` is one of the reservation's.
  BufferRef group_header(GroupNo group) const;
  const LockHold& group_hold(GroupNo group) const;

 private:
  friend class Allocator;
  struct State;
  explicit Reservation(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

struct SpaceTotals {
  std::uint64_t blocks = 0;
  std::uint64_t free_blocks = 0;
  std::uint64_t free_inodes = 0;  // in existing chunks
  std::uint64_t chunks = 0;
};

class Allocator {
 public:
  // `device` settles what it unmaps (GuardedDevice): nothing of it happens later than its answer.
  Allocator(Executor& executor, BlockDevice& device, const Geometry& geometry, LockService& locks, BufferCache& buffers,
            TransactionLog& log, bool discard = false);
  ~Allocator();
  Allocator(const Allocator&) = delete;

  // kAgain: call prepare() with the same request, holding nothing, and start over. kBadValue: a block of `frees` is not
  // in use, cannot be allocated at all, or stands in it twice: the structure that names it is damaged.
  Result<Reservation> try_reserve(const SpaceRequest& request);

  // Gets ready what the request takes: may wait for group locks, reads, writes and a commit (of blocks freed but not
  // yet reusable). The caller holds no lock but SUPER's and no transaction. Success is no promise: another operation
  // may be faster, then try_reserve() says kAgain again. kNoSpace: every group was held at once and they do not have
  // it. Further errors: of the lock service, the device, and of damaged groups.
  Task<Result<>> prepare(SpaceRequest request);

  // The same with groups that this node has already, waiting for the device but for no lock: may be called with locks
  // held (no transaction). kAgain where they do not have it. Enough for every request that is wholly promised.
  Task<Result<>> prepare_held(SpaceRequest request);

  // Promises `blocks` from groups held, or says that they lack so much: then prepare({.data = blocks}).
  bool try_promise(std::uint64_t blocks);
  // Takes back what was promised and is not needed.
  void unpromise(std::uint64_t blocks);
  std::uint64_t promised() const;

  // Lock client side. The group a lock is about, if it is a group's.
  std::optional<GroupNo> group_of_lock(LockName lock) const;
  // The group will go: from now on it serves only reservations of promised space.
  void leave(GroupNo group);
  // Blocks promised that other groups do not cover.
  std::uint64_t promises_resting_on(GroupNo group) const;
  // Commits and writes in place what was changed under the group's lock, then forgets the group and its buffers. No
  // promise rests on it and no reservation uses it.
  Task<Result<>> settle(GroupNo group);
  // What committed transactions freed has been discarded, and no reservation is left: a lock that was being given up
  // may still write back. Before the end.
  Task<void> unused();
  // Forgets everything about all groups and promises, as on withdrawal: no reservation or discard is left. Nothing is
  // written, and there is nothing to be had any more.
  void abandon();

  // Free space and inodes by the groups' headers, read without locks: as of a moment ago, for statfs. A group that
  // cannot be read counts as it was last seen.
  Task<Result<SpaceTotals>> totals();

  // For the inode allocator.
  // The group that operations of this node prefer.
  GroupNo home() const;
  // The groups loaded here, in the order in which they are to be tried for something near `goal` (0: home).
  std::vector<GroupNo> loaded_groups(BlockNo goal) const;
  // Takes and loads the group, waiting; the caller holds nothing.
  Task<Result<>> prepare_group(GroupNo group);
  // A hold (EX, local use shared) on a loaded group, or none. Never waits.
  std::optional<LockHold> try_hold(GroupNo group);
  // The header of a loaded group that the caller holds.
  BufferRef header(GroupNo group) const;
  // Orders the users of a loaded group's chunk index: shared to change a record in place, exclusive to change the
  // tree's shape. The caller holds the group for longer than the guard.
  SharedMutex& index_mutex(GroupNo group);

 private:
  friend class Reservation;
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace cawfs
