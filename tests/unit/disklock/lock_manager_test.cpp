// Lock managers of two to four nodes on one LUN: who gets what, what it costs, and what happens when a node dies.
#include "disklock/lock_manager.h"

#include "tests/unit/disklock/lock_cluster.h"

namespace cawfs::test {
namespace {

constexpr LockMode kS = LockMode::kShared;
constexpr LockMode kEx = LockMode::kExclusive;
constexpr LockName kName{BlockNo{1040}, 3};

class LockManagerTest : public LockCluster {};

TEST_F(LockManagerTest, AnUncontendedLockCostsOneReadAndOneCawOnce) {
  TestNode& a = add_node(0);
  take(a, kName, kEx).release();
  EXPECT_EQ(a.locks.counts().reads, 1u);
  EXPECT_EQ(a.locks.counts().writes, 1u);
  for (int i = 0; i < 100; ++i) take(a, kName, i % 2 ? kS : kEx).release();
  EXPECT_TRUE(a.locks.try_acquire(kName, kEx, LocalUse::kExclusive).has_value());
  EXPECT_EQ(a.locks.counts().reads, 1u);
  EXPECT_EQ(a.locks.counts().writes, 1u);
  EXPECT_EQ(on_disk(kName).owner, a.id);
}

TEST_F(LockManagerTest, LocalUsersAreServedInOrderAndSharedOnesTogether) {
  TestNode& a = add_node(0);
  LockHold first = take(a, kName, kEx, LocalUse::kShared);
  LockHold second = take(a, kName, kEx, LocalUse::kShared);
  EXPECT_FALSE(a.locks.try_acquire(kName, kEx, LocalUse::kExclusive).has_value());
  std::string order;
  const auto user = [](TestNode& node, LocalUse use, char mark, std::string& out) -> Task<void> {
    Result<LockHold> hold = co_await node.locks.acquire(kName, kEx, use);
    out += mark;
    co_await node.executor.sleep(1ms);
    out += mark;
  };
  a.tasks.spawn(user(a, LocalUse::kExclusive, 'x', order));
  a.tasks.spawn(user(a, LocalUse::kShared, 's', order));
  a.tasks.spawn(user(a, LocalUse::kShared, 't', order));
  loop_->run_for(1ms);
  EXPECT_EQ(order, "");
  EXPECT_FALSE(a.locks.try_acquire(kName, kEx, LocalUse::kShared).has_value());  // somebody waits
  first.release();
  second.release();
  run(a, a.tasks.join());
  EXPECT_EQ(order, "xxstst");
}

TEST_F(LockManagerTest, WantedLocksAreHandedOverAndComeBack) {
  TestNode& a = add_node(0);
  TestNode& b = add_node(1);
  for (int i = 0; i < 10; ++i) {
    run(a, operate(a, kName, kEx, 0s, false));
    run(b, operate(b, kName, kEx, 0s, false));
  }
  EXPECT_EQ(truth_.locks[kName].value, 20u);
  // A handover is the giver's one CAW.
  EXPECT_LE(a.locks.counts().writes + b.locks.counts().writes, 20u);
  // Another node's grant is made durable before it counts; the client of this test flushes nothing.
  EXPECT_GE(lun_->executed(SimulatedRequest::Kind::kFlush), 19u);
  EXPECT_LT(longest_, 60ms);
}

TEST_F(LockManagerTest, ReadersShareAndAWriterGetsThemAll) {
  std::vector<TestNode*> all;
  for (std::uint16_t i = 0; i < 4; ++i) all.push_back(&add_node(i));
  run(*all[0], operate(*all[0], kName, kEx, 0s, false));
  for (TestNode* node : all) run(*node, operate(*node, kName, kS, 0s, false));
  for (TestNode* node : all) EXPECT_EQ(node->locks.held(kName), kS);
  EXPECT_EQ(on_disk(kName).sharers, 0xfu);
  run(*all[2], operate(*all[2], kName, kEx, 0s, false));
  EXPECT_EQ(all[2]->locks.held(kName), kEx);
  EXPECT_EQ(all[0]->locks.held(kName), LockMode::kNone);
}

TEST_F(LockManagerTest, TwoUpgradersDoNotDeadlock) {
  TestNode& a = add_node(0);
  TestNode& b = add_node(1);
  run(a, operate(a, kName, kS, 0s, false));
  run(b, operate(b, kName, kS, 0s, false));
  a.tasks.spawn(operate(a, kName, kEx, 1ms, false));
  b.tasks.spawn(operate(b, kName, kEx, 1ms, false));
  run(a, a.tasks.join());
  run(b, b.tasks.join());
  EXPECT_EQ(truth_.locks[kName].value, 2u);
  EXPECT_LT(longest_, 100ms);
}

TEST_F(LockManagerTest, AHoldIsNotTakenAwayAndYieldingSaysThatItIsWanted) {
  TestNode& a = add_node(0);
  TestNode& b = add_node(1);
  LockHold hold = take(a, kName, kEx);
  b.tasks.spawn(operate(b, kName, kEx, 0s, false));
  loop_->run_for(500ms);
  EXPECT_TRUE(a.locks.yielding(kName));
  EXPECT_EQ(operations_, 0u);
  hold.release();
  run(b, b.tasks.join());
  EXPECT_EQ(operations_, 1u);
  EXPECT_FALSE(a.locks.yielding(kName));
}

// While the client drops the kernel's caches, which may wait for a user here.
TEST_F(LockManagerTest, WhileAskedForOnlyThoseWhoNeedMoreThanIsHeldArePassed) {
  TestNode& a = add_node(0);
  TestNode& b = add_node(1);
  a.client.invalidation_time = 1s;
  LockHold reader = take(a, kName, kS, LocalUse::kShared);
  b.tasks.spawn(operate(b, kName, kEx, 0s, false));
  loop_->run_for(100ms);
  EXPECT_TRUE(a.locks.yielding(kName));
  a.tasks.spawn(operate(a, kName, kEx, 0s, false));  // waits for b
  loop_->run_for(100ms);
  EXPECT_TRUE(a.locks.try_acquire(kName, kS, LocalUse::kShared).has_value());
  reader.release();
  run(a, a.tasks.join());
  run(b, b.tasks.join());

  LockHold writer = take(a, kName, kEx, LocalUse::kShared);
  b.tasks.spawn(operate(b, kName, kEx, 0s, false));
  loop_->run_for(100ms);
  EXPECT_TRUE(a.locks.yielding(kName));
  a.tasks.spawn(operate(a, kName, kEx, 0s, false));  // waits for `writer`
  loop_->run_for(100ms);
  EXPECT_FALSE(a.locks.try_acquire(kName, kEx, LocalUse::kShared).has_value());
  writer.release();
  run(a, a.tasks.join());
  run(b, b.tasks.join());
}

TEST_F(LockManagerTest, AChunkIsAdoptedWithoutCawAndHandedOutWithOne) {
  TestNode& a = add_node(0);
  TestNode& b = add_node(1);
  const BlockNo fresh{1040 + 50 * 16};
  ASSERT_TRUE(run(a, a.locks.adopt_chunk(fresh)).has_value());
  for (std::uint8_t i = 0; i < 15; ++i) run(a, operate(a, {fresh, i}, kEx, 0s, false));
  EXPECT_EQ(a.locks.counts().writes, 0u);
  EXPECT_EQ(a.locks.counts().reads, 0u);
  // All 15 wanted at once go with few CAWs.
  for (std::uint8_t i = 0; i < 15; ++i) b.tasks.spawn(operate(b, {fresh, i}, kS, 0s, false));
  run(b, b.tasks.join());
  EXPECT_LE(a.locks.counts().writes + b.locks.counts().writes, 3u);
  EXPECT_EQ(operations_, 30u);
}

TEST_F(LockManagerTest, ReadingOneAfterTheOtherAsksForTheChunkAhead) {
  TestNode& a = add_node(0);
  TestNode& b = add_node(1);
  for (std::uint64_t c = 50; c < 54; ++c) {
    const BlockNo fresh{1040 + c * 16};
    ASSERT_TRUE(run(a, a.locks.adopt_chunk(fresh)).has_value());
    for (std::uint8_t i = 0; i < 15; ++i) run(a, operate(a, {fresh, i}, kEx, 0s, false));
  }
  for (std::uint64_t c = 50; c < 54; ++c) {
    for (std::uint8_t i = 0; i < 15; ++i) run(b, operate(b, {BlockNo{1040 + c * 16}, i}, kS, 0s, false));
  }
  EXPECT_LE(a.locks.counts().writes + b.locks.counts().writes, 9u) << "for 60 inodes";
  EXPECT_EQ(b.locks.counts().held, 60u);
  // What is asked for ahead is not waited for: its owner is dead.
  const BlockNo last{1040 + 54 * 16};
  ASSERT_TRUE(run(a, a.locks.adopt_chunk(last)).has_value());
  kill(a);
  b.tasks.spawn(operate(b, {last, 1}, kS, 0s, true));
  loop_->run_for(1s);
  recovered(a);
  run(b, b.tasks.join());
  EXPECT_EQ(b.locks.held({last, 1}), kS);
  EXPECT_EQ(b.locks.held({last, 2}), LockMode::kNone);
}

TEST_F(LockManagerTest, AllWantedEntriesOfABlockGoInOneCaw) {
  TestNode& a = add_node(0);
  for (std::uint8_t i = 0; i < 15; ++i) a.tasks.spawn(operate(a, {chunk(1), i}, kEx, 0s, false));
  run(a, a.tasks.join());
  EXPECT_LE(a.locks.counts().writes, 2u);
}

// Its journal is damaged, or its slot record: it will not be recovered. Nobody waits for ever, and nobody gets its
// locks.
TEST_F(LockManagerTest, WhoWaitsForANodeThatCannotBeRecoveredGetsAnError) {
  enum class Damaged : std::uint8_t { kJournal, kRecord, kSector };
  for (const Damaged damaged : {Damaged::kJournal, Damaged::kRecord, Damaged::kSector}) {
    const auto round = static_cast<std::uint16_t>(damaged);
    const LockName name{chunk(round), 1};
    const LockName other{name.block, 2};
    TestNode& a = add_node(static_cast<std::uint16_t>(2 * round));
    TestNode& b = add_node(static_cast<std::uint16_t>(2 * round + 1));
    run(a, operate(a, name, kEx, 0s, true));
    run(b, operate(b, other, kEx, 0s, true));
    kill(a);
    recovering(a);
    const auto operations = operations_;
    const auto failed = failed_;
    b.tasks.spawn(operate(b, name, kEx, 0s, true));
    loop_->run_for(3s);
    EXPECT_EQ(failed_, failed) << "it may be recovered yet";
    if (damaged == Damaged::kJournal) {
      table_.slots[a.id.slot.value].flags = format::kSlotDamaged;
    } else {
      b.membership.corrupt_records = true;
      b.membership.record_error = damaged == Damaged::kRecord ? Errc::kBadChecksum : Errc::kMedium;
    }
    run(b, b.tasks.join());
    EXPECT_EQ(failed_, failed + 1);
    EXPECT_EQ(operations_, operations);
    EXPECT_EQ(b.locks.held(name), LockMode::kNone);
    // What has to do with that node only.
    run(b, operate(b, other, kEx, 0s, true));
    EXPECT_EQ(operations_, operations + 1);
    b.membership.corrupt_records = false;
  }
}

// Slot 0's record is damaged. Whoever does not have to wait for slot 0 notices nothing of it: an entry without an owner
// does not name slot 0, one that slot 0 has open or waits for is not held by it.
TEST_F(LockManagerTest, ADamagedSlotRecordIsAnErrorOnlyToThoseInWhoseWayItsNodeStands) {
  TestNode& a = add_node(0);
  TestNode& b = add_node(1);
  TestNode& c = add_node(2);
  const LockName held{kName.block, 1};
  const LockName shared{kName.block, 2};
  const LockName open{kName.block, 4};
  const LockName free{kName.block, 5};
  run(a, operate(a, held, kEx, 0s, true));
  a.client.open[open] = 1;
  run(a, operate(a, open, kEx, 0s, true));
  run(b, operate(b, open, kEx, 0s, true));  // a's opener bit stands there now
  EXPECT_EQ(on_disk(open).openers, slot_bit(SlotNo{0}));
  kill(a);
  LockHold reader = take(b, shared, kS);
  c.membership.corrupt_record = SlotNo{0};
  // The others come while the record is being read.
  c.membership.on_corrupt_record = [&] {
    c.tasks.spawn(operate(c, shared, kEx, 0s, true));  // waits for b
    c.tasks.spawn(operate(c, open, kEx, 0s, true));    // waits for b
    c.tasks.spawn(operate(c, free, kS, 0s, true));
  };
  const auto operations = operations_;
  c.tasks.spawn(operate(c, held, kEx, 0s, true));
  loop_->run_for(1s);
  EXPECT_FALSE(c.membership.on_corrupt_record);
  reader.release();
  run(c, c.tasks.join());
  EXPECT_EQ(operations_, operations + 3);
  EXPECT_EQ(failed_, 1u);
  EXPECT_EQ(on_disk(open).openers, slot_bit(SlotNo{0}));
}

TEST_F(LockManagerTest, ADeadNodesLocksAreFreeOnceItsSlotIsClean) {
  TestNode& a = add_node(0);
  TestNode& b = add_node(1);
  TestNode& c = add_node(2);
  run(a, operate(a, kName, kEx, 0s, true));
  const LockName shared{chunk(0), 4};
  run(a, operate(a, shared, kS, 0s, true));
  run(b, operate(b, shared, kS, 0s, true));
  kill(a);
  b.tasks.spawn(operate(b, kName, kEx, 0s, true));
  c.tasks.spawn(operate(c, shared, kEx, 0s, true));
  loop_->run_for(1s);
  recovering(a);
  loop_->run_for(3s);
  EXPECT_EQ(operations_, 3u) << "taken from a node that is not recovered";
  recovered(a);
  const Time then = loop_->now();
  run(b, b.tasks.join());
  run(c, c.tasks.join());
  EXPECT_LT(loop_->now() - then, 250ms);
  EXPECT_EQ(truth_.locks[kName].value, 2u);
}

TEST_F(LockManagerTest, ANodeThatCameBackDoesNotOwnWhatItsForerunnerHeld) {
  TestNode& a = add_node(0);
  TestNode& b = add_node(1);
  const LockName shared{chunk(0), 4};
  run(a, operate(a, kName, kEx, 0s, true));
  run(a, operate(a, shared, kS, 0s, true));
  kill(a);
  recovered(a);
  TestNode& again = add_node(0);
  // S bits have no incarnation: the new node is asked, and clears what it does not hold.
  run(b, operate(b, shared, kEx, 0s, true));
  run(again, operate(again, kName, kEx, 0s, true));
  run(b, operate(b, kName, kEx, 0s, true));
  EXPECT_EQ(truth_.locks[kName].value, 3u);
}

TEST_F(LockManagerTest, AWaiterThatDiesIsInNobodysWay) {
  TestNode& a = add_node(0);
  TestNode& b = add_node(1);
  TestNode& c = add_node(2);
  LockHold reader = take(a, kName, kS, LocalUse::kShared);
  b.tasks.spawn(operate(b, kName, kEx, 0s, true));
  loop_->run_for(100ms);
  EXPECT_EQ(on_disk(kName).waiter, kEx);
  kill(b);
  recovered(b);
  run(c, operate(c, kName, kS, 0s, true));
  reader.release();
  run(c, operate(c, kName, kEx, 0s, true));
}

TEST_F(LockManagerTest, ALockHandedToWhoDoesNotWantItAnyMoreIsTakenBack) {
  TestNode& a = add_node(0);
  TestNode& b = add_node(1);
  take(a, kName, kEx).release();
  take(b, {kName.block, 5}, kEx).release();
  b.mailboxes.want(a.id, kName, kEx);
  loop_->run_for(100ms);
  EXPECT_EQ(on_disk(kName).owner, b.id);
  b.mailboxes.unwant(a.id.slot, kName);
  // What b knows of the block is older than the handover.
  const Time began = loop_->now();
  take(a, kName, kEx).release();
  EXPECT_LT(loop_->now() - began, 100ms);
}

TEST_F(LockManagerTest, OpenersAreRecordedAsTheLockGoesAndClearedAtTheLastClose) {
  TestNode& a = add_node(0);
  TestNode& b = add_node(1);
  take(a, kName, kS).release();
  a.client.open[kName] = 1;
  {
    LockHold hold = take(b, kName, kEx);
    EXPECT_EQ(b.locks.openers(kName), 1u);
  }
  EXPECT_EQ(on_disk(kName).openers, 1u);
  a.client.open.erase(kName);
  EXPECT_TRUE(run(a, a.locks.closed(kName)).has_value());
  EXPECT_EQ(on_disk(kName).openers, 0u);
  EXPECT_EQ(on_disk(kName).owner, b.id);
  // With the lock held there is nothing to clear.
  const auto writes = b.locks.counts().writes;
  EXPECT_TRUE(run(b, b.locks.closed(kName)).has_value());
  EXPECT_EQ(b.locks.counts().writes, writes);
}

// Of two bits of a's slot one is left from the node that had it before, for all that a knows.
TEST_F(LockManagerTest, WhoIsAskedTakesBackABitThatIsNotItsOwn) {
  TestNode& a = add_node(0);
  TestNode& b = add_node(1);
  const LockName other{kName.block, static_cast<std::uint8_t>(kName.entry + 1)};
  for (const LockName name : {kName, other}) {
    take(a, name, kS).release();
    a.client.open[name] = 1;
    take(b, name, kEx).release();
  }
  a.client.open.erase(kName);
  EXPECT_TRUE(run(b, b.locks.verify_openers({kName, other})).has_value());
  EXPECT_EQ(b.locks.openers(kName), 0u);
  EXPECT_EQ(b.locks.openers(other), 1u);
  EXPECT_EQ(on_disk(kName).openers, 0u);
  EXPECT_EQ(on_disk(other).openers, 1u);
  EXPECT_EQ(b.locks.held(kName), kEx) << "nothing was handed over";
}

TEST_F(LockManagerTest, OpenersAreRecordedThoughTheCawThatLetTheLockGoFailed) {
  for (const LockMode held : {kS, kEx}) {
    const LockName name{kName.block, static_cast<std::uint8_t>(held == kS ? 4 : 5)};
    TestNode& a = add_node(held == kS ? 0 : 2);
    TestNode& b = add_node(held == kS ? 1 : 3);
    take(a, name, held).release();
    a.client.open[name] = 1;
    const std::string node_name = held == kS ? "node0.1" : "node2.1";
    bool failed = false;
    lun_->set_hook([&](const SimulatedRequest& request) {
      const bool his = request.kind == SimulatedRequest::Kind::kCaw && request.node == node_name;
      if (!his || std::exchange(failed, true)) return SimulatedFate::kRun;
      return SimulatedFate::kMediumError;
    });
    const LockHold hold = take(b, name, kEx);
    lun_->set_hook({});
    EXPECT_TRUE(failed);
    EXPECT_EQ(b.locks.openers(name), slot_bit(a.id.slot));
    EXPECT_EQ(on_disk(name).openers, slot_bit(a.id.slot));
  }
}

TEST_F(LockManagerTest, OpenersOfTheDeadAreClearedByTheNextGrant) {
  TestNode& a = add_node(0);
  TestNode& b = add_node(1);
  TestNode& c = add_node(2);
  take(a, kName, kS).release();
  a.client.open[kName] = 1;
  take(b, kName, kEx).release();
  kill(a);
  recovered(a);
  loop_->run_for(200ms);
  take(c, kName, kEx).release();
  take(b, kName, kEx).release();
  const LockHold hold = take(c, kName, kEx);
  EXPECT_EQ(c.locks.openers(kName) & 1u, 1u) << "handovers carry openers on; only a grant by oneself looks at records";
}

TEST_F(LockManagerTest, ALapsedLeaseServesNothingUntilItIsBack) {
  TestNode& a = add_node(0);
  take(a, kName, kEx).release();
  a.membership.set_lapsed(true);
  EXPECT_FALSE(a.locks.try_acquire(kName, kEx, LocalUse::kShared).has_value());
  a.tasks.spawn(operate(a, kName, kEx, 0s, true));
  loop_->run_for(200ms);
  EXPECT_EQ(operations_, 0u);
  a.membership.set_lapsed(false);
  run(a, a.tasks.join());
  EXPECT_EQ(operations_, 1u);
}

TEST_F(LockManagerTest, WithdrawingWakesEveryWaiterWithFenced) {
  TestNode& a = add_node(0);
  TestNode& b = add_node(1);
  LockHold hold = take(a, kName, kEx);
  b.tasks.spawn(operate(b, kName, kEx, 0s, true));
  loop_->run_for(100ms);
  b.membership.withdraw(Error{Errc::kFenced});
  run(b, b.tasks.join());
  EXPECT_EQ(failed_, 1u);
  EXPECT_EQ(run(b, b.locks.acquire(kName, kS, LocalUse::kShared)).error(), Errc::kFenced);
}

TEST_F(LockManagerTest, StoppingWakesEveryWaiter) {
  TestNode& a = add_node(0);
  TestNode& b = add_node(1);
  LockHold hold = take(a, kName, kEx);
  b.tasks.spawn(operate(b, kName, kEx, 0s, true));
  loop_->run_for(100ms);
  run(b, b.locks.stop());
  run(b, b.tasks.join());
  EXPECT_EQ(failed_, 1u);
  EXPECT_EQ(run(b, b.locks.acquire(kName, kS, LocalUse::kShared)).error(), Errc::kStopping);
}

TEST_F(LockManagerTest, WhatCannotBeSettledIsKeptAndTheNodeWithdraws) {
  TestNode& a = add_node(0);
  TestNode& b = add_node(1);
  take(a, kName, kEx).release();
  a.client.fail_settle = true;
  b.tasks.spawn(operate(b, kName, kEx, 0s, true));
  loop_->run_for(500ms);
  EXPECT_TRUE(a.membership.withdrawn());
  EXPECT_EQ(on_disk(kName).owner, a.id);
  EXPECT_EQ(operations_, 0u);
  recovered(a);
  run(b, b.tasks.join());
}

TEST_F(LockManagerTest, AfterAResetWhatIsHeldIsReadAgainAndALostLockEndsTheNode) {
  TestNode& a = add_node(0);
  take(a, kName, kEx).release();
  const auto reads = a.locks.counts().reads;
  a.membership.reset();
  EXPECT_FALSE(a.locks.try_acquire(kName, kEx, LocalUse::kShared).has_value());
  take(a, kName, kEx).release();
  EXPECT_EQ(a.locks.counts().reads, reads + 1);
  EXPECT_FALSE(a.membership.withdrawn());
  format_lock_block(kName.block);  // the target has forgotten it
  a.membership.reset();
  EXPECT_EQ(run(a, a.locks.acquire(kName, kEx, LocalUse::kShared)).error(), Errc::kFenced);
  EXPECT_TRUE(a.membership.withdrawn());
}

// After a reset the entry is shared and has our bit, but others have changed what it covers since.
TEST_F(LockManagerTest, AfterAResetASharersBitOfAnotherGenerationEndsTheNode) {
  TestNode& a = add_node(0);
  TestNode& b = add_node(1);
  run(b, operate(b, kName, kEx, 0s, true));
  take(a, kName, kS).release();
  IoBuffer image(options_.logical_block);
  lun_->peek(kName.block.offset_bytes(), image.bytes());
  auto& block = *reinterpret_cast<format::LockBlock*>(image.data());
  LockEntry entry = decode(block.entries[kName.entry]).value();
  ASSERT_TRUE(entry.mode == kS && (entry.sharers & slot_bit(SlotNo{0})) != 0);
  entry.generation = Generation{entry.generation.value + 1};
  encode(entry, block.entries[kName.entry]);
  seal_caw(image.bytes(), kName.block.offset_bytes(), geometry_.fs_id);
  lun_->poke(kName.block.offset_bytes(), image.bytes());
  a.membership.reset();
  loop_->run_for(1s);
  EXPECT_TRUE(a.membership.withdrawn());
}

// A release whose reply is lost is judged late: others have had the entry EX since, and our bit is there again. What
// was held before is gone.
TEST_F(LockManagerTest, AReleaseThatRanIsNotUndoneByALaterGrant) {
  TestNode& a = add_node(0);
  TestNode& b = add_node(1);
  run(b, operate(b, kName, kEx, 0s, true));
  const Generation before = take(a, kName, kS).generation();
  const std::uint64_t offset = kName.block.offset_bytes();
  std::optional<Time> released;
  lun_->set_hook([&](const SimulatedRequest& request) {
    if (!request.node.starts_with("node0") || request.offset != offset) return SimulatedFate::kRun;
    if (request.kind == SimulatedRequest::Kind::kCaw && !released) {
      released = loop_->now();
      kill(b);
      recovered(b);
      return SimulatedFate::kLoseReply;
    }
    const bool early = released && loop_->now() < *released + 500ms;
    return early ? SimulatedFate::kLoseRequest : SimulatedFate::kRun;
  });
  b.tasks.spawn(operate(b, kName, kEx, 0s, true));
  loop_->run_until([&] { return released.has_value(); });
  loop_->run_for(200ms);

  IoBuffer image(options_.logical_block);
  lun_->peek(offset, image.bytes());
  auto& block = *reinterpret_cast<format::LockBlock*>(image.data());
  const LockEntry granted{.mode = kS, .generation = Generation{before.value + 2}, .sharers = slot_bit(SlotNo{0})};
  encode(granted, block.entries[kName.entry]);
  block.header.sequence = block.header.sequence.value() + 2;
  seal_caw(image.bytes(), offset, geometry_.fs_id);
  lun_->poke(offset, image.bytes());
  loop_->run_for(2s);
  EXPECT_FALSE(a.membership.withdrawn());
  EXPECT_EQ(take(a, kName, kS).generation(), on_disk(kName).generation);
  EXPECT_GE(on_disk(kName).generation, granted.generation);
  lun_->set_hook({});
}

// What the client keeps under S of a lock that was to become shared, it keeps only while nobody else can have it EX:
// whether or not the COMPARE AND WRITE that ends with an error has run, the lock does not go.
TEST_F(LockManagerTest, ALockThatWasToBecomeSharedIsNotGivenUpWhenItsCawFails) {
  for (const bool it_ran : {false, true}) {
    end();
    make(1);
    TestNode& a = add_node(0);
    TestNode& b = add_node(1);
    TestNode& c = add_node(2);
    run(a, operate(a, kName, kEx, 0s, false));
    int failures = 0;
    bool ran = false;
    lun_->set_hook([&](const SimulatedRequest& request) {
      if (!request.node.starts_with("node0") || request.offset != kName.block.offset_bytes()) {
        return SimulatedFate::kRun;
      }
      if (request.kind == SimulatedRequest::Kind::kCaw && it_ran && !std::exchange(ran, true)) {
        return SimulatedFate::kLoseReply;
      }
      return ++failures <= 3 ? SimulatedFate::kMediumError : SimulatedFate::kRun;
    });
    b.tasks.spawn(operate(b, kName, kS, 0s, false));
    loop_->run_until([&] { return failures > 0; });
    loop_->run_for(100ms);
    EXPECT_EQ(a.locks.held(kName), kEx);
    EXPECT_FALSE(a.locks.try_acquire(kName, kS, LocalUse::kShared).has_value());
    run(b, b.tasks.join());
    loop_->run_until([&] { return failures > 3; });
    loop_->run_for(100ms);
    EXPECT_EQ(a.locks.held(kName), kS);
    EXPECT_EQ(on_disk(kName).sharers, 3u);
    // Others change it, and what is read under it is theirs.
    run(c, operate(c, kName, kEx, 0s, false));
    run(a, operate(a, kName, kEx, 0s, false));
    EXPECT_EQ(truth_.locks[kName].value, 3u);
    EXPECT_FALSE(a.membership.withdrawn());
    lun_->set_hook({});
  }
}

TEST_F(LockManagerTest, ABrokenLockBlockIsAnErrorToThoseWhoWantIt) {
  TestNode& a = add_node(0);
  IoBuffer noise(options_.logical_block);
  noise.data()[5] = std::byte{77};
  lun_->poke(chunk(5).offset_bytes(), noise.bytes());
  EXPECT_EQ(run(a, a.locks.acquire({chunk(5), 1}, kS, LocalUse::kShared)).error(), Errc::kBadMagic);
  IoBuffer image(options_.logical_block);
  auto& made = *reinterpret_cast<format::LockBlock*>(image.data());
  made.header.magic = format::kLockMagic;
  made.entries[2].mode = 9;
  seal_caw(image.bytes(), chunk(6).offset_bytes(), geometry_.fs_id);
  lun_->poke(chunk(6).offset_bytes(), image.bytes());
  EXPECT_EQ(run(a, a.locks.acquire({chunk(6), 2}, kS, LocalUse::kShared)).error(), Errc::kBadValue);
  take(a, {chunk(7), 3}, kEx).release();  // the others are not touched
}

// After a reset nothing is served from a lock whose block cannot be read; once it can, what it says counts.
TEST_F(LockManagerTest, ALockThatCannotBeComparedAfterAResetIsServedToNobody) {
  for (const bool lost : {false, true}) {
    TestNode& a = add_node(lost ? 1 : 0);
    const LockName name{chunk(lost ? 3 : 2), 1};
    take(a, name, kEx).release();
    IoBuffer good(options_.logical_block);
    lun_->peek(name.block.offset_bytes(), good.bytes());
    IoBuffer noise(options_.logical_block);
    noise.data()[5] = std::byte{77};
    lun_->poke(name.block.offset_bytes(), noise.bytes());
    a.membership.reset();
    EXPECT_EQ(run(a, a.locks.acquire(name, kS, LocalUse::kShared)).error(), Errc::kBadMagic);
    EXPECT_FALSE(a.locks.try_acquire(name, kS, LocalUse::kShared).has_value());
    loop_->run_for(10s);
    EXPECT_FALSE(a.locks.try_acquire(name, kS, LocalUse::kShared).has_value());
    EXPECT_LE(a.log.lines.size(), 2u);
    if (lost) {
      format_lock_block(name.block);
    } else {
      lun_->poke(name.block.offset_bytes(), good.bytes());
    }
    loop_->run_for(3s);
    EXPECT_EQ(a.membership.withdrawn(), lost);
    EXPECT_EQ(a.locks.try_acquire(name, kEx, LocalUse::kShared).has_value(), !lost);
  }
}

// Waits to have the lock EX; `blocker` holds up the node's giving up of its S until it has had it, or was refused.
Task<void> upgrade_before_giving_up(TestNode& node, Event& blocker, char mark, std::string& order) {
  Result<LockHold> hold = co_await node.locks.acquire(kName, kEx, LocalUse::kExclusive, Pressed::kIsRefused);
  if (!hold) EXPECT_EQ(hold.error(), Errc::kAgain);
  order += hold ? mark : '-';
  blocker.set();
}

TEST_F(LockManagerTest, WhoCannotGiveUpBeforeItHasHadItGoesBeforeTheWaiter) {
  for (const bool waiter_shares : {false, true}) {
    end();
    make(1);
    TestNode& a = add_node(0);
    TestNode& b = add_node(1);
    Event blocker(a.executor);
    Event none(b.executor);
    take(a, kName, kS).release();
    if (waiter_shares) take(b, kName, kS).release();
    a.client.blocker = &blocker;
    std::string order;
    b.tasks.spawn(upgrade_before_giving_up(b, none, 'b', order));
    loop_->run_for(1s);
    EXPECT_EQ(a.client.invalidations, 1u);
    EXPECT_EQ(on_disk(kName).owner, b.id);
    a.tasks.spawn(upgrade_before_giving_up(a, blocker, 'a', order));
    loop_->run_for(1s);
    EXPECT_EQ(order, "");
    a.locks.press(kName);
    run(a, a.tasks.join());
    a.locks.unpress(kName);
    run(b, b.tasks.join());
    EXPECT_EQ(order, "ab");
    a.client.blocker = nullptr;
  }
}

TEST_F(LockManagerTest, OfTwoWhoCannotGiveUpTheHigherSlotIsRefused) {
  TestNode& a = add_node(0);
  TestNode& b = add_node(1);
  TestNode& c = add_node(2);
  Event a_blocker(a.executor);
  Event b_blocker(b.executor);
  take(a, kName, kS).release();
  take(b, kName, kS).release();
  a.client.blocker = &a_blocker;
  b.client.blocker = &b_blocker;
  c.tasks.spawn(operate(c, kName, kEx, 0s, false));
  loop_->run_for(1s);
  b.tasks.spawn(operate(b, kName, kEx, 0s, false));  // keeps no kernel waiting, and so is not refused
  std::string order;
  a.locks.press(kName);
  b.locks.press(kName);
  a.tasks.spawn(upgrade_before_giving_up(a, a_blocker, 'a', order));
  b.tasks.spawn(upgrade_before_giving_up(b, b_blocker, 'b', order));
  loop_->run_for(1s);
  ASSERT_TRUE(b_blocker.is_set());
  b.locks.unpress(kName);
  run(a, a.tasks.join());
  a.locks.unpress(kName);
  run(b, b.tasks.join());
  run(c, c.tasks.join());
  EXPECT_EQ(order, "-a");
  EXPECT_EQ(operations_, 2u);
  EXPECT_EQ(failed_, 0u);
  a.client.blocker = b.client.blocker = nullptr;
}

// Who waits for more than S, and is told of an error, must not go on keeping others from S.
TEST_F(LockManagerTest, AnUpgradeThatFailsKeepsNobodyOut) {
  TestNode& a = add_node(0);
  TestNode& b = add_node(1);
  TestNode& c = add_node(2);
  take(a, kName, kS).release();
  LockHold reader = take(b, kName, kS);
  a.tasks.spawn(operate(a, kName, kEx, 0s, true));
  loop_->run_for(1s);
  EXPECT_EQ(on_disk(kName).owner, a.id);
  EXPECT_EQ(on_disk(kName).waiter, kEx);
  a.membership.corrupt_records = true;
  run(a, a.tasks.join());
  EXPECT_EQ(failed_, 1u);
  EXPECT_EQ(a.locks.held(kName), kS);
  a.membership.corrupt_records = false;
  take(c, kName, kS).release();
  EXPECT_EQ(on_disk(kName).waiter, LockMode::kNone);
  EXPECT_EQ(a.locks.held(kName), kS);
}

// More locks are wanted of one node than fit into its mailbox, and giving one up may take longer than a want's turn
// there: each is served all the same, and asked for once.
TEST_F(LockManagerTest, MoreWantsThanFitIntoAMailboxAreAllServed) {
  constexpr std::uint64_t kBlocks = 150;
  constexpr int kTurns = kBlocks / format::kWantsPerMailbox + 1;
  const auto use = [](TestNode& node, LockName name, Duration& longest) -> Task<void> {
    const Time began = node.executor.now();
    Result<LockHold> hold = co_await node.locks.acquire(name, kEx, LocalUse::kExclusive);
    EXPECT_TRUE(hold.has_value());
    longest = std::max(longest, node.executor.now() - began);
  };
  for (const Duration slow : {0ms, 10ms, 30ms, 50ms, 70ms, 200ms, 500ms}) {
    SCOPED_TRACE(slow / 1ms);
    end();
    make(1);
    TestNode& a = add_node(0);
    TestNode& b = add_node(1);
    for (std::uint64_t i = 0; i < kBlocks; ++i) {
      format_lock_block(chunk(i));
      take(a, {chunk(i), 1}, kEx).release();
    }
    a.client.invalidation_time = slow;
    Duration longest{0};
    for (std::uint64_t i = 0; i < kBlocks; ++i) b.tasks.spawn(use(b, {chunk(i), 1}, longest));
    run(b, b.tasks.join());
    EXPECT_EQ(a.client.invalidations, kBlocks);
    EXPECT_LT(longest, slow + (kTurns + 1) * 2 * MailboxTuning{}.take_turns);
  }
}

TEST_F(LockManagerTest, FourHungryNodesAreServedInTurn) {
  std::vector<TestNode*> all;
  std::vector<int> served(4, 0);
  for (std::uint16_t i = 0; i < 4; ++i) all.push_back(&add_node(i));
  const auto hungry = [](LockCluster*, TestNode& node, int& count, Time end) -> Task<void> {
    while (node.executor.now() < end) {
      Result<LockHold> hold = co_await node.locks.acquire(kName, kEx, LocalUse::kExclusive);
      co_await node.executor.sleep(300us);
      ++count;
    }
  };
  const Time end = loop_->now() + 5s;
  for (std::size_t i = 0; i < 4; ++i) all[i]->tasks.spawn(hungry(this, *all[i], served[i], end));
  for (TestNode* node : all) run(*node, node->tasks.join());
  const auto [least, most] = std::ranges::minmax(served);
  EXPECT_GT(least, 100);
  EXPECT_LT(most, 2 * least);
}

}  // namespace
}  // namespace cawfs::test
