#include "core/runtime/helper_threads.h"

#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <utility>

#include "core/base/assert.h"

namespace cawfs {

HelperThreads::HelperThreads(std::size_t limit) : limit_(limit), event_fd_(eventfd(0, EFD_CLOEXEC)) {}

HelperThreads::~HelperThreads() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (auto& thread : threads_) thread.join();
  if (event_fd_ >= 0) close(event_fd_);
}

void HelperThreads::submit(std::function<void()> work, std::coroutine_handle<> waiter) {
  bool start = false;
  {
    const std::lock_guard lock(mutex_);
    jobs_.push_back({std::move(work), waiter});
    start = jobs_.size() > idle_ && threads_.size() < limit_;
  }
  if (start) {
    // Signals are the main thread's: the new thread inherits a mask that blocks them all.
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    threads_.emplace_back([this] { run(); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }
  wake_.notify_one();
}

std::deque<std::coroutine_handle<>> HelperThreads::take_finished() {
  const std::lock_guard lock(mutex_);
  return std::exchange(finished_, {});
}

void HelperThreads::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    while (jobs_.empty() && !stopping_) {
      ++idle_;
      wake_.wait(lock);
      --idle_;
    }
    if (jobs_.empty()) return;
    Job job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    job.work();
    job.work = nullptr;
    lock.lock();
    finished_.push_back(job.waiter);
    const std::uint64_t one = 1;
    ssize_t written = 0;
    do {
      written = write(event_fd_, &one, sizeof(one));
    } while (written < 0 && errno == EINTR);
    CAWFS_ASSERT(written == sizeof(one));
  }
}

}  // namespace cawfs
