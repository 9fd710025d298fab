// Pages dirtied through a shared map, which the kernel writes back without asking: it may do so when this node holds
// the file's lock shared only, and while it gives the lock up it waits for the answer. So such a write is answered
// before it waits for any lock: the bytes that differ from the file as it was under the lock still held are kept here,
// shown by reads, and written as soon as the lock can be had; bytes beside them that another node has changed meanwhile
// stay as they are. Where another node has cut the file off meanwhile, bytes behind its end are dropped, like any store
// of a map behind the end.
//
// What is kept is limited: beyond that a write waits for room before it is answered, as the kernel keeps no account of
// what it has been answered. Not while the file's pages are being dropped: then the lock that the room waits for may be
// another's only after the answer.
//
// Durability: wait() before the file's sync(). A node that crashes loses what is kept, as a host does its dirty pages.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/base/log.h"
#include "core/runtime/sync.h"
#include "core/runtime/task_group.h"
#include "mount/operations.h"

namespace cawfs {

class MappedWrites {
 public:
  // `limit` in bytes of memory; `dropped` says whether the kernel is dropping the inode's pages.
  MappedWrites(Executor& executor, Log& log, Operations& operations, std::uint64_t limit,
               std::function<bool(InodeNo)> dropped)
      : executor_(executor),
        log_(log),
        operations_(operations),
        limit_(limit),
        dropped_(std::move(dropped)),
        changed_(executor),
        writers_(executor) {}

  // Takes `data` for `offset`; waits for room, but for no lock. `data` must live until then.
  Task<Result<>> accept(InodeNo inode, std::uint64_t offset, std::span<const std::byte> data);
  // The kernel has begun to drop pages.
  void drop_began() { changed_.notify_all(); }
  // Memory taken by what is kept.
  std::uint64_t bytes() const { return bytes_; }
  // Lays what is kept over bytes just read at `offset`.
  void overlay(InodeNo inode, std::uint64_t offset, std::span<std::byte> data) const;
  // Until what is kept of these bytes now has been written, or could not be: before they are written anew.
  Task<void> wait(InodeNo inode, std::uint64_t offset, std::uint64_t length);
  // Until all that was accepted for the inode has been written, or could not be, which its sync() tells.
  Task<void> wait(InodeNo inode);
  // The same, but kAgain when what is kept had to stand back for another node whose kernel waits, too (see
  // LockService::press()): for who keeps the kernel waiting himself.
  Task<Result<>> wait_or_yield(InodeNo inode);
  // The same for all inodes.
  Task<void> drain();

 private:
  struct Run {
    std::uint64_t number;  // they grow
    std::uint64_t offset;
    std::vector<std::byte> bytes;
    std::uint64_t memory() const { return sizeof(Run) + bytes.size(); }
  };
  using Runs = std::list<Run>;

  Task<void> room(InodeNo inode, std::uint64_t bytes);
  Runs differences(std::uint64_t offset, std::span<const std::byte> old, std::span<const std::byte> now);
  Task<void> write_back(InodeNo inode);
  bool keeps(InodeNo inode, std::uint64_t offset, std::uint64_t length, std::uint64_t up_to) const;

  Executor& executor_;
  Log& log_;
  Operations& operations_;
  const std::uint64_t limit_;
  const std::function<bool(InodeNo)> dropped_;
  std::uint64_t bytes_ = 0;
  std::unordered_map<InodeNo, Runs> kept_;  // in the order in which they came; an inode's writer runs while it has any
  std::uint64_t last_run_ = 0;
  std::unordered_map<InodeNo, std::uint64_t> yields_;  // of what is kept: how often it stood back
  Condition changed_;
  TaskGroup writers_;
};

}  // namespace cawfs
