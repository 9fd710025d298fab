#include "core/device/bounded_device.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/device/io_buffer.h"
#include "core/device/simulated_device.h"
#include "core/runtime/task_group.h"
#include "core/runtime/virtual_loop.h"

namespace cawfs {
namespace {

using namespace std::chrono_literals;

// Tells how many bytes are inside it.
struct CountingDevice final : ForwardingDevice {
  using ForwardingDevice::ForwardingDevice;
  Task<Result<>> read(std::uint64_t offset, std::span<std::byte> out) override {
    enter(out.size());
    co_await dawdle();
    const Result<> done = co_await device().read(offset, out);
    inside -= out.size();
    co_return done;
  }
  Task<Result<>> write(std::uint64_t offset, std::span<const std::byte> data, Durability durability) override {
    enter(data.size());
    co_await dawdle();
    const Result<> done = co_await device().write(offset, data, durability);
    inside -= data.size();
    co_return done;
  }
  void enter(std::uint64_t bytes) {
    inside += bytes;
    most = std::max(most, inside);
  }
  void slow_down(Executor& of, Duration to) {
    executor = &of;
    delay = to;
  }
  Task<void> dawdle() {
    if (executor) co_await executor->sleep(delay);
  }
  std::uint64_t inside = 0;
  std::uint64_t most = 0;
  Executor* executor = nullptr;
  Duration delay{0};
};

struct BoundedDeviceTest : ::testing::Test {
  static constexpr std::uint64_t kBound = 64 << 10;
  Task<void> write(std::uint64_t offset, std::span<const std::byte> data) {
    const auto done = co_await bounded.write(offset, data, Durability::kCached);
    EXPECT_TRUE(done.has_value());
    ended.push_back(offset);
  }
  Task<void> read(std::uint64_t offset, std::span<std::byte> out) {
    const auto done = co_await bounded.read(offset, out);
    EXPECT_TRUE(done.has_value());
  }
  // Writes `data` that many times at once, and tells the most bytes that were in flight.
  std::uint64_t most_in_flight(std::uint64_t times, std::span<const std::byte> data) {
    counting.most = 0;
    TaskGroup group(executor);
    for (std::uint64_t i = 0; i < times; ++i) group.spawn(write(i * data.size(), data));
    loop.run(executor, group.join());
    return counting.most;
  }
  Task<void> flush() {
    const auto done = co_await bounded.flush();
    EXPECT_TRUE(done.has_value());
    flushed_behind = ended.size();
  }

  VirtualLoop loop;
  SeededRandom random{1};
  SimulatedLun lun{loop.clock(), random, {.size_bytes = 16 << 20}};
  Executor& executor = loop.add_executor();
  std::unique_ptr<BlockDevice> raw = lun.connect(executor, "node");
  CountingDevice counting{*raw};
  BoundedDevice bounded{counting, executor, kBound, 200ms};
  std::vector<std::uint64_t> ended;
  std::size_t flushed_behind = 0;
};

TEST_F(BoundedDeviceTest, NoMoreIsInFlightThanTheBound) {
  IoBuffer data(24 << 10);
  TaskGroup group(executor);
  for (std::uint64_t i = 0; i < 50; ++i) {
    group.spawn(write(i << 16, data.bytes()));
    group.spawn(read(i << 16, data.bytes()));
  }
  group.spawn(flush());
  loop.run(executor, group.join());
  EXPECT_EQ(ended.size(), 50u);
  EXPECT_EQ(counting.most, 2 * data.size());
  EXPECT_EQ(counting.inside, 0u);
  EXPECT_LT(flushed_behind, 5u);  // it carries nothing
}

TEST_F(BoundedDeviceTest, WhatIsLargerThanTheBoundGoesAloneAndIsNotPassed) {
  IoBuffer large(4 * kBound);
  IoBuffer small(4096);
  TaskGroup group(executor);
  group.spawn(write(0, small.bytes()));
  group.spawn(write(1 << 20, large.bytes()));
  group.spawn(write(2 << 20, small.bytes()));
  loop.run(executor, group.join());
  EXPECT_EQ(ended, (std::vector<std::uint64_t>{0, 1 << 20, 2 << 20}));
  EXPECT_EQ(counting.most, large.size());
}

TEST_F(BoundedDeviceTest, ASlowDeviceHasLessInFlightUntilItIsQuickAgain) {
  IoBuffer data(4096);
  EXPECT_EQ(most_in_flight(16, data.bytes()), kBound);
  counting.slow_down(executor, 300ms);
  most_in_flight(16, data.bytes());
  EXPECT_EQ(bounded.bound(), kBound / 2);  // sixteen slow ones under one bound halve it once
  EXPECT_EQ(most_in_flight(8, data.bytes()), kBound / 2);
  EXPECT_EQ(most_in_flight(64, data.bytes()), kBound / 4);
  EXPECT_EQ(bounded.bound(), kBound / 16);
  counting.slow_down(executor, 100ms);
  most_in_flight(240, data.bytes());
  EXPECT_EQ(bounded.bound(), kBound);
  EXPECT_EQ(most_in_flight(64, data.bytes()), kBound);
}

}  // namespace
}  // namespace cawfs
