// Threads for work that the kernel can block on. A thread is started when none is idle, up to a limit; beyond it work
// queues. They end with the object, after what was queued.
//
// submit() and take_finished() are for the reactor's thread; `event_fd()` becomes readable when something has finished.
#pragma once

#include <condition_variable>
#include <coroutine>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace cawfs {

class HelperThreads {
 public:
  explicit HelperThreads(std::size_t limit);
  HelperThreads(const HelperThreads&) = delete;
  ~HelperThreads();

  // -1: no eventfd could be had.
  int event_fd() const { return event_fd_; }
  void submit(std::function<void()> work, std::coroutine_handle<> waiter);
  // The waiters whose work has returned, in order.
  std::deque<std::coroutine_handle<>> take_finished();

 private:
  struct Job {
    std::function<void()> work;
    std::coroutine_handle<> waiter;
  };

  void run();

  const std::size_t limit_;
  int event_fd_ = -1;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Job> jobs_;
  std::deque<std::coroutine_handle<>> finished_;
  std::size_t idle_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace cawfs
