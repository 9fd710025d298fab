// What coroutines of one executor wait on: Condition, Event, Mutex, SharedMutex, Semaphore, Completion. All are FIFO,
// none is thread-safe, none may be destroyed while somebody waits. A waiter is resumed through the executor's ready
// queue, never from within the call that woke it; so what was true when it was woken may not be any more: check again
// (the locks hand themselves over, which stays true).
#pragma once

#include <boost/intrusive/list.hpp>
#include <coroutine>
#include <cstdint>
#include <optional>
#include <utility>

#include "core/base/assert.h"
#include "core/runtime/executor.h"

namespace cawfs {

namespace detail {

struct Waiter : boost::intrusive::list_base_hook<boost::intrusive::link_mode<boost::intrusive::auto_unlink>> {
  std::coroutine_handle<> handle;
  bool exclusive = false;
  std::uint64_t units = 0;
};
using WaitList = boost::intrusive::list<Waiter, boost::intrusive::constant_time_size<false>>;

}  // namespace detail

// wait() returns once notified after it began to wait; wait_until() also at a time, and says whether it was notified.
class Condition {
 public:
  explicit Condition(Executor& executor) : executor_(executor) {}
  Condition(const Condition&) = delete;
  ~Condition() { CAWFS_ASSERT(waiters_.empty()); }

  auto wait() { return Awaiter(*this, std::nullopt); }
  auto wait_until(Time when) { return Awaiter(*this, when); }
  void notify_one() {
    if (waiters_.empty()) return;
    auto& awaiter = static_cast<Awaiter&>(waiters_.front());
    waiters_.pop_front();
    awaiter.notified = true;
    if (awaiter.Timer::is_linked()) awaiter.Timer::unlink();
    executor_.post(awaiter.handle);
  }
  void notify_all() {
    while (!waiters_.empty()) notify_one();
  }
  Executor& executor() const { return executor_; }

 private:
  struct Awaiter : detail::Waiter, Timer {
    Condition& condition;
    bool timed;
    bool notified = false;

    Awaiter(Condition& c, std::optional<Time> until) : condition(c), timed(until.has_value()) {
      if (until) when = *until;
    }
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> h) {
      handle = h;
      condition.waiters_.push_back(*this);
      if (!timed) return;
      waiter = h;
      on_fire = [](Timer& timer) { static_cast<detail::Waiter&>(static_cast<Awaiter&>(timer)).unlink(); };
      condition.executor_.arm(*this);
    }
    bool await_resume() const noexcept { return notified; }
  };

  Executor& executor_;
  detail::WaitList waiters_;
};

// Stays set until reset.
class Event {
 public:
  explicit Event(Executor& executor) : condition_(executor) {}
  bool is_set() const { return set_; }
  void set() {
    set_ = true;
    condition_.notify_all();
  }
  void reset() { set_ = false; }

  auto wait() {
    struct Awaiter {
      Event& event;
      decltype(std::declval<Condition&>().wait()) inner;
      bool await_ready() const noexcept { return event.set_; }
      void await_suspend(std::coroutine_handle<> h) { inner.await_suspend(h); }
      void await_resume() const noexcept {}
    };
    return Awaiter{*this, condition_.wait()};
  }

 private:
  Condition condition_;
  bool set_ = false;
};

// Readers and writers, first come first served. `lock()` and `lock_shared()` return a guard.
class SharedMutex {
 public:
  class Guard {
   public:
    Guard() = default;
    Guard(SharedMutex* mutex, bool exclusive) : mutex_(mutex), exclusive_(exclusive) {}
    Guard(Guard&& other) noexcept : mutex_(std::exchange(other.mutex_, nullptr)), exclusive_(other.exclusive_) {}
    Guard& operator=(Guard&& other) noexcept {
      if (this != &other) {
        unlock();
        mutex_ = std::exchange(other.mutex_, nullptr);
        exclusive_ = other.exclusive_;
      }
      return *this;
    }
    ~Guard() { unlock(); }
    void unlock() {
      if (mutex_) std::exchange(mutex_, nullptr)->release(exclusive_);
    }
    explicit operator bool() const { return mutex_ != nullptr; }

   private:
    SharedMutex* mutex_ = nullptr;
    bool exclusive_ = false;
  };

  explicit SharedMutex(Executor& executor) : executor_(executor) {}
  SharedMutex(const SharedMutex&) = delete;
  ~SharedMutex() { CAWFS_ASSERT(waiters_.empty()); }

  auto lock() { return Awaiter(*this, true); }
  auto lock_shared() { return Awaiter(*this, false); }
  Guard try_lock() { return try_take(true) ? Guard(this, true) : Guard(); }
  Guard try_lock_shared() { return try_take(false) ? Guard(this, false) : Guard(); }
  bool locked() const { return writer_ || readers_ > 0; }

 private:
  struct Awaiter : detail::Waiter {
    SharedMutex& mutex;
    Awaiter(SharedMutex& m, bool is_exclusive) : mutex(m) { exclusive = is_exclusive; }
    bool await_ready() { return mutex.try_take(exclusive); }
    void await_suspend(std::coroutine_handle<> h) {
      handle = h;
      mutex.waiters_.push_back(*this);
    }
    Guard await_resume() { return Guard(&mutex, exclusive); }
  };

  bool try_take(bool exclusive) {
    if (!waiters_.empty() || writer_ || (exclusive && readers_ > 0)) return false;
    take(exclusive);
    return true;
  }
  void take(bool exclusive) {
    if (exclusive) {
      writer_ = true;
    } else {
      ++readers_;
    }
  }
  void release(bool exclusive) {
    if (exclusive) {
      writer_ = false;
    } else {
      --readers_;
    }
    while (!waiters_.empty()) {
      detail::Waiter& waiter = waiters_.front();
      if (writer_ || (waiter.exclusive && readers_ > 0)) return;
      take(waiter.exclusive);
      waiters_.pop_front();
      executor_.post(waiter.handle);
    }
  }

  Executor& executor_;
  detail::WaitList waiters_;
  std::uint32_t readers_ = 0;
  bool writer_ = false;
};

// A SharedMutex used exclusively only.
class Mutex {
 public:
  using Guard = SharedMutex::Guard;
  explicit Mutex(Executor& executor) : mutex_(executor) {}
  auto lock() { return mutex_.lock(); }
  Guard try_lock() { return mutex_.try_lock(); }
  bool locked() const { return mutex_.locked(); }

 private:
  SharedMutex mutex_;
};

// Counts units; acquire(n) waits its turn until n are there.
class Semaphore {
 public:
  Semaphore(Executor& executor, std::uint64_t units) : executor_(executor), units_(units) {}
  Semaphore(const Semaphore&) = delete;
  ~Semaphore() { CAWFS_ASSERT(waiters_.empty()); }

  auto acquire(std::uint64_t n = 1) {
    struct Awaiter : detail::Waiter {
      Semaphore& semaphore;
      Awaiter(Semaphore& s, std::uint64_t n) : semaphore(s) { units = n; }
      bool await_ready() { return semaphore.try_acquire(units); }
      void await_suspend(std::coroutine_handle<> h) {
        handle = h;
        semaphore.waiters_.push_back(*this);
      }
      void await_resume() const noexcept {}
    };
    return Awaiter(*this, n);
  }
  bool try_acquire(std::uint64_t n) {
    if (!waiters_.empty() || units_ < n) return false;
    units_ -= n;
    return true;
  }
  void release(std::uint64_t n = 1) {
    units_ += n;
    while (!waiters_.empty() && waiters_.front().units <= units_) {
      detail::Waiter& waiter = waiters_.front();
      units_ -= waiter.units;
      waiters_.pop_front();
      executor_.post(waiter.handle);
    }
  }
  std::uint64_t available() const { return units_; }

 private:
  Executor& executor_;
  detail::WaitList waiters_;
  std::uint64_t units_;
};

// One value handed from a callback (an I/O completion) to one coroutine. `complete` may come before the wait.
template <class T>
class Completion {
 public:
  explicit Completion(Executor& executor) : executor_(executor) {}
  Completion(const Completion&) = delete;

  void complete(T value) {
    CAWFS_ASSERT(!value_);
    value_.emplace(std::move(value));
    if (waiter_) executor_.post(waiter_);
  }
  bool completed() const { return value_.has_value(); }

  auto wait() {
    struct Awaiter {
      Completion& completion;
      bool await_ready() const noexcept { return completion.value_.has_value(); }
      void await_suspend(std::coroutine_handle<> handle) const { completion.waiter_ = handle; }
      T await_resume() const { return std::move(*completion.value_); }
    };
    return Awaiter{*this};
  }

 private:
  Executor& executor_;
  std::coroutine_handle<> waiter_;
  std::optional<T> value_;
};

}  // namespace cawfs
