#include "disklock/heartbeat.h"

#include <gtest/gtest.h>

#include <vector>

#include "core/device/simulated_device.h"
#include "core/runtime/virtual_loop.h"

namespace cawfs {
namespace {

using namespace std::chrono_literals;

constexpr Duration kLatency = 400ms;
constexpr Duration kInterval = 1s;
constexpr NodeId kSelf{SlotNo{2}, Incarnation{7}};

Geometry test_geometry() {
  Geometry geometry;
  geometry.logical_block = 4096;
  geometry.heartbeats = BlockNo{96};
  return geometry;
}

struct HeartbeatTest : ::testing::Test {
  HeartbeatTest() {
    writer.set_observer([this](Time issued) { seen.push_back({issued, loop.now()}); });
    lun.set_hook([this](const SimulatedRequest& request) {
      ++sent;
      EXPECT_EQ(request.offset, geometry.heartbeat_offset(kSelf.slot));
      return lost ? SimulatedFate::kLoseReply : SimulatedFate::kRun;
    });
    start = loop.now();
    writer.start(kSelf);
  }
  ~HeartbeatTest() override {
    writer.request_stop();
    loop.run(executor, writer.join());
    loop.run(executor, guard.join());
  }

  struct Seen {
    Time issued;
    Time told;
  };

  VirtualLoop loop;
  SeededRandom random{1};
  SimulatedLun lun{loop.clock(), random, {.latency_min = kLatency, .latency_max = kLatency}};
  Executor& executor = loop.add_executor();
  std::unique_ptr<BlockDevice> raw = lun.connect(executor, "node");
  GuardedDevice guard{*raw, executor};
  Geometry geometry = test_geometry();
  HeartbeatWriter writer{guard, executor, geometry, kInterval};
  std::vector<Seen> seen;
  Time start;
  int sent = 0;
  bool lost = false;
};

// The self-lease counts from here: by the time of the answer another node may have watched for as long as that took.
TEST_F(HeartbeatTest, TellsWhenItWasIssuedOnceItHasBeenAnswered) {
  loop.run_for(4 * kInterval + kInterval / 2);
  ASSERT_EQ(seen.size(), 5u);
  for (std::size_t i = 0; i < seen.size(); ++i) {
    EXPECT_EQ(seen[i].issued, start + static_cast<int>(i) * kInterval);
    EXPECT_EQ(seen[i].told, seen[i].issued + kLatency);
  }
}

TEST_F(HeartbeatTest, OneWithoutAnAnswerCountsForNothing) {
  loop.run_for(kInterval / 2);
  ASSERT_EQ(seen.size(), 1u);
  lost = true;
  loop.run_for(3 * kInterval);
  EXPECT_GE(sent, 4);
  EXPECT_EQ(seen.size(), 1u);
  lost = false;
  loop.run_for(kInterval);
  EXPECT_EQ(seen.size(), 2u);
}

}  // namespace
}  // namespace cawfs
