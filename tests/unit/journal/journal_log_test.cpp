#include "journal/journal_log.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>

#include "tests/unit/journal/journal_fixture.h"

namespace cawfs::test {
namespace {

using namespace std::chrono_literals;
using Kind = SimulatedRequest::Kind;

constexpr std::uint64_t kGeneration = 1;

BlockNo block_of(unsigned index) {
  return BlockNo{1000 + index};
}
// Block i is under lock i / 8.
LockName lock_of_block(BlockNo block) {
  return test_lock(static_cast<unsigned>(block.value - 1000) / 8);
}

struct JournalLogTest : ::testing::Test {
  JournalLogTest() {
    disk.lun.set_hook([this](const SimulatedRequest& request) { return hook(request); });
  }
  ~JournalLogTest() override {
    if (node) {
      disk.lun.set_hook({});
      loop.run(node->executor, stop_node());
    }
  }

  void start(JournalOptions options = {}) {
    node = std::make_unique<TestNode>(loop, disk, "a", kNode, std::move(options));
    ASSERT_TRUE(run(node->log.start()));
    counts = {};
  }
  Task<void> stop_node() {
    const auto stopped = co_await node->log.stop();
    stop_result = stopped;
    co_await node->device->close();
  }
  template <class T>
  T run(Task<T> task) {
    return loop.run(node->executor, std::move(task));
  }
  void run(Task<void> task) { loop.run(node->executor, std::move(task)); }

  SimulatedFate hook(const SimulatedRequest& request) {
    ++counts[static_cast<std::size_t>(request.kind)];
    if (request.kind == Kind::kWrite) {
      written.push_back(BlockNo{request.offset / kBlockSize});
      if (fate) return fate(request);
    }
    return SimulatedFate::kRun;
  }
  std::uint64_t count(Kind kind) const { return counts[static_cast<std::size_t>(kind)]; }
  bool in_journal(BlockNo block) const { return JournalRing(kExtents).contains(block); }

  // Changes the buffer of the block, or a new one, as part of the handle's transaction.
  void put(TxHandle& handle, BlockNo block, std::uint64_t value) {
    BufferRef buffer = node->buffers.find(block);
    if (!buffer) buffer = node->buffers.make(block, format::BlockType::kTreeNode, lock_of_block(block));
    const LockHold hold = test_hold(lock_of_block(block), kGeneration);
    handle.change(*buffer, hold);
    put_value(buffer->bytes(), value);
  }
  Task<TxId> change(BlockNo block, std::uint64_t value) {
    auto handle = co_await node->log.begin(1);
    EXPECT_TRUE(handle);
    put(*handle, block, value);
    co_return handle->id();
  }
  // The value that a crash now would leave, replay included.
  std::uint64_t value_after_crash(BlockNo block) {
    for (unsigned lock = 0; lock < 15; ++lock) disk.set_lock(test_lock(lock), kNode, kGeneration);
    VirtualLoop other;
    SeededRandom other_random(1);
    TestDisk copy(other, other_random, 4096);
    IoBuffer bytes(16 << 20);
    disk.lun.peek(0, bytes.bytes());
    copy.lun.poke(0, bytes.bytes());
    Executor& executor = other.add_executor();
    auto device = copy.lun.connect(executor, "replayer");
    QuietLog messages;
    const auto report = other.run(executor, replay_journal({executor, *device, copy.geometry, other_random, messages},
                                                           copy.place(), ReplayMode::kReplay));
    EXPECT_TRUE(report);
    other.run(executor, device->close());
    return copy.value(block);
  }

  VirtualLoop loop;
  SeededRandom random{7};
  TestDisk disk{loop, random, 4096};
  std::array<std::uint64_t, 8> counts{};
  std::vector<BlockNo> written;
  std::function<SimulatedFate(const SimulatedRequest&)> fate;
  std::unique_ptr<TestNode> node;
  Result<> stop_result;
};

Task<void> commit_into(JournalLog& log, TxId id, std::optional<Result<>>& out) {
  const auto done = co_await log.commit(id);
  out = done;
}

TEST_F(JournalLogTest, ASmallCommitIsOneWriteAndNoFlush) {
  start();
  const TxId id = run(change(block_of(0), 5));
  EXPECT_EQ(count(Kind::kWrite), 0u);
  ASSERT_TRUE(run(node->log.commit(id)));
  EXPECT_TRUE(node->log.committed(id));
  EXPECT_EQ(count(Kind::kWrite), 1u);
  EXPECT_EQ(count(Kind::kFlush), 0u);
  EXPECT_EQ(disk.value(block_of(0)), 0u) << "written in place before it had to be";
  EXPECT_EQ(value_after_crash(block_of(0)), 5u);
}

TEST_F(JournalLogTest, NothingIsDurableBeforeItsCommit) {
  start();
  run(change(block_of(0), 5));
  EXPECT_EQ(value_after_crash(block_of(0)), 0u);
}

TEST_F(JournalLogTest, ManyCallersShareACommit) {
  start();
  const auto one = [](JournalLogTest& test, unsigned i) -> Task<void> {
    const TxId id = co_await test.change(block_of(i % 8), i);
    const auto done = co_await test.node->log.commit(id);
    EXPECT_TRUE(done);
  };
  TaskGroup group(node->executor);
  for (unsigned i = 0; i < 100; ++i) group.spawn(one(*this, i));
  run(group.join());
  EXPECT_LE(count(Kind::kWrite), 3u);
}

TEST_F(JournalLogTest, ACommitWaitsForOpenHandlesAndNewOnesGoOnDuringTheWrite) {
  start();
  auto first = run(node->log.begin(1));
  ASSERT_TRUE(first);
  put(*first, block_of(0), 1);
  std::optional<Result<>> committed;
  TaskGroup group(node->executor);
  group.spawn(commit_into(node->log, first->id(), committed));
  loop.run_for(100ms);
  EXPECT_FALSE(committed);
  EXPECT_EQ(count(Kind::kWrite), 0u);

  // Joins no closing transaction, but begins as soon as it is sealed, before the write has ended.
  std::optional<TxId> second;
  const auto begin_another = [](JournalLogTest& test, std::optional<TxId>& out) -> Task<void> {
    const TxId id = co_await test.change(block_of(1), 2);
    out = id;
  };
  group.spawn(begin_another(*this, second));
  loop.run_for(1ms);
  EXPECT_FALSE(second);
  const TxId id = first->id();
  first->end();
  loop.run_until([&] { return second.has_value(); });
  EXPECT_FALSE(committed);
  EXPECT_GT(*second, id);
  run(group.join());
  ASSERT_TRUE(committed && *committed);
  EXPECT_EQ(value_after_crash(block_of(0)), 1u);
}

TEST_F(JournalLogTest, ATransactionCommitsByItselfAfterAWhile) {
  start({.commit_interval = 5s, .on_failure = {}});
  const TxId id = run(change(block_of(0), 5));
  loop.run_for(4s);
  EXPECT_FALSE(node->log.committed(id));
  loop.run_for(2s);
  EXPECT_TRUE(node->log.committed(id));
}

TEST_F(JournalLogTest, DataIsFlushedOnceBeforeTheCommit) {
  start();
  node->log.data_written();
  const TxId id = run(change(block_of(0), 5));
  ASSERT_TRUE(run(node->log.commit(id)));
  EXPECT_EQ(count(Kind::kFlush), 1u);
  ASSERT_TRUE(run(node->log.flush_data()));
  EXPECT_EQ(count(Kind::kFlush), 1u) << "nothing was written since";
  node->log.data_written();
  ASSERT_TRUE(run(node->log.flush_data()));
  EXPECT_EQ(count(Kind::kFlush), 2u);
}

TEST_F(JournalLogTest, CallbacksComeInOrderOnceTheTransactionIsDurable) {
  start();
  std::vector<int> order;
  for (int i = 0; i < 3; ++i) {
    auto handle = run(node->log.begin(1));
    put(*handle, block_of(0), static_cast<std::uint64_t>(i) + 1);
    handle->on_commit([&order, i] { order.push_back(i); });
    if (i == 1) {
      handle->end();
      ASSERT_TRUE(run(node->log.commit(node->log.last())));
      EXPECT_EQ(order, (std::vector<int>{0, 1}));
    }
  }
  ASSERT_TRUE(run(node->log.commit(node->log.last())));
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2}));
}

TEST_F(JournalLogTest, LargeTransactionsWrapAndSpanExtents) {
  start();
  const std::uint32_t credits = node->log.max_credits();
  ASSERT_GT(credits, 20u);
  for (unsigned round = 1; round <= 40; ++round) {
    auto handle = run(node->log.begin(credits));
    ASSERT_TRUE(handle);
    // Value 13 modulo 14 fills a block.
    for (unsigned i = 0; i < credits; ++i) put(*handle, block_of(i), 14 * (round * 100 + i) + 13);
    handle->end();
    ASSERT_TRUE(run(node->log.commit(node->log.last())));
    ASSERT_EQ(value_after_crash(block_of(credits - 1)), 14 * (round * 100 + credits - 1) + 13);
  }
}

TEST_F(JournalLogTest, ATransactionLargerThanTheJournalTakesIsAnError) {
  start();
  const auto handle = run(node->log.begin(node->log.max_credits() + 1));
  ASSERT_FALSE(handle);
  EXPECT_EQ(handle.error(), Errc::kNoSpace);
  EXPECT_TRUE(run(node->log.begin(1)));
}

TEST_F(JournalLogTest, BeginWaitsForRoomAndNeverDeadlocks) {
  start({.commit_interval = 1h, .on_failure = {}});
  const auto worker = [](JournalLogTest& test, std::uint64_t seed) -> Task<void> {
    SeededRandom own(seed);
    for (unsigned i = 0; i < 300; ++i) {
      const auto credits = static_cast<std::uint32_t>(1 + own.below(test.node->log.max_credits()));
      auto handle = co_await test.node->log.begin(credits);
      EXPECT_TRUE(handle);
      for (unsigned j = 0; j < credits / 2; ++j) {
        test.put(*handle, block_of(static_cast<unsigned>(own.below(60))), own.below(1000) * 14 + 13);
        if (own.one_in(3)) co_await test.node->executor.sleep(50us);
      }
    }
  };
  TaskGroup group(node->executor);
  for (std::uint64_t i = 0; i < 5; ++i) group.spawn(worker(*this, i));
  ASSERT_TRUE(loop.run_until([&] { return group.running() == 0; }));
}

TEST_F(JournalLogTest, WriteBackPutsOneLockInPlaceAndNoMore) {
  start();
  run(change(block_of(0), 5));
  run(change(block_of(9), 6));
  const Time before = loop.now();
  ASSERT_TRUE(run(node->log.write_back(lock_of_block(block_of(0)))));
  EXPECT_EQ(disk.value(block_of(0)), 5u);
  EXPECT_EQ(disk.value(block_of(9)), 0u);
  EXPECT_EQ(count(Kind::kWrite), 2u);
  EXPECT_EQ(count(Kind::kFlush), 0u);
  EXPECT_LE(loop.now() - before, 2 * 2 * 200us) << "more than two round trips";
  EXPECT_FALSE(node->buffers.find(block_of(0))->dirty());
  ASSERT_TRUE(run(node->log.write_back(lock_of_block(block_of(0)))));
  EXPECT_EQ(count(Kind::kWrite), 2u);
}

TEST_F(JournalLogTest, AChangeThatHasNotCommittedIsNeverInPlace) {
  start();
  run(change(block_of(0), 5));
  ASSERT_TRUE(run(node->log.commit(node->log.last())));
  // The same transaction keeps changing block 0 while all that has committed goes in place.
  auto handle = run(node->log.begin(2));
  put(*handle, block_of(0), 6);
  TaskGroup group(node->executor);
  const auto write_all = [](JournalLog& log) -> Task<void> {
    const auto done = co_await log.write_back_all();
    EXPECT_TRUE(done);
  };
  group.spawn(write_all(node->log));
  loop.run_for(100ms);
  EXPECT_EQ(group.running(), 1u) << "did not wait for the open handle";
  EXPECT_TRUE(disk.value(block_of(0)) == 0 || disk.value(block_of(0)) == 5);
  put(*handle, block_of(0), 7);
  handle->end();
  run(group.join());
  EXPECT_EQ(disk.value(block_of(0)), 7u);
  EXPECT_EQ(node->log.ring_blocks_used(), 0u);
}

TEST_F(JournalLogTest, AFreedBlockIsNotWrittenAnyMore) {
  start();
  run(change(block_of(0), 5));
  run(change(block_of(1), 6));
  ASSERT_TRUE(run(node->log.commit(node->log.last())));
  {
    auto handle = run(node->log.begin(1));
    handle->revoke({block_of(0), 1});
    EXPECT_FALSE(node->buffers.find(block_of(0)));
  }
  ASSERT_TRUE(run(node->log.write_back_all()));
  EXPECT_EQ(std::ranges::count(written, block_of(0)), 0);
  EXPECT_EQ(std::ranges::count(written, block_of(1)), 1);
}

TEST_F(JournalLogTest, ACommitThatFreesABlockWaitsForItsWriteInPlace) {
  start();
  run(change(block_of(0), 5));
  ASSERT_TRUE(run(node->log.commit(node->log.last())));
  // The write in place is lost on the way, again and again, and so stays unsettled.
  bool lost = true;
  fate = [&](const SimulatedRequest& request) {
    return lost && request.offset == block_of(0).offset_bytes() ? SimulatedFate::kLoseReply : SimulatedFate::kRun;
  };
  TaskGroup group(node->executor);
  const auto write_back = [](JournalLog& log) -> Task<void> {
    const auto done = co_await log.write_back(lock_of_block(block_of(0)));
    EXPECT_TRUE(done);
  };
  group.spawn(write_back(node->log));
  loop.run_for(10ms);
  {
    auto handle = run(node->log.begin(1));
    handle->revoke({block_of(0), 1});
  }
  std::optional<Result<>> committed;
  group.spawn(commit_into(node->log, node->log.last(), committed));
  loop.run_for(10s);
  EXPECT_FALSE(committed);
  lost = false;
  run(group.join());
  ASSERT_TRUE(committed && *committed);
}

TEST_F(JournalLogTest, WritesOfUnknownOutcomeAreIssuedAgain) {
  start();
  SeededRandom own(3);
  fate = [&](const SimulatedRequest&) {
    const std::uint64_t n = own.below(4);
    return n == 0 ? SimulatedFate::kLoseRequest : n == 1 ? SimulatedFate::kLoseReply : SimulatedFate::kRun;
  };
  for (unsigned i = 0; i < 200; ++i) {
    run(change(block_of(i % 40), i + 1));
    if (i % 7 == 0) {
      ASSERT_TRUE(run(node->log.commit(node->log.last())));
      ASSERT_EQ(value_after_crash(block_of(i % 40)), i + 1);
    }
  }
  ASSERT_TRUE(run(node->log.write_back_all()));
  EXPECT_EQ(disk.value(block_of(199 % 40)), 200u);
}

TEST_F(JournalLogTest, AMediumErrorInTheJournalEndsTheLogForGood) {
  std::vector<Error> failures;
  start({.commit_interval = 5s, .on_failure = [&](Error error) { failures.push_back(error); }});
  run(change(block_of(0), 5));
  fate = [&](const SimulatedRequest& request) {
    return in_journal(BlockNo{request.offset / kBlockSize}) ? SimulatedFate::kMediumError : SimulatedFate::kRun;
  };
  const auto done = run(node->log.commit(node->log.last()));
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error(), Errc::kMedium);
  fate = {};
  EXPECT_EQ(run(node->log.begin(1)).error(), Errc::kMedium);
  EXPECT_EQ(run(node->log.write_back_all()).error(), Errc::kMedium);
  EXPECT_EQ(failures.size(), 1u);
}

TEST_F(JournalLogTest, AFencedNodeWritesNothingMore) {
  std::vector<Error> failures;
  start({.commit_interval = 5s, .on_failure = [&](Error error) { failures.push_back(error); }});
  run(change(block_of(0), 5));
  ASSERT_TRUE(run(node->log.commit(node->log.last())));
  run(change(block_of(1), 6));

  Executor& executor = loop.add_executor();
  auto other = disk.lun.connect(executor, "other");
  ASSERT_TRUE(loop.run(executor, other->pr_register(PrKey{}, PrKey{9}, Aptpl::kNo)));
  ASSERT_TRUE(loop.run(executor, other->pr_reserve(PrKey{9}, ReservationType::kWriteExclusiveAllRegistrants)));
  // Ends a unit attention, if there is one; it is not told the log.
  IoBuffer buffer(kBlockSize);
  static_cast<void>(run(node->device->read(0, buffer.bytes())));

  const auto done = run(node->log.commit(node->log.last()));
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error(), Errc::kFenced);
  EXPECT_EQ(failures.size(), 1u);
  const std::uint64_t writes = count(Kind::kWrite);
  loop.run_for(20s);
  EXPECT_EQ(run(node->log.begin(1)).error(), Errc::kFenced);
  EXPECT_EQ(run(node->log.write_back(lock_of_block(block_of(0)))).error(), Errc::kFenced);
  EXPECT_EQ(run(node->log.flush_data()).error(), Errc::kFenced);
  EXPECT_EQ(count(Kind::kWrite), writes);
  loop.run(executor, other->close());
}

TEST_F(JournalLogTest, WithdrawalEndsWhateverWaits) {
  start();
  run(change(block_of(0), 5));
  disk.lun.cut_path("a");
  std::optional<Result<>> committed;
  TaskGroup group(node->executor);
  group.spawn(commit_into(node->log, node->log.last(), committed));
  loop.run_for(30s);
  EXPECT_FALSE(committed);
  node->log.withdraw({.code = Errc::kFenced, .where = "slot"});
  run(group.join());
  ASSERT_TRUE(committed);
  EXPECT_EQ(committed->error(), Errc::kFenced);
  disk.lun.heal_path("a");
}

// A lock is being given up, which is not the log's own task, when the node withdraws and is unmounted.
TEST_F(JournalLogTest, StoppingWaitsForAWriteInPlaceThatIsInFlight) {
  start();
  run(change(block_of(0), 5));
  ASSERT_TRUE(run(node->log.commit(node->log.last())));
  TaskGroup group(node->executor);
  const auto write_back = [](JournalLog& log) -> Task<void> {
    const auto done = co_await log.write_back(lock_of_block(block_of(0)));
    EXPECT_FALSE(done);
  };
  group.spawn(write_back(node->log));
  loop.run_for(10us);
  node->log.withdraw({.code = Errc::kFenced, .where = "slot"});
  run(stop_node());
  EXPECT_FALSE(stop_result);
  run(group.join());
  node.reset();
}

TEST_F(JournalLogTest, StoppingLeavesAnEmptyJournalOfNobodys) {
  start();
  for (unsigned i = 0; i < 30; ++i) run(change(block_of(i), i + 1));
  run(stop_node());
  ASSERT_TRUE(stop_result);
  node.reset();
  for (unsigned i = 0; i < 30; ++i) EXPECT_EQ(disk.value(block_of(i)), i + 1);

  // The next incarnation goes on with the sequences.
  const JournalRing ring(kExtents);
  std::uint64_t sequence = 0;
  for (std::uint64_t copy = 0; copy < 2; ++copy) {
    IoBuffer bytes(kBlockSize);
    disk.lun.peek(ring.header_copy(copy).offset_bytes(), bytes.bytes());
    const auto header =
        format::verify_journal_header(bytes.bytes(), ring.header_copy(copy), disk.geometry, kNode.slot, ring.blocks());
    ASSERT_TRUE(header);
    EXPECT_EQ(header->incarnation, Incarnation{});
    sequence = header->tail_sequence;
  }
  EXPECT_GT(sequence, 1u);
  node = std::make_unique<TestNode>(loop, disk, "b", NodeId{kNode.slot, Incarnation{8}});
  ASSERT_TRUE(run(node->log.start()));
}

TEST_F(JournalLogTest, AJournalThatIsNotEmptyIsRefused) {
  start();
  run(change(block_of(0), 5));
  ASSERT_TRUE(run(node->log.commit(node->log.last())));
  TestNode second(loop, disk, "b", NodeId{kNode.slot, Incarnation{8}});
  const auto started = loop.run(second.executor, second.log.start());
  ASSERT_FALSE(started);
  EXPECT_EQ(started.error(), Errc::kBadValue);
  loop.run(second.executor, second.device->close());
}

}  // namespace
}  // namespace cawfs::test
