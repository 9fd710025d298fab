// The event loop of tests: a clock that jumps to the next timer as soon as nothing is ready. Serves the executors of
// any number of nodes, in the order in which they were added; everything that happens is the same in every run.
#pragma once

#include <memory>
#include <set>
#include <vector>

#include "core/runtime/executor.h"
#include "core/runtime/task.h"

namespace cawfs {

class VirtualClock final : public Clock {
 public:
  Time now() const override { return now_; }
  std::int64_t wall_ns() const override { return kEpochNs + now_.since_boot.count(); }
  void advance_to(Time t) { now_ = t; }

 private:
  static constexpr std::int64_t kEpochNs = 1'700'000'000'000'000'000;
  Time now_{std::chrono::seconds(1)};
};

// A node's own: runs at `percent` of the loop's speed.
class DriftingClock final : public Clock {
 public:
  DriftingClock(const VirtualClock& loop, int percent) : loop_(loop), percent_(percent) {}
  Time now() const override { return Time{loop_.now().since_boot * percent_ / 100}; }
  std::int64_t wall_ns() const override { return loop_.wall_ns(); }
  // When it is for the loop: the first moment at which this clock shows `local`.
  Time loop_time(Time local) const {
    constexpr Duration kNever = Duration::max() / 100;
    if (local.since_boot >= kNever) return local;
    return Time{(local.since_boot * 100 + Duration(percent_ - 1)) / percent_};
  }

 private:
  const VirtualClock& loop_;
  int percent_;
};

class VirtualLoop {
 public:
  const VirtualClock& clock() const { return clock_; }
  Time now() const { return clock_.now(); }

  // The loop owns it. A killed executor's frames are never destroyed. `clock_percent`: the speed of its clock.
  Executor& add_executor(int clock_percent = 100);

  // The executor stands still, as a stopped process does: nothing of it runs and none of its timers fires, while the
  // clock goes on for the others. Until resume().
  void pause(Executor& executor) { paused_.insert(&executor); }
  void resume(Executor& executor) { paused_.erase(&executor); }

  // Runs until `done()` or until nothing is left to do; false in the latter case.
  template <class Done>
  bool run_until(Done done) {
    while (!done()) {
      if (!step()) return false;
    }
    return true;
  }
  void run_for(Duration duration);

  // Runs `task` on `executor` to its end and returns its value; asserts that it ends.
  template <class T>
  T run(Executor& executor, Task<T> task) {
    std::optional<T> result;
    auto wrapper = store(std::move(task), result);
    run_to_end(executor, std::move(wrapper));
    return std::move(*result);
  }
  void run(Executor& executor, Task<void> task) { run_to_end(executor, std::move(task)); }

 private:
  template <class T>
  static Task<void> store(Task<T> task, std::optional<T>& out) {
    T value = co_await std::move(task);
    out.emplace(std::move(value));
  }
  void run_to_end(Executor& executor, Task<void> task);
  // One ready coroutine of each executor, or one jump of the clock; false when there is nothing to do.
  bool step();

  struct Node {
    Node(const VirtualClock& loop, int percent) : clock(loop, percent), executor(clock) {}
    DriftingClock clock;
    Executor executor;
  };

  VirtualClock clock_;
  std::vector<std::unique_ptr<Node>> nodes_;
  std::set<const Executor*> paused_;  // looked up only, never walked
};

}  // namespace cawfs
