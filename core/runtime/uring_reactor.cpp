// The Reactor over io_uring. A request is an Operation in the frame of the coroutine that awaits it; the ring carries
// its address and the completion posts the coroutine. Requests that find the submission queue full wait in `backlog_`,
// in order, so issuing one never blocks.

#include <liburing.h>
#include <poll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <boost/intrusive/list.hpp>
#include <cerrno>

#include "core/base/assert.h"
#include "core/runtime/helper_threads.h"
#include "core/runtime/reactor.h"

namespace cawfs {

namespace {

constexpr unsigned kQueueEntries = 512;
// Coroutines run between two looks at the ring and the clock.
constexpr std::size_t kStepsPerRound = 128;

class UringReactor;

using AutoUnlinkHook = boost::intrusive::list_base_hook<boost::intrusive::link_mode<boost::intrusive::auto_unlink>>;

// In the backlog until it is on the ring; a poll then in the list of polls.
struct Operation : AutoUnlinkHook {
  UringReactor& reactor;
  std::uint8_t opcode;
  int fd;
  std::uint64_t address;  // of the buffer; for a cancellation the Operation to cancel
  std::uint32_t length;   // bytes, or iovecs
  std::uint64_t offset;
  std::uint32_t flags;  // poll events, fsync flags
  bool on_kernel_thread = false;
  std::coroutine_handle<> waiter;
  int result = 0;

  Operation(UringReactor& owner, std::uint8_t code, int descriptor, const void* buffer = nullptr, std::size_t size = 0,
            std::int64_t at = 0, std::uint32_t op_flags = 0)
      : reactor(owner),
        opcode(code),
        fd(descriptor),
        address(reinterpret_cast<std::uint64_t>(buffer)),
        length(static_cast<std::uint32_t>(size)),
        offset(static_cast<std::uint64_t>(at)),
        flags(op_flags) {}

  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle);
  int await_resume() const noexcept { return result; }
};

using OperationList = boost::intrusive::list<Operation, boost::intrusive::constant_time_size<false>>;

class UringReactor final : public Reactor {
 public:
  UringReactor() : executor_(clock_), helpers_(kMostHelperThreads), wake_(*this, IORING_OP_READ, helpers_.event_fd()) {}
  ~UringReactor() override;
  // 0 or -errno.
  int start();

  Executor& executor() override { return executor_; }
  Task<int> read(int fd, std::span<std::byte> out, std::int64_t offset) override;
  Task<int> write(int fd, std::span<const std::byte> data, std::int64_t offset) override;
  Task<int> writev(int fd, std::span<const iovec> data, std::int64_t offset) override;
  Task<int> write_durable(int fd, std::span<const std::byte> data, std::int64_t offset) override;
  Task<int> fdatasync(int fd) override;
  Task<int> poll(int fd, std::uint32_t events) override;
  void cancel_poll(int fd) override;
  Task<void> run_blocking(std::function<void()> work) override;
  void run_until(std::function<bool()> done) override;

  void issue(Operation& operation);

 private:
  bool put_on_ring(Operation& operation);
  bool put_cancel_on_ring(std::uint64_t target);
  void drain_backlog();
  void enter(bool may_wait);
  void reap();
  void completed(Operation& operation, int result);
  void wait_for_helpers();

  SystemClock clock_;
  Executor executor_;
  io_uring ring_{};
  bool started_ = false;
  OperationList backlog_;
  OperationList polls_;
  std::deque<std::uint64_t> cancels_;  // addresses of polls, waiting for a place on the ring
  HelperThreads helpers_;
  std::uint64_t wake_count_ = 0;
  Operation wake_;  // the read of the helpers' eventfd, always in flight
};

void Operation::await_suspend(std::coroutine_handle<> handle) {
  waiter = handle;
  reactor.issue(*this);
}

int UringReactor::start() {
  io_uring_params params{};
  params.flags = IORING_SETUP_CQSIZE | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
  params.cq_entries = 8 * kQueueEntries;
  int error = io_uring_queue_init_params(kQueueEntries, &ring_, &params);
  if (error == -EINVAL) {  // older than Linux 6.1
    params = {};
    params.flags = IORING_SETUP_CQSIZE;
    params.cq_entries = 8 * kQueueEntries;
    error = io_uring_queue_init_params(kQueueEntries, &ring_, &params);
  }
  if (error < 0) return error;
  started_ = true;
  // Without them completions could be lost, or a wait could not end at a time (Linux 5.11).
  if (!(params.features & IORING_FEAT_NODROP) || !(params.features & IORING_FEAT_EXT_ARG)) return -ENOSYS;
  if (helpers_.event_fd() < 0) return -EMFILE;
  wait_for_helpers();
  return 0;
}

UringReactor::~UringReactor() {
  if (started_) io_uring_queue_exit(&ring_);
}

Task<int> UringReactor::read(int fd, std::span<std::byte> out, std::int64_t offset) {
  Operation operation(*this, IORING_OP_READ, fd, out.data(), out.size(), offset);
  int result = co_await operation;
  co_return result;
}

Task<int> UringReactor::write(int fd, std::span<const std::byte> data, std::int64_t offset) {
  Operation operation(*this, IORING_OP_WRITE, fd, data.data(), data.size(), offset);
  int result = co_await operation;
  co_return result;
}

Task<int> UringReactor::writev(int fd, std::span<const iovec> data, std::int64_t offset) {
  Operation operation(*this, IORING_OP_WRITEV, fd, data.data(), data.size(), offset);
  int result = co_await operation;
  co_return result;
}

Task<int> UringReactor::write_durable(int fd, std::span<const std::byte> data, std::int64_t offset) {
  Operation operation(*this, IORING_OP_WRITE, fd, data.data(), data.size(), offset);
  operation.on_kernel_thread = true;
  int result = co_await operation;
  co_return result;
}

Task<int> UringReactor::fdatasync(int fd) {
  Operation operation(*this, IORING_OP_FSYNC, fd, nullptr, 0, 0, IORING_FSYNC_DATASYNC);
  int result = co_await operation;
  co_return result;
}

Task<int> UringReactor::poll(int fd, std::uint32_t events) {
  Operation operation(*this, IORING_OP_POLL_ADD, fd, nullptr, 0, 0, events);
  int result = co_await operation;
  co_return result;
}

void UringReactor::cancel_poll(int fd) {
  for (auto it = backlog_.begin(); it != backlog_.end();) {
    Operation& operation = *it++;
    if (operation.opcode != IORING_OP_POLL_ADD || operation.fd != fd) continue;
    operation.unlink();
    operation.result = -ECANCELED;
    executor_.post(operation.waiter);
  }
  for (auto& operation : polls_) {
    if (operation.fd == fd) cancels_.push_back(reinterpret_cast<std::uint64_t>(&operation));
  }
  drain_backlog();
}

Task<void> UringReactor::run_blocking(std::function<void()> work) {
  struct Awaiter {
    HelperThreads& helpers;
    std::function<void()>& work;
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> handle) const { helpers.submit(std::move(work), handle); }
    void await_resume() const noexcept {}
  };
  co_await Awaiter{helpers_, work};
}

void UringReactor::issue(Operation& operation) {
  // Never ahead of a cancellation: that names its target by address, which `operation` may have inherited.
  if (!cancels_.empty() || !backlog_.empty() || !put_on_ring(operation)) backlog_.push_back(operation);
}

bool UringReactor::put_on_ring(Operation& operation) {
  io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
  if (!sqe) return false;
  const auto* buffer = reinterpret_cast<const void*>(operation.address);
  io_uring_prep_rw(operation.opcode, sqe, operation.fd, buffer, operation.length, operation.offset);
  if (operation.on_kernel_thread) io_uring_sqe_set_flags(sqe, IOSQE_ASYNC);
  if (operation.opcode == IORING_OP_FSYNC) sqe->fsync_flags = operation.flags;
  if (operation.opcode == IORING_OP_POLL_ADD) {
    sqe->poll32_events = operation.flags;
    polls_.push_back(operation);
  }
  io_uring_sqe_set_data(sqe, &operation);
  return true;
}

bool UringReactor::put_cancel_on_ring(std::uint64_t target) {
  io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
  if (!sqe) return false;
  io_uring_prep_cancel64(sqe, target, 0);
  io_uring_sqe_set_data(sqe, nullptr);
  return true;
}

void UringReactor::drain_backlog() {
  while (!cancels_.empty() && put_cancel_on_ring(cancels_.front())) cancels_.pop_front();
  if (!cancels_.empty()) return;
  while (!backlog_.empty()) {
    Operation& operation = backlog_.front();
    operation.unlink();
    if (!put_on_ring(operation)) {
      backlog_.push_front(operation);
      return;
    }
  }
}

// Hands new requests to the kernel and fetches completions; with `may_wait` until one came, or the next timer is due.
// Errors need no handling here: EINTR and ETIME are an end of the wait; on EAGAIN and EBUSY (no memory for requests, no
// room for completions) what is not submitted stays on the ring for the next round, after reap() has made room.
void UringReactor::enter(bool may_wait) {
  drain_backlog();
  const auto next = executor_.next_timer();
  const Duration left = next ? *next - clock_.now() : Duration::max();
  if (!may_wait || !backlog_.empty() || !cancels_.empty() || left <= Duration::zero()) {
    io_uring_submit_and_get_events(&ring_);
    return;
  }
  io_uring_cqe* cqe = nullptr;
  if (!next) {
    io_uring_submit_and_wait(&ring_, 1);
    return;
  }
  __kernel_timespec timeout{left.count() / 1'000'000'000, left.count() % 1'000'000'000};
  io_uring_submit_and_wait_timeout(&ring_, &cqe, 1, &timeout, nullptr);
}

void UringReactor::reap() {
  io_uring_cqe* cqe = nullptr;
  while (io_uring_peek_cqe(&ring_, &cqe) == 0) {
    auto* operation = static_cast<Operation*>(io_uring_cqe_get_data(cqe));
    const int result = cqe->res;
    io_uring_cqe_seen(&ring_, cqe);
    if (operation) completed(*operation, result);
  }
}

void UringReactor::completed(Operation& operation, int result) {
  if (operation.is_linked()) operation.unlink();
  if (&operation == &wake_) {
    for (auto waiter : helpers_.take_finished()) executor_.post(waiter);
    wait_for_helpers();
    return;
  }
  if (result == -EINTR) {  // a kernel worker was interrupted; nothing was done
    issue(operation);
    return;
  }
  operation.result = result;
  executor_.post(operation.waiter);
}

void UringReactor::wait_for_helpers() {
  wake_.address = reinterpret_cast<std::uint64_t>(&wake_count_);
  wake_.length = sizeof(wake_count_);
  issue(wake_);
}

void UringReactor::run_until(std::function<bool()> done) {
  while (!done()) {
    executor_.run_ready(kStepsPerRound);
    const bool idle = executor_.idle();
    if (idle && done()) return;
    enter(idle);
    reap();
    executor_.fire_timers(clock_.now());
  }
}

}  // namespace

Result<std::unique_ptr<Reactor>> Reactor::make() {
  auto reactor = std::make_unique<UringReactor>();
  if (reactor->start() < 0) return fail(Errc::kUnsupported, "io_uring");
  return reactor;
}

}  // namespace cawfs
