// A node's whole part in the cluster, as a mount uses it: membership, mailboxes and locks behind one object.
//
//   Cluster cluster(*raw_device, executor, random, log, geometry, options);
//   cluster.set_recovery_client(&replayer);           // journal/: replays the journals of dead nodes
//   cluster.set_figures(...);                         // optional, for `cawfs status`
//   Result<> joined = co_await cluster.join();        // may take the dead-time and a replay
//   if (joined) {
//     ... build buffers, journal and file system on cluster.device() and cluster.locks(); the file system becomes the
//     lock client; the journal is that of cluster.membership().self()'s slot record ...
//     ... unmount: stop the file system, write everything back, empty the journal ...
//   }
//   co_await cluster.leave();                         // in any case, also after a failed join or a withdrawal
//   co_await raw_device->close();
//
// All I/O between join() and leave() goes to cluster.device(). What happens to the node (lease, withdrawal, other
// nodes' deaths) is told to MembershipObservers. All lives on one executor; the objects passed in outlive it.
#pragma once

#include <functional>

#include "core/base/log.h"
#include "core/base/random.h"
#include "core/device/bounded_device.h"
#include "core/device/device.h"
#include "core/format/geometry.h"
#include "core/fs/lock_service.h"
#include "core/runtime/executor.h"
#include "disklock/cluster_member.h"
#include "disklock/lock_manager.h"
#include "disklock/mailbox.h"

namespace cawfs {

struct ClusterOptions {
  MemberOptions member;
  MailboxTuning mail;
  LockTuning locks;
};

class Cluster {
 public:
  Cluster(BlockDevice& raw, Executor& executor, Random& random, Log& log, const Geometry& geometry,
          ClusterOptions options);

  // Before join(). `locks_held` is filled in before `figures` is called.
  void set_recovery_client(RecoveryClient* client) { member_.set_recovery_client(client); }
  void set_figures(std::function<void(HeartbeatFigures&)> figures) { figures_ = std::move(figures); }

  // ClusterMember::join()'s errors.
  Task<Result<>> join();
  // Users of locks have gone or go now; those that wait get kStopping. ClusterMember::leave()'s errors.
  Task<Result<>> leave();

  // For everything but membership and locks, which do not wait behind what is in flight here.
  BlockDevice& device() { return data_; }
  Membership& membership() { return member_; }
  // Not with -o local, which uses LocalLockService.
  LockService& locks() { return locks_; }
  LockManager& lock_manager() { return locks_; }
  Mailboxes& mailboxes() { return mailboxes_; }

 private:
  Geometry geometry_;
  bool local_;
  ClusterMember member_;
  BoundedDevice data_;
  Mailboxes mailboxes_;
  LockManager locks_;
  std::function<void(HeartbeatFigures&)> figures_;
};

}  // namespace cawfs
