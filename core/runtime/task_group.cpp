#include "core/runtime/task_group.h"

namespace cawfs {

// The frame that awaits a spawned task; it destroys itself when the task has ended.
struct TaskGroup::Runner {
  struct promise_type {
    Runner get_return_object() { return {std::coroutine_handle<promise_type>::from_promise(*this)}; }
    std::suspend_always initial_suspend() const noexcept { return {}; }
    std::suspend_never final_suspend() const noexcept { return {}; }
    void return_void() const noexcept {}
    [[noreturn]] void unhandled_exception() const noexcept { std::terminate(); }
  };
  std::coroutine_handle<> handle;
};

TaskGroup::Runner TaskGroup::run(TaskGroup& group, Task<void> task) {
  co_await std::move(task);
  group.ended();
}

void TaskGroup::spawn(Task<void> task) {
  ++running_;
  executor_.post(run(*this, std::move(task)).handle);
}

void TaskGroup::ended() {
  CAWFS_ASSERT(running_ > 0);
  if (--running_ == 0) finished_.notify_all();
}

Task<void> TaskGroup::join() {
  while (running_ > 0) co_await finished_.wait();
}

Task<void> StopSource::sleep_until(Time when) {
  if (!requested_) co_await condition_.wait_until(when);
}

}  // namespace cawfs
