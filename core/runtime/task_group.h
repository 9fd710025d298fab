// TaskGroup: the owner of tasks that nobody awaits. No task is ever detached: whoever spawns keeps a group and joins it
// before anything its tasks use goes away.
#pragma once

#include <cstddef>

#include "core/runtime/executor.h"
#include "core/runtime/sync.h"
#include "core/runtime/task.h"

namespace cawfs {

class TaskGroup {
 public:
  explicit TaskGroup(Executor& executor) : executor_(executor), finished_(executor) {}
  TaskGroup(const TaskGroup&) = delete;
  TaskGroup& operator=(const TaskGroup&) = delete;
  ~TaskGroup() { CAWFS_ASSERT(running_ == 0); }

  // Starts `task` through the ready queue.
  void spawn(Task<void> task);
  // Waits until every task spawned so far, and by them, has ended.
  Task<void> join();
  std::size_t running() const { return running_; }
  Executor& executor() const { return executor_; }

 private:
  void ended();

  struct Runner;
  static Runner run(TaskGroup& group, Task<void> task);

  Executor& executor_;
  Condition finished_;
  std::size_t running_ = 0;
};

// Tells tasks to end; they look at requested() after each wait, and sleep here so that a request cuts the sleep short.
class StopSource {
 public:
  explicit StopSource(Executor& executor) : condition_(executor) {}

  void request() {
    requested_ = true;
    condition_.notify_all();
  }
  bool requested() const { return requested_; }

  // Returns at `when`, or as soon as a stop is requested.
  Task<void> sleep_until(Time when);
  Task<void> sleep(Duration duration) { return sleep_until(condition_.executor().now() + duration); }

 private:
  Condition condition_;
  bool requested_ = false;
};

}  // namespace cawfs
