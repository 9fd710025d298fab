#include "core/runtime/virtual_loop.h"

#include "core/runtime/task_group.h"

namespace cawfs {

Executor& VirtualLoop::add_executor(int clock_percent) {
  nodes_.push_back(std::make_unique<Node>(clock_, clock_percent));
  return nodes_.back()->executor;
}

bool VirtualLoop::step() {
  bool ran = false;
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    if (!paused_.contains(&nodes_[i]->executor)) ran |= nodes_[i]->executor.run_ready(1) > 0;
  }
  if (ran) return true;

  std::optional<Time> next;
  for (const auto& node : nodes_) {
    if (paused_.contains(&node->executor)) continue;
    const auto timer = node->executor.next_timer();
    if (!timer) continue;
    const Time when = node->clock.loop_time(*timer);
    if (!next || when < *next) next = when;
  }
  if (!next) return false;
  if (*next > clock_.now()) clock_.advance_to(*next);
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    if (!paused_.contains(&nodes_[i]->executor)) nodes_[i]->executor.fire_timers(nodes_[i]->clock.now());
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
