// The rules of one lock entry: examples, and a search through every state that a few nodes can bring an entry into, in
// any order of steps, with any knowledge of each other's wants, crashes, recoveries and rejoins.
#include "disklock/lock_entry.h"

#include <gtest/gtest.h>

#include <deque>
#include <unordered_set>
#include <vector>

namespace cawfs {
namespace {

constexpr LockMode kNl = LockMode::kNone;
constexpr LockMode kS = LockMode::kShared;
constexpr LockMode kEx = LockMode::kExclusive;

NodeId node(std::uint16_t slot, std::uint32_t incarnation = 1) {
  return {SlotNo{slot}, Incarnation{incarnation}};
}

std::uint64_t bits(std::initializer_list<int> slots) {
  std::uint64_t out = 0;
  for (int slot : slots) out |= std::uint64_t{1} << slot;
  return out;
}

LockEntry free_entry() {
  return LockEntry{.generation = Generation{7}};
}
LockEntry exclusive(NodeId owner, std::uint64_t waiting = 0) {
  return LockEntry{.mode = kEx, .owner = owner, .generation = Generation{7}, .sharers = waiting};
}
LockEntry shared(std::uint64_t sharers) {
  return LockEntry{.mode = kS, .generation = Generation{7}, .sharers = sharers};
}

SlotLives lives_of(std::initializer_list<std::pair<int, int>> incarnations) {
  SlotLives lives;
  for (const auto& [slot, incarnation] : incarnations) {
    lives.set(SlotNo{static_cast<std::uint16_t>(slot)},
              incarnation == 0 ? std::nullopt : std::optional(Incarnation{static_cast<std::uint32_t>(incarnation)}));
  }
  return lives;
}

using AStep = AcquirePlan::Step;
using RStep = ReleasePlan::Step;

TEST(LockEntry, EncodingKeepsAllFieldsAndRefusesImpossibleOnes) {
  LockEntry entry{.mode = kS,
                  .waiter = kEx,
                  .owner = node(5, 9),
                  .generation = Generation{1234},
                  .sharers = bits({1, 63}),
                  .openers = bits({2})};
  format::LockEntry raw{};
  encode(entry, raw);
  EXPECT_EQ(decode(raw).value(), entry);
  raw.mode = 4;
  EXPECT_EQ(decode(raw).error(), Errc::kBadValue);
  encode(entry, raw);
  raw.flags = 4;
  EXPECT_EQ(decode(raw).error(), Errc::kBadValue);
  encode(entry, raw);
  raw.owner_slot = 64;
  EXPECT_EQ(decode(raw).error(), Errc::kBadValue);
  EXPECT_EQ(decode(format::LockEntry{}).value(), LockEntry{});
}

TEST(LockEntry, AFreeEntryIsGrantedAndExclusiveGrantsRaiseTheGeneration) {
  auto plan = plan_acquire(free_entry(), {node(1), kNl, kEx}, {});
  EXPECT_EQ(plan.step, AStep::kGrant);
  EXPECT_EQ(plan.after.owner, node(1));
  EXPECT_EQ(plan.after.generation, Generation{8});
  plan = plan_acquire(free_entry(), {node(1), kNl, kS}, {});
  EXPECT_EQ(plan.step, AStep::kGrant);
  EXPECT_EQ(plan.after, shared(bits({1})));
}

TEST(LockEntry, SharersJoinAndTheLastOneUpgrades) {
  auto plan = plan_acquire(shared(bits({2})), {node(1), kNl, kS}, {});
  EXPECT_EQ(plan.step, AStep::kGrant);
  EXPECT_EQ(plan.after, shared(bits({1, 2})));
  plan = plan_acquire(shared(bits({1})), {node(1), kS, kEx, false, Generation{7}}, {});
  EXPECT_EQ(plan.step, AStep::kGrant);
  EXPECT_EQ(plan.after.mode, kEx);
  EXPECT_EQ(plan.after.sharers, 0u);
}

TEST(LockEntry, AnExclusiveOwnerIsAskedAndTakenOverOnlyWhenStale) {
  const LockEntry entry = exclusive(node(2, 5), bits({3, 4}));
  auto plan = plan_acquire(entry, {node(1), kNl, kS}, {});
  EXPECT_EQ(plan.step, AStep::kWait);
  EXPECT_EQ(plan.ask, bits({2}));
  EXPECT_EQ(plan.doubt, bits({2}));
  plan = plan_acquire(entry, {node(1), kNl, kEx}, lives_of({{2, 5}}));
  EXPECT_EQ(plan.step, AStep::kWait);
  EXPECT_EQ(plan.doubt, 0u);
  plan = plan_acquire(entry, {node(1), kNl, kEx}, lives_of({{2, 6}}));
  EXPECT_EQ(plan.step, AStep::kGrant);
  EXPECT_EQ(plan.after.owner, node(1));
  EXPECT_EQ(plan.after.sharers, bits({3, 4}));  // those who waited still do
  plan = plan_acquire(entry, {node(1), kNl, kEx}, lives_of({{2, 0}, {3, 0}}));
  EXPECT_EQ(plan.after.sharers, bits({4}));
}

TEST(LockEntry, AnEarlierNodeOfMyOwnSlotIsStaleWithoutReading) {
  auto plan = plan_acquire(exclusive(node(1, 1)), {node(1, 2), kNl, kEx}, {});
  EXPECT_EQ(plan.step, AStep::kGrant);
  EXPECT_EQ(plan.after.owner, node(1, 2));
}

TEST(LockEntry, SharersAreAskedByTheOneWaiterAndTheOthersAskIt) {
  auto plan = plan_acquire(shared(bits({2, 3})), {node(1), kNl, kEx}, {});
  EXPECT_EQ(plan.step, AStep::kWrite);
  EXPECT_EQ(plan.after.owner, node(1));
  EXPECT_EQ(plan.after.waiter, kEx);
  EXPECT_EQ(plan.ask, bits({2, 3}));
  const LockEntry waited = plan.after;
  plan = plan_acquire(waited, {node(1), kNl, kEx}, {});
  EXPECT_EQ(plan.step, AStep::kWait);
  EXPECT_EQ(plan.ask, bits({2, 3}));
  // While it waits nobody else gets S, nor becomes the waiter, nor upgrades.
  EXPECT_EQ(plan_acquire(waited, {node(4), kNl, kS}, {}).step, AStep::kWait);
  EXPECT_EQ(plan_acquire(waited, {node(4), kNl, kEx}, {}).step, AStep::kWait);
  plan = plan_acquire(waited, {node(2), kS, kEx, false, Generation{7}}, {});
  EXPECT_EQ(plan.step, AStep::kWait);
  EXPECT_EQ(plan.ask, bits({1}));
  // A waiter that has ended is in nobody's way.
  EXPECT_EQ(plan_acquire(waited, {node(4), kNl, kS}, lives_of({{1, 0}})).step, AStep::kGrant);
}

TEST(LockEntry, WhoPressesGoesBeforeAnotherWaiterButTheHigherSlotYieldsToOneThatPressesToo) {
  LockEntry waited = shared(bits({1, 2}));
  waited.owner = node(1);
  waited.waiter = kEx;
  AcquireRequest request{node(2), kS, kEx, false, Generation{7}, true, false};
  auto plan = plan_acquire(waited, request, {});
  EXPECT_EQ(plan.step, AStep::kWrite);
  EXPECT_EQ(plan.after.owner, node(2));
  EXPECT_EQ(plan.ask, bits({1}));
  request.overtook = true;
  EXPECT_EQ(plan_acquire(waited, request, {}).step, AStep::kYield);
  waited.owner = node(3);
  EXPECT_EQ(plan_acquire(waited, request, {}).step, AStep::kWrite);
  waited.sharers = bits({2});
  plan = plan_acquire(waited, request, {});
  EXPECT_EQ(plan.step, AStep::kGrant);
  EXPECT_EQ(plan.after.owner, node(2));
  EXPECT_EQ(plan.after.sharers, bits({3}));  // who waited still does
}

TEST(LockEntry, TheLastSharerToLeaveGrantsToTheWaiter) {
  LockEntry entry = shared(bits({2, 3}));
  entry.owner = node(1);
  entry.waiter = kEx;
  ReleaseRequest request{.self = node(2), .held = kS, .generation = Generation{7}};
  auto plan = plan_release(entry, request);
  EXPECT_EQ(plan.after.sharers, bits({3}));
  EXPECT_EQ(plan.after.waiter, kEx);
  request = {.self = node(3), .held = kS, .generation = Generation{7}, .again = kEx, .open = true};
  plan = plan_release(plan.after, request);
  EXPECT_EQ(plan.after.mode, kEx);
  EXPECT_EQ(plan.after.owner, node(1));
  EXPECT_EQ(plan.after.sharers, bits({3}));  // it wants it back
  EXPECT_EQ(plan.after.openers, bits({3}));
  EXPECT_EQ(plan.after.generation, Generation{8});
}

TEST(LockEntry, DeadSharersAreClearedAndABitNotHeldIsTakenBack) {
  auto plan = plan_acquire(shared(bits({2, 3})), {node(1), kNl, kEx}, lives_of({{2, 0}, {3, 0}}));
  EXPECT_EQ(plan.step, AStep::kGrant);
  LockEntry entry = shared(bits({1}));
  entry.owner = node(2);
  entry.waiter = kEx;
  plan = plan_acquire(entry, {node(1), kNl, kEx}, {});
  EXPECT_EQ(plan.step, AStep::kWrite);
  EXPECT_EQ(plan.after.owner, node(2));
  EXPECT_EQ(plan.after.mode, kEx);
}

TEST(LockEntry, HandoverServesRoundRobinBySlot) {
  const std::vector<Waiting> waiting = {{node(1), kEx}, {node(5), kEx}, {node(9), kEx}};
  ReleaseRequest request{.self = node(5, 1), .held = kEx, .generation = Generation{7}, .waiting = {}};
  request.waiting = waiting;
  request.self = node(4);
  auto plan = plan_release(exclusive(node(4)), request);
  EXPECT_EQ(plan.after.owner, node(5));
  EXPECT_EQ(plan.after.sharers, bits({1, 9}));
  request.self = node(9);
  request.waiting = std::span(waiting).first(2);
  request.again = kEx;
  plan = plan_release(exclusive(node(9)), request);
  EXPECT_EQ(plan.after.owner, node(1));
  EXPECT_EQ(plan.after.sharers, bits({5, 9}));
}

TEST(LockEntry, ATurnWhoseWantIsOnItsWayIsAwaited) {
  const std::vector<Waiting> waiting = {{node(9), kEx}};
  ReleaseRequest request{
      .self = node(1), .held = kEx, .generation = Generation{7}, .waiting = waiting, .expected = bits({5})};
  EXPECT_EQ(plan_release(exclusive(node(1), bits({5})), request).step, RStep::kAwaitMail);
  request.expected = 0;
  EXPECT_EQ(plan_release(exclusive(node(1), bits({5})), request).after.owner, node(9));
}

TEST(LockEntry, ReadersAreServedTogetherAndTheNextWriterIsNamed) {
  const std::vector<Waiting> waiting = {{node(2), kS}, {node(3), kEx}, {node(4), kS}};
  ReleaseRequest request{.self = node(1), .held = kEx, .generation = Generation{7}, .waiting = waiting};
  auto plan = plan_release(exclusive(node(1)), request);
  EXPECT_EQ(plan.after.mode, kS);
  EXPECT_EQ(plan.after.sharers, bits({2, 4}));
  EXPECT_EQ(plan.after.owner, node(3));
  EXPECT_EQ(plan.after.waiter, kEx);
  EXPECT_EQ(plan.held, kNl);
  request.keep = kS;
  plan = plan_release(exclusive(node(1)), request);
  EXPECT_EQ(plan.after.sharers, bits({1, 2, 4}));
  EXPECT_EQ(plan.held, kS);
}

TEST(LockEntry, ReleaseOfWhatIsNotHeldIsLost) {
  ReleaseRequest request{.self = node(1), .held = kEx, .generation = Generation{7}};
  EXPECT_EQ(plan_release(exclusive(node(2)), request).step, RStep::kLost);
  EXPECT_EQ(plan_release(exclusive(node(1, 2)), request).step, RStep::kLost);
  request.generation = Generation{6};
  EXPECT_EQ(plan_release(exclusive(node(1)), request).step, RStep::kLost);
  request = {.self = node(1), .held = kS, .generation = Generation{7}};
  EXPECT_EQ(plan_release(shared(bits({1, 2})), request).step, RStep::kWrite);
  EXPECT_EQ(plan_release(shared(bits({2})), request).step, RStep::kLost);
}

// The sharer's bit stands, but others have had the entry EX since: it is another grant's.
TEST(LockEntry, ASharersBitOfAnotherGenerationIsNotMine) {
  const LockEntry entry = shared(bits({1, 2}));
  EXPECT_TRUE(holds(entry, node(1), kS, Generation{7}));
  EXPECT_FALSE(holds(entry, node(1), kS, Generation{6}));
  EXPECT_FALSE(holds(entry, node(1), kEx, Generation{7}));
  EXPECT_FALSE(holds(entry, node(3), kS, Generation{7}));
  const ReleaseRequest release{.self = node(1), .held = kS, .generation = Generation{6}};
  EXPECT_EQ(plan_release(entry, release).step, RStep::kLost);
  EXPECT_EQ(plan_acquire(entry, {node(1), kS, kEx, false, Generation{6}}, {}).step, AStep::kLost);
}

// A share that this node no longer counts as held, since its release could not be written.
TEST(LockEntry, AShareLeftOverGoesLikeAReleasedOne) {
  LockEntry waited = shared(bits({1, 2}));
  waited.owner = node(2);
  waited.waiter = kEx;
  for (const bool open : {false, true}) {
    const std::uint64_t opener = open ? bits({1}) : 0;
    for (const LockMode wanted : {kS, kEx}) {
      const AcquirePlan plan = plan_acquire(waited, {.self = node(1), .wanted = wanted, .open = open}, {});
      EXPECT_EQ(plan.step, AStep::kWrite);
      EXPECT_EQ(plan.after.sharers, bits({2}));
      EXPECT_EQ(plan.after.openers, opener);
    }
    const AcquirePlan plan = plan_acquire(shared(bits({1, 2})), {.self = node(1), .wanted = kEx, .open = open}, {});
    EXPECT_EQ(plan.after.sharers, bits({2}));
    EXPECT_EQ(plan.after.waiter, kEx);
    EXPECT_EQ(plan.after.openers, opener);
  }
}

TEST(LockEntry, DisowningTakesBackWhateverNamesTheSlot) {
  EXPECT_FALSE(plan_disown(exclusive(node(2)), node(1), false, {}));
  EXPECT_EQ(plan_disown(exclusive(node(1, 1)), node(1, 4), false, {})->mode, kNl);
  const std::vector<Waiting> waiting = {{node(2), kS}};
  EXPECT_EQ(plan_disown(exclusive(node(1)), node(1), false, waiting)->sharers, bits({2}));
  LockEntry entry = shared(bits({1}));
  entry.openers = bits({1, 2});
  EXPECT_EQ(plan_disown(entry, node(1), false, {})->openers, bits({2}));
  EXPECT_EQ(plan_disown(entry, node(1), true, {})->openers, bits({1, 2}));
  entry.openers = 0;
  EXPECT_EQ(plan_disown(entry, node(1), true, {})->openers, bits({1}));
  EXPECT_EQ(plan_disown(exclusive(node(1)), node(1), true, {})->openers, bits({1}));
  entry = shared(bits({2}));
  entry.owner = node(1, 3);
  entry.waiter = kEx;
  EXPECT_EQ(plan_disown(entry, node(1, 4), false, {})->waiter, kNl);
}

TEST(LockEntry, DeferredSharesWithItselfOnly) {
  auto plan = plan_acquire(free_entry(), {node(1), kNl, LockMode::kDeferred}, {});
  EXPECT_EQ(plan.after.generation, Generation{8});
  const LockEntry entry = plan.after;
  EXPECT_EQ(plan_acquire(entry, {node(2), kNl, LockMode::kDeferred}, {}).step, AStep::kGrant);
  EXPECT_EQ(plan_acquire(entry, {node(2), kNl, kS}, {}).step, AStep::kWrite);
}

// ---- The search ----

enum class Life : std::uint8_t { kAlive, kDead, kEnded };  // dead: not recovered yet; ended: slot CLEAN

struct Node {
  Life life = Life::kAlive;
  std::uint32_t incarnation = 1;
  LockMode held = kNl;
  LockMode wanted = kNl;
  bool seen_without = false;  // has read the entry without itself as a sharer
  Generation generation{};    // of its hold
};

struct World {
  LockEntry entry;
  std::array<Node, 4> nodes;

  NodeId id(std::size_t i) const { return node(static_cast<std::uint16_t>(i), nodes[i].incarnation); }
};

// Everything but the generation, which only grows.
std::uint64_t key(const World& w, std::size_t count) {
  std::uint64_t k = static_cast<std::uint64_t>(w.entry.mode);
  k = k * 4 + static_cast<std::uint64_t>(w.entry.waiter);
  k = k * 4 + w.entry.owner.slot.value;
  k = k * 4 + w.entry.owner.incarnation.value;
  k = k * 16 + w.entry.sharers;
  for (std::size_t i = 0; i < count; ++i) {
    const Node& n = w.nodes[i];
    k = k * 3 + static_cast<std::uint64_t>(n.life);
    k = k * 3 + n.incarnation;
    k = k * 4 + static_cast<std::uint64_t>(n.held);
    k = k * 4 + static_cast<std::uint64_t>(n.wanted);
    k = k * 2 + n.seen_without;
  }
  return k;
}

class Search {
 public:
  Search(std::size_t nodes, bool crashes) : count_(nodes), crashes_(crashes) {}

  void run() {
    reach(World{});
    while (!queue_.empty() && !::testing::Test::HasFailure()) {
      const World world = queue_.front();
      queue_.pop_front();
      for (std::size_t i = 0; i < count_; ++i) steps_of(world, i);
      check_progress(world);
    }
  }
  std::size_t states() const { return seen_.size(); }

 private:
  void reach(const World& world) {
    if (!seen_.insert(key(world, count_)).second) return;
    check_invariant(world);
    queue_.push_back(world);
  }

  void check_invariant(const World& world) {
    int exclusives = 0;
    int sharers = 0;
    for (std::size_t i = 0; i < count_; ++i) {
      const Node& n = world.nodes[i];
      if (n.held != kNl) ASSERT_TRUE(holds(world.entry, world.id(i), n.held, n.generation));
      if (n.held == kEx) {
        ++exclusives;
        ASSERT_EQ(world.entry.mode, kEx);
        ASSERT_EQ(world.entry.owner, world.id(i));
      }
      if (n.held == kS) {
        ++sharers;
        ASSERT_EQ(world.entry.mode, kS);
        ASSERT_TRUE(world.entry.sharers & (1u << i));
      }
    }
    ASSERT_LE(exclusives, 1);
    ASSERT_TRUE(exclusives == 0 || sharers == 0);
  }

  void write(const World& before, World world, const LockEntry& entry) {
    ASSERT_GE(entry.generation, before.entry.generation);
    if (entry.mode == kEx && (before.entry.mode != kEx || before.entry.owner != entry.owner)) {
      ASSERT_GT(entry.generation, before.entry.generation);
    }
    world.entry = entry;
    reach(world);
  }

  SlotLives truth(const World& world) const {
    SlotLives lives;
    for (std::uint16_t i = 0; i < count_; ++i) {
      const Node& n = world.nodes[i];
      lives.set(SlotNo{i}, n.life == Life::kEnded ? std::nullopt : std::optional(Incarnation{n.incarnation}));
    }
    return lives;
  }

  void steps_of(const World& world, std::size_t i) {
    const Node& n = world.nodes[i];
    if (n.life != Life::kAlive) {
      World next = world;
      if (n.life == Life::kDead) {
        next.nodes[i] = {Life::kEnded, n.incarnation, kNl, kNl};
      } else {
        next.nodes[i] = {Life::kAlive, n.incarnation + 1, kNl, kNl};
      }
      reach(next);
      return;
    }
    if (crashes_ && n.incarnation == 1) {
      World next = world;
      next.nodes[i].life = Life::kDead;
      reach(next);
    }
    for (LockMode mode : {kS, kEx}) {
      if (n.held >= mode || n.wanted != kNl) continue;
      World next = world;
      next.nodes[i].wanted = mode;
      reach(next);
    }
    if (n.wanted != kNl) {
      acquire(world, i, {});
      acquire(world, i, truth(world));
      World gave_up = world;
      gave_up.nodes[i].wanted = kNl;
      reach(gave_up);
    }
    with_mail(world, i);
  }

  static bool without(const LockEntry& entry, std::size_t i) {
    return entry.mode != kS || (entry.sharers & (1u << i)) == 0;
  }

  void acquire(const World& world, std::size_t i, const SlotLives& lives) {
    acquire(world, i, lives, false, false);
    if (world.nodes[i].held != kS) return;
    acquire(world, i, lives, true, false);
    acquire(world, i, lives, true, true);
  }

  void acquire(const World& world, std::size_t i, const SlotLives& lives, bool presses, bool overtook) {
    World next = world;
    Node& n = next.nodes[i];
    const AcquirePlan plan = plan_acquire(
        world.entry, {world.id(i), n.held, n.wanted, n.seen_without, n.generation, presses, overtook}, lives);
    if (plan.step == AStep::kYield) {
      n.wanted = kNl;
      reach(next);
      return;
    }
    ASSERT_NE(plan.step, AStep::kLost);
    if (n.held == kNl) n.seen_without |= without(world.entry, i);
    if (plan.step == AStep::kWait) {
      reach(next);
      return;
    }
    if (plan.step == AStep::kHeld) {
      n.held = world.entry.mode;
      n.generation = world.entry.generation;
      if (n.held == kS) n.seen_without = false;
      n.wanted = kNl;
      reach(next);
      return;
    }
    if (plan.step == AStep::kGrant) {
      n.held = n.wanted;
      n.generation = plan.after.generation;
      n.wanted = kNl;
    }
    write(world, next, plan.after);
  }

  // Node i has heard any wants, true and out of date, of the others.
  void with_mail(const World& world, std::size_t i) {
    std::vector<Waiting> mail;
    with_mail_from(world, i, 0, mail);
  }
  void with_mail_from(const World& world, std::size_t i, std::size_t from, std::vector<Waiting>& mail) {
    if (from == count_) {
      give_up(world, i, mail);
      return;
    }
    with_mail_from(world, i, from + 1, mail);
    if (from == i) return;
    for (LockMode mode : {kS, kEx}) {
      mail.push_back({world.id(from), mode});
      with_mail_from(world, i, from + 1, mail);
      mail.pop_back();
    }
  }

  void give_up(const World& world, std::size_t i, std::span<const Waiting> mail) {
    const Node& n = world.nodes[i];
    if (n.held == kNl && n.wanted == kNl) {
      const auto after = plan_disown(world.entry, world.id(i), false, mail);
      if (after) write(world, world, *after);
    }
    if (n.held == kNl) return;
    for (LockMode again : {kNl, kS, kEx}) {
      if (n.wanted != kNl && again != n.wanted) continue;
      for (LockMode keep : {kNl, kS}) {
        if (keep >= n.held) continue;
        for (std::uint64_t expected : {std::uint64_t{0}, world.entry.sharers}) {
          if (expected != 0 && n.held != kEx) continue;
          release(world, i,
                  {.self = world.id(i),
                   .held = n.held,
                   .generation = n.generation,
                   .keep = keep,
                   .again = again,
                   .waiting = mail,
                   .expected = expected});
        }
      }
    }
  }

  void release(const World& world, std::size_t i, const ReleaseRequest& request) {
    const ReleasePlan plan = plan_release(world.entry, request);
    ASSERT_NE(plan.step, RStep::kLost);
    if (plan.step == RStep::kAwaitMail) return;
    World next = world;
    next.nodes[i].held = plan.held;
    // What stays of a hold keeps its generation; only a grant of EX to the last sharer has another.
    if (plan.held == kEx) next.nodes[i].generation = plan.after.generation;
    next.nodes[i].wanted = plan.held >= request.again ? kNl : request.again;
    next.nodes[i].seen_without = without(plan.after, i);
    write(world, next, plan.after);
  }

  // From here nobody wants anything new, the dead are recovered, mail arrives: everybody must be served.
  void check_progress(World world) {
    for (std::size_t i = 0; i < count_; ++i) {
      if (world.nodes[i].life == Life::kDead) world.nodes[i] = {Life::kEnded, world.nodes[i].incarnation, kNl, kNl};
    }
    const World start = world;
    for (std::size_t round = 0; round < 4 * count_ + 4; ++round) {
      bool waiting = false;
      for (std::size_t i = 0; i < count_; ++i) {
        if (world.nodes[i].life == Life::kAlive) fair_step(world, i);
      }
      for (std::size_t i = 0; i < count_; ++i) waiting |= world.nodes[i].wanted != kNl;
      if (!waiting) return;
    }
    ADD_FAILURE() << "a waiter is lost: mode " << static_cast<int>(start.entry.mode) << " sharers "
                  << start.entry.sharers << " owner " << start.entry.owner.slot.value << " waiter "
                  << static_cast<int>(start.entry.waiter);
  }

  void fair_step(World& world, std::size_t i) {
    Node& n = world.nodes[i];
    const SlotLives lives = truth(world);
    std::vector<Waiting> asking;
    for (std::size_t j = 0; j < count_; ++j) {
      const Node& other = world.nodes[j];
      if (j == i || other.life != Life::kAlive || other.wanted == kNl) continue;
      const AcquirePlan plan = plan_acquire(
          world.entry, {world.id(j), other.held, other.wanted, other.seen_without, other.generation}, lives);
      if (plan.step == AStep::kWait && (plan.ask & (1u << i))) asking.push_back({world.id(j), other.wanted});
    }
    if (n.held != kNl && !asking.empty()) {
      const ReleasePlan plan = plan_release(
          world.entry,
          {.self = world.id(i), .held = n.held, .generation = n.generation, .again = n.wanted, .waiting = asking});
      ASSERT_EQ(plan.step, RStep::kWrite);
      world.entry = plan.after;
      n.held = plan.held;
      if (plan.held == kEx) n.generation = plan.after.generation;
      n.seen_without = without(plan.after, i);
      if (n.held >= n.wanted) n.wanted = kNl;
    } else if (n.held == kNl && n.wanted == kNl && !asking.empty()) {
      const auto after = plan_disown(world.entry, world.id(i), false, asking);
      if (after) world.entry = *after;
    }
    if (n.wanted == kNl) return;
    const AcquirePlan plan =
        plan_acquire(world.entry, {world.id(i), n.held, n.wanted, n.seen_without, n.generation}, lives);
    if (n.held == kNl) n.seen_without |= without(world.entry, i);
    if (plan.step == AStep::kWait) return;
    if (plan.step == AStep::kHeld) n.held = world.entry.mode;
    if (plan.step == AStep::kGrant) n.held = n.wanted;
    if (plan.step == AStep::kHeld) n.generation = world.entry.generation;
    if (plan.step == AStep::kGrant) n.generation = plan.after.generation;
    if (plan.step != AStep::kHeld) world.entry = plan.after;
    if (n.held >= n.wanted) n.wanted = kNl;
  }

  std::size_t count_;
  bool crashes_;
  std::unordered_set<std::uint64_t> seen_;
  std::deque<World> queue_;
};

TEST(LockEntrySearch, ThreeNodesWithCrashes) {
  Search search(3, true);
  search.run();
  EXPECT_GT(search.states(), 1000u);
  std::printf("%zu states\n", search.states());
}

TEST(LockEntrySearch, FourNodes) {
  Search search(4, false);
  search.run();
  EXPECT_GT(search.states(), 1000u);
  std::printf("%zu states\n", search.states());
}

}  // namespace
}  // namespace cawfs
