#include "core/runtime/task.h"

#include <gtest/gtest.h>

#include <vector>

#include "core/runtime/sync.h"
#include "core/runtime/task_group.h"
#include "core/runtime/virtual_loop.h"

namespace cawfs {
namespace {

using namespace std::chrono_literals;

Task<int> add(int a, int b) {
  co_return a + b;
}

Task<int> sum_down(int n) {
  if (n == 0) co_return 0;
  int below = co_await sum_down(n - 1);
  int sum = co_await add(n, below);
  co_return sum;
}

Task<void> million_synchronous(std::uint64_t& total) {
  for (int i = 0; i < 1'000'000; ++i) {
    int value = co_await add(i, 1);
    total += static_cast<std::uint64_t>(value);
  }
}

struct TaskTest : ::testing::Test {
  VirtualLoop loop;
  Executor& executor = loop.add_executor();
};

TEST_F(TaskTest, DeepRecursionDoesNotUseTheStack) {
  EXPECT_EQ(loop.run(executor, sum_down(30'000)), 30'000 * 30'001 / 2);
}

TEST_F(TaskTest, SynchronousCompletionInALoop) {
  std::uint64_t total = 0;
  loop.run(executor, million_synchronous(total));
  EXPECT_EQ(total, 500'000'500'000u);
}

Task<void> sleeper(Executor& executor, Duration d, int id, std::vector<int>& order) {
  co_await executor.sleep(d);
  order.push_back(id);
}

TEST_F(TaskTest, TimersFireInOrderOfTimeThenSequence) {
  std::vector<int> order;
  TaskGroup group(executor);
  group.spawn(sleeper(executor, 20ms, 1, order));
  group.spawn(sleeper(executor, 10ms, 2, order));
  group.spawn(sleeper(executor, 20ms, 3, order));
  const Time start = loop.now();
  loop.run(executor, group.join());
  EXPECT_EQ(order, (std::vector{2, 1, 3}));
  EXPECT_EQ(loop.now() - start, 20ms);
}

Task<void> hold(SharedMutex& mutex, bool exclusive, Executor& executor, int id, std::vector<int>& log) {
  SharedMutex::Guard guard;
  if (exclusive) {
    guard = co_await mutex.lock();
  } else {
    guard = co_await mutex.lock_shared();
  }
  log.push_back(id);
  co_await executor.sleep(1ms);
  log.push_back(-id);
}

TEST_F(TaskTest, SharedMutexIsFairAndExcludes) {
  SharedMutex mutex(executor);
  std::vector<int> log;
  TaskGroup group(executor);
  group.spawn(hold(mutex, false, executor, 1, log));
  group.spawn(hold(mutex, false, executor, 2, log));
  group.spawn(hold(mutex, true, executor, 3, log));
  group.spawn(hold(mutex, false, executor, 4, log));
  loop.run(executor, group.join());
  EXPECT_EQ(log, (std::vector{1, 2, -1, -2, 3, -3, 4, -4}));
  EXPECT_FALSE(mutex.locked());
}

Task<void> wait_until(Condition& condition, Time when, std::vector<bool>& notified) {
  bool was = co_await condition.wait_until(when);
  notified.push_back(was);
}

TEST_F(TaskTest, ConditionWakesByNotificationOrByTimeButOnce) {
  Condition condition(executor);
  std::vector<bool> notified;
  TaskGroup group(executor);
  group.spawn(wait_until(condition, loop.now() + 5ms, notified));
  group.spawn(wait_until(condition, loop.now() + 50ms, notified));
  loop.run_for(10ms);
  EXPECT_EQ(notified, (std::vector{false}));
  condition.notify_all();
  condition.notify_all();
  loop.run(executor, group.join());
  EXPECT_EQ(notified, (std::vector{false, true}));
}

Task<void> take(Semaphore& semaphore, std::uint64_t n, Executor& executor, int id, std::vector<int>& log) {
  co_await semaphore.acquire(n);
  log.push_back(id);
  co_await executor.sleep(1ms);
  semaphore.release(n);
}

TEST_F(TaskTest, SemaphoreServesALargeRequestInItsTurn) {
  Semaphore semaphore(executor, 3);
  std::vector<int> log;
  TaskGroup group(executor);
  group.spawn(take(semaphore, 2, executor, 1, log));
  group.spawn(take(semaphore, 3, executor, 2, log));
  group.spawn(take(semaphore, 1, executor, 3, log));
  loop.run(executor, group.join());
  EXPECT_EQ(log, (std::vector{1, 2, 3}));
  EXPECT_EQ(semaphore.available(), 3u);
}

Task<int> value_of(Completion<int>& completion) {
  int value = co_await completion.wait();
  co_return value;
}

TEST_F(TaskTest, CompletionBeforeAndAfterTheWait) {
  Completion<int> early(executor);
  early.complete(1);
  EXPECT_EQ(loop.run(executor, value_of(early)), 1);
}

Task<void> stoppable(StopSource& stop, bool& ended) {
  co_await stop.sleep(1h);
  ended = true;
}

TEST_F(TaskTest, StopCutsASleepShort) {
  StopSource stop(executor);
  bool ended = false;
  TaskGroup group(executor);
  group.spawn(stoppable(stop, ended));
  loop.run_for(1ms);
  EXPECT_FALSE(ended);
  const Time before = loop.now();
  stop.request();
  loop.run(executor, group.join());
  EXPECT_TRUE(ended);
  EXPECT_EQ(loop.now(), before);
}

TEST_F(TaskTest, KilledExecutorRunsNothing) {
  // The frames of a crashed node are kept, never run: a graveyard that outlives the test keeps them
  // reachable.
  static std::vector<std::unique_ptr<TaskGroup>> graveyard;
  static std::vector<int> order;
  static auto& dying_loop = *new VirtualLoop;
  Executor& dying = dying_loop.add_executor();
  graveyard.push_back(std::make_unique<TaskGroup>(dying));
  graveyard.back()->spawn(sleeper(dying, 1ms, 1, order));
  dying_loop.run_until([&] { return dying.idle(); });
  dying.kill();
  dying_loop.run_for(5ms);
  EXPECT_TRUE(order.empty());
  [[maybe_unused]] auto* kept = graveyard.back().release();
}

}  // namespace
}  // namespace cawfs
