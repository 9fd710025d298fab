#include "core/runtime/executor.h"

#include "core/runtime/task.h"

namespace cawfs {

Executor::~Executor() {
  timers_.clear();
}

void Executor::arm(Timer& timer) {
  if (dead_) return dead_frames_.push_back(timer.waiter);
  timer.sequence = ++timer_sequence_;
  timers_.insert(timer);
}

std::size_t Executor::run_ready(std::size_t steps) {
  std::size_t ran = 0;
  while (ran < steps && !ready_.empty()) {
    auto handle = ready_.front();
    ready_.pop_front();
    trampoline::run(handle);
    ++ran;
  }
  return ran;
}

void Executor::fire_timers(Time now) {
  while (!timers_.empty() && timers_.begin()->when <= now) {
    Timer& timer = *timers_.begin();
    timers_.erase(timers_.begin());
    if (timer.on_fire) timer.on_fire(timer);
    post(timer.waiter);
  }
}

std::optional<Time> Executor::next_timer() const {
  if (timers_.empty()) return std::nullopt;
  return timers_.begin()->when;
}

void Executor::kill() {
  dead_ = true;
  dead_frames_.insert(dead_frames_.end(), ready_.begin(), ready_.end());
  ready_.clear();
  for (const Timer& timer : timers_) dead_frames_.push_back(timer.waiter);
  timers_.clear();
}

}  // namespace cawfs
