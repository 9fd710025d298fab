// The event loop of a host: one thread, one io_uring, one Executor. Files, sockets and timers are all requests on the
// ring. Work that the kernel can block on goes to helper threads.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "core/base/error.h"
#include "core/runtime/executor.h"
#include "core/runtime/task.h"
#include "core/runtime/task_group.h"

namespace cawfs {

class SystemClock final : public Clock {
 public:
  Time now() const override;  // CLOCK_BOOTTIME
  std::int64_t wall_ns() const override;
};

// Work beyond so many at a time queues in run_blocking().
inline constexpr std::size_t kMostHelperThreads = 64;

class Reactor {
 public:
  // kUnsupported where the kernel has no io_uring.
  static Result<std::unique_ptr<Reactor>> make();
  virtual ~Reactor() = default;

  virtual Executor& executor() = 0;

  // As read(2), write(2) and so on: what the system call would return, or -errno. `offset` -1: the file's own position.
  // On an O_NONBLOCK descriptor they may wait all the same.
  virtual Task<int> read(int fd, std::span<std::byte> out, std::int64_t offset) = 0;
  virtual Task<int> write(int fd, std::span<const std::byte> data, std::int64_t offset) = 0;
  virtual Task<int> writev(int fd, std::span<const iovec> data, std::int64_t offset) = 0;
  // The same for a descriptor opened with O_DSYNC: the kernel would wait for the device's cache in the middle of taking
  // the request, so a kernel thread does.
  virtual Task<int> write_durable(int fd, std::span<const std::byte> data, std::int64_t offset) = 0;
  virtual Task<int> fdatasync(int fd) = 0;
  // Waits for `events` (poll(2)) and returns those that came. cancel_poll() ends all polls of the descriptor with
  // -ECANCELED.
  virtual Task<int> poll(int fd, std::uint32_t events) = 0;
  virtual void cancel_poll(int fd) = 0;

  // Runs `work` on a helper thread; the caller goes on when it has returned. `work` touches nothing of the reactor's.
  virtual Task<void> run_blocking(std::function<void()> work) = 0;

  // Runs until `done` says so, asked after each round. Signals are taken with signalfd and poll().
  virtual void run_until(std::function<bool()> done) = 0;

  // Runs `task` to its end and returns its value.
  template <class T>
  T run(Task<T> task) {
    std::optional<T> result;
    TaskGroup group(executor());
    group.spawn(store(std::move(task), result));
    run_until([&] { return group.running() == 0; });
    return std::move(*result);
  }
  void run(Task<void> task) {
    TaskGroup group(executor());
    group.spawn(std::move(task));
    run_until([&] { return group.running() == 0; });
  }

 private:
  template <class T>
  static Task<void> store(Task<T> task, std::optional<T>& out) {
    T value = co_await std::move(task);
    out.emplace(std::move(value));
  }
};

}  // namespace cawfs
