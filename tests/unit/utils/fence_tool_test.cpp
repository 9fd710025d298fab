#include <gtest/gtest.h>

#include "core/device/forwarding_device.h"
#include "core/device/simulated_device.h"
#include "core/format/make_file_system.h"
#include "core/format/superblock_io.h"
#include "core/runtime/virtual_loop.h"
#include "disklock/cluster_member.h"
#include "utils/fence/fence_slot.h"
#include "utils/fence/self_test.h"
#include "utils/status/cluster_status.h"

namespace cawfs {
namespace {

using namespace std::chrono_literals;

class NoLog final : public Log {
 public:
  bool enabled(LogLevel) const override { return false; }
  void write(LogLevel, std::string_view) override {}
};

struct NoJournal final : RecoveryClient {
  Task<Result<>> replay(const format::SlotRecord&, NodeId node) override {
    replayed.push_back(node);
    co_return Result<>{};
  }
  std::vector<NodeId> replayed;
};

MemberOptions options_of(const std::string& name) {
  MemberOptions options;
  options.host_name = name;
  options.node_uuid[0] = static_cast<std::uint8_t>(name[0]);
  options.dead_time = 10s;
  return options;
}

struct FenceToolTest : ::testing::Test {
  struct Node {
    Node(FenceToolTest& test, const std::string& name)
        : executor(test.loop.add_executor()),
          raw(test.lun.connect(executor, name)),
          member(*raw, executor, test.random, test.log, test.geometry, options_of(name)) {
      member.set_recovery_client(&journal);
    }
    Executor& executor;
    std::unique_ptr<BlockDevice> raw;
    NoJournal journal;
    ClusterMember member;
  };

  FenceToolTest() {
    MakeOptions make;
    make.dead_time_ms = 10'000;
    make.slots = 2;
    superblock = *loop.run(executor, make_file_system(*tool, random, make));
    geometry = make_geometry(superblock);
  }
  ~FenceToolTest() override { EXPECT_EQ(lun.refused_caws(), 0u); }
  Task<void> caw_until_fenced(Node& node, std::uint64_t& sent) {
    const IoBuffer image(kBlockSize);
    const std::uint64_t offset = geometry.block_count / 2 * kBlockSize;
    Result<> done;
    while (done || done.error() != Errc::kFenced) {
      done = co_await node.member.device().compare_and_write(offset, image.bytes(), image.bytes());
      ++sent;
    }
  }
  Node& joined(const std::string& name) {
    nodes.push_back(std::make_unique<Node>(*this, name));
    EXPECT_TRUE(loop.run(nodes.back()->executor, nodes.back()->member.join()));
    return *nodes.back();
  }
  void leave(Node& node) { static_cast<void>(loop.run(node.executor, node.member.leave())); }
  ClusterStatus status() { return *loop.run(executor, read_cluster_status(executor, *tool)); }
  Result<> fence(SlotNo slot, FenceForce force) {
    return loop.run(executor, fence_slot(executor, *tool, random, log, slot, force));
  }

  VirtualLoop loop;
  SeededRandom random{1};
  SimulatedLun lun{loop.clock(), random, SimulatedLunOptions{.size_bytes = 256 << 20, .sessions = true}};
  Executor& executor = loop.add_executor();
  std::unique_ptr<BlockDevice> tool = lun.connect(executor, "tool");
  NoLog log;
  format::Superblock superblock;
  Geometry geometry;
  std::vector<std::unique_ptr<Node>> nodes;
};

TEST_F(FenceToolTest, StatusOfACluster) {
  Node& a = joined("a");
  Node& b = joined("b");
  ClusterStatus now = status();
  ASSERT_EQ(now.nodes.size(), 2u);
  for (const NodeStatus& node : now.nodes) {
    EXPECT_EQ(node.state, format::SlotState::kActive);
    EXPECT_TRUE(node.heartbeat_moves && node.key_registered);
  }
  EXPECT_EQ(now.keys.size(), 2u);
  EXPECT_TRUE(now.stray_keys.empty());
  EXPECT_EQ(now.reservation, "type 7");
  ASSERT_TRUE(now.free_bytes);
  EXPECT_LT(*now.free_bytes, now.total_bytes);
  EXPECT_NE(status_text(now).find("alive"), std::string::npos);
  EXPECT_NE(status_json(now).find("\"alive\": true"), std::string::npos);

  loop.pause(b.executor);
  now = status();
  EXPECT_FALSE(now.nodes[b.member.self().slot.value].heartbeat_moves);
  EXPECT_NE(status_text(now).find("silent for at least 2"), std::string::npos);
  loop.resume(b.executor);
  leave(a);
  EXPECT_NE(status_text(status()).find("clean"), std::string::npos);
  leave(b);
  EXPECT_EQ(status().stray_keys.size(), 1u);
}

TEST_F(FenceToolTest, LivingNodeIsFencedByForceOnly) {
  Node& a = joined("a");
  Node& b = joined("b");
  const SlotNo slot = a.member.self().slot;
  Result<> done = fence(slot, FenceForce::kNo);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error(), Errc::kLive);
  EXPECT_FALSE(a.member.withdrawn());
  const NodeId victim = a.member.self();
  ASSERT_TRUE(fence(slot, FenceForce::kYes));
  loop.run_for(5s);
  EXPECT_TRUE(a.member.withdrawn());
  EXPECT_FALSE(b.member.withdrawn());
  EXPECT_EQ(b.journal.replayed, std::vector<NodeId>{victim});
  EXPECT_EQ(status().keys.size(), 1u);
  leave(a);
  leave(b);
}

// Whoever beats first does not answer for the others.
TEST_F(FenceToolTest, EachLivingNodeIsSeen) {
  Node& a = joined("a");
  loop.run_for(370ms);
  Node& b = joined("b");
  for (int look = 0; look < 10; ++look) {
    for (const Node* node : {&a, &b}) {
      const Result<> done = fence(node->member.self().slot, FenceForce::kNo);
      ASSERT_FALSE(done);
      EXPECT_EQ(done.error(), Errc::kLive);
    }
    loop.run_for(130ms);
  }
  loop.run_for(5s);
  EXPECT_FALSE(a.member.withdrawn());
  EXPECT_FALSE(b.member.withdrawn());
  leave(a);
  leave(b);
}

class SlowToEvict final : public ForwardingDevice {
 public:
  SlowToEvict(BlockDevice& device, Executor& executor) : ForwardingDevice(device), executor_(executor) {}
  Task<Result<>> evict(std::string initiator_name, std::uint64_t isid) override {
    co_await executor_.sleep(3s);
    const Result<> done = co_await device().evict(std::move(initiator_name), isid);
    co_return done;
  }

 private:
  Executor& executor_;
};

// A node finds the slot claimed by somebody without a heartbeat, and fences and recovers it first.
TEST_F(FenceToolTest, AnotherNodeIsFaster) {
  Node& a = joined("a");
  Node& b = joined("b");
  const NodeId victim = a.member.self();
  SlowToEvict slow(*tool, executor);
  EXPECT_TRUE(loop.run(executor, fence_slot(executor, slow, random, log, victim.slot, FenceForce::kYes)));
  EXPECT_EQ(b.journal.replayed, std::vector<NodeId>{victim});
  EXPECT_TRUE(a.member.withdrawn());
  EXPECT_FALSE(b.member.withdrawn());
  EXPECT_EQ(status().keys.size(), 1u);
  leave(a);
  leave(b);
}

// A node that lives, has its lease, and sends COMPARE AND WRITEs without a pause.
TEST_F(FenceToolTest, NoCawOfALivingNodeIsRefused) {
  for (int round = 0; round < 20; ++round) {
    Node& a = joined("a" + std::to_string(round));
    std::uint64_t sent = 0;
    TaskGroup group(a.executor);
    for (int i = 0; i < 3; ++i) group.spawn(caw_until_fenced(a, sent));
    loop.run_for(1s);
    ASSERT_TRUE(fence(a.member.self().slot, FenceForce::kYes));
    loop.run(a.executor, group.join());
    EXPECT_TRUE(a.member.withdrawn());
    EXPECT_GT(sent, 1000u);
    leave(a);
  }
}

// The last node of all is dead: the tool keeps its own registration, or the reservation would go.
TEST_F(FenceToolTest, LastNodeIsFenced) {
  Node& a = joined("a");
  loop.pause(a.executor);
  ASSERT_TRUE(fence(a.member.self().slot, FenceForce::kNo));
  EXPECT_EQ(status().keys.size(), 1u);
  EXPECT_EQ(status().reservation, "type 7");
  loop.resume(a.executor);
  loop.run_for(2s);
  EXPECT_TRUE(a.member.withdrawn());
  leave(a);
  Node& b = joined("b");
  EXPECT_FALSE(b.member.withdrawn());
  loop.run_for(5s);
  EXPECT_EQ(b.journal.replayed.size(), 1u);
  leave(b);
}

TEST_F(FenceToolTest, NobodyToFence) {
  const Result<> done = fence(SlotNo{1}, FenceForce::kNo);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error(), Errc::kNotFound);
}

// Half of what PREEMPT AND ABORT finds in this target's backend lands seconds later: the reset must wait for it.
TEST(FenceSelfTest, NothingLandsAfterTheFence) {
  VirtualLoop loop;
  SeededRandom random(3);
  SimulatedLunOptions options;
  options.stall_one_in = 8;
  options.stall_max = 2s;
  SimulatedLun lun(loop.clock(), random, options);
  Executor& executor = loop.add_executor();
  auto fencer = lun.connect(executor, "fencer");
  auto victim = lun.connect(executor, "victim");
  NoLog log;
  SelfTestOptions test;
  test.length = 4 << 20;
  test.write_bytes = 64 << 10;
  test.rounds = 10;
  const Result<SelfTestReport> report =
      loop.run(executor, fence_self_test(executor, *fencer, *victim, random, log, test));
  ASSERT_TRUE(report) << describe(report.error().code);
  EXPECT_EQ(report->rounds, 10u);
  EXPECT_GT(report->writes_before, 100u);
  EXPECT_EQ(report->late_blocks, 0u);
}

// As of a target that goes on taking a victim's writes.
class NotFenced final : public ForwardingDevice {
 public:
  NotFenced(BlockDevice& device, BlockDevice& open_door) : ForwardingDevice(device), open_door_(open_door) {}
  Task<Result<>> write(std::uint64_t offset, std::span<const std::byte> data, Durability durability) override {
    return open_door_.write(offset, data, durability);
  }

 private:
  BlockDevice& open_door_;
};

TEST(FenceSelfTest, SeesWhatLandsAfterTheFence) {
  VirtualLoop loop;
  SeededRandom random(4);
  SimulatedLun lun(loop.clock(), random, SimulatedLunOptions{.sessions = true});
  Executor& executor = loop.add_executor();
  auto fencer = lun.connect(executor, "fencer");
  auto victim = lun.connect(executor, "victim");
  auto third = lun.connect(executor, "third");
  ASSERT_TRUE(loop.run(executor, third->pr_register_ignore(PrKey{3}, Aptpl::kYes)));
  NotFenced not_fenced(*victim, *third);
  NoLog log;
  SelfTestOptions test;
  test.length = 4 << 20;
  test.write_bytes = 64 << 10;
  test.rounds = 2;
  test.in_flight = 2;
  test.watch_for = 100ms;
  const Result<SelfTestReport> report =
      loop.run(executor, fence_self_test(executor, *fencer, not_fenced, random, log, test));
  ASSERT_TRUE(report) << describe(report.error().code);
  EXPECT_GT(report->late_blocks, 0u);
}

}  // namespace
}  // namespace cawfs
