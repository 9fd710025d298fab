// One Executor per node: a FIFO queue of coroutines that are ready, and timers ordered by (time, sequence). It knows no
// clock and waits for nothing: an event loop (core/runtime/reactor.h on a host, tests/sim in tests) tells it the time
// and runs it. Everything happens on the event loop's thread.
#pragma once

#include <boost/intrusive/set.hpp>
#include <chrono>
#include <coroutine>
#include <cstdint>
#include <deque>
#include <optional>

namespace cawfs {

// Time on the node's own monotonic clock (CLOCK_BOOTTIME); never compared between nodes.
using Duration = std::chrono::nanoseconds;
struct Time {
  Duration since_boot{0};
  friend constexpr auto operator<=>(const Time&, const Time&) = default;
  friend constexpr Time operator+(Time t, Duration d) { return Time{t.since_boot + d}; }
  friend constexpr Duration operator-(Time a, Time b) { return a.since_boot - b.since_boot; }
};

class Clock {
 public:
  virtual ~Clock() = default;
  virtual Time now() const = 0;
  // The wall clock, nanoseconds since 1970, for file times only.
  virtual std::int64_t wall_ns() const = 0;
};

// Resumes a coroutine at a time. Lives in the frame of the coroutine that waits; destroying it disarms it.
class Timer : public boost::intrusive::set_base_hook<boost::intrusive::link_mode<boost::intrusive::auto_unlink>> {
 public:
  Time when;
  std::uint64_t sequence = 0;
  std::coroutine_handle<> waiter;
  // Called when the timer fires, before the waiter is made ready: ends whatever else the waiter waits for.
  void (*on_fire)(Timer&) = nullptr;

  friend bool operator<(const Timer& a, const Timer& b) {
    return a.when != b.when ? a.when < b.when : a.sequence < b.sequence;
  }
};

class Executor {
 public:
  explicit Executor(const Clock& clock) : clock_(clock) {}
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;
  ~Executor();

  const Clock& clock() const { return clock_; }
  Time now() const { return clock_.now(); }

  // Appends to the ready queue. Ignored after kill().
  void post(std::coroutine_handle<> handle) { (dead_ ? dead_frames_ : ready_).push_back(handle); }

  void arm(Timer& timer);

  // Runs what is ready, and what becomes ready on the way, until the queue is empty or `steps` coroutines have run.
  // Returns how many ran.
  std::size_t run_ready(std::size_t steps = SIZE_MAX);
  // Makes ready every coroutine whose timer is due at `now`.
  void fire_timers(Time now);
  std::optional<Time> next_timer() const;
  bool idle() const { return ready_.empty(); }

  // The node has crashed: nothing of it runs any more. Its frames are never destroyed; those that would have run are
  // remembered here, so that a leak checker finds them where the executor itself is kept for ever.
  void kill();

  auto sleep_until(Time when) {
    struct Awaiter : Timer {
      Executor& executor;
      Awaiter(Executor& e, Time t) : executor(e) { this->when = t; }
      bool await_ready() const noexcept { return false; }
      void await_suspend(std::coroutine_handle<> handle) {
        waiter = handle;
        executor.arm(*this);
      }
      void await_resume() const noexcept {}
    };
    return Awaiter(*this, when);
  }
  auto sleep(Duration duration) { return sleep_until(now() + duration); }

  // Lets everything that is ready run first.
  auto yield() {
    struct Awaiter {
      Executor& executor;
      bool await_ready() const noexcept { return false; }
      void await_suspend(std::coroutine_handle<> handle) const { executor.post(handle); }
      void await_resume() const noexcept {}
    };
    return Awaiter{*this};
  }

 private:
  using Timers = boost::intrusive::multiset<Timer, boost::intrusive::constant_time_size<false>>;

  const Clock& clock_;
  std::deque<std::coroutine_handle<>> ready_;
  std::deque<std::coroutine_handle<>> dead_frames_;
  Timers timers_;
  std::uint64_t timer_sequence_ = 0;
  bool dead_ = false;
};

}  // namespace cawfs
