// Storms: nodes take and leave a few locks at random, from a seed, while CAWs and their replies are lost, writes are
// late, and nodes die, are recovered and come back. No update is lost, nobody reads what is older than what completed,
// nobody uses what another may not share, and every acquire ends within a bounded time.
#include "tests/unit/disklock/lock_cluster.h"

namespace cawfs::test {
namespace {

class LockStorm : public LockCluster, public ::testing::WithParamInterface<std::uint64_t> {
 protected:
  LockStorm() {
    end();
    SeededRandom random(GetParam());
    options_.logical_block = random.one_in(2) ? 512 : 4096;
    options_.volatile_cache = random.one_in(2);
    make(GetParam());
    std::printf("seed %llu\n", static_cast<unsigned long long>(GetParam()));
  }

  void lose(std::uint64_t one_in) {
    lun_->set_hook([this, one_in](const SimulatedRequest& request) {
      using Kind = SimulatedRequest::Kind;
      if (!random_->one_in(one_in)) return SimulatedFate::kRun;
      if (request.kind == Kind::kCaw) {
        return random_->one_in(2) ? SimulatedFate::kLoseReply : SimulatedFate::kLoseRequest;
      }
      if (request.kind == Kind::kRead) return SimulatedFate::kLoseRequest;
      if (request.kind == Kind::kWrite) return SimulatedFate::kLoseReply;
      return SimulatedFate::kRun;
    });
  }

  void storm_all(int operations, std::uint64_t locks, bool write_through) {
    for (auto& node : nodes_) {
      node->tasks.spawn(storm(*node, operations, locks, random_->next(), write_through));
      node->tasks.spawn(storm(*node, operations, locks, random_->next(), write_through));
    }
    for (auto& node : nodes_) {
      if (node->alive) run(*node, node->tasks.join());
    }
  }
};

INSTANTIATE_TEST_SUITE_P(Seeds, LockStorm, ::testing::Range(std::uint64_t{1}, std::uint64_t{13}));

TEST_P(LockStorm, TwoToFourNodes) {
  const auto nodes = static_cast<std::uint16_t>(2 + GetParam() % 3);
  for (std::uint16_t i = 0; i < nodes; ++i) add_node(i);
  storm_all(150, 4, false);
  EXPECT_EQ(operations_, 300u * nodes);
  EXPECT_LT(longest_, 1s);
}

TEST_P(LockStorm, OneLockForAll) {
  for (std::uint16_t i = 0; i < 4; ++i) add_node(i);
  storm_all(80, 1, false);
  EXPECT_EQ(operations_, 640u);
  EXPECT_LT(longest_, 1s);
}

TEST_P(LockStorm, WithLostRequestsAndReplies) {
  for (std::uint16_t i = 0; i < 3; ++i) add_node(i);
  lose(20);
  storm_all(120, 4, false);
  EXPECT_EQ(operations_, 720u);
  EXPECT_LT(longest_, 5s);
}

TEST_P(LockStorm, NodesDieAndComeBack) {
  for (std::uint16_t i = 0; i < 4; ++i) add_node(i);
  lose(50);
  std::vector<TestNode*> first;
  for (auto& node : nodes_) {
    node->tasks.spawn(storm(*node, 200, 6, random_->next(), true));
    first.push_back(node.get());
  }
  for (std::size_t victim = 0; victim < 3; ++victim) {
    loop_->run_for(Duration(20'000'000 + random_->below(300'000'000)));
    kill(*first[victim]);
    loop_->run_for(Duration(random_->below(200'000'000)));
    recovering(*first[victim]);
    loop_->run_for(Duration(random_->below(400'000'000)));
    recovered(*first[victim]);
    if (random_->one_in(2)) continue;
    loop_->run_for(Duration(random_->below(50'000'000)));
    TestNode& again = add_node(first[victim]->id.slot.value);
    again.tasks.spawn(storm(again, 100, 6, random_->next(), true));
  }
  for (auto& node : nodes_) {
    if (node->alive) run(*node, node->tasks.join());
  }
  EXPECT_EQ(failed_, 0u);
  EXPECT_LT(longest_, 6s);
}

// Wants that nobody has, or has no more: they cost handovers, never correctness.
TEST_P(LockStorm, WithMailThatIsNotTrue) {
  for (std::uint16_t i = 0; i < 3; ++i) add_node(i);
  const auto lie = [](TestNode& node, NodeId to, std::uint64_t seed) -> Task<void> {
    SeededRandom random(seed);
    for (int i = 0; i < 400; ++i) {
      const LockName name{chunk(random.below(3)), static_cast<std::uint8_t>(random.below(2))};
      if (random.one_in(2)) {
        node.mailboxes.want(to, name, random.one_in(2) ? LockMode::kExclusive : LockMode::kShared);
      } else {
        node.mailboxes.unwant(to.slot, name);
      }
      co_await node.executor.sleep(Duration(random.below(1'500'000)));
    }
    for (std::uint8_t entry = 0; entry < 2; ++entry) {
      for (std::uint64_t i = 0; i < 3; ++i) node.mailboxes.unwant(to.slot, {chunk(i), entry});
    }
  };
  for (auto& node : nodes_) {
    for (auto& other : nodes_) {
      if (node != other) node->tasks.spawn(lie(*node, other->id, random_->next()));
    }
  }
  storm_all(80, 4, false);
  EXPECT_EQ(operations_, 480u);
  EXPECT_LT(longest_, 3s);
}

// The LUN is reset again and again: what is held is compared with the disk, and goes on being held.
TEST_P(LockStorm, ResetsInBetweenLoseNothing) {
  for (std::uint16_t i = 0; i < 3; ++i) add_node(i);
  for (auto& node : nodes_) node->tasks.spawn(storm(*node, 150, 4, random_->next(), false));
  for (int i = 0; i < 20; ++i) {
    loop_->run_for(Duration(random_->below(20'000'000)));
    for (auto& node : nodes_) node->membership.reset();
  }
  for (auto& node : nodes_) run(*node, node->tasks.join());
  EXPECT_EQ(operations_, 450u);
  for (auto& node : nodes_) EXPECT_FALSE(node->membership.withdrawn());
}

}  // namespace
}  // namespace cawfs::test
