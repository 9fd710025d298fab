// Membership as the rest of a node sees it: who am I, is my lease valid, who else is there. disklock/cluster_member.h
// implements it over the node table; tests of the layers above may implement it in memory.
//
// All calls are made on the node's executor.
#pragma once

#include <cstdint>

#include "core/base/error.h"
#include "core/base/types.h"
#include "core/device/device.h"
#include "core/format/cluster_format.h"
#include "core/runtime/executor.h"
#include "core/runtime/task.h"

namespace cawfs {

// Called as it happens; must not wait, and must not add or remove observers.
class MembershipObserver {
 public:
  virtual ~MembershipObserver() = default;

  // The node table, read at a heartbeat, shows the slot in another state or with another incarnation than before.
  // `incarnation` is the new one.
  virtual void slot_changed(SlotNo /*slot*/, format::SlotState /*from*/, format::SlotState /*to*/,
                            Incarnation /*incarnation*/) {}
  // The LUN was reset or the nexus lost (29/xx): before serving from a lock held, read its entry again; a lock that is
  // not held on the disk any more means Membership::withdraw() (design §4 rule 7). Writes wait until the key is there.
  virtual void reset_seen() {}
  // The self-lease has run out (called late if the node itself slept; lease_valid() is always exact): stop serving,
  // drop the kernel's caches.
  virtual void lease_lapsed() {}
  virtual void lease_returned() {}
  // What a dead node has left could not be recovered here; it is tried again after a while.
  virtual void recovery_failed(NodeId /*dead*/, Error /*why*/) {}
  // This node is out, for good. The guarded device fails everything with kFenced from now on.
  virtual void withdrawn(Error /*reason*/) {}
};

class Membership {
 public:
  virtual ~Membership() = default;

  virtual Executor& executor() const = 0;
  virtual NodeId self() const = 0;
  // The device for all I/O of the layers above: see disklock/guarded_device.h.
  virtual BlockDevice& device() = 0;

  // The self-lease: half the dead-time from the issue of the last completed heartbeat. In the past when it has lapsed.
  virtual Time lease_end() const = 0;
  bool lease_valid() const { return executor().now() < lease_end(); }
  // Returns at once while the lease is valid. kFenced after withdrawal, kStopping once the node leaves.
  virtual Task<Result<>> wait_for_lease() = 0;

  // The slot's record, read from the disk now and verified.
  virtual Task<Result<format::SlotRecord>> read_slot(SlotNo slot) = 0;
  // Has the node ended, so that what it owns is free for the taking (design §6.2 rule 2)? Reads its record from the
  // disk. A clearer of sharers' bits reads the lock block first, and asks this after it, again for every new image.
  Task<Result<bool>> is_stale(NodeId node);
  // The same for a slot's bit in sharers or openers: is the slot neither ACTIVE nor RECOVERING?
  Task<Result<bool>> is_vacant(SlotNo slot);

  // As of the node table read at the last heartbeat: bits of slots ACTIVE or RECOVERING, ours too, and their
  // incarnations (0 for others). For mailboxes; not good enough for taking locks.
  virtual std::uint64_t active_slots() const = 0;
  virtual Incarnation incarnation_of(SlotNo slot) const = 0;

  virtual bool withdrawn() const = 0;
  // This node ends, because it has found that it may not go on (a lock it relied on is gone; what a lock covers cannot
  // be written). Idempotent.
  virtual void withdraw(Error reason) = 0;

  virtual void add_observer(MembershipObserver* observer) = 0;
  virtual void remove_observer(MembershipObserver* observer) = 0;
};

}  // namespace cawfs
