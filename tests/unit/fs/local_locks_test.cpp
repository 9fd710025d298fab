#include "core/fs/local_locks.h"

#include <gtest/gtest.h>

#include <string>

#include "core/runtime/task_group.h"
#include "tests/support/small_file_system.h"

namespace cawfs {
namespace {

using testing::SmallFileSystem;

// Tells in `events` when each user comes and goes.
Task<void> user(LocalLockService& locks, Executor& executor, LockName name, LocalUse use, std::string id,
                std::string& events) {
  auto hold = co_await locks.acquire(name, LockMode::kExclusive, use);
  EXPECT_TRUE(hold.has_value());
  events += "+" + id;
  co_await executor.sleep(std::chrono::seconds(1));
  events += "-" + id;
}

class RecordingClient final : public LockClient {
 public:
  RecordingClient(Executor& executor, std::string& events) : executor_(executor), events_(events) {}
  Task<void> invalidate(LockName, LockMode, LockMode) override {
    events_ += "<inv";
    co_await executor_.sleep(std::chrono::seconds(2));
    events_ += ">";
  }
  Task<Result<>> settle(LockName, LockMode, LockMode) override {
    events_ += "<settle";
    co_await executor_.sleep(std::chrono::seconds(1));
    events_ += ">";
    if (broken) co_return fail(Errc::kMedium);
    co_return Result<>();
  }
  bool is_open(LockName) override { return false; }
  bool broken = false;

 private:
  Executor& executor_;
  std::string& events_;
};

class LocalLocksTest : public ::testing::Test {
 protected:
  LocalLocksTest() : client(fs.executor, events), tasks(fs.executor) { fs.locks->set_client(&client); }
  void start(LocalUse use, std::string id) {
    tasks.spawn(user(*fs.locks, fs.executor, name, use, std::move(id), events));
  }
  static Task<void> give_up(LocalLockService& locks, LockName lock, Result<>& result) {
    result = co_await locks.give_up(lock, LockMode::kNone);
  }
  void finish() { fs.run(tasks.join()); }

  SmallFileSystem fs{{.size_bytes = 40 << 20}};
  LockName name{BlockNo{5000}, 3};
  std::string events;
  RecordingClient client;
  TaskGroup tasks;
};

TEST_F(LocalLocksTest, FirstComeFirstServed) {
  start(LocalUse::kShared, "a");
  start(LocalUse::kShared, "b");
  start(LocalUse::kExclusive, "c");
  start(LocalUse::kShared, "d");
  start(LocalUse::kShared, "e");
  start(LocalUse::kExclusive, "f");
  finish();
  EXPECT_EQ(events, "+a+b-a-b+c-c+d+e-d-e+f-f");
}

TEST_F(LocalLocksTest, TryNeverPassesAWaiter) {
  {
    auto first = fs.locks->try_acquire(name, LockMode::kShared, LocalUse::kShared);
    ASSERT_TRUE(first);
    EXPECT_EQ(first->mode(), LockMode::kExclusive);
    EXPECT_EQ(first->generation(), Generation{1});
    EXPECT_TRUE(fs.locks->try_acquire(name, LockMode::kShared, LocalUse::kShared));
    EXPECT_FALSE(fs.locks->try_acquire(name, LockMode::kExclusive, LocalUse::kExclusive));
    start(LocalUse::kExclusive, "w");
    fs.loop.run_for(std::chrono::milliseconds(1));
    EXPECT_FALSE(fs.locks->try_acquire(name, LockMode::kShared, LocalUse::kShared));
    EXPECT_EQ(events, "");
  }
  finish();
  EXPECT_EQ(events, "+w-w");
}

TEST_F(LocalLocksTest, GivingUpLetsUsersGoOnUntilTheSecondStep) {
  start(LocalUse::kShared, "a");
  fs.loop.run_for(std::chrono::milliseconds(1));
  Result<> result;
  tasks.spawn(give_up(*fs.locks, name, result));
  fs.loop.run_for(std::chrono::milliseconds(1500));
  EXPECT_TRUE(fs.locks->yielding(name));
  start(LocalUse::kShared, "b");
  fs.loop.run_for(std::chrono::milliseconds(600));
  start(LocalUse::kShared, "c");
  finish();
  EXPECT_TRUE(result.has_value());
  EXPECT_EQ(events, "+a<inv-a+b>-b<settle>+c-c");
  EXPECT_FALSE(fs.locks->yielding(name));
  EXPECT_EQ(fs.locks->try_acquire(name, LockMode::kShared, LocalUse::kShared)->generation(), Generation{2});
}

TEST_F(LocalLocksTest, ALockThatCannotBeSettledStays) {
  {
    auto hold = fs.locks->try_acquire(name, LockMode::kShared, LocalUse::kShared);
  }
  client.broken = true;
  Result<> result;
  tasks.spawn(give_up(*fs.locks, name, result));
  finish();
  EXPECT_EQ(result.error(), Errc::kMedium);
  EXPECT_EQ(fs.locks->held(), std::vector<LockName>{name});
  EXPECT_EQ(fs.locks->try_acquire(name, LockMode::kShared, LocalUse::kShared)->generation(), Generation{1});
}

TEST_F(LocalLocksTest, WhatIsNotHeldIsNotGivenUp) {
  EXPECT_TRUE(fs.run(fs.locks->give_up(name, LockMode::kNone)).has_value());
  EXPECT_EQ(events, "");
}

TEST_F(LocalLocksTest, StopEndsWaiting) {
  {
    auto hold = fs.locks->try_acquire(name, LockMode::kShared, LocalUse::kShared);
    Result<> waited;
    auto wait = [](LocalLockService& locks, LockName lock, Result<>& out) -> Task<void> {
      const auto got = co_await locks.acquire(lock, LockMode::kExclusive, LocalUse::kExclusive);
      if (!got) out = fail(got.error());
    };
    tasks.spawn(wait(*fs.locks, name, waited));
    fs.loop.run_for(std::chrono::milliseconds(1));
    fs.locks->stop();
    finish();
    EXPECT_EQ(waited.error(), Errc::kStopping);
  }
  EXPECT_EQ(fs.run(fs.locks->acquire(name, LockMode::kShared, LocalUse::kShared)).error(), Errc::kStopping);
}

}  // namespace
}  // namespace cawfs
