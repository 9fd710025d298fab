#include "core/runtime/virtual_loop.h"

#include "core/runtime/task_group.h"

namespace cawfs {

Executor& VirtualLoop::add_executor() {
  executors_.push_back(std::make_unique<Executor>(clock_));
  return *executors_.back();
}

bool VirtualLoop::step() {
  bool ran = false;
  for (std::size_t i = 0; i < executors_.size(); ++i) {
    if (!paused_.contains(executors_[i].get())) ran |= executors_[i]->run_ready(1) > 0;
  }
  if (ran) return true;

  std::optional<Time> next;
  for (const auto& executor : executors_) {
    if (paused_.contains(executor.get())) continue;
    auto timer = executor->next_timer();
    if (timer && (!next || *timer < *next)) next = timer;
  }
  if (!next) return false;
  if (*next > clock_.now()) clock_.advance_to(*next);
  for (std::size_t i = 0; i < executors_.size(); ++i) {
    if (!paused_.contains(executors_[i].get())) executors_[i]->fire_timers(clock_.now());
  }
  return true;
}

void VirtualLoop::run_for(Duration duration) {
  const Time end = now() + duration;
  Executor& own = add_executor();
  Timer alarm;
  alarm.when = end;
  alarm.waiter = std::noop_coroutine();
  own.arm(alarm);
  run_until([&] { return now() >= end; });
  own.kill();
}

void VirtualLoop::run_to_end(Executor& executor, Task<void> task) {
  TaskGroup group(executor);
  group.spawn(std::move(task));
  const bool ended = run_until([&] { return group.running() == 0; });
  CAWFS_ASSERT(ended);
}

}  // namespace cawfs
