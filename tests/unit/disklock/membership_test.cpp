#include <gtest/gtest.h>

#include "tests/unit/disklock/member_cluster.h"

namespace cawfs::test {
namespace {

using format::SlotState;
using Kind = SimulatedRequest::Kind;

// Requests that stay in the target's backend for seconds, and land after PREEMPT AND ABORT has answered.
SimulatedLunOptions slow_lun() {
  SimulatedLunOptions options{.sessions = true};
  options.stall_one_in = 50;
  options.stall_max = 2s;
  return options;
}

constexpr Duration kRecoverWithin = kDeadTime + 3s;
// A read that hangs for more than two intervals makes the watcher start anew, and a LUN reset waits for stalled
// commands.
constexpr Duration kRecoverSlowlyWithin = 120s;

TEST(Membership, JoinLeaveAndComeBack) {
  MemberCluster cluster(1);
  MemberNode& a = cluster.joined("a");
  MemberNode& b = cluster.joined("b");
  EXPECT_NE(a.member.self().slot, b.member.self().slot);
  EXPECT_TRUE(a.member.lease_valid());
  EXPECT_EQ(cluster.keys(), 2u);
  cluster.loop.run_for(2s);
  EXPECT_EQ(a.member.active_slots(), 3u);
  EXPECT_EQ(a.member.incarnation_of(b.member.self().slot), b.member.self().incarnation);

  const NodeId old = a.member.self();
  EXPECT_TRUE(cluster.stop(a));
  EXPECT_TRUE(cluster.is_clean(old.slot));
  EXPECT_EQ(cluster.keys(), 1u);
  EXPECT_TRUE(*cluster.loop.run(b.executor, b.member.is_stale(old)));
  cluster.destroy(a);

  MemberNode& again = cluster.joined("a");
  EXPECT_EQ(again.member.self().slot, old.slot);
  EXPECT_EQ(again.member.self().incarnation.value, old.incarnation.value + 1);
  EXPECT_FALSE(*cluster.loop.run(b.executor, b.member.is_stale(again.member.self())));

  // The last one keeps its registration, and so the reservation.
  EXPECT_TRUE(cluster.stop(again));
  EXPECT_TRUE(cluster.stop(b));
  EXPECT_EQ(cluster.keys(), 1u);
  EXPECT_TRUE(cluster.replays.empty());
  cluster.nodes.clear();
}

TEST(Membership, KilledNodeIsFencedAndRecovered) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    const bool slow = seed > 5;
    MemberCluster cluster(seed, slow ? slow_lun() : SimulatedLunOptions{.sessions = true});
    MemberNode& a = cluster.joined("a");
    MemberNode& b = cluster.joined("b");
    cluster.loop.run_for(5s);
    const NodeId dead = a.member.self();
    cluster.kill(a);
    const Time killed = cluster.loop.now();
    ASSERT_TRUE(
        cluster.wait(slow ? kRecoverSlowlyWithin : kRecoverWithin, [&] { return cluster.is_clean(dead.slot); }));
    EXPECT_GE(cluster.loop.now() - killed, kDeadTime - 2s);
    EXPECT_EQ(cluster.replays[dead], 1);
    cluster.loop.run_for(1s);
    EXPECT_TRUE(b.log.has("suspected") && b.log.has("fenced in") && b.log.has("replayed in"));
    cluster.loop.run_for(20s);
    EXPECT_EQ(b.withdrawals, 0);
    EXPECT_EQ(cluster.keys(), 1u);
  }
}

// Without sessions, as on a file LUN, the LUN reset ends what a victim had in flight.
TEST(Membership, NodesWithoutSessionsAreFencedByAReset) {
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    SCOPED_TRACE(seed);
    SimulatedLunOptions options = slow_lun();
    options.sessions = false;
    MemberCluster cluster(seed, options);
    MemberNode& a = cluster.joined("a");
    MemberNode& b = cluster.joined("b");
    cluster.loop.run_for(5s);
    const NodeId dead = a.member.self();
    if (seed % 2 == 0) {
      cluster.kill(a);
    } else {
      cluster.loop.pause(a.executor);
    }
    ASSERT_TRUE(cluster.wait(kRecoverSlowlyWithin, [&] { return cluster.is_clean(dead.slot); }));
    EXPECT_EQ(cluster.replays[dead], 1);
    EXPECT_GE(b.resets, 1);
    cluster.loop.run_for(20s);
    EXPECT_EQ(b.withdrawals, 0);
  }
}

// A node that slept is claimed by another, which dies before it has fenced it. The sleeper wakes: it lives, and nobody
// may fence it.
TEST(Membership, SleeperOutlivesItsRecoverer) {
  for (const bool wakes : {true, false}) {
    SCOPED_TRACE(wakes);
    MemberCluster cluster(18);
    MemberNode& a = cluster.joined("a");
    MemberNode& b = cluster.joined("b");
    cluster.loop.run_for(5s);
    MemberNode& c = cluster.joined("c");  // later, so that b is the first to suspect a
    const NodeId sleeper = a.member.self();
    const NodeId dead = b.member.self();
    cluster.loop.pause(a.executor);
    ASSERT_TRUE(cluster.wait(kRecoverWithin, [&] { return cluster.state(sleeper.slot) == SlotState::kRecovering; }));
    cluster.kill(b);
    if (wakes) cluster.loop.resume(a.executor);
    ASSERT_TRUE(cluster.wait(kRecoverWithin, [&] { return cluster.is_clean(dead.slot); }));
    if (wakes) {
      ASSERT_TRUE(cluster.wait(3s, [&] { return cluster.state(sleeper.slot) == SlotState::kActive; }));
      ASSERT_TRUE(cluster.wait(3s, [&] { return a.member.lease_valid(); }));
      cluster.loop.run_for(20s);
      EXPECT_EQ(a.withdrawals, 0);
      EXPECT_EQ(cluster.replays[sleeper], 0);
    } else {
      ASSERT_TRUE(cluster.wait(kRecoverWithin, [&] { return cluster.is_clean(sleeper.slot); }));
      cluster.loop.resume(a.executor);
      ASSERT_TRUE(cluster.wait(5s, [&] { return a.member.withdrawn(); }));
    }
    EXPECT_EQ(c.withdrawals, 0);
  }
}

// The same with nobody else left: the sleeper waits for whoever comes, which may be the host of the dead one or its
// own, and nobody replays its journal while it lives.
TEST(Membership, SleeperOfTwoWaitsForWhoeverComes) {
  for (const std::string comes : {"b", "c", "a"}) {
    SCOPED_TRACE(comes);
    MemberCluster cluster(29);
    MemberNode& a = cluster.joined("a");
    MemberNode& b = cluster.joined("b");
    cluster.loop.run_for(5s);
    const NodeId sleeper = a.member.self();
    const NodeId dead = b.member.self();
    cluster.loop.pause(a.executor);
    ASSERT_TRUE(cluster.wait(kRecoverWithin, [&] { return cluster.state(sleeper.slot) == SlotState::kRecovering; }));
    cluster.kill(b);
    cluster.loop.resume(a.executor);
    cluster.loop.run_for(3 * kDeadTime);
    EXPECT_FALSE(a.member.lease_valid());
    EXPECT_FALSE(a.member.withdrawn());
    if (comes == "a") cluster.kill(a);
    MemberNode& next = cluster.joined(comes);
    if (comes == "a") {
      ASSERT_TRUE(cluster.wait(2 * kRecoverWithin, [&] { return cluster.replays[sleeper] == 1; }));
    } else {
      ASSERT_TRUE(cluster.wait(2 * kRecoverWithin, [&] { return a.member.lease_valid(); }));
      EXPECT_EQ(cluster.replays[sleeper], 0);
      EXPECT_EQ(a.withdrawals, 0);
    }
    EXPECT_EQ(cluster.replays[dead], 1);
    EXPECT_EQ(next.withdrawals, 0);
  }
}

// Every slot is in use: a sleeps, b is dead, and j, which claims a's slot from within, is stopped before it has fenced
// a, when it sends its n-th request. Then a wakes.
struct ClaimedFromWithin {
  ClaimedFromWithin(MemberCluster& c, int n, bool dies, bool wakes = true)
      : cluster(c), a(c.joined("a")), b(c.joined("b")), j(c.start("j")), node(a.member.self()), dead(b.member.self()) {
    cluster.loop.run_for(3s);
    key = cluster.key_of(node.slot);
    cluster.loop.pause(a.executor);
    cluster.kill(b);
    int count = 0;
    cluster.lun.set_hook([this, n, dies, count](const SimulatedRequest& request) mutable {
      if (request.node != "j" || stopped || cluster.state(node.slot) != SlotState::kRecovering) {
        return SimulatedFate::kRun;
      }
      if (joiner.value == 0) joiner = PrKey{cluster.record(node.slot).recoverer_key.value()};
      const bool beat = request.offset == cluster.geometry.heartbeat_offset(node.slot);
      if (beat || ++count != n) return SimulatedFate::kRun;
      stopped = true;
      if (dies) {
        cluster.kill(j);
      } else {
        cluster.loop.pause(j.executor);
      }
      return SimulatedFate::kRun;
    });
    cluster.begin_join(j);
    EXPECT_TRUE(cluster.wait(3 * kRecoverWithin, [&] { return stopped; }));
    if (wakes) cluster.loop.resume(a.executor);
    cluster.lun.set_hook({});
  }
  // Before its key was taken away.
  bool in_time() { return cluster.is_registered(key); }

  MemberCluster& cluster;
  MemberNode& a;
  MemberNode& b;
  MemberNode& j;
  NodeId node;
  NodeId dead;
  PrKey key;
  PrKey joiner{};
  bool stopped = false;
};

// a's heartbeats do not pass for j's. Who comes next takes b's slot, shuts j out, and gives a's slot back; j may only
// have slept, and must not do a any harm when it wakes.
TEST(Membership, SleeperOutlivesAJoinerThatClaimedFromWithin) {
  int in_time = 0;
  for (const bool dies : {true, false}) {
    for (int n = 1; n <= 12; ++n) {
      SCOPED_TRACE(fmt::format("{} {}", n, dies ? "dies" : "sleeps"));
      MemberCluster cluster(36, {.sessions = true}, 2);
      ClaimedFromWithin begun(cluster, n, dies);
      if (!begun.in_time()) break;
      ++in_time;
      MemberNode& k = cluster.joined("k");
      EXPECT_EQ(k.member.self().slot, begun.dead.slot);
      ASSERT_TRUE(cluster.wait(kRecoverWithin, [&] { return cluster.state(begun.node.slot) == SlotState::kActive; }));
      EXPECT_FALSE(cluster.is_registered(begun.joiner));
      ASSERT_TRUE(cluster.wait(3s, [&] { return begun.a.member.lease_valid(); }));
      if (!dies) {
        cluster.loop.resume(begun.j.executor);
        ASSERT_TRUE(cluster.wait(5s, [&] { return begun.j.joined.has_value(); }));
        EXPECT_FALSE(*begun.j.joined);
      }
      cluster.loop.run_for(3 * kDeadTime);
      EXPECT_TRUE(cluster.is_registered(begun.key));
      EXPECT_EQ(cluster.replays[begun.node], 0);
      EXPECT_EQ(begun.a.withdrawals + k.withdrawals, 0);
    }
  }
  EXPECT_GE(in_time, 6);
}

// a wakes only when k has claimed its slot, too.
TEST(Membership, SleeperWakesWhenItsSecondRecovererLooks) {
  MemberCluster cluster(40, {.sessions = true}, 2);
  ClaimedFromWithin begun(cluster, 2, false, false);
  ASSERT_TRUE(begun.in_time());
  const std::uint64_t beat = cluster.geometry.heartbeat_offset(begun.node.slot);
  MemberNode& k = cluster.start("k");
  bool looks = false;
  cluster.lun.set_hook([&](const SimulatedRequest& request) {
    const bool claimed = PrKey{cluster.record(begun.node.slot).recoverer_key.value()} != begun.joiner;
    const bool heart = request.kind == Kind::kRead && request.offset == beat && request.length == kBlockSize;
    if (looks || request.node != "k" || !claimed || !heart) return SimulatedFate::kRun;
    looks = true;
    cluster.loop.pause(k.executor);
    cluster.loop.resume(begun.a.executor);
    return SimulatedFate::kLoseRequest;
  });
  cluster.begin_join(k);
  ASSERT_TRUE(cluster.wait(4 * kRecoverWithin, [&] { return looks; }));
  cluster.loop.run_for(2s);
  cluster.loop.resume(k.executor);
  ASSERT_TRUE(cluster.wait(2 * kRecoverWithin, [&] { return begun.a.member.lease_valid(); }));
  EXPECT_FALSE(cluster.is_registered(begun.joiner));
  cluster.loop.resume(begun.j.executor);
  ASSERT_TRUE(cluster.wait(5s, [&] { return begun.j.joined.has_value(); }));
  cluster.loop.run_for(3 * kDeadTime);
  EXPECT_TRUE(cluster.is_registered(begun.key));
  EXPECT_EQ(begun.a.withdrawals, 0);
  EXPECT_EQ(cluster.replays[begun.node], 0);
}

// The one that gives the slot back dies at its n-th step, when j has or has not been displaced and fenced, and another
// comes. No record may name j any more then; a is given its slot back only when j's key is gone.
TEST(Membership, NobodyIsRevivedWhileAJoinerMayFenceIt) {
  bool reached_the_end = false;
  for (int n = 1; n <= 30 && !reached_the_end; ++n) {
    SCOPED_TRACE(n);
    MemberCluster cluster(37, {.sessions = true}, 2);
    ClaimedFromWithin begun(cluster, 2, false);
    ASSERT_TRUE(begun.in_time());
    MemberNode& k = cluster.joined("k");
    int count = 0;
    cluster.lun.set_hook([&](const SimulatedRequest& request) {
      const bool step = request.kind == Kind::kCaw || request.kind == Kind::kReservation;
      if (request.node != "k" || !step || k.killed || ++count != n) return SimulatedFate::kRun;
      cluster.kill(k);
      return n % 2 == 0 ? SimulatedFate::kNeverReturn : SimulatedFate::kRun;
    });
    cluster.wait(kRecoverWithin, [&] { return k.killed || cluster.state(begun.node.slot) == SlotState::kActive; });
    reached_the_end = !k.killed;
    if (!reached_the_end) cluster.joined("l");
    ASSERT_TRUE(cluster.wait(5 * kDeadTime, [&] { return cluster.state(begun.node.slot) == SlotState::kActive; }));
    EXPECT_FALSE(cluster.is_registered(begun.joiner));
    cluster.loop.resume(begun.j.executor);
    ASSERT_TRUE(cluster.wait(5s, [&] { return begun.j.joined.has_value(); }));
    EXPECT_FALSE(*begun.j.joined);
    ASSERT_TRUE(cluster.wait(3s, [&] { return begun.a.member.lease_valid(); }));
    cluster.loop.run_for(3 * kDeadTime);
    EXPECT_TRUE(cluster.is_registered(begun.key));
    EXPECT_EQ(begun.a.withdrawals, 0);
  }
  EXPECT_TRUE(reached_the_end);
}

// Neither does j count as dead because a beats in the same block: its fence lasts, and nobody else takes over.
TEST(Membership, AJoinerIsNotTakenForDeadBecauseItsVictimWakes) {
  for (Duration offset{0}; offset < 1s; offset += 100ms) {
    SCOPED_TRACE(offset.count());
    MemberCluster cluster(38, {.sessions = true}, 1);
    MemberNode& a = cluster.joined("a");
    const NodeId node = a.member.self();
    cluster.loop.run_for(3s);
    cluster.loop.pause(a.executor);
    MemberNode& j = cluster.start("j");
    bool lasts = true;
    bool fences = false;
    cluster.lun.set_hook([&](const SimulatedRequest& request) {
      fences = request.node == "j" && request.kind == Kind::kReservation &&
               cluster.state(node.slot) == SlotState::kRecovering;
      return fences && lasts ? SimulatedFate::kLoseRequest : SimulatedFate::kRun;
    });
    cluster.begin_join(j);
    ASSERT_TRUE(cluster.wait(2 * kRecoverWithin, [&] { return fences; }));
    const std::uint64_t recoverer = cluster.record(node.slot).recoverer_key.value();
    // k reads in the middle between j's beats, and a beats before or after that.
    cluster.loop.run_for(500ms);
    MemberNode& k = cluster.start("k");
    cluster.begin_join(k);
    cluster.loop.run_for(500ms + offset);
    cluster.loop.resume(a.executor);
    cluster.loop.run_for(5 * kDeadTime);
    EXPECT_EQ(cluster.record(node.slot).recoverer_key.value(), recoverer);
    EXPECT_FALSE(k.joined);  // it waits for the slot that will be recovered
    lasts = false;
    ASSERT_TRUE(cluster.wait(kDeadTime, [&] { return j.joined.has_value(); }));
    EXPECT_TRUE(*j.joined);
    ASSERT_TRUE(cluster.wait(kDeadTime, [&] { return k.joined.has_value(); }));
    EXPECT_EQ(k.joined->error(), Errc::kNoSlot);
    EXPECT_TRUE(cluster.wait(5s, [&] { return a.member.withdrawn(); }));
  }
}

struct LateCaw {
  TaskGroup group;
  IoBuffer image{kBlockSize};
  std::optional<Result<>> outcome;
  explicit LateCaw(Executor& executor) : group(executor) {}

  // One that changes nothing.
  static Task<void> run(LateCaw& caw, BlockDevice& device) {
    caw.outcome = co_await device.compare_and_write(BlockNo{2060}.offset_bytes(), caw.image.bytes(), caw.image.bytes());
  }
};

// A node's lease returns: before it sends a COMPARE AND WRITE it sees that its key stands. Here somebody took it away
// just when it looked at its slot.
TEST(Membership, AReturnedLeaseSendsNoCawWithoutTheKey) {
  MemberCluster cluster(39);
  MemberNode& a = cluster.joined("a");
  MemberNode& b = cluster.joined("b");
  cluster.loop.run_for(3s);
  const PrKey key = cluster.key_of(a.member.self().slot);
  const PrKey other = cluster.key_of(b.member.self().slot);
  cluster.loop.pause(a.executor);
  cluster.loop.run_for(kDeadTime / 2 + 1s);
  a.stop_writing = true;
  int reads = 0;  // since it has beaten again; the second one was issued after the beat was answered
  bool beaten = false;
  bool looks = false;
  cluster.lun.set_hook([&](const SimulatedRequest& request) {
    if (request.node != "a" || looks) return SimulatedFate::kRun;
    const bool table = request.kind == Kind::kRead && request.offset == cluster.geometry.node_table.offset_bytes();
    if (table && beaten) ++reads;
    looks = table && reads == 2;
    beaten = beaten || request.offset == cluster.geometry.heartbeat_offset(a.member.self().slot);
    if (looks) cluster.loop.pause(a.executor);
    return SimulatedFate::kRun;
  });
  LateCaw caw(a.executor);
  cluster.loop.resume(a.executor);
  caw.group.spawn(LateCaw::run(caw, a.member.device()));
  ASSERT_TRUE(cluster.wait(3s, [&] { return looks; }));
  ASSERT_TRUE(cluster.loop.run(b.executor, b.member.device().pr_preempt_and_abort(other, key, kReservationType)));
  ASSERT_FALSE(cluster.is_registered(key));
  cluster.loop.resume(a.executor);
  cluster.loop.run(a.executor, caw.group.join());
  EXPECT_TRUE(*caw.outcome);
  EXPECT_TRUE(cluster.is_registered(key));
  EXPECT_EQ(a.withdrawals, 0);
}

// A node decides to send a COMPARE AND WRITE, and stops before the bytes leave it. They leave when its key has just
// been preempted, or when it wakes after the recovery.
TEST(Membership, CawDecidedOnBeforeTheFenceIsNotRefused) {
  for (const bool at_once : {true, false}) {
    SCOPED_TRACE(at_once);
    MemberCluster cluster(17);
    MemberNode& a = cluster.joined("a");
    MemberNode& b = cluster.joined("b");
    cluster.loop.run_for(3s);
    const NodeId victim = a.member.self();
    const PrKey key{cluster.record(victim.slot).pr_key.value()};
    LateCaw caw(a.executor);
    cluster.lun.hold("a");
    caw.group.spawn(LateCaw::run(caw, a.member.device()));
    cluster.loop.run_for(100ms);
    ASSERT_FALSE(caw.outcome);
    cluster.loop.pause(a.executor);
    ASSERT_TRUE(cluster.wait(kRecoverWithin, [&] { return !contains(cluster.lun.registered_keys(), key); }));
    if (at_once) cluster.lun.let_go("a");
    ASSERT_TRUE(cluster.wait(kRecoverWithin, [&] { return cluster.is_clean(victim.slot); }));
    cluster.lun.let_go("a");
    cluster.loop.resume(a.executor);
    cluster.loop.run(a.executor, caw.group.join());
    EXPECT_FALSE(*caw.outcome);
    EXPECT_TRUE(cluster.wait(5s, [&] { return a.member.withdrawn(); }));
    EXPECT_EQ(b.resets, 0);
  }
}

TEST(Membership, PausedNodeWakesFencedAndWithdraws) {
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    SCOPED_TRACE(seed);
    MemberCluster cluster(seed, slow_lun());
    MemberNode& a = cluster.joined("a");
    MemberNode& b = cluster.joined("b");
    cluster.loop.run_for(3s);
    const NodeId victim = a.member.self();
    cluster.loop.pause(a.executor);
    ASSERT_TRUE(cluster.wait(kRecoverSlowlyWithin, [&] { return cluster.is_clean(victim.slot); }));
    cluster.loop.run_for(5s);
    cluster.loop.resume(a.executor);
    EXPECT_FALSE(a.member.lease_valid());
    ASSERT_TRUE(cluster.wait(5s, [&] { return a.member.withdrawn(); }));
    EXPECT_EQ(a.withdrawals, 1);
    const auto frozen = cluster.data_of(victim.slot);
    cluster.loop.run_for(10s);
    EXPECT_EQ(frozen, cluster.data_of(victim.slot));
    EXPECT_EQ(cluster.keys(), 1u);
    EXPECT_EQ(b.withdrawals, 0);
  }
}

TEST(Membership, ShortPauseHurtsNobody) {
  MemberCluster cluster(3);
  MemberNode& a = cluster.joined("a");
  cluster.joined("b");
  for (int i = 0; i < 5; ++i) {
    cluster.loop.pause(a.executor);
    cluster.loop.run_for(7s);
    cluster.loop.resume(a.executor);
    EXPECT_FALSE(a.member.lease_valid());
    cluster.loop.run_for(2s);
    EXPECT_TRUE(a.member.lease_valid());
  }
  EXPECT_TRUE(cluster.replays.empty());
  EXPECT_EQ(a.withdrawals, 0);
}

// The watcher itself slept past the dead-time: what it had seen before counts for nothing.
TEST(Membership, SleepingWatcherSuspectsNobody) {
  MemberCluster cluster(4);
  MemberNode& a = cluster.joined("a");
  MemberNode& b = cluster.joined("b");
  cluster.loop.run_for(3s);
  cluster.loop.pause(a.executor);
  cluster.loop.pause(b.executor);
  cluster.loop.run_for(30s);
  cluster.loop.resume(a.executor);
  cluster.loop.run_for(9s);
  EXPECT_TRUE(a.member.lease_valid());
  cluster.loop.resume(b.executor);
  cluster.loop.run_for(20s);
  EXPECT_TRUE(cluster.replays.empty());
  EXPECT_EQ(a.withdrawals + b.withdrawals, 0);
}

TEST(Membership, StorageGoneForAllFencesNobody) {
  MemberCluster cluster(5);
  MemberNode& a = cluster.joined("a");
  MemberNode& b = cluster.joined("b");
  MemberNode& c = cluster.joined("c");
  cluster.loop.run_for(3s);
  for (const char* name : {"a", "b", "c"}) cluster.lun.cut_path(name);
  cluster.loop.run_for(3 * kDeadTime);
  EXPECT_FALSE(a.member.lease_valid());
  EXPECT_EQ(a.lapses, 1);
  // They come back one after the other.
  for (const char* name : {"a", "b", "c"}) {
    cluster.lun.heal_path(name);
    cluster.loop.run_for(4s);
  }
  cluster.loop.run_for(3 * kDeadTime);
  EXPECT_TRUE(cluster.replays.empty());
  for (MemberNode* node : {&a, &b, &c}) {
    EXPECT_TRUE(node->member.lease_valid());
    EXPECT_EQ(node->withdrawals, 0);
  }
}

TEST(Membership, LiveNodesAreNeverFenced) {
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    SCOPED_TRACE(seed);
    SimulatedLunOptions options = slow_lun();
    options.stall_one_in = 10;
    options.stall_max = 2s;
    MemberCluster cluster(seed, options);
    MemberNode& a = cluster.joined("a");
    MemberNode& b = cluster.joined("b");
    MemberNode& c = cluster.joined("c");
    cluster.loop.run_for(120s);
    EXPECT_TRUE(cluster.replays.empty());
    EXPECT_EQ(a.withdrawals + b.withdrawals + c.withdrawals, 0);
    EXPECT_EQ(cluster.lun.executed(Kind::kReset), 0u);
  }
}

TEST(Membership, TwoRecoverersOneWins) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    MemberCluster cluster(seed);
    MemberNode& a = cluster.joined("a");
    MemberNode& b = cluster.joined("b");
    MemberNode& c = cluster.joined("c");
    cluster.loop.run_for(3s);
    const NodeId dead = a.member.self();
    cluster.kill(a);
    ASSERT_TRUE(cluster.wait(kRecoverWithin, [&] { return cluster.is_clean(dead.slot); }));
    cluster.loop.run_for(20s);
    EXPECT_EQ(cluster.replays[dead], 1);
    EXPECT_EQ(cluster.replays.size(), 1u);
    EXPECT_EQ(b.withdrawals + c.withdrawals, 0);
  }
}

// The recoverer dies at its n-th change of anything, from the suspicion on, before or after that has run.
// a suspects b, which sleeps, and sleeps itself once its claim is on the way. b wakes and claims a; then a's claim
// lands. What b sends from then on is held, as is b; a still sleeps.
struct CrossedClaims {
  explicit CrossedClaims(std::uint16_t slots = 4)
      : cluster(30, {.sessions = true}, slots), a(cluster.joined("a")), b(cluster.joined("b")) {
    cluster.loop.run_for(5s);
    const SlotNo slot_a = a.member.self().slot;
    const SlotNo slot_b = b.member.self().slot;
    cluster.loop.pause(b.executor);
    bool sent = false;
    cluster.lun.set_hook([&](const SimulatedRequest& request) {
      // The image that the claim is made from: the claim is the next that a sends.
      const bool image = request.kind == Kind::kRead && request.length == cluster.geometry.logical_block &&
                         request.offset == cluster.geometry.slot_record_offset(slot_b);
      if (request.node == "a" && image && a.log.has("suspected") && !sent) {
        sent = true;
        cluster.lun.hold("a");
      }
      return SimulatedFate::kRun;
    });
    EXPECT_TRUE(cluster.wait(kRecoverWithin, [&] { return sent; }));
    cluster.loop.run_for(50ms);
    cluster.loop.pause(a.executor);
    cluster.loop.resume(b.executor);
    cluster.lun.set_observer([&](const SimulatedRequest& request, const Result<>& done) {
      const bool claim = request.kind == Kind::kCaw && request.offset == cluster.geometry.slot_record_offset(slot_a);
      if (request.node == "b" && claim && done) cluster.lun.hold("b");
    });
    EXPECT_TRUE(cluster.wait(kRecoverWithin, [&] { return cluster.state(slot_a) == SlotState::kRecovering; }));
    cluster.lun.set_observer({});
    cluster.lun.set_hook({});
    EXPECT_EQ(cluster.state(slot_b), SlotState::kActive);
    cluster.lun.let_go("a");
    EXPECT_TRUE(cluster.wait(1s, [&] { return cluster.state(slot_b) == SlotState::kRecovering; }));
  }

  MemberCluster cluster;
  MemberNode& a;
  MemberNode& b;
};

TEST(Membership, TwoThatHaveClaimedEachOtherAndLiveGiveBack) {
  CrossedClaims crossed;
  MemberCluster& cluster = crossed.cluster;
  cluster.loop.resume(crossed.a.executor);
  cluster.loop.run_for(2s);  // it beats
  cluster.lun.let_go("b");
  ASSERT_TRUE(cluster.wait(5s, [&] { return crossed.a.member.lease_valid() && crossed.b.member.lease_valid(); }));
  EXPECT_EQ(cluster.state(crossed.a.member.self().slot), SlotState::kActive);
  EXPECT_EQ(cluster.state(crossed.b.member.self().slot), SlotState::kActive);
  EXPECT_TRUE(cluster.replays.empty());
}

TEST(Membership, OneThatHasFencedWhoClaimedItStandsUp) {
  CrossedClaims crossed;
  MemberCluster& cluster = crossed.cluster;
  const NodeId victim = crossed.a.member.self();
  cluster.lun.let_go("b");
  ASSERT_TRUE(cluster.wait(5s, [&] { return cluster.is_clean(victim.slot); }));
  ASSERT_TRUE(cluster.wait(5s, [&] { return crossed.b.member.lease_valid(); }));
  EXPECT_EQ(cluster.replays[victim], 1);
  EXPECT_TRUE(crossed.b.log.has("it is ours again"));
  cluster.loop.resume(crossed.a.executor);
  EXPECT_TRUE(cluster.wait(5s, [&] { return crossed.a.member.withdrawn(); }));
  EXPECT_EQ(crossed.b.withdrawals, 0);
}

// By a member, and by a joiner for which no other slot is left.
TEST(Membership, TwoThatHaveClaimedEachOtherAndDieAreRecovered) {
  for (const std::uint16_t slots : {std::uint16_t{4}, std::uint16_t{2}}) {
    SCOPED_TRACE(slots);
    CrossedClaims crossed(slots);
    MemberCluster& cluster = crossed.cluster;
    const NodeId first = crossed.a.member.self();
    const NodeId second = crossed.b.member.self();
    cluster.kill(crossed.a);
    cluster.kill(crossed.b);
    MemberNode& c = cluster.start("c");
    cluster.begin_join(c);
    ASSERT_TRUE(cluster.wait(5 * kRecoverWithin, [&] { return c.joined && cluster.replays.size() == 2; }));
    EXPECT_TRUE(*c.joined);
    EXPECT_EQ(cluster.replays[first], 1);
    EXPECT_EQ(cluster.replays[second], 1);
    EXPECT_EQ(c.withdrawals, 0);
    cluster.loop.run(c.executor, c.writers.join());
  }
}

// One of the two was not dead: when the other's slot is about to be claimed it goes on, and may be replaying it.
TEST(Membership, WhoeverReplaysIsFencedThoughItWasSilent) {
  CrossedClaims crossed;
  MemberCluster& cluster = crossed.cluster;
  const SlotNo slot = crossed.a.member.self().slot;
  const PrKey recoverer = cluster.key_of(crossed.b.member.self().slot);
  cluster.kill(crossed.a);
  MemberNode& c = cluster.start("c");
  const std::uint64_t offset = cluster.geometry.slot_record_offset(slot);
  bool claims = false;
  cluster.lun.set_hook([&](const SimulatedRequest& request) {
    const bool image = request.kind == Kind::kRead && request.length == cluster.geometry.logical_block;
    if (request.node == "c" && image && request.offset == offset && !claims) {
      claims = true;
      cluster.lun.hold("c");
    }
    return SimulatedFate::kRun;
  });
  cluster.begin_join(c);
  ASSERT_TRUE(cluster.wait(5 * kRecoverWithin, [&] { return claims; }));
  cluster.lun.let_go("b");
  ASSERT_TRUE(cluster.wait(5s, [&] { return (cluster.record(slot).flags & format::kSlotFenced) != 0; }));
  cluster.loop.pause(crossed.b.executor);
  cluster.on_replay = [&](NodeId) { EXPECT_FALSE(cluster.is_registered(recoverer)); };
  cluster.lun.let_go("c");
  ASSERT_TRUE(cluster.wait(2 * kRecoverWithin, [&] { return cluster.is_clean(slot); }));
  EXPECT_TRUE(c.joined && *c.joined);
  cluster.lun.set_hook({});
  cluster.loop.run(c.executor, c.writers.join());
}

TEST(Membership, RecovererKilledAtEachStep) {
  bool reached_the_end = false;
  for (int n = 1; n <= 40 && !reached_the_end; ++n) {
    SCOPED_TRACE(n);
    MemberCluster cluster(static_cast<std::uint64_t>(n));
    MemberNode& a = cluster.joined("a");
    MemberNode& b = cluster.joined("b");
    cluster.loop.run_for(3s);
    const NodeId first = a.member.self();
    const NodeId second = b.member.self();
    cluster.kill(a);
    int count = 0;
    cluster.lun.set_hook([&](const SimulatedRequest& request) {
      const bool step = request.kind == Kind::kCaw || request.kind == Kind::kReservation ||
                        request.kind == Kind::kReset || request.kind == Kind::kFlush;
      if (request.node != "b" || !step || !b.log.has("suspected") || ++count != n) return SimulatedFate::kRun;
      cluster.kill(b);
      return n % 2 == 0 ? SimulatedFate::kNeverReturn : SimulatedFate::kRun;
    });
    // c joins later, so that b is the first to suspect a.
    cluster.loop.run_for(5s);
    MemberNode& c = cluster.joined("c");
    cluster.wait(kRecoverWithin, [&] { return b.killed || cluster.is_clean(first.slot); });
    reached_the_end = !b.killed;
    if (reached_the_end) continue;
    ASSERT_TRUE(cluster.wait(2 * kRecoverWithin,
                             [&] { return cluster.is_clean(first.slot) && cluster.is_clean(second.slot); }));
    EXPECT_GE(cluster.replays[first], 1);
    EXPECT_EQ(cluster.replays[second], 1);
    EXPECT_EQ(c.withdrawals, 0);
  }
  EXPECT_TRUE(reached_the_end);
}

TEST(Membership, LostCawRepliesAndRequests) {
  for (const SimulatedFate fate : {SimulatedFate::kLoseReply, SimulatedFate::kLoseRequest}) {
    MemberCluster cluster(6);
    std::uint64_t caws = 0;
    // Each CAW is lost once; sent again it runs, or must be seen to have run.
    cluster.lun.set_hook([&](const SimulatedRequest& request) {
      if (request.kind != Kind::kCaw) return SimulatedFate::kRun;
      return ++caws % 2 == 1 ? fate : SimulatedFate::kRun;
    });
    MemberNode& a = cluster.joined("a");
    MemberNode& b = cluster.joined("b");
    EXPECT_EQ(a.member.self().incarnation.value, 1u);
    EXPECT_EQ(b.member.self().incarnation.value, 1u);
    const NodeId dead = a.member.self();
    cluster.kill(a);
    ASSERT_TRUE(cluster.wait(kRecoverWithin, [&] { return cluster.is_clean(dead.slot); }));
    cluster.loop.run_for(1s);
    EXPECT_EQ(cluster.replays[dead], 1);
    const SlotNo slot = b.member.self().slot;
    EXPECT_TRUE(cluster.stop(b));
    EXPECT_TRUE(cluster.is_clean(slot));
    EXPECT_GT(caws, 5u);
    cluster.destroy(b);
  }
}

TEST(Membership, PowerCutOfTheTarget) {
  for (const bool aptpl : {true, false}) {
    SCOPED_TRACE(aptpl);
    SimulatedLunOptions options{.sessions = true};
    options.persist_reservations = aptpl;
    MemberCluster cluster(7, options);
    MemberNode& a = cluster.joined(NodeSettings{.name = "a", .no_aptpl = !aptpl});
    MemberNode& b = cluster.joined(NodeSettings{.name = "b", .no_aptpl = !aptpl});
    for (int i = 0; i < 5; ++i) {
      cluster.loop.run_for(2s);
      cluster.lun.power_cut();
    }
    cluster.loop.run_for(15s);
    EXPECT_EQ(a.withdrawals + b.withdrawals, 0);
    EXPECT_GE(a.resets, 5);
    EXPECT_EQ(cluster.keys(), 2u);
    EXPECT_TRUE(a.member.lease_valid());
    EXPECT_TRUE(cluster.replays.empty());
  }
}

// A reservation that goes without a word (a careless administrator on this very host) is made again: until then a
// fenced node could write. Key and heartbeat show nothing of it.
TEST(Membership, AReservationThatVanishesIsMadeAgain) {
  MemberCluster cluster(7);
  MemberNode& a = cluster.joined("a");
  cluster.loop.run_for(5s);
  ASSERT_TRUE(cluster.loop.run(a.executor, a.raw->pr_release(cluster.key_of(a.member.self().slot), kReservationType)));
  EXPECT_FALSE(cluster.is_reserved());
  cluster.loop.run_for(kDeadTime / 2 + 1s);
  EXPECT_TRUE(cluster.is_reserved());
  EXPECT_EQ(a.withdrawals, 0);
}

// note_replay() looks.
TEST(Membership, AReservationThatVanishesDuringAFenceIsMadeAgainBeforeTheReplay) {
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    SCOPED_TRACE(seed);
    MemberCluster cluster(seed);
    MemberNode& a = cluster.joined("a");
    MemberNode& b = cluster.joined("b");
    cluster.loop.run_for(5s);
    const NodeId dead = b.member.self();
    const PrKey own = cluster.key_of(a.member.self().slot);
    cluster.kill(b);
    ASSERT_TRUE(cluster.wait(kRecoverWithin, [&] { return cluster.state(dead.slot) == SlotState::kRecovering; }));
    ASSERT_TRUE(cluster.loop.run(a.executor, a.raw->pr_release(own, kReservationType)));
    ASSERT_TRUE(cluster.wait(kRecoverWithin, [&] { return cluster.is_clean(dead.slot); }));
    EXPECT_EQ(cluster.replays[dead], 1);
    EXPECT_EQ(a.withdrawals, 0);
  }
}

TEST(Membership, TargetWithoutAptplIsRefused) {
  SimulatedLunOptions options;
  options.persist_reservations = false;
  MemberCluster cluster(8, options);
  MemberNode& a = cluster.start("a");
  const Result<> done = cluster.try_join(a);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error(), Errc::kUnsupported);
  EXPECT_TRUE(a.log.has("noaptpl"));
}

Task<Result<>> reserve(BlockDevice& device, ReservationType type) {
  Result<> done = co_await device.pr_register_ignore(PrKey{77}, Aptpl::kYes);
  if (done) done = co_await device.pr_reserve(PrKey{77}, type);
  co_return done;
}

TEST(Membership, ForeignReservationIsNamed) {
  MemberCluster cluster(9);
  Executor& executor = cluster.loop.add_executor();
  auto other = cluster.lun.connect(executor, "other");
  ASSERT_TRUE(cluster.loop.run(executor, reserve(*other, ReservationType::kWriteExclusiveRegistrants)));
  MemberNode& a = cluster.start("a");
  const Result<> done = cluster.try_join(a);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error(), Errc::kForeignReservation);
  EXPECT_TRUE(a.log.has("0x000000000000004d"));
  EXPECT_EQ(cluster.keys(), 1u);
}

TEST(Membership, StrayKeyIsSwept) {
  MemberCluster cluster(10);
  cluster.joined("a");
  cluster.joined("b");
  Executor& executor = cluster.loop.add_executor();
  auto other = cluster.lun.connect(executor, "other");
  ASSERT_TRUE(cluster.loop.run(executor, other->pr_register_ignore(PrKey{77}, Aptpl::kYes)));
  cluster.loop.run_for(2 * kDeadTime - 1s);
  EXPECT_EQ(cluster.keys(), 3u);
  cluster.loop.run_for(kDeadTime + 1s);
  EXPECT_EQ(cluster.keys(), 2u);
}

TEST(Membership, OwnSlotAtOnce) {
  for (const bool same_boot : {true, false}) {
    SCOPED_TRACE(same_boot);
    MemberCluster cluster(11);
    MemberNode& a = cluster.joined(NodeSettings{.name = "a", .host_lock = true});
    const NodeId dead = a.member.self();
    cluster.loop.run_for(3s);
    cluster.kill(a);
    const Time killed = cluster.loop.now();
    const std::uint8_t boot = same_boot ? 1 : 2;
    MemberNode& again = cluster.joined(NodeSettings{.name = "a", .boot = boot, .host_lock = true});
    EXPECT_EQ(again.member.self().slot, dead.slot);
    EXPECT_GT(again.member.self().incarnation, dead.incarnation);
    EXPECT_EQ(cluster.replays[dead], 1);
    EXPECT_LT(cluster.loop.now() - killed, same_boot ? kDeadTime / 2 + 1s : kDeadTime);
    cluster.loop.run_for(20s);
    EXPECT_EQ(again.withdrawals, 0);
  }
}

TEST(Membership, CloneOfALivingMachineIsRefused) {
  MemberCluster cluster(12);
  cluster.joined(NodeSettings{.name = "a", .uuid = 5, .host_lock = true});
  MemberNode& clone = cluster.start(NodeSettings{.name = "b", .uuid = 5, .boot = 2, .host_lock = true});
  const Result<> done = cluster.try_join(clone);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error(), Errc::kNameInUse);
}

TEST(Membership, NoSlotIsFree) {
  MemberCluster cluster(13, {.sessions = true}, 2);
  cluster.joined("a");
  cluster.joined("b");
  MemberNode& c = cluster.start("c");
  const Result<> done = cluster.try_join(c);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error(), Errc::kNoSlot);
}

// One unreadable sector, of a slot that nobody has, keeps nobody from joining, living and recovering others. Nor does
// the heartbeat of the dead node itself: it shows no life.
TEST(Membership, AnUnreadableSectorHidesNobodyElse) {
  for (const char* what : {"record of slot 3", "heartbeat of slot 3", "heartbeat of slot 1"}) {
    SCOPED_TRACE(what);
    MemberCluster cluster(14);
    const SlotNo slot{static_cast<std::uint16_t>(std::string_view(what).ends_with("3") ? 3 : 1)};
    const bool record = std::string_view(what).starts_with("record");
    const std::uint64_t unreadable =
        record ? cluster.geometry.slot_record_offset(slot) : cluster.geometry.heartbeat_offset(slot);
    cluster.lun.set_hook([&](const SimulatedRequest& request) {
      const bool covers = request.offset <= unreadable && unreadable < request.offset + request.length;
      return covers && request.kind == Kind::kRead ? SimulatedFate::kMediumError : SimulatedFate::kRun;
    });
    MemberNode& a = cluster.joined("a");
    MemberNode& b = cluster.joined("b");
    cluster.loop.run_for(5s);
    const NodeId dead = b.member.self();
    cluster.kill(b);
    EXPECT_TRUE(cluster.wait(kRecoverWithin, [&] { return cluster.is_clean(dead.slot); }));
    EXPECT_TRUE(a.member.lease_valid());
    EXPECT_EQ(a.lapses + a.withdrawals, 0);
  }
}

// An incarnation is never given twice: a slot that has had the last one is taken by nobody.
TEST(Membership, SlotsThatAreUsedUpAreLeftAlone) {
  constexpr Incarnation kLast{0xffffffff};
  for (const SlotState state : {SlotState::kClean, SlotState::kActive}) {
    SCOPED_TRACE(static_cast<int>(state));
    MemberCluster cluster(13, {.sessions = true}, 2);
    cluster.put(SlotNo{0}, state, kLast);
    MemberNode& a = cluster.joined("a");
    EXPECT_EQ(a.member.self().slot, SlotNo{1});
    EXPECT_TRUE(cluster.wait(kRecoverWithin, [&] { return cluster.is_clean(SlotNo{0}); }));
    EXPECT_TRUE(cluster.stop(a));
    cluster.destroy(a);

    cluster.put(SlotNo{0}, state, kLast);
    cluster.put(SlotNo{1}, state, kLast);
    MemberNode& b = cluster.start("b");
    const Result<> done = cluster.try_join(b);
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error(), Errc::kNoSlot);
  }
}

// All slots belong to nodes that died at once: a stranger recovers one, takes it, and then the others.
TEST(Membership, JoinerRecoversWhenAllAreDead) {
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    MemberCluster cluster(seed, slow_lun(), 2);
    MemberNode& a = cluster.joined("a");
    MemberNode& b = cluster.joined("b");
    const NodeId first = a.member.self();
    const NodeId second = b.member.self();
    cluster.loop.run_for(3s);
    cluster.kill(a);
    cluster.kill(b);
    MemberNode& c = cluster.joined("c");
    const SlotNo taken = c.member.self().slot;
    const SlotNo other = taken == first.slot ? second.slot : first.slot;
    ASSERT_TRUE(cluster.wait(kRecoverSlowlyWithin, [&] { return cluster.is_clean(other); }));
    cluster.loop.run_for(15s);
    EXPECT_EQ(cluster.replays[first], 1);
    EXPECT_EQ(cluster.replays[second], 1);
    EXPECT_EQ(c.withdrawals, 0);
  }
}

// A joiner that recovers from within the slot dies at its n-th step; another joiner finishes.
TEST(Membership, RecoveringJoinerKilledAtEachStep) {
  bool reached_the_end = false;
  for (int n = 1; n <= 40 && !reached_the_end; ++n) {
    SCOPED_TRACE(n);
    MemberCluster cluster(static_cast<std::uint64_t>(n), {.sessions = true}, 1);
    MemberNode& a = cluster.joined("a");
    const NodeId dead = a.member.self();
    cluster.loop.run_for(2s);
    cluster.kill(a);
    MemberNode& b = cluster.start("b");
    int count = 0;
    cluster.lun.set_hook([&](const SimulatedRequest& request) {
      const bool step = request.kind == Kind::kCaw || request.kind == Kind::kReservation ||
                        request.kind == Kind::kReset || request.kind == Kind::kFlush;
      if (request.node != "b" || !step || b.killed || ++count != n) return SimulatedFate::kRun;
      cluster.kill(b);
      return n % 2 == 0 ? SimulatedFate::kNeverReturn : SimulatedFate::kRun;
    });
    Result<> joined;
    bool ended = false;
    TaskGroup& group = *new TaskGroup(b.executor);     // dies with its node
    static auto& kept = *new std::vector<TaskGroup*>;  // outlives the leak check
    kept.push_back(&group);
    struct Join {
      static Task<void> run(ClusterMember& member, Result<>& result, bool& ended) {
        result = co_await member.join();
        ended = true;
      }
    };
    group.spawn(Join::run(b.member, joined, ended));
    cluster.wait(kRecoverWithin, [&] { return ended || b.killed; });
    reached_the_end = ended;
    if (reached_the_end) {
      EXPECT_TRUE(joined);
      continue;
    }
    MemberNode& c = cluster.joined("c");
    EXPECT_EQ(c.member.self().slot, dead.slot);
    EXPECT_GT(c.member.self().incarnation, dead.incarnation);
    EXPECT_GE(cluster.replays[dead], 1);
    EXPECT_EQ(c.withdrawals, 0);
  }
  EXPECT_TRUE(reached_the_end);
}

// All slots are dead, and the recoverer of one of them only sleeps, in the middle of its replay. Whoever replays that
// journal again must have shut it out before.
TEST(Membership, JoinerShutsOutARecovererThatSleepsInItsReplay) {
  MemberCluster cluster(21, {.sessions = true}, 2);
  MemberNode& a = cluster.joined("a");
  MemberNode& b = cluster.joined("b");
  cluster.loop.run_for(3s);
  const NodeId dead = a.member.self();
  const NodeId sleeper = b.member.self();
  const PrKey key = cluster.key_of(sleeper.slot);
  cluster.kill(a);
  ASSERT_TRUE(cluster.wait(kRecoverWithin, [&] { return cluster.replays[dead] == 1; }));
  cluster.loop.pause(b.executor);
  cluster.on_replay = [&](NodeId) { EXPECT_FALSE(cluster.is_registered(key)); };
  MemberNode& c = cluster.joined("c");
  ASSERT_TRUE(cluster.wait(kRecoverWithin, [&] { return cluster.is_clean(dead.slot); }));
  EXPECT_EQ(cluster.replays[dead], 2);
  EXPECT_EQ(cluster.replays[sleeper], 1);
  cluster.loop.resume(b.executor);
  EXPECT_TRUE(cluster.wait(5s, [&] { return b.member.withdrawn(); }));
  cluster.loop.run_for(5s);
  EXPECT_EQ(c.withdrawals, 0);
}

// A joiner that recovers from within the slot sleeps in the middle of its replay; the next one dies at its n-th step,
// before it has shut the first one out or after that, and the third replays.
TEST(Membership, RecoveringJoinerIsShutOutByWhoeverReplaysNext) {
  bool reached_the_end = false;
  for (int n = 1; n <= 20 && !reached_the_end; ++n) {
    SCOPED_TRACE(n);
    MemberCluster cluster(22, {.sessions = true}, 1);
    MemberNode& a = cluster.joined("a");
    const NodeId dead = a.member.self();
    cluster.loop.run_for(2s);
    cluster.kill(a);
    MemberNode& b = cluster.start("b");
    cluster.begin_join(b);
    ASSERT_TRUE(cluster.wait(2 * kRecoverWithin, [&] { return cluster.replays[dead] == 1; }));
    cluster.loop.pause(b.executor);
    const PrKey sleeper{cluster.record(dead.slot).recoverer_key.value()};
    ASSERT_TRUE(cluster.is_registered(sleeper));
    cluster.on_replay = [&](NodeId) { EXPECT_FALSE(cluster.is_registered(sleeper)); };

    MemberNode& c = cluster.start("c");
    int count = 0;
    cluster.lun.set_hook([&](const SimulatedRequest& request) {
      const bool step =
          request.kind == Kind::kCaw || request.kind == Kind::kReservation || request.kind == Kind::kFlush;
      if (request.node != "c" || !step || c.killed || ++count != n) return SimulatedFate::kRun;
      cluster.kill(c);
      return n % 2 == 0 ? SimulatedFate::kNeverReturn : SimulatedFate::kRun;
    });
    cluster.begin_join(c);
    cluster.wait(2 * kRecoverWithin, [&] { return c.joined || c.killed; });
    reached_the_end = c.joined.has_value();
    if (!reached_the_end) {
      MemberNode& d = cluster.joined("d");
      EXPECT_EQ(d.withdrawals, 0);
    }
    EXPECT_GE(cluster.replays[dead], 2);
    cluster.loop.resume(b.executor);
    ASSERT_TRUE(cluster.wait(kRecoverWithin, [&] { return b.joined.has_value(); }));
    EXPECT_FALSE(*b.joined);
  }
  EXPECT_TRUE(reached_the_end);
}

// The joiner that was shut out has nothing to do with the slot any more: its host may come back while the next one is
// still at it, or cannot go on.
TEST(Membership, RecoveringJoinerThatWasShutOutMayComeBack) {
  MemberCluster cluster(35, {.sessions = true}, 2);
  MemberNode& a = cluster.joined("a");
  const NodeId dead = a.member.self();
  cluster.loop.run_for(2s);
  MemberNode& other = cluster.joined("o");
  cluster.kill(a);
  cluster.kill(other);
  MemberNode& b = cluster.start("b");
  cluster.begin_join(b);
  ASSERT_TRUE(cluster.wait(2 * kRecoverWithin, [&] { return cluster.replays[dead] == 1; }));
  cluster.kill(b);
  MemberNode& c = cluster.start("c");
  cluster.begin_join(c);
  ASSERT_TRUE(cluster.wait(3 * kRecoverWithin, [&] { return cluster.replays[dead] == 2; }));
  const format::SlotRecord record = cluster.record(dead.slot);
  EXPECT_EQ(record.flags, format::kSlotFenced);
  EXPECT_EQ(field_text(record.initiator_name), "");
  EXPECT_EQ(record.pr_key.value(), 0u);
  EXPECT_EQ(record.isid.value(), 0u);
  // Its replay lasts.
  cluster.loop.pause(c.executor);
  cluster.lun.set_hook({});
  MemberNode& again = cluster.start("b");
  cluster.begin_join(again);
  ASSERT_TRUE(cluster.wait(3 * kRecoverWithin, [&] { return again.joined.has_value(); }));
  EXPECT_TRUE(*again.joined);
}

// The recoverer of a recoverer is dead, too. Whoever replays a journal again has shut out who replayed it before.
TEST(Membership, JoinerRecoversAChainOfRecoverers) {
  MemberCluster cluster(23, {.sessions = true}, 3);
  MemberNode& a = cluster.joined("a");
  MemberNode& b = cluster.joined("b");
  cluster.loop.run_for(3s);
  const NodeId first = a.member.self();
  const NodeId second = b.member.self();
  cluster.kill(a);
  ASSERT_TRUE(cluster.wait(kRecoverWithin, [&] { return cluster.replays[first] == 1; }));
  cluster.loop.pause(b.executor);
  MemberNode& c = cluster.joined("c");
  const NodeId third = c.member.self();
  ASSERT_TRUE(cluster.wait(kRecoverWithin, [&] { return cluster.replays[second] == 1; }));
  cluster.loop.pause(c.executor);
  ASSERT_EQ(cluster.state(first.slot), SlotState::kRecovering);
  ASSERT_EQ(cluster.state(second.slot), SlotState::kRecovering);
  const std::map<NodeId, PrKey> recoverers{{first, cluster.key_of(second.slot)}, {second, cluster.key_of(third.slot)}};
  cluster.on_replay = [&](NodeId dead) {
    if (recoverers.contains(dead)) EXPECT_FALSE(cluster.is_registered(recoverers.at(dead)));
  };
  MemberNode& d = cluster.joined("d");
  const std::array<NodeId, 3> all{first, second, third};
  ASSERT_TRUE(cluster.wait(2 * kRecoverWithin, [&] {
    return std::ranges::all_of(
        all, [&](NodeId node) { return node.slot == d.member.self().slot || cluster.is_clean(node.slot); });
  }));
  EXPECT_EQ(cluster.replays[first], 2);
  EXPECT_EQ(cluster.replays[second], 2);
  EXPECT_EQ(cluster.replays[third], 1);
  for (MemberNode* sleeper : {&b, &c}) {
    cluster.loop.resume(sleeper->executor);
    EXPECT_TRUE(cluster.wait(5s, [&] { return sleeper->member.withdrawn(); }));
  }
  EXPECT_EQ(d.withdrawals, 0);
}

TEST(Membership, InitiatorNameInUseIsRefused) {
  SimulatedLunOptions options;
  options.sessions = true;
  MemberCluster cluster(14, options);
  MemberNode& a = cluster.joined("a");
  const NodeId dead = a.member.self();
  cluster.joined("b");
  cluster.loop.run_for(2s);
  // The simulated target ends the session that has the name; the node logs in again on the next request.
  MemberNode& same = cluster.start("a");
  const Result<> refused = cluster.try_join(same);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error(), Errc::kNameInUse);
  cluster.loop.run_for(2s);
  EXPECT_EQ(a.withdrawals, 0);

  // Once it is dead the others recover it, and the name may come back.
  cluster.kill(a);
  MemberNode& again = cluster.joined("a");
  EXPECT_EQ(cluster.replays[dead], 1);
  EXPECT_FALSE(again.member.withdrawn());
}

TEST(Membership, LocalMountSuffersNobodyBesideIt) {
  MemberCluster cluster(15);
  MemberNode& a = cluster.joined("a");
  MemberNode& local = cluster.start(NodeSettings{.name = "l", .local = true});
  Result<> done = cluster.try_join(local);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error(), Errc::kLocalMode);
  EXPECT_TRUE(cluster.stop(a));
  cluster.destroy(a);

  MemberNode& alone = cluster.joined(NodeSettings{.name = "m", .local = true});
  EXPECT_EQ(cluster.record(alone.member.self().slot).flags, format::kSlotLocal);
  MemberNode& late = cluster.start("b");
  done = cluster.try_join(late);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error(), Errc::kLocalMode);
  EXPECT_FALSE(alone.member.withdrawn());
}

// A node fenced long ago sleeps on while all others leave: the last one's registration keeps the reservation.
TEST(Membership, SleeperWakesAfterTheLastHasLeft) {
  MemberCluster cluster(16);
  MemberNode& a = cluster.joined("a");
  MemberNode& b = cluster.joined("b");
  cluster.loop.run_for(2s);
  const NodeId victim = a.member.self();
  cluster.loop.pause(a.executor);
  ASSERT_TRUE(cluster.wait(kRecoverWithin, [&] { return cluster.is_clean(victim.slot); }));
  cluster.loop.run_for(1s);
  EXPECT_TRUE(cluster.stop(b));
  cluster.destroy(b);
  cluster.loop.resume(a.executor);
  EXPECT_TRUE(cluster.wait(5s, [&] { return a.member.withdrawn(); }));
}

// A fenced node sleeps, and no other but one is left: however that one ends, the reservation must outlive it.
TEST(Membership, TheLastRegistrantThatWithdrawsKeepsTheReservation) {
  MemberCluster cluster(24);
  MemberNode& a = cluster.joined("a");
  MemberNode& b = cluster.joined("b");
  cluster.loop.run_for(2s);
  const NodeId victim = a.member.self();
  cluster.loop.pause(a.executor);
  ASSERT_TRUE(cluster.wait(kRecoverWithin, [&] { return cluster.is_clean(victim.slot); }));
  b.member.withdraw(Error{Errc::kMedium, "test"});
  cluster.loop.run_for(5s);
  EXPECT_EQ(cluster.keys(), 1u);
  cluster.loop.resume(a.executor);
  EXPECT_TRUE(cluster.wait(5s, [&] { return a.member.withdrawn(); }));
  cluster.loop.run_for(1s);
  EXPECT_EQ(cluster.keys(), 1u);

  // Whoever comes next recovers it, and sweeps what is left of keys.
  MemberNode& c = cluster.joined("c");
  cluster.loop.run_for(5 * kDeadTime);
  EXPECT_EQ(cluster.keys(), 1u);
  EXPECT_TRUE(cluster.is_registered(cluster.key_of(c.member.self().slot)));
}

// Two withdraw at once: each sees the other's key, and none may count on it.
TEST(Membership, AllWhoWithdrawAtOnceKeepTheReservation) {
  MemberCluster cluster(25);
  MemberNode& a = cluster.joined("a");
  MemberNode& b = cluster.joined("b");
  cluster.loop.run_for(2s);
  a.member.withdraw(Error{Errc::kMedium, "test"});
  b.member.withdraw(Error{Errc::kMedium, "test"});
  cluster.loop.run_for(5s);
  EXPECT_GE(cluster.keys(), 1u);
}

// A sleeper is claimed, wakes and withdraws, at the moment at which its claimer gives the slot back and leaves: each
// sees the other's key, and only one of them may count on it.
TEST(Membership, AClaimedNodeThatWithdrawsKeepsTheReservation) {
  MemberCluster cluster(34);
  MemberNode& a = cluster.joined("a");
  MemberNode& b = cluster.joined("b");
  cluster.loop.run_for(3s);
  const NodeId sleeper = a.member.self();
  const PrKey key = cluster.key_of(sleeper.slot);
  const std::uint64_t record = cluster.geometry.slot_record_offset(sleeper.slot);
  const std::uint64_t beat = cluster.geometry.heartbeat_offset(sleeper.slot);
  bool claimed = false;
  bool slept = false;
  cluster.lun.set_hook([&](const SimulatedRequest& request) {
    if (request.node == "b" && request.kind == Kind::kCaw && request.offset == record) claimed = true;
    // Before it looks at the heartbeat once more.
    if (request.node == "b" && claimed && !slept && request.kind == Kind::kRead && request.offset == beat &&
        request.length == kBlockSize) {
      slept = true;
      cluster.loop.pause(b.executor);
      cluster.loop.resume(a.executor);
      return SimulatedFate::kLoseRequest;
    }
    return SimulatedFate::kRun;
  });
  cluster.loop.pause(a.executor);
  ASSERT_TRUE(cluster.wait(kRecoverWithin, [&] { return slept; }));
  ASSERT_EQ(cluster.state(sleeper.slot), SlotState::kRecovering);
  cluster.loop.run_for(2s);
  a.member.withdraw(Error{Errc::kMedium, "test"});
  cluster.loop.run_for(1s);
  EXPECT_TRUE(cluster.is_registered(key));
  cluster.loop.resume(b.executor);
  ASSERT_TRUE(cluster.wait(3s, [&] { return cluster.state(sleeper.slot) == SlotState::kActive; }));
  EXPECT_TRUE(cluster.stop(b));
  cluster.destroy(b);
  EXPECT_GE(cluster.keys(), 1u);
}

// A slot in use whose key is not registered any more does not keep the reservation.
TEST(Membership, TheLastToLeaveCountsKeysAndNotSlots) {
  MemberCluster cluster(26);
  MemberNode& a = cluster.joined("a");
  MemberNode& b = cluster.joined("b");
  cluster.loop.run_for(2s);
  const PrKey lost = cluster.key_of(a.member.self().slot);
  cluster.loop.pause(a.executor);
  Result<> done = cluster.loop.run(
      b.executor, b.member.device().pr_preempt_and_abort(cluster.key_of(b.member.self().slot), lost, kReservationType));
  ASSERT_TRUE(done);
  EXPECT_TRUE(cluster.stop(b));
  cluster.destroy(b);
  EXPECT_EQ(cluster.keys(), 1u);
}

// The storage is gone just when a node has left its slot: it does not wait for it only to unregister.
TEST(Membership, LeavingDoesNotWaitForTheTargetToUnregister) {
  MemberCluster cluster(41);
  MemberNode& a = cluster.joined("a");
  MemberNode& b = cluster.joined("b");
  cluster.loop.run_for(3s);
  const SlotNo slot = b.member.self().slot;
  const PrKey key = cluster.key_of(slot);
  bool cut = false;
  cluster.lun.set_hook([&](const SimulatedRequest& request) {
    if (request.node == "b" && request.kind == Kind::kRead && cluster.is_clean(slot) && !std::exchange(cut, true)) {
      cluster.lun.cut_path("b");
    }
    return SimulatedFate::kRun;
  });
  cluster.begin_stop(b);
  EXPECT_TRUE(cluster.wait(2 * kDeadTime, [&] { return b.left.has_value(); }));
  EXPECT_TRUE(cut);
  cluster.lun.heal_path("b");
  ASSERT_TRUE(cluster.wait(2 * kDeadTime, [&] { return b.left.has_value(); }));
  EXPECT_TRUE(*b.left);
  cluster.loop.run_for(4 * kDeadTime);
  EXPECT_FALSE(cluster.is_registered(key));  // swept
  EXPECT_EQ(a.withdrawals, 0);
}

// The host of the last one to leave comes back, and its join fails: the key that it replaced was the only one.
TEST(Membership, AJoinThatFailsKeepsTheReservation) {
  MemberCluster cluster(27, {.sessions = true}, 1);
  MemberNode& a = cluster.joined("a");
  const SlotNo slot = a.member.self().slot;
  EXPECT_TRUE(cluster.stop(a));
  cluster.destroy(a);
  EXPECT_EQ(cluster.keys(), 1u);
  // The slot that it takes is damaged for its first COMPARE AND WRITE.
  MemberNode& again = cluster.start("a");
  cluster.lun.set_hook([&](const SimulatedRequest& request) {
    return request.kind == Kind::kCaw ? SimulatedFate::kMediumError : SimulatedFate::kRun;
  });
  const Result<> done = cluster.try_join(again);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error(), Errc::kMedium);
  EXPECT_EQ(cluster.keys(), 1u);
  EXPECT_TRUE(cluster.is_clean(slot));
}

// A node looks at its slot, finds it its own, and sleeps. Meanwhile it is claimed, and loses its key. It wakes, misses
// the key and registers again, and the n-th reply about reservations is lost: it must not take its own REGISTER for a
// sign that it was never fenced, and write while its journal is replayed.
TEST(Membership, RegisteringAgainDoesNotHideThatTheKeyHadGone) {
  for (int n = 1; n <= 5; ++n) {
    SCOPED_TRACE(n);
    MemberCluster cluster(28);
    MemberNode& a = cluster.joined("a");
    MemberNode& b = cluster.joined("b");
    cluster.loop.run_for(3s);
    const NodeId victim = a.member.self();
    const std::uint64_t record = cluster.geometry.slot_record_offset(victim.slot);
    const PrKey key = cluster.key_of(victim.slot);
    bool asleep = false;
    bool preempted = false;
    int replies = 0;
    cluster.lun.set_hook([&](const SimulatedRequest& request) {
      const bool looks = request.kind == Kind::kRead && request.offset == record && request.length == kBlockSize;
      if (request.node == "a" && looks && !asleep) {
        asleep = true;
        cluster.loop.pause(a.executor);
      }
      if (request.node == "b" && request.kind == Kind::kCaw && asleep && !preempted && !cluster.is_registered(key)) {
        preempted = true;  // and the keys have been read back
        cluster.loop.pause(b.executor);
        return SimulatedFate::kLoseRequest;
      }
      const bool answers = request.node == "a" && request.kind == Kind::kReservation && preempted;
      return answers && ++replies == n ? SimulatedFate::kLoseReply : SimulatedFate::kRun;
    });
    static_cast<GuardedDevice&>(a.member.device()).doubt();
    ASSERT_TRUE(cluster.wait(2 * kRecoverWithin, [&] { return preempted; }));
    const auto before = cluster.data_of(victim.slot);
    cluster.loop.resume(a.executor);
    EXPECT_TRUE(cluster.wait(3s, [&] { return a.member.withdrawn(); }));
    cluster.loop.run_for(2s);
    EXPECT_EQ(cluster.data_of(victim.slot), before);
    EXPECT_FALSE(cluster.is_registered(key));
    cluster.loop.resume(b.executor);
    ASSERT_TRUE(cluster.wait(kRecoverWithin, [&] { return cluster.is_clean(victim.slot); }));
    EXPECT_EQ(b.withdrawals, 0);
  }
}

// A journal that cannot be replayed holds up no other slot, and is tried again each dead-time, in case somebody mends
// it.
TEST(Membership, AJournalThatCannotBeReplayedHoldsUpNoOtherSlot) {
  for (const Errc why : {Errc::kBadChecksum, Errc::kMedium}) {
    SCOPED_TRACE(describe(why));
    MemberCluster cluster(30);
    MemberNode& a = cluster.joined("a");
    MemberNode& b = cluster.joined("b");
    MemberNode& c = cluster.joined("c");
    cluster.loop.run_for(3s);
    const NodeId broken = a.member.self();
    const NodeId dead = b.member.self();
    ASSERT_LT(broken.slot, dead.slot);
    cluster.broken[broken.slot] = why;
    cluster.kill(a);
    cluster.kill(b);
    ASSERT_TRUE(cluster.wait(kRecoverWithin, [&] { return cluster.is_clean(dead.slot); }));
    EXPECT_EQ(cluster.replays[broken], 1);
    cluster.loop.run_for(5 * kDeadTime);
    EXPECT_GE(cluster.replays[broken], 5);
    EXPECT_LE(cluster.replays[broken], 7);
    EXPECT_TRUE(c.log.has(fmt::format("journal of slot {} cannot be replayed: {}", broken.slot.value, describe(why))));
    cluster.broken.clear();
    ASSERT_TRUE(cluster.wait(kRecoverWithin, [&] { return cluster.is_clean(broken.slot); }));
    EXPECT_EQ(c.withdrawals, 0);
  }
}

// The recoverer has died in its replay, and its own journal cannot be replayed: once it has been fenced, what it was to
// recover can be.
TEST(Membership, AFencedRecovererThatCannotBeReplayedHoldsUpNobody) {
  MemberCluster cluster(31);
  MemberNode& a = cluster.joined("a");
  MemberNode& b = cluster.joined("b");
  cluster.loop.run_for(5s);
  MemberNode& c = cluster.joined("c");  // later, so that b is the first to suspect a
  const NodeId dead = a.member.self();
  const NodeId recoverer = b.member.self();
  const PrKey key = cluster.key_of(recoverer.slot);
  cluster.broken[recoverer.slot] = Errc::kBadChecksum;
  cluster.kill(a);
  ASSERT_TRUE(cluster.wait(kRecoverWithin, [&] { return cluster.replays[dead] == 1; }));
  cluster.loop.pause(b.executor);
  cluster.on_replay = [&](NodeId) { EXPECT_FALSE(cluster.is_registered(key)); };
  ASSERT_TRUE(cluster.wait(2 * kRecoverWithin, [&] { return cluster.is_clean(dead.slot); }));
  EXPECT_EQ(cluster.replays[dead], 2);
  EXPECT_EQ(cluster.state(recoverer.slot), SlotState::kRecovering);
  cluster.loop.resume(b.executor);
  EXPECT_TRUE(cluster.wait(5s, [&] { return b.member.withdrawn(); }));
  EXPECT_EQ(c.withdrawals, 0);
}

// All are dead, and one of the journals cannot be replayed. A joiner that has tried it leaves it to others, and the
// next time, from the same host, takes another slot; then it does what it can for the first.
TEST(Membership, JoinerPicksASlotThatCanBeReplayed) {
  for (const Errc why : {Errc::kBadChecksum, Errc::kMedium}) {
    for (const std::string& comes : {"c", "a"}) {
      SCOPED_TRACE(fmt::format("{} {}", describe(why), comes));
      MemberCluster cluster(32, {.sessions = true}, 2);
      MemberNode& a = cluster.joined("a");
      MemberNode& b = cluster.joined("b");
      cluster.loop.run_for(3s);
      const NodeId broken = a.member.self();
      const NodeId other = b.member.self();
      cluster.broken[broken.slot] = why;
      cluster.kill(a);
      cluster.kill(b);
      MemberNode& fails = cluster.start(comes);
      const Result<> done = cluster.try_join(fails);
      ASSERT_FALSE(done);
      EXPECT_EQ(done.error(), why);
      cluster.stop(fails);
      EXPECT_EQ(cluster.record(broken.slot).recoverer_slot.value(), kNoSlotOfItsOwn.value);
      EXPECT_NE(cluster.record(broken.slot).flags & format::kSlotDamaged, 0);

      MemberNode& next = cluster.joined(comes);
      EXPECT_EQ(next.member.self().slot, other.slot);
      EXPECT_EQ(cluster.replays[other], 1);
      ASSERT_TRUE(cluster.wait(kRecoverWithin, [&] { return cluster.replays[broken] == 2; }));
      // It lives, and what is left will not be CLEAN soon.
      MemberNode& third = cluster.start("d");
      const Time began = cluster.loop.now();
      const Result<> refused = cluster.try_join(third);
      ASSERT_FALSE(refused);
      EXPECT_EQ(refused.error(), Errc::kNoSlot);
      EXPECT_LT(cluster.loop.now() - began, 2 * kDeadTime);
      cluster.broken.clear();
      ASSERT_TRUE(cluster.wait(2 * kDeadTime, [&] { return cluster.is_clean(broken.slot); }));
      EXPECT_EQ(next.withdrawals, 0);
    }
  }
}

// A journal that cannot be replayed is tried all the same where no other slot is left.
TEST(Membership, JoinerTriesADamagedSlotAgain) {
  MemberCluster cluster(33, {.sessions = true}, 1);
  MemberNode& a = cluster.joined("a");
  const NodeId dead = a.member.self();
  cluster.loop.run_for(3s);
  cluster.broken[dead.slot] = Errc::kBadChecksum;
  cluster.kill(a);
  for (int i = 1; i <= 3; ++i) {
    MemberNode& b = cluster.start("b");
    EXPECT_FALSE(cluster.try_join(b));
    EXPECT_EQ(cluster.replays[dead], i);
    cluster.stop(b);
  }
  cluster.broken.clear();
  cluster.joined("b");
}

}  // namespace
}  // namespace cawfs::test
