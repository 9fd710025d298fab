// The locks of one operation: what it wants is gathered, then taken in the one order that cannot deadlock (global
// entries, then inodes by address), SUPER shared first, as every operation is a user of it (design §6.2 rules 5 and 8).
//
// An operation that finds, with its locks held, that it needs another one (the child that a name leads to) adds it and
// takes all of them anew, then looks again: nothing waits for a lock while it holds one that orders after it.
//
// Operations of several nodes that need the same locks, of which one is only to be had out of order, could go on taking
// them from each other for ever. So one that has had to start over a few times waits before it does, for longer each
// time, and holds nothing meanwhile.
#pragma once

#include <boost/container/static_vector.hpp>
#include <cstddef>

#include "core/base/random.h"
#include "core/base/types.h"
#include "core/format/geometry.h"
#include "core/fs/lock_service.h"
#include "core/runtime/executor.h"
#include "core/runtime/task.h"

namespace cawfs {

class LockSet {
 public:
  LockSet(LockService& locks, const Geometry& geometry, Executor& executor, Random& random);

  // Adds to what is wanted; of two wishes for one lock the stronger counts. Does not take it.
  void want(LockName name, LockMode mode, LocalUse use);
  void want_read(InodeNo inode) { want(lock_of(inode), LockMode::kShared, LocalUse::kShared); }
  void want_write(InodeNo inode) { want(lock_of(inode), LockMode::kExclusive, LocalUse::kExclusive); }

  // From now on fails with kAgain rather than keep waiting a kernel that this node's giving up of a lock waits for; see
  // LockService::press().
  void refuse_when_pressed() { pressed_ = Pressed::kIsRefused; }

  // Takes everything wanted, letting go first of what is held.
  Task<Result<>> take();
  // Takes what is wanted and not held, and keeps what is held, which must order before it.
  Task<Result<>> take_rest();
  // Adds one more without waiting, out of order; false if it cannot be had so. It is wanted from now on anyway.
  bool try_more(LockName name, LockMode mode, LocalUse use);

  // Lets all locks go, to start over; they stay wanted.
  void drop();
  // Lets all locks go and wants none any more.
  void reset();

  // A lock that has been taken.
  const LockHold& hold(LockName name) const;
  const LockHold& hold(InodeNo inode) const { return hold(lock_of(inode)); }
  bool all_held() const;

 private:
  struct Item {
    LockName name;
    LockMode mode = LockMode::kNone;
    LocalUse use = LocalUse::kShared;
    LockHold hold;
  };
  static constexpr std::size_t kMost = 8;  // rename: SUPER, RENAME, two directories, two children, the orphan list

  void release();
  Task<void> back_off();

  LockService& locks_;
  LockName super_;
  Executor& executor_;
  Random& random_;
  int starts_over_ = 0;
  Pressed pressed_ = Pressed::kWaits;
  boost::container::static_vector<Item, kMost> items_;  // by name
};

}  // namespace cawfs
