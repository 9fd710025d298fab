#include "core/device/iscsi_transport.h"

#include <netdb.h>
#include <sys/socket.h>

#include <boost/intrusive/list.hpp>
#include <csignal>

#include "core/base/checksum.h"
#include "core/device/iscsi_connection.h"
#include "core/runtime/sync.h"
#include "core/runtime/task_group.h"

namespace cawfs {
namespace {

using namespace std::chrono_literals;

constexpr Duration kTick = 100ms;
constexpr Duration kReconnectPause = 200ms;
// The kernel sends a lost SYN again after 1, 3, 7 … s; a path that is back is tried sooner.
constexpr Duration kConnectTime = 2s;
// LIO with a file as its backend answers nothing on a connection, NOP-Out included, while it is writing there; who cuts
// such a target off each time never gets anywhere.
constexpr Duration kLeastPathTimeout = 3s;
constexpr std::uint64_t kIsidFormatRandom = 0x80;

int ticks(Duration time) {
  return static_cast<int>(time / kTick);
}

// A PDU in flight; lives in the frame that waits for it.
struct Request : boost::intrusive::list_base_hook<boost::intrusive::link_mode<boost::intrusive::auto_unlink>> {
  Time deadline;
  Completion<int> ended;       // libiscsi's status
  std::uint32_t response = 0;  // of a task management function

  Request(Executor& executor, Time until) : deadline(until), ended(executor) {}
};

void on_command(iscsi_context*, int status, void*, void* request) {
  static_cast<Request*>(request)->ended.complete(status);
}

void on_task_management(iscsi_context*, int status, void* data, void* pointer) {
  auto& request = *static_cast<Request*>(pointer);
  if (status == SCSI_STATUS_GOOD && data) request.response = *static_cast<std::uint32_t*>(data);
  request.ended.complete(status);
}

struct FreeTask {
  void operator()(scsi_task* task) const { scsi_free_scsi_task(task); }
};

class IscsiTransport final : public ScsiTransport {
 public:
  IscsiTransport(Reactor& reactor, Log& log, IscsiOptions options, IscsiTarget target)
      : reactor_(reactor),
        log_(log),
        options_(std::move(options)),
        target_(std::move(target)),
        isid_(isid_of(options_.initiator_name)),
        path_timeout_(options_.timeout),
        changed_(reactor.executor()),
        tasks_(reactor.executor()),
        stop_(reactor.executor()) {}

  Task<Result<>> open();

  Task<Result<ScsiStatus>> execute(ScsiCommand& command) override;
  Task<Result<>> reset_lun() override;
  Task<Result<>> evict(std::string initiator_name, std::uint64_t isid) override;
  Task<void> close() override;
  std::string initiator_name() const override { return options_.initiator_name; }
  std::uint64_t isid() const override { return isid_; }
  std::uint64_t session() const override { return session_; }
  void set_path_timeout(Duration timeout) override { path_timeout_ = std::max(timeout, kLeastPathTimeout); }

 private:
  // Keeps a session open until close().
  Task<void> keep_connected();
  Task<void> tick();
  // Waits for a session; false where there is none by `deadline`.
  Task<bool> connected(Time deadline);
  Time now() const { return reactor_.executor().now(); }

  Reactor& reactor_;
  Log& log_;
  IscsiOptions options_;
  IscsiTarget target_;
  std::uint64_t isid_;
  Duration path_timeout_;
  std::uint64_t session_ = 0;
  std::unique_ptr<IscsiConnection> connection_;  // with a session, or null
  std::unique_ptr<IscsiConnection> logging_in_;
  std::unique_ptr<IscsiConnection> evicting_;
  boost::intrusive::list<Request, boost::intrusive::constant_time_size<false>> requests_;
  Condition changed_;  // connection_ or evicting_ has changed
  TaskGroup tasks_;
  StopSource stop_;
  std::string login_error_;
};

Task<Result<>> IscsiTransport::open() {
  std::signal(SIGPIPE, SIG_IGN);
  tasks_.spawn(keep_connected());
  tasks_.spawn(tick());
  while (!connection_ && login_error_.empty()) co_await changed_.wait();
  if (connection_) co_return Result<>{};
  log_.error("{}: {}", options_.url, login_error_);
  co_await close();
  co_return fail(Errc::kTransport, "iSCSI login");
}

Task<void> IscsiTransport::keep_connected() {
  while (!stop_.requested()) {
    logging_in_ = std::make_unique<IscsiConnection>(reactor_, target_, options_.initiator_name, isid_);
    const bool logged_in = co_await logging_in_->login(now() + options_.timeout);
    if (logged_in) {
      connection_ = std::move(logging_in_);
      ++session_;
      changed_.notify_all();
      co_await connection_->serve();
      if (!stop_.requested()) log_.warning("{}: connection lost: {}", options_.url, connection_->error());
      auto lost = std::move(connection_);
    } else {
      login_error_ = "login failed: " + logging_in_->error();
      logging_in_.reset();
      changed_.notify_all();
    }
    co_await stop_.sleep(kReconnectPause);
  }
}

Task<void> IscsiTransport::tick() {
  while (!stop_.requested()) {
    co_await stop_.sleep(kTick);
    if (connection_) connection_->tick(now(), ticks(path_timeout_));
    const Duration connecting = session_ == 0 ? options_.timeout : std::min(path_timeout_, kConnectTime);
    if (logging_in_) logging_in_->tick(now(), ticks(connecting));
    if (evicting_) evicting_->tick(now(), ticks(connecting));
    const bool late = std::any_of(requests_.begin(), requests_.end(), [&](auto& r) { return now() > r.deadline; });
    if (late && connection_) connection_->fail("a command was not answered in time");
  }
}

Task<bool> IscsiTransport::connected(Time deadline) {
  while (!connection_ || connection_->failed()) {
    if (stop_.requested() || now() >= deadline) co_return false;
    co_await changed_.wait_until(deadline);
  }
  co_return true;
}

Task<Result<ScsiStatus>> IscsiTransport::execute(ScsiCommand& command) {
  Request request(reactor_.executor(), now() + options_.timeout);
  const bool ready = co_await connected(request.deadline);
  if (!ready) co_return fail(Errc::kTransport, "iSCSI session");
  if (command.session && *command.session != session_) co_return fail(Errc::kTransport, "not sent: session", session_);

  std::size_t length = 0;
  for (const iovec& piece : command.data) length += piece.iov_len;
  const int direction = command.direction == ScsiDirection::kIn    ? SCSI_XFER_READ
                        : command.direction == ScsiDirection::kOut ? SCSI_XFER_WRITE
                                                                   : SCSI_XFER_NONE;
  std::unique_ptr<scsi_task, FreeTask> task(
      scsi_create_task(static_cast<int>(command.cdb_length), command.cdb.data(), direction, static_cast<int>(length)));
  CAWFS_ASSERT(task);
  static_assert(sizeof(scsi_iovec) == sizeof(iovec));
  auto* pieces = reinterpret_cast<scsi_iovec*>(command.data.data());
  const auto count = static_cast<int>(command.data.size());
  if (command.direction == ScsiDirection::kIn) scsi_task_set_iov_in(task.get(), pieces, count);
  if (command.direction == ScsiDirection::kOut) scsi_task_set_iov_out(task.get(), pieces, count);

  requests_.push_back(request);
  if (iscsi_scsi_command_async(connection_->context(), target_.lun, task.get(), on_command, nullptr, &request) != 0) {
    co_return fail(Errc::kTransport, "iSCSI session");
  }
  connection_->kick();
  const int ended = co_await request.ended.wait();
  if (ended >= SCSI_STATUS_CANCELLED) co_return fail(Errc::kTransport, "iSCSI session");

  ScsiStatus status;
  status.status = static_cast<std::uint8_t>(ended);
  status.sense_key = static_cast<std::uint8_t>(task->sense.key);
  status.sense_code = static_cast<std::uint16_t>(task->sense.ascq);
  if (task->residual_status == SCSI_RESIDUAL_UNDERFLOW) status.residual = task->residual;
  co_return status;
}

Task<Result<>> IscsiTransport::reset_lun() {
  Request request(reactor_.executor(), now() + options_.reset_timeout);
  const bool ready = co_await connected(now() + options_.timeout);
  if (!ready) co_return fail(Errc::kTransport, "iSCSI session");
  requests_.push_back(request);
  if (iscsi_task_mgmt_lun_reset_async(connection_->context(), static_cast<std::uint32_t>(target_.lun),
                                      on_task_management, &request) != 0) {
    co_return fail(Errc::kTransport, "LOGICAL UNIT RESET");
  }
  connection_->kick();
  const int ended = co_await request.ended.wait();
  if (ended != SCSI_STATUS_GOOD) co_return fail(Errc::kTransport, "LOGICAL UNIT RESET");
  if (request.response != 0) co_return fail(Errc::kUnsupported, "LOGICAL UNIT RESET", request.response);
  co_return Result<>{};
}

Task<Result<>> IscsiTransport::evict(std::string initiator_name, std::uint64_t isid) {
  while (evicting_) co_await changed_.wait();
  evicting_ = std::make_unique<IscsiConnection>(reactor_, target_, initiator_name, isid);
  const bool done = co_await evicting_->login(now() + options_.reset_timeout);
  if (!done) log_.warning("{}: eviction of {}: {}", options_.url, initiator_name, evicting_->error());
  // Fails where the node is back already, and has ended this session in turn.
  if (done) co_await evicting_->logout(now() + options_.timeout);
  evicting_.reset();
  changed_.notify_all();
  if (!done) co_return fail(Errc::kTransport, "iSCSI eviction");
  co_return Result<>{};
}

Task<void> IscsiTransport::close() {
  stop_.request();
  while (evicting_) co_await changed_.wait();
  if (logging_in_) logging_in_->fail("closed");
  if (connection_) {
    // Without a logout the target would wait for the initiator to come back.
    IscsiConnection& connection = *connection_;
    iscsi_logout_async(connection.context(), [](iscsi_context*, int, void*, void*) {}, nullptr);
    connection.kick();
    connection.fail("closed");
  }
  co_await tasks_.join();
}

// "host:port" as numbers; the host may be a name or an address, in brackets where it is IPv6.
Result<std::string> resolve(const std::string& portal) {
  std::string host = portal;
  std::string port = "3260";
  const auto colon = portal.rfind(':');
  if (colon != std::string::npos && portal.find(']', colon) == std::string::npos) {
    host = portal.substr(0, colon);
    port = portal.substr(colon + 1);
  }
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(host.c_str(), port.c_str(), &hints, &found) != 0) return fail(Errc::kNotFound, "iSCSI portal");
  std::array<char, NI_MAXHOST> address{};
  const int named =
      getnameinfo(found->ai_addr, found->ai_addrlen, address.data(), address.size(), nullptr, 0, NI_NUMERICHOST);
  const bool v6 = found->ai_family == AF_INET6;
  freeaddrinfo(found);
  if (named != 0) return fail(Errc::kNotFound, "iSCSI portal");
  return v6 ? fmt::format("[{}]:{}", address.data(), port) : fmt::format("{}:{}", address.data(), port);
}

Result<IscsiTarget> parse(const std::string& url) {
  std::unique_ptr<iscsi_context, decltype(&iscsi_destroy_context)> context(
      iscsi_create_context("iqn.2026-11.cawfs:url"), iscsi_destroy_context);
  std::unique_ptr<iscsi_url, decltype(&iscsi_destroy_url)> parsed(iscsi_parse_full_url(context.get(), url.c_str()),
                                                                  iscsi_destroy_url);
  if (!parsed) return fail(Errc::kInvalid, "iSCSI URL");
  return IscsiTarget{parsed->portal, parsed->target, parsed->lun};
}

}  // namespace

std::uint64_t isid_of(std::string_view initiator_name) {
  const std::uint64_t hash = siphash(std::as_bytes(std::span(initiator_name)), SipKey{});
  return kIsidFormatRandom << 40 | (hash & 0xff'ffff'ffff);
}

Task<Result<std::unique_ptr<ScsiTransport>>> open_iscsi_transport(Reactor& reactor, Log& log, IscsiOptions options) {
  auto target = parse(options.url);
  if (!target) {
    log.error("{}: not of the form iscsi://host[:port]/iqn/lun", options.url);
    co_return fail(target.error());
  }
  Result<std::string> portal;
  const std::string named = target->portal;
  co_await reactor.run_blocking([&portal, named] { portal = resolve(named); });
  if (!portal) {
    log.error("{}: the host {} has no address", options.url, named);
    co_return fail(portal.error());
  }
  target->portal = *portal;
  auto transport = std::make_unique<IscsiTransport>(reactor, log, std::move(options), std::move(*target));
  auto opened = co_await transport->open();
  if (!opened) co_return fail(opened.error());
  co_return std::unique_ptr<ScsiTransport>(std::move(transport));
}

}  // namespace cawfs
