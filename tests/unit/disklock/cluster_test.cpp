// Whole nodes (membership, mailboxes, locks) on a file system made by mkfs's code: they join, share locks, one dies, is
// fenced and recovered, and another goes on with what it held.
#include "disklock/cluster.h"

#include <gtest/gtest.h>

#include "core/device/simulated_device.h"
#include "core/format/make_file_system.h"
#include "core/format/superblock_io.h"
#include "core/runtime/virtual_loop.h"

namespace cawfs {
namespace {

using namespace std::chrono_literals;

class MemoryLog final : public Log {
 public:
  bool enabled(LogLevel) const override { return true; }
  void write(LogLevel, std::string_view message) override { lines.emplace_back(message); }
  std::vector<std::string> lines;
};

class NothingToReplay final : public RecoveryClient {
 public:
  Task<Result<>> replay(const format::SlotRecord&, NodeId node) override {
    replayed.push_back(node);
    co_return Result<>{};
  }
  std::vector<NodeId> replayed;
};

struct Node {
  Node(VirtualLoop& loop, SimulatedLun& lun, const Geometry& geometry, const std::string& name, std::uint64_t seed)
      : executor(loop.add_executor()),
        raw(lun.connect(executor, name)),
        random(seed),
        cluster(*raw, executor, random, log, geometry, options(name)) {
    cluster.set_recovery_client(&recovery);
  }
  static ClusterOptions options(const std::string& name) {
    ClusterOptions options;
    options.member.host_name = name;
    options.member.node_uuid.fill(static_cast<std::uint8_t>(name.back()));
    options.member.boot_id.fill(static_cast<std::uint8_t>(name.back()));
    options.member.dead_time = 2s;
    return options;
  }

  Executor& executor;
  std::unique_ptr<BlockDevice> raw;
  SeededRandom random;
  MemoryLog log;
  NothingToReplay recovery;
  Cluster cluster;
};

class ClusterTest : public ::testing::Test {
 protected:
  ClusterTest() {
    SimulatedLunOptions options;
    options.size_bytes = 256 << 20;
    lun_ = std::make_unique<SimulatedLun>(loop_.clock(), random_, options);
    Executor& maker = loop_.add_executor();
    auto device = lun_->connect(maker, "mkfs");
    MakeOptions make;
    make.slots = 4;
    make.journal_blocks = 1024;
    Result<format::Superblock> made = loop_.run(maker, make_file_system(*device, random_, make));
    EXPECT_TRUE(made.has_value()) << describe(made.error().code);
    geometry_ = make_geometry(*made);
    loop_.run(maker, device->close());
  }

  std::unique_ptr<Node> join(const std::string& name) {
    auto node = std::make_unique<Node>(loop_, *lun_, geometry_, name, random_.next());
    const Result<> joined = loop_.run(node->executor, node->cluster.join());
    EXPECT_TRUE(joined.has_value()) << describe(joined.error().code);
    return node;
  }
  void leave(Node& node) {
    EXPECT_TRUE(loop_.run(node.executor, node.cluster.leave()).has_value());
    loop_.run(node.executor, node.raw->close());
  }
  Result<LockHold> take(Node& node, LockName name, LockMode mode) {
    return loop_.run(node.executor, node.cluster.locks().acquire(name, mode, LocalUse::kShared));
  }

  SeededRandom random_{7};
  VirtualLoop loop_;
  std::unique_ptr<SimulatedLun> lun_;
  Geometry geometry_;
};

TEST_F(ClusterTest, NodesJoinShareLocksAndLeave) {
  auto a = join("hosta");
  auto b = join("hostb");
  const LockName super = global_lock(geometry_, format::kEntrySuper);
  const LockName group = lock_of(geometry_, GroupNo{0});
  {
    const auto held_a = take(*a, super, LockMode::kShared);
    const auto held_b = take(*b, super, LockMode::kShared);
    EXPECT_TRUE(held_a.has_value() && held_b.has_value());
  }
  const Time began = loop_.now();
  for (int i = 0; i < 10; ++i) {
    EXPECT_TRUE(take(*a, group, LockMode::kExclusive).has_value());
    EXPECT_TRUE(take(*b, group, LockMode::kExclusive).has_value());
  }
  EXPECT_LT(loop_.now() - began, 2s);
  leave(*b);
  // A clean leave visits no lock block: b still stands there, and its lock is free all the same.
  EXPECT_TRUE(take(*a, group, LockMode::kExclusive).has_value());
  leave(*a);
}

TEST_F(ClusterTest, ADeadNodesLocksComeWithItsRecovery) {
  auto a = join("hosta");
  auto b = join("hostb");
  const LockName group = lock_of(geometry_, GroupNo{0});
  const NodeId dead = a->cluster.membership().self();
  auto held = take(*a, group, LockMode::kExclusive);
  a->executor.kill();
  static auto& graveyard = *new std::vector<std::unique_ptr<Node>>;
  const Time died = loop_.now();
  EXPECT_TRUE(take(*b, group, LockMode::kExclusive).has_value());
  EXPECT_GT(loop_.now() - died, 1s);
  EXPECT_LT(loop_.now() - died, 10s);
  EXPECT_EQ(b->recovery.replayed, std::vector{dead});
  static auto& holds = *new std::vector<Result<LockHold>>;
  holds.push_back(std::move(held));
  graveyard.push_back(std::move(a));
  leave(*b);
}

}  // namespace
}  // namespace cawfs
