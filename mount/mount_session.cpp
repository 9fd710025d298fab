#include "mount/mount_session.h"

#include <poll.h>
#include <sys/mount.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "core/base/explain.h"
#include "core/device/open_device.h"
#include "core/device/probe.h"
#include "core/format/superblock_io.h"
#include "mount/user_table.h"

namespace cawfs {

namespace {

constexpr std::uint64_t kMetadataCacheBytes = 64 << 20;
constexpr Duration kPredecessorLimit = std::chrono::seconds(5);
constexpr int kMostProofs = 3;
constexpr Duration kPredecessorPoll = std::chrono::milliseconds(20);

}  // namespace

MountSession::MountSession(Reactor& reactor, Log& log, MountOptions options, Watchdog& watchdog)
    : reactor_(reactor),
      executor_(reactor.executor()),
      log_(log),
      options_(std::move(options)),
      watchdog_(watchdog),
      random_(system_random()),
      drops_(executor_) {}

MountSession::~MountSession() = default;

BlockDevice& MountSession::device() {
  return cluster_ ? cluster_->device() : *raw_;
}

NodeId MountSession::self() const {
  return cluster_ ? cluster_->membership().self() : NodeId{};
}

std::unexpected<Failure> MountSession::cannot(const std::string& what, const Error& error) const {
  return failure(kExitMountFailed, fmt::format("{}: {}: {}", options_.source, what, explain(error)));
}

Task<Outcome<>> MountSession::run(std::function<void()> mounted) {
  auto started = co_await start();
  if (!started) {
    co_await stop();
    co_return started;
  }
  mounted();

  // From here on the signals that ask for an end are read, not suffered.
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  const int signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  TaskGroup watchers(executor_);
  watchers.spawn(watch_signals(signals));
  co_await dispatcher_->serve();
  unmounting_ = true;
  reactor_.cancel_poll(signals);
  co_await watchers.join();
  close(signals);
  log_.info("{}: unmounted", options_.directory);
  record_.unmounting();
  auto stopped = co_await stop();
  // The mount that the line is about has gone; where another stands there now, the line is that one's.
  if (!mounted_device(options_.directory)) remove_from_user_table(options_.directory);
  record_.ended(stopped ? "" : stopped.error().message);
  co_return stopped;
}

Task<Outcome<>> MountSession::start() {
  auto done = co_await open();
  if (!done) co_return done;
  if (!options_.no_recovery) {
    done = co_await join();
    if (!done) co_return done;
    done = co_await prove_device();
    if (!done) co_return done;
  }
  done = co_await start_log();
  if (!done) co_return done;
  done = co_await start_file_system();
  if (!done) co_return done;
  done = co_await mount();
  co_return done;
}

Task<Outcome<>> MountSession::open() {
  OpenOptions open_options;
  open_options.read_only = options_.no_recovery;
  open_options.exclusive = !options_.no_recovery;
  open_options.initiator_name = options_.initiator;
  auto device = co_await open_device(reactor_, log_, options_.source, open_options);
  if (!device) co_return cannot("cannot open the device", device.error());
  raw_ = std::move(*device);
  auto superblock = co_await read_superblock(*raw_);
  if (!superblock) co_return cannot("no usable cawfs file system", superblock.error());
  superblock_ = *superblock;
  geometry_ = make_geometry(superblock_);

  if (!options_.no_recovery && raw_->facts().write_protected) {
    co_return failure(kExitMountFailed, fmt::format("{}: the device is write-protected; to read it as it stands, use "
                                                    "-o ro,norecovery",
                                                    options_.source));
  }
  // A node must be able to replay the journals of the others, read-only or not.
  if (!options_.no_recovery && !writable(superblock_)) {
    co_return failure(kExitMountFailed, fmt::format("{}: made by a newer cawfs with features that this one may only "
                                                    "read, which takes a mount that recovers no other node: use -o "
                                                    "ro,norecovery",
                                                    options_.source));
  }
  if (!geometry_.clustered && !options_.local && !options_.no_recovery) {
    co_return failure(kExitMountFailed,
                      fmt::format("{}: this file system is for one host at a time; use -o local", options_.source));
  }
  co_return Outcome<>{};
}

// umount(8) returns before the daemon has written everything back: the predecessor of a mount made right after it is
// waited for.
Task<Outcome<>> MountSession::identify() {
  const Time give_up = executor_.now() + kPredecessorLimit;
  while (true) {
    auto identity = HostIdentity::take(superblock_.uuid, options_.initiator, options_.local);
    if (!identity) co_return std::unexpected(identity.error());
    if (*identity) {
      identity_.emplace(std::move(**identity));
      co_return Outcome<>{};
    }
    if (executor_.now() >= give_up) break;
    co_await executor_.sleep(kPredecessorPoll);
  }
  const char* remedy = options_.initiator.empty() ? "with -o local there can be one mount; unmount the other first"
                                                  : "give each mount its own -o initiator=NAME";
  co_return failure(kExitMountFailed, fmt::format("{}: mounted by this host already: {}", options_.source, remedy));
}

Task<Outcome<>> MountSession::join() {
  auto identified = co_await identify();
  if (!identified) co_return identified;
  make_cluster();
  auto joined = co_await cluster_->join();
  // The slot whose journal it would have had to replay is marked now; another one is taken, if there is one.
  if (!joined && is_damage(joined.error().code)) {
    co_await cluster_->leave();
    make_cluster();
    joined = co_await cluster_->join();
  }
  if (!joined) co_return cannot("cannot join the cluster", joined.error());
  cluster_->membership().add_observer(this);
  observing_ = true;
  log_.info("{}: slot {}, incarnation {}{}", options_.source, self().slot.value, self().incarnation.value,
            options_.local ? ", local" : "");
  co_return Outcome<>{};
}

void MountSession::make_cluster() {
  recovery_.reset();
  ClusterOptions cluster_options;
  cluster_options.member = {.host_name = identity_->host_name,
                            .node_uuid = identity_->node_uuid,
                            .boot_id = identity_->boot_id,
                            .host_lock = true,
                            .local = options_.local,
                            .no_aptpl = options_.no_aptpl,
                            .dead_time = std::chrono::milliseconds(superblock_.dead_time_ms.value())};
  cluster_options.mail.slowest = options_.poll_slowest;
  cluster_ = std::make_unique<Cluster>(*raw_, executor_, *random_, log_, geometry_, cluster_options);
  recovery_ = std::make_unique<JournalRecovery>(ReplayParts{
      .executor = executor_, .device = device(), .geometry = geometry_, .random = *random_, .messages = log_});
  cluster_->set_recovery_client(recovery_.get());
  cluster_->set_figures([this](HeartbeatFigures& figures) {
    if (fs_) figures.dirty_bytes = fs_->dirty_bytes();
    if (dispatcher_) figures.operations = dispatcher_->accepted();
    if (dispatcher_) figures.dirty_bytes += dispatcher_->mapped_bytes();
    if (!journal_) return;
    figures.journal_blocks = journal_->ring_blocks();
    figures.journal_used = journal_->ring_blocks_used();
  });
}

// Some targets list COMPARE AND WRITE and reservations and do not keep them; better seen now than in the data.
Task<Outcome<>> MountSession::prove_device() {
  // A path may flap, or take so long that the second session's key is swept as nobody's.
  const auto may_pass = [](const Error& e) { return e == Errc::kTransport || e == Errc::kReservationConflict; };
  Result<> proved = fail(Errc::kTransport);
  for (int tries = 0; !proved && may_pass(proved.error()) && tries < kMostProofs; ++tries) {
    proved = co_await prove_once();
  }
  if (!proved) co_return cannot("the device fails the proof of COMPARE AND WRITE and reservations", proved.error());
  co_return Outcome<>{};
}

Task<Result<>> MountSession::prove_once() {
  OpenOptions open_options;
  open_options.exclusive = false;
  if (!raw_->facts().initiator_name.empty()) open_options.initiator_name = raw_->facts().initiator_name + "-probe";
  auto second = co_await open_device(reactor_, log_, options_.source, open_options);
  if (!second) {
    log_.warning("{}: no second session ({}): COMPARE AND WRITE is proved in part only", options_.source,
                 explain(second.error()));
    Result<> proved =
        co_await probe_compare_and_write(executor_, *random_, device(), device(), geometry_.scratch.offset_bytes());
    co_return proved;
  }
  Result<> proved;
  auto record = co_await cluster_->membership().read_slot(self().slot);
  if (record) {
    const ReservationProbe probe{.key = PrKey{record->pr_key.value()},
                                 .second_key = PrKey{random_->next() | 1},
                                 .aptpl = options_.no_aptpl ? Aptpl::kNo : Aptpl::kYes,
                                 .scratch = geometry_.scratch.offset_bytes(),
                                 .plain_scratch = (geometry_.scratch + 1).offset_bytes()};
    proved = co_await probe_beside_others(executor_, *random_, device(), **second, probe);
  } else {
    proved = fail(record.error());
  }
  co_await (*second)->close();
  co_return proved;
}

Task<Outcome<>> MountSession::start_log() {
  buffers_ = std::make_unique<BufferCache>(executor_, device(), geometry_, kMetadataCacheBytes);
  if (options_.read_only) co_return Outcome<>{};
  auto record = co_await cluster_->membership().read_slot(self().slot);
  if (!record) co_return cannot("cannot read this node's slot", record.error());
  auto place = journal_place(*record, self(), geometry_);
  if (!place) co_return cannot("bad journal in this node's slot", place.error());
  journal_ = std::make_unique<JournalLog>(
      JournalParts{
          .executor = executor_, .device = device(), .geometry = geometry_, .buffers = *buffers_, .messages = log_},
      std::move(*place),
      JournalOptions{.on_failure = [this](const Error& error) { cluster_->membership().withdraw(error); }});
  auto started = co_await journal_->start();
  if (!started) {
    journal_.reset();
    co_return cannot("cannot start the journal", started.error());
  }
  co_return Outcome<>{};
}

Task<Outcome<>> MountSession::start_file_system() {
  if (options_.local || options_.no_recovery) {
    local_locks_ = std::make_unique<LocalLockService>(executor_, device(), geometry_, self());
  }
  LockService& locks = local_locks_ ? static_cast<LockService&>(*local_locks_) : cluster_->locks();
  TransactionLog& log = journal_ ? static_cast<TransactionLog&>(*journal_) : read_only_log_;
  const bool can_discard = device().facts().unmap_granularity > 0;
  if (options_.discard && !can_discard) {
    log_.warning("{}: the device takes no discards (UNMAP); -o discard has no effect", options_.source);
  }
  fs_ = std::make_unique<FileSystem>(
      FileSystemParts{.executor = executor_,
                      .device = device(),
                      .geometry = geometry_,
                      .locks = locks,
                      .buffers = *buffers_,
                      .log = log,
                      .random = *random_,
                      .messages = log_},
      FileSystemOptions{.read_only = options_.read_only, .discard = options_.discard && can_discard});
  fs_started_ = true;
  auto started = co_await fs_->start();
  if (!started) co_return cannot("cannot start the file system", started.error());
  co_return Outcome<>{};
}

Task<Outcome<>> MountSession::mount() {
  auto connection = FuseConnection::open(reactor_, log_);
  if (!connection) co_return std::unexpected(connection.error());
  connection_ = std::move(*connection);
  add_to_user_table(options_.source, options_.directory, options_.network);
  auto mounted = connection_->mount(options_.source, options_.directory, options_.mount_flags);
  if (!mounted) {
    remove_from_user_table(options_.directory);
    co_return mounted;
  }
  auto agreed = co_await connection_->handshake();
  if (!agreed) {
    co_await unmount(true);
    co_return agreed;
  }
  cache_ = std::make_unique<FuseKernelCache>(executor_, *connection_, log_, fs_->root());
  fs_->set_kernel_cache(cache_.get());
  operations_ = std::make_unique<FileSystemOperations>(*fs_);
  const bool alone = local_locks_ != nullptr;
  dispatcher_ = std::make_unique<FuseDispatcher>(
      reactor_, log_, *connection_, *operations_, *cache_,
      DispatchOptions{
          .read_only = options_.read_only, .synchronous = options_.synchronous, .cache_listed_names = alone});
  // Without it umount works too, and does not wait.
  const auto recorded = record_.make(options_.directory);
  if (!recorded) log_.warning("{}", recorded.error().message);
  const auto number = mounted_device(options_.directory);
  const auto watched = number ? watchdog_.guard(*number) : Outcome<>{};  // or it has been unmounted already
  if (!watched) log_.warning("{}", watched.error().message);
  log_.info("{}: mounted on {}", options_.source, options_.directory);
  co_return Outcome<>{};
}

// Each part ends even where one before it could not; what could not be written is the outcome.
Task<Outcome<>> MountSession::stop() {
  Result<> written;
  std::uint64_t lost = 0;
  co_await drops_.join();
  if (fs_ && fs_started_) {
    auto stopped = co_await fs_->stop();
    if (!stopped) written = stopped;
    lost = fs_->untold_losses();
  }
  if (local_locks_) local_locks_->stop();
  if (journal_) {
    auto stopped = co_await journal_->stop();
    if (!stopped && written) written = stopped;
  }
  const bool out = cluster_ && cluster_->membership().withdrawn();
  if (cluster_) {
    if (observing_) cluster_->membership().remove_observer(this);
    // Not in place: the slot stays as it is, and is recovered from the journal as after a crash.
    if (!written && !out) cluster_->membership().withdraw(written.error());
    auto left = co_await cluster_->leave();
    if (!left && written && !out) written = left;
  }
  if (raw_) co_await raw_->close();
  if (!written && !out) {
    co_return failure(kExitSystem, fmt::format("{}: not everything could be written back: {}; the journal has what was "
                                               "committed, and the next mount recovers it",
                                               options_.source, explain(written.error())));
  }
  if (lost > 0) {
    co_return failure(kExitSystem, fmt::format("{}: what was written to {} file{} could not be stored and is lost, and "
                                               "no program was told; the log has their inode numbers",
                                               options_.source, lost, lost == 1 ? "" : "s"));
  }
  co_return Outcome<>{};
}

Task<void> MountSession::watch_signals(int signals) {
  bool force = false;
  while (!unmounting_) {
    const int events = co_await reactor_.poll(signals, POLLIN);
    if (events < 0) co_return;
    signalfd_siginfo signal{};
    if (read(signals, &signal, sizeof(signal)) != sizeof(signal)) continue;
    log_.info("signal {}: unmounting {}", signal.ssi_signo, options_.directory);
    co_await unmount(force);
    force = true;
  }
}

// A busy mount leaves the tree at once and ends when its last file is closed; a second request ends it at once.
Task<void> MountSession::unmount(bool force) {
  int error = 0;
  const std::string directory = options_.directory;
  co_await reactor_.run_blocking([&] {
    if (!force && umount2(directory.c_str(), 0) == 0) return;
    error = errno;
    if (force || error == EBUSY)
      error = umount2(directory.c_str(), force ? MNT_FORCE | MNT_DETACH : MNT_DETACH) == 0 ? 0 : errno;
  });
  if (error != 0) log_.error("cannot unmount {}: {}", directory, std::strerror(error));
}

void MountSession::slot_changed(SlotNo slot, format::SlotState from, format::SlotState to, Incarnation incarnation) {
  if (from == format::SlotState::kRecovering && to != format::SlotState::kRecovering) {
    log_.info("slot {}: recovered (incarnation {})", slot.value, incarnation.value);
  }
  if (fs_ && fs_started_) fs_->slot_changed(slot, from, to);
}

void MountSession::withdrawn(Error reason) {
  log_.error(
      "{}: this node has withdrawn: {}; all operations fail with EIO until umount, and data not yet synced is lost",
      options_.source, explain(reason));
  if (journal_) journal_->withdraw(reason);
  drop_kernel_pages();
}

void MountSession::lease_lapsed() {
  log_.warning("{}: the device does not answer heartbeats; operations wait", options_.source);
  drop_kernel_pages();
}

// Others may take this node for dead from now on. Names and attributes were given for no longer than the lease.
void MountSession::drop_kernel_pages() {
  if (cache_ && !unmounting_) drops_.spawn(cache_->invalidate_all());
}

void MountSession::lease_returned() {
  log_.info("{}: the device answers heartbeats again", options_.source);
}

}  // namespace cawfs
