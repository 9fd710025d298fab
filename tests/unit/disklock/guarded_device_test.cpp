#include "disklock/guarded_device.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <optional>
#include <vector>

#include "core/device/forwarding_device.h"
#include "core/device/simulated_device.h"
#include "core/runtime/virtual_loop.h"

namespace cawfs {
namespace {

using namespace std::chrono_literals;
using Kind = SimulatedRequest::Kind;

struct Keeper final : NexusKeeper {
  Task<Result<>> regain(bool reset) override {
    ++asked;
    saw_reset = saw_reset || reset;
    if (while_looking) while_looking();
    co_await executor.sleep(10ms);
    co_return answer;
  }
  void reset_seen() override { ++resets; }
  bool may_compare_and_write() const override { return lease; }
  explicit Keeper(Executor& e) : executor(e) {}
  Executor& executor;
  Result<> answer;
  std::function<void()> while_looking;
  bool lease = true;
  int asked = 0;
  int resets = 0;
  bool saw_reset = false;
};

Task<void> into(Task<Result<>> task, std::optional<Result<>>& out) {
  Result<> done = co_await std::move(task);
  out = done;
}

struct GuardedDeviceTest : ::testing::Test {
  explicit GuardedDeviceTest(SimulatedLunOptions options = {}) : lun(loop.clock(), random, options) {}
  ~GuardedDeviceTest() override {
    lun.set_hook({});
    loop.run(executor, guard.join());
  }
  Result<> write(std::uint64_t block, std::uint8_t value, Durability durability) {
    IoBuffer data(4096);
    std::memset(data.data(), value, data.size());
    return loop.run(executor, guard.write(block * 4096, data.bytes(), durability));
  }
  int value(std::uint64_t block) {
    std::vector<std::byte> bytes(4096);
    lun.peek(block * 4096, bytes);
    return static_cast<int>(bytes[17]);
  }

  VirtualLoop loop;
  SeededRandom random{1};
  SimulatedLun lun;
  Executor& executor = loop.add_executor();
  std::unique_ptr<BlockDevice> raw = lun.connect(executor, "node");
  GuardedDevice guard{*raw, executor};
  Keeper keeper{executor};
};

// Whatever a power cut does to the cache, a flush that succeeds afterwards covers all writes that had completed.
TEST_F(GuardedDeviceTest, FlushAfterAPowerCutKeepsItsPromise) {
  guard.set_keeper(&keeper);
  for (int round = 1; round <= 30; ++round) {
    const auto value_now = static_cast<std::uint8_t>(round);
    for (std::uint64_t block = 1; block <= 8; ++block) ASSERT_TRUE(write(block, value_now, Durability::kCached));
    ASSERT_TRUE(write(3, 99, Durability::kFua));
    lun.power_cut();
    ASSERT_TRUE(loop.run(executor, guard.flush()));
    lun.power_cut();
    for (std::uint64_t block = 1; block <= 8; ++block) EXPECT_EQ(value(block), block == 3 ? 99 : round);
  }
  EXPECT_TRUE(keeper.saw_reset);
  EXPECT_GE(keeper.asked, 30);
}

TEST_F(GuardedDeviceTest, WritesGoOutAgainUntilAnswered) {
  int count = 0;
  lun.set_hook([&](const SimulatedRequest& request) {
    if (request.kind != Kind::kWrite) return SimulatedFate::kRun;
    return ++count < 4 ? (count % 2 == 1 ? SimulatedFate::kLoseReply : SimulatedFate::kLoseRequest)
                       : SimulatedFate::kRun;
  });
  EXPECT_TRUE(write(5, 7, Durability::kFua));
  EXPECT_EQ(count, 4);
  EXPECT_EQ(value(5), 7);
}

TEST_F(GuardedDeviceTest, MediumErrorsAreTheCallers) {
  lun.set_hook([&](const SimulatedRequest&) { return SimulatedFate::kMediumError; });
  const Result<> done = write(5, 7, Durability::kFua);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error(), Errc::kMedium);
}

TEST_F(GuardedDeviceTest, EndsWhenTheKeeperSaysSo) {
  guard.set_keeper(&keeper);
  keeper.answer = fail(Errc::kFenced, "test");
  lun.power_cut();
  const Result<> done = write(5, 7, Durability::kFua);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error(), Errc::kFenced);
  EXPECT_EQ(value(5), 0);
  std::vector<std::byte> out(4096);
  const Result<> read = loop.run(executor, guard.read(0, out));
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error(), Errc::kFenced);
}

// While the keeper looks, no write of any kind goes out.
TEST_F(GuardedDeviceTest, ClosedGateStopsWrites) {
  guard.set_keeper(&keeper);
  guard.doubt();
  int sent = 0;
  lun.set_hook([&](const SimulatedRequest& request) {
    if (request.kind == Kind::kRead) return SimulatedFate::kRun;
    ++sent;
    EXPECT_EQ(keeper.asked, 1);
    EXPECT_GE(loop.now() - Time{1s}, 10ms);
    return SimulatedFate::kRun;
  });
  IoBuffer beat(4096);
  EXPECT_TRUE(loop.run(executor, guard.write_once(0, beat.bytes(), Durability::kFua)));  // heartbeats neither
  EXPECT_TRUE(write(5, 7, Durability::kCached));
  EXPECT_TRUE(loop.run(executor, guard.flush()));
  EXPECT_EQ(sent, 3);
}

TEST_F(GuardedDeviceTest, UnknownOutcomeOfCawIsToldWithTheGateOpen) {
  guard.set_keeper(&keeper);
  IoBuffer zero(4096);
  IoBuffer next(4096);
  next.data()[17] = std::byte{9};
  ASSERT_TRUE(loop.run(executor, guard.compare_and_write(4096, zero.bytes(), zero.bytes())));
  EXPECT_EQ(keeper.asked, 1);
  lun.power_cut();  // no session ends here, so that this one meets the unit attention
  const Result<> done = loop.run(executor, guard.compare_and_write(4096, zero.bytes(), next.bytes()));
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error(), Errc::kTransport);
  EXPECT_EQ(keeper.asked, 2);
  EXPECT_TRUE(loop.run(executor, guard.compare_and_write(4096, zero.bytes(), next.bytes())));
}

// Rewriting what a reset has undone may take longer than the self-lease: heartbeats do not wait for it, though they do
// for the keeper.
TEST_F(GuardedDeviceTest, HeartbeatsDoNotWaitForCachedWrites) {
  guard.set_keeper(&keeper);
  for (std::uint64_t block = 1; block <= 8; ++block) ASSERT_TRUE(write(block, 7, Durability::kCached));
  lun.power_cut();
  const Time slow_until = loop.now() + 20s;
  lun.set_hook([&](const SimulatedRequest& request) {
    if (request.kind == Kind::kWrite && request.offset == std::uint64_t{100} * 4096) EXPECT_GE(keeper.asked, 1);
    const bool lost = request.kind == Kind::kWrite && request.offset == std::uint64_t{5} * 4096;
    return lost && loop.now() < slow_until ? SimulatedFate::kLoseRequest : SimulatedFate::kRun;
  });
  IoBuffer beat(4096);
  for (int i = 0; i < 20; ++i) {
    const Time issued = loop.now();
    const Result<> done =
        loop.run(executor, guard.write_once(std::uint64_t{100} * 4096, beat.bytes(), Durability::kFua));
    if (i > 0) EXPECT_TRUE(done);
    EXPECT_LT(loop.now() - issued, 500ms);
    loop.run_for(500ms);
  }
  EXPECT_LT(loop.now(), slow_until);
  ASSERT_TRUE(loop.run(executor, guard.flush()));
  EXPECT_GE(loop.now(), slow_until);
  lun.power_cut();
  for (std::uint64_t block = 1; block <= 8; ++block) EXPECT_EQ(value(block), 7);
}

// A flush may run after a reset and be answered before the older request that met the unit attention.
TEST_F(GuardedDeviceTest, AFlushWaitsForOlderRequestsThatMayBringAReset) {
  guard.set_keeper(&keeper);
  std::vector<std::byte> out(4096);
  for (int round = 1; round <= 60; ++round) {
    ASSERT_TRUE(write(1, static_cast<std::uint8_t>(round), Durability::kCached));
    std::optional<Result<>> read;
    std::optional<Result<>> flushed;
    TaskGroup group(executor);
    lun.power_cut();
    group.spawn(into(guard.read(0, out), read));
    group.spawn(into(guard.flush(), flushed));
    loop.run(executor, group.join());
    ASSERT_TRUE(*flushed);
    lun.power_cut();
    EXPECT_EQ(value(1), round);
  }
}

// Writes and flushes wait in the transport before they are sent, or their answers on the way back.
struct SlowDevice final : ForwardingDevice {
  SlowDevice(BlockDevice& device, Executor& e) : ForwardingDevice(device), executor(e) {}
  Task<Result<>> write(std::uint64_t offset, std::span<const std::byte> data, Durability durability) override {
    ++writing;
    co_await executor.sleep(before);
    Result<> done = co_await ForwardingDevice::write(offset, data, durability);
    co_await executor.sleep(after);
    --writing;
    co_return done;
  }
  Task<Result<>> flush() override {
    co_await executor.sleep(before);
    Result<> done = co_await ForwardingDevice::flush();
    co_return done;
  }
  Executor& executor;
  Duration before{};
  Duration after{};
  int writing = 0;
};

struct SlowLun {
  explicit SlowLun(SimulatedLunOptions options) : lun(loop.clock(), random, options) { guard.set_keeper(&keeper); }
  ~SlowLun() {
    lun.set_hook({});
    loop.run(executor, guard.join());
  }
  Result<> write() { return loop.run(executor, guard.write(4096, data.bytes(), Durability::kCached)); }
  VirtualLoop loop;
  SeededRandom random{1};
  SimulatedLun lun;
  Executor& executor = loop.add_executor();
  std::unique_ptr<BlockDevice> raw = lun.connect(executor, "node");
  SlowDevice device{*raw, executor};
  GuardedDevice guard{device, executor};
  Keeper keeper{executor};
  IoBuffer data{4096};
};

struct GuardedSessionTest : GuardedDeviceTest {
  GuardedSessionTest() : GuardedDeviceTest({.sessions = true}) { guard.set_keeper(&keeper); }
  ~GuardedSessionTest() override { EXPECT_EQ(lun.refused_caws(), 0u); }
  Result<> caw() { return loop.run(executor, guard.compare_and_write(4096, image.bytes(), image.bytes())); }
  IoBuffer image{4096};
};

// The first one, and the first after each login, goes out when the attentions are drained and the keeper has looked.
TEST_F(GuardedSessionTest, CawWaitsUntilTheSessionHasBeenLookedAfter) {
  ASSERT_TRUE(caw());
  EXPECT_EQ(keeper.asked, 1);
  ASSERT_TRUE(caw());
  EXPECT_EQ(keeper.asked, 1);
  for (int round = 2; round < 10; ++round) {
    lun.power_cut();
    ASSERT_TRUE(caw());
    EXPECT_EQ(keeper.asked, round);
  }
  EXPECT_TRUE(keeper.saw_reset);
}

// LIO, crashed and back, raises no unit attention: the new session alone tells that the cache may be gone.
TEST_F(GuardedSessionTest, ANewSessionCountsAsAReset) {
  for (int round = 1; round <= 30; ++round) {
    for (std::uint64_t block = 1; block <= 8; ++block) {
      ASSERT_TRUE(write(block, static_cast<std::uint8_t>(round), Durability::kCached));
    }
    lun.power_cut(PowerCut::kWithoutAttention);
    ASSERT_TRUE(loop.run(executor, guard.flush()));
    EXPECT_EQ(keeper.resets, round);
    EXPECT_EQ(keeper.asked, round);
    lun.power_cut(PowerCut::kWithoutAttention);
    for (std::uint64_t block = 1; block <= 8; ++block) EXPECT_EQ(value(block), round);
    IoBuffer beat(4096);  // notices the second cut
    ASSERT_TRUE(loop.run(executor, guard.write_once(0, beat.bytes(), Durability::kFua)));
    keeper.resets = keeper.asked = round;
  }
}

// Whoever serves from memory hears of it before a read is answered.
TEST_F(GuardedSessionTest, AReadOnANewSessionTellsOfAReset) {
  std::vector<std::byte> out(4096);
  lun.power_cut(PowerCut::kWithoutAttention);
  ASSERT_TRUE(loop.run(executor, guard.read(0, out)));
  EXPECT_EQ(keeper.resets, 1);
}

// What a node has written it does not see undone.
TEST_F(GuardedSessionTest, ReadsOfWhatAResetMayHaveUndoneWait) {
  std::vector<std::byte> out(4096);
  for (int round = 1; round <= 30; ++round) {
    for (std::uint64_t block = 1; block <= 8; ++block) {
      ASSERT_TRUE(write(block, static_cast<std::uint8_t>(round), Durability::kCached));
    }
    lun.power_cut(round % 2 == 0 ? PowerCut::kWithoutAttention : PowerCut::kWithAttention);
    for (std::uint64_t block = 1; block <= 8; ++block) {
      ASSERT_TRUE(loop.run(executor, guard.read(block * 4096, out)));
      EXPECT_EQ(static_cast<int>(out[17]), round);
    }
  }
}

// Nothing is changed on a new session until key and slot have been seen there: not by a heartbeat, and not by what
// waited in the transport for a connection when the old one ended.
TEST(GuardedTransportTest, NothingIsChangedOnASessionThatHasNotBeenLookedAfter) {
  SlowLun world({.sessions = true});
  ASSERT_TRUE(world.write());
  world.device.before = 100ms;
  std::optional<Result<>> written;
  std::optional<Result<>> flushed;
  TaskGroup group(world.executor);
  group.spawn(into(world.guard.write(4096, world.data.bytes(), Durability::kFua), written));
  group.spawn(into(world.guard.flush(), flushed));
  world.loop.run_for(10ms);
  world.lun.power_cut(PowerCut::kWithoutAttention);
  world.lun.set_hook([&](const SimulatedRequest& request) {
    if (request.kind != Kind::kRead) EXPECT_EQ(world.keeper.asked, 1);
    return SimulatedFate::kRun;
  });
  IoBuffer beat(4096);
  EXPECT_TRUE(world.loop.run(world.executor, world.guard.write_once(0, beat.bytes(), Durability::kFua)));
  world.loop.run(world.executor, group.join());
  EXPECT_TRUE(*written);
  EXPECT_TRUE(*flushed);
  EXPECT_EQ(world.keeper.asked, 1);
}

// Rule 7: what was sent after the request that met the unit attention has ended before the keeper looks.
TEST(GuardedTransportTest, TheKeeperLooksWhenNoLaterWriteIsInFlight) {
  SlowLun world({});
  ASSERT_TRUE(world.write());
  world.device.after = 100ms;
  std::optional<Result<>> read;
  std::optional<Result<>> written;
  std::vector<std::byte> out(4096);
  world.keeper.while_looking = [&] { EXPECT_EQ(world.device.writing, 0); };
  TaskGroup group(world.executor);
  world.lun.power_cut();
  group.spawn(into(world.guard.read(0, out), read));
  group.spawn(into(world.guard.write(4096, world.data.bytes(), Durability::kFua), written));
  world.loop.run(world.executor, group.join());
  EXPECT_TRUE(*read);
  EXPECT_TRUE(*written);
  EXPECT_GE(world.keeper.asked, 1);
}

// A login while the keeper looks: what it has found out counts for the old session only.
TEST_F(GuardedSessionTest, KeeperLooksAgainWhereTheSessionEndsMeanwhile) {
  keeper.while_looking = [this] {
    if (keeper.asked == 1) lun.power_cut();
  };
  ASSERT_TRUE(caw());
  EXPECT_EQ(keeper.asked, 2);
}

TEST_F(GuardedSessionTest, CawWaitsForTheLease) {
  keeper.lease = false;
  std::optional<Result<>> outcome;
  TaskGroup group(executor);
  group.spawn(into(guard.compare_and_write(4096, image.bytes(), image.bytes()), outcome));
  loop.run_for(1s);
  EXPECT_EQ(lun.executed(Kind::kCaw), 0u);
  ASSERT_TRUE(write(5, 7, Durability::kCached));
  keeper.lease = true;
  guard.keeper_changed();
  loop.run(executor, group.join());
  EXPECT_TRUE(*outcome);
}

// Decided on in a session that ends before the bytes leave: never sent, and told as of unknown outcome.
TEST_F(GuardedSessionTest, CawDoesNotFollowToANewSession) {
  ASSERT_TRUE(caw());
  std::optional<Result<>> outcome;
  TaskGroup group(executor);
  lun.hold("node");
  group.spawn(into(guard.compare_and_write(4096, image.bytes(), image.bytes()), outcome));
  loop.run_for(1s);
  lun.power_cut();
  lun.let_go("node");
  loop.run(executor, group.join());
  ASSERT_FALSE(*outcome);
  EXPECT_EQ(outcome->error(), Errc::kTransport);
  EXPECT_EQ(lun.executed(Kind::kCaw), 1u);
  EXPECT_TRUE(caw());
}

}  // namespace
}  // namespace cawfs
