// One mount, from the LUN to the kernel and back: opens the device, joins the cluster (or, with -o local, takes the LUN
// for itself), recovers this node's own journal if it has to, starts the log and the file system, mounts, serves until
// umount or a signal, and takes everything down in the opposite order.
//
// After a withdrawal the mount stays and answers EIO until umount, which then writes nothing.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "core/base/random.h"
#include "core/device/device.h"
#include "core/format/disk_format.h"
#include "core/fs/local_locks.h"
#include "disklock/cluster.h"
#include "journal/journal_log.h"
#include "journal/read_only_log.h"
#include "journal/replay.h"
#include "mount/file_system_operations.h"
#include "mount/fuse_dispatch.h"
#include "mount/host_identity.h"
#include "mount/mount_options.h"
#include "mount/mount_record.h"
#include "mount/watchdog.h"

namespace cawfs {

class MountSession : private MembershipObserver {
 public:
  MountSession(Reactor& reactor, Log& log, MountOptions options, Watchdog& watchdog);
  ~MountSession() override;

  // The whole life. `mounted` is called once the file system is there. A failure before that leaves nothing behind; a
  // failure after it means that not all could be written back.
  Task<Outcome<>> run(std::function<void()> mounted);

 private:
  Task<Outcome<>> start();
  Task<Outcome<>> open();
  Task<Outcome<>> identify();
  Task<Outcome<>> join();
  void make_cluster();
  Task<Outcome<>> prove_device();
  Task<Result<>> prove_once();
  Task<Outcome<>> start_log();
  Task<Outcome<>> start_file_system();
  Task<Outcome<>> mount();
  Task<Outcome<>> stop();
  Task<void> watch_signals(int signals);
  Task<void> unmount(bool force);

  void slot_changed(SlotNo slot, format::SlotState from, format::SlotState to, Incarnation incarnation) override;
  void withdrawn(Error reason) override;
  void lease_lapsed() override;
  void lease_returned() override;
  void drop_kernel_pages();

  BlockDevice& device();
  NodeId self() const;
  std::unexpected<Failure> cannot(const std::string& what, const Error& error) const;

  Reactor& reactor_;
  Executor& executor_;
  Log& log_;
  MountOptions options_;
  Watchdog& watchdog_;
  std::unique_ptr<Random> random_;
  bool unmounting_ = false;
  bool observing_ = false;

  // In the order in which they are made; each uses those above it.
  std::unique_ptr<BlockDevice> raw_;
  format::Superblock superblock_{};
  Geometry geometry_;
  std::optional<HostIdentity> identity_;
  std::unique_ptr<Cluster> cluster_;  // none with norecovery
  std::unique_ptr<JournalRecovery> recovery_;
  std::unique_ptr<BufferCache> buffers_;
  std::unique_ptr<JournalLog> journal_;  // none on a read-only mount
  ReadOnlyLog read_only_log_;
  std::unique_ptr<LocalLockService> local_locks_;  // with local and norecovery
  std::unique_ptr<FileSystem> fs_;
  bool fs_started_ = false;
  std::unique_ptr<FileSystemOperations> operations_;
  std::unique_ptr<FuseConnection> connection_;
  std::unique_ptr<FuseKernelCache> cache_;
  std::unique_ptr<FuseDispatcher> dispatcher_;
  TaskGroup drops_;  // of the kernel's caches, when the lease lapses
  MountRecord record_;
};

}  // namespace cawfs
