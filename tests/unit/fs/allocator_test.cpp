// The allocator against a model of every block's state, from a seed; promises, leaving groups, and the exactness of
// kNoSpace.
#include "core/fs/allocator.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>

#include "core/device/forwarding_device.h"
#include "core/fs/bitmap.h"
#include "core/runtime/task_group.h"
#include "tests/support/small_file_system.h"

namespace cawfs {
namespace {

using testing::SmallFileSystem;
using testing::SmallOptions;

class AllocatorTest : public ::testing::Test, public LockClient {
 protected:
  // Two groups of 8 MiB and more.
  void start(SmallOptions options = {.size_bytes = 40 << 20, .slots = 2, .journal_blocks = 256}) {
    fs = std::make_unique<SmallFileSystem>(options);
    mount();
  }
  void mount() { mount(*fs->device, false); }
  void mount(BlockDevice& device, bool discard) {
    space =
        std::make_unique<Allocator>(fs->executor, device, fs->geometry, *fs->locks, *fs->buffers, *fs->log, discard);
    fs->locks->set_client(this);
  }

  // LockClient
  Task<void> invalidate(LockName name, LockMode, LockMode) override {
    if (const auto group = space->group_of_lock(name)) space->leave(*group);
    if (during_invalidate) co_await during_invalidate();
  }
  Task<Result<>> settle(LockName name, LockMode, LockMode) override {
    const auto group = space->group_of_lock(name);
    if (!group) co_return Result<>();
    const auto done = co_await space->settle(*group);
    co_return done;
  }
  bool is_open(LockName) override { return false; }

  Result<Reservation> reserve(SpaceRequest request) {
    while (true) {
      auto reserved = space->try_reserve(request);
      if (reserved || reserved.error() != Errc::kAgain) return reserved;
      const auto ready = fs->run(space->prepare(request));
      if (!ready) return fail(ready.error());
    }
  }
  // Of data blocks, in a transaction of its own.
  Result<std::vector<BlockRange>> allocate(std::uint64_t count, BlockNo goal = {}) {
    auto space_for = reserve({.goal = goal, .data = count, .frees = {}});
    if (!space_for) return fail(space_for.error());
    const std::vector<BlockRange> runs(space_for->runs().begin(), space_for->runs().end());
    TxHandle tx = fs->begin(space_for->credits());
    for (const BlockRange& run : runs) space_for->take_data(tx, run);
    return runs;
  }
  void free(BlockRange range) {
    auto space_for = reserve({.frees = {range}});
    ASSERT_TRUE(space_for.has_value()) << describe(space_for.error().code);
    TxHandle tx = fs->begin(space_for->credits());
    space_for->free_data(tx, range);
  }
  void commit() { ASSERT_TRUE(fs->run(fs->log->commit(fs->log->last())).has_value()); }

  std::uint64_t free_on_disk() {
    std::uint64_t free = 0;
    for (std::uint32_t i = 0; i < fs->geometry.group_count; ++i) {
      const GroupNo group{i};
      const auto header = fs->run(fs->buffers->read(fs->geometry.group_header(group), format::BlockType::kGroupHeader,
                                                    lock_of(fs->geometry, group)));
      free += (*header)->as<format::GroupHeader>().free_blocks.value();
    }
    return free;
  }

  std::unique_ptr<SmallFileSystem> fs;
  std::unique_ptr<Allocator> space;
  std::function<Task<void>()> during_invalidate;
};

TEST_F(AllocatorTest, NothingIsHereBeforePrepare) {
  start();
  EXPECT_EQ(space->try_reserve({.data = 1, .frees = {}}).error(), Errc::kAgain);
  EXPECT_FALSE(space->try_promise(1));
  ASSERT_TRUE(fs->run(space->prepare({.data = 1, .frees = {}})).has_value());
  const auto reserved = space->try_reserve({.data = 1, .frees = {}});
  ASSERT_TRUE(reserved.has_value());
  EXPECT_EQ(reserved->data_blocks(), 1u);
  EXPECT_EQ(fs->geometry.group_of(reserved->runs()[0].start), space->home());
}

TEST_F(AllocatorTest, NodesStartInDifferentGroups) {
  std::set<GroupNo> homes;
  for (std::uint16_t slot = 0; slot < 2; ++slot) {
    start({.size_bytes = 40 << 20, .slots = 2, .journal_blocks = 256, .slot = SlotNo{slot}});
    ASSERT_TRUE(allocate(1).has_value());
    EXPECT_EQ(space->loaded_groups({}).size(), 1u);
    homes.insert(space->loaded_groups({})[0]);
    space.reset();
  }
  EXPECT_EQ(homes.size(), 2u);
}

TEST_F(AllocatorTest, RunsAreContiguousAndGoOnAtTheGoal) {
  start();
  const auto first = allocate(100);
  ASSERT_TRUE(first.has_value());
  ASSERT_EQ(first->size(), 1u);
  const BlockNo end = first->front().start + 100;
  const auto second = allocate(50, end);
  ASSERT_EQ(second->size(), 1u);
  EXPECT_EQ(second->front().start, end);
}

TEST_F(AllocatorTest, WhatIsNotTakenComesBack) {
  start();
  ASSERT_TRUE(allocate(1).has_value());
  const std::uint64_t before = free_on_disk();
  BlockRange run;
  {
    auto reserved = reserve({.data = 10, .metadata = 3, .frees = {}});
    ASSERT_TRUE(reserved.has_value());
    run = reserved->runs()[0];
    // Nobody else gets them meanwhile.
    const auto other = allocate(10, run.start);
    for (const BlockRange& r : *other) {
      EXPECT_TRUE(r.start.value + r.count <= run.start.value || r.start.value >= run.start.value + run.count);
    }
    TxHandle tx = fs->begin(reserved->credits());
    reserved->take_data(tx, {run.start + 2, 3});
    EXPECT_EQ(reserved->data_blocks(), 7u);
    EXPECT_EQ(reserved->runs().size(), 2u);
  }
  EXPECT_EQ(free_on_disk(), before - 13);
  const auto again = allocate(2, run.start);
  EXPECT_EQ(again->front().start, run.start);
}

TEST_F(AllocatorTest, FreedBlocksComeBackOnlyAfterCommit) {
  start();
  const auto runs = allocate(64);
  const BlockRange run = runs->front();
  commit();
  free(run);
  const auto meanwhile = allocate(64, run.start);
  EXPECT_NE(meanwhile->front().start, run.start);
  commit();
  const auto after = allocate(64, run.start);
  EXPECT_EQ(after->front(), run);
}

class SlowToDiscard final : public ForwardingDevice {
 public:
  SlowToDiscard(BlockDevice& device, Executor& executor) : ForwardingDevice(device), executor_(executor) {}
  Task<Result<>> unmap(std::uint64_t offset, std::uint64_t length) override {
    co_await executor_.sleep(std::chrono::seconds(1));
    discarded.push_back({BlockNo{offset / kBlockSize}, length / kBlockSize});
    co_return fail(Errc::kMedium);  // which is the device's affair
  }
  std::vector<BlockRange> discarded;

 private:
  Executor& executor_;
};

// With -o discard: files that lay one after another are one request.
TEST_F(AllocatorTest, FreedBlocksAreDiscardedAfterTheirCommitAndThenComeBack) {
  start();
  SlowToDiscard device(*fs->device, fs->executor);
  mount(device, true);
  const auto runs = allocate(64);
  const BlockRange run = runs->front();
  commit();
  free({run.start + 32, 32});
  free({run.start, 32});
  fs->loop.run_for(std::chrono::seconds(2));
  EXPECT_EQ(device.discarded, std::vector<BlockRange>{}) << "not committed";
  commit();
  fs->loop.run_for(std::chrono::milliseconds(500));
  EXPECT_NE(allocate(64, run.start)->front().start, run.start) << "handed out before it has been discarded";
  fs->loop.run_for(std::chrono::seconds(1));
  EXPECT_EQ(device.discarded, std::vector<BlockRange>{run});
  EXPECT_EQ(allocate(64, run.start)->front(), run);
  space.reset();
}

TEST_F(AllocatorTest, AGroupGoesOnceItsDiscardsHaveEnded) {
  for (const bool committed : {true, false}) {
    start();
    SlowToDiscard device(*fs->device, fs->executor);
    mount(device, true);
    const auto runs = allocate(64);
    free(runs->front());
    if (committed) commit();
    EXPECT_TRUE(fs->run(space->settle(space->home())).has_value());
    EXPECT_EQ(device.discarded.size(), 1u);
    space.reset();
  }
}

// What is free but for its discard is no lack of space.
TEST_F(AllocatorTest, SpaceIsWaitedForWhileItIsDiscarded) {
  start();
  mount(*fs->device, true);
  std::vector<BlockRange> all;
  for (auto runs = allocate(1024); runs; runs = allocate(1024)) all.insert(all.end(), runs->begin(), runs->end());
  free(all.front());
  const auto again = allocate(all.front().count);
  EXPECT_TRUE(again.has_value());
}

TEST_F(AllocatorTest, MetadataIsWrittenAheadAndRevokedWhenFreed) {
  start();
  auto reserved = reserve({.metadata = 40, .frees = {}});
  ASSERT_TRUE(reserved.has_value());
  std::vector<BlockNo> blocks;
  {
    TxHandle tx = fs->begin(reserved->credits());
    for (int i = 0; i < 40; ++i) blocks.push_back(reserved->take_metadata(tx));
  }
  EXPECT_EQ(std::set<BlockNo>(blocks.begin(), blocks.end()).size(), 40u);
  std::vector<BlockRange> frees;
  for (const BlockNo block : blocks) frees.push_back({block, 1});
  auto freeing = reserve({.frees = frees});
  ASSERT_TRUE(freeing.has_value());
  TxHandle tx = fs->begin(freeing->credits() + 40);
  for (const BlockNo block : blocks) freeing->free_metadata(tx, block);
  EXPECT_EQ(fs->log->revoked, frees);
}

// Design §4 rule 11: what a transaction writes in place has its space on a thin device already, and cannot fail there.
TEST_F(AllocatorTest, WhatTransactionsChangeHasBeenWrittenBefore) {
  start({.size_bytes = 400 << 20, .slots = 2, .group_blocks = 80'000});
  std::set<BlockNo> written;
  fs->lun.set_observer([&written](const SimulatedRequest& request, const Result<>& done) {
    if (!done || request.kind != SimulatedRequest::Kind::kWrite) return;
    for (std::uint64_t at = 0; at < request.length; at += kBlockSize) {
      written.insert(BlockNo{(request.offset + at) / kBlockSize});
    }
  });
  auto reserved = reserve({.metadata = 40, .frees = {}});
  ASSERT_TRUE(reserved.has_value());
  TxHandle tx = fs->begin(reserved->credits());
  for (int i = 0; i < 40; ++i) EXPECT_TRUE(written.contains(reserved->take_metadata(tx)));
  tx.end();

  const BlockNo bitmap = fs->geometry.group_bitmap(space->home(), 1);  // never written yet
  EXPECT_FALSE(written.contains(bitmap));
  ASSERT_TRUE(allocate(BusyMap::kBits + 1).has_value());
  EXPECT_TRUE(fs->buffers->find(bitmap)->dirty());
  EXPECT_TRUE(written.contains(bitmap));
  fs->lun.set_observer({});
}

// Files that name the same block, with right checksums: whoever comes second is told.
TEST_F(AllocatorTest, TwoWhoFreeTheSameBlock) {
  start();
  const BlockRange run = allocate(8)->front();
  ASSERT_EQ(run.count, 8u);
  auto one = reserve({.frees = {{run.start + 2, 4}}});
  ASSERT_TRUE(one.has_value());
  for (const BlockRange& other : {BlockRange{run.start, 3}, BlockRange{run.start + 3, 1}, BlockRange{run.start + 5, 3},
                                  BlockRange{run.start, 8}}) {
    EXPECT_EQ(reserve({.frees = {other}}).error(), Errc::kBadValue);
  }
  EXPECT_TRUE(reserve({.frees = {{run.start, 2}, {run.start + 6, 2}}}).has_value());
  *one = Reservation();
  auto two = reserve({.frees = {run}});
  ASSERT_TRUE(two.has_value());
  TxHandle tx = fs->begin(two->credits());
  two->free_data(tx, run);
  tx.end();
  commit();
  // Somebody else's by now, and freed again, while what has freed it before is still there.
  ASSERT_EQ(allocate(8, run.start)->front(), run);
  free(run);
}

// A block freed as one file's data while it is another's tree node.
TEST_F(AllocatorTest, AFreeBlockThatIsInUseAsMetadataIsNotHandedOut) {
  start();
  std::set<BlockNo> in_use;
  for (int i = 0; i < 3; ++i) {
    const BlockNo block = allocate(1)->front().start;
    in_use.insert(block);
    const LockHold hold =
        std::move(*fs->run(fs->locks->acquire({BlockNo{1040}, 3}, LockMode::kExclusive, LocalUse::kExclusive)));
    BufferRef node = fs->buffers->make(block, format::BlockType::kTreeNode, hold.name());
    auto& tree = node->as<format::TreeNode>();
    tree.owner = 1044;
    TxHandle tx = fs->begin(1);
    tx.change(*node, hold);
    tx.end();
    free({block, 1});
  }
  commit();
  auto metadata = reserve({.metadata = 64, .frees = {}});
  ASSERT_TRUE(metadata.has_value());
  TxHandle tx = fs->begin(metadata->credits());
  while (metadata->metadata_blocks() > 0) EXPECT_FALSE(in_use.contains(metadata->take_metadata(tx)));
  tx.end();
  for (;;) {
    const auto runs = allocate(50);
    if (!runs) break;
    for (const BlockRange& run : *runs) {
      for (const BlockNo block : in_use) EXPECT_FALSE(block >= run.start && block < run.start + run.count);
    }
  }
}

TEST_F(AllocatorTest, BlocksThatAreNotInUseAreNotFreed) {
  start();
  const auto runs = allocate(8);
  const BlockRange run = runs->front();
  const BlockNo header = fs->geometry.group_header(GroupNo{0});
  for (const BlockRange& bad : {BlockRange{run.start, 9}, BlockRange{run.start + 8, 1}, BlockRange{header, 1},
                                BlockRange{BlockNo{0}, 1}, BlockRange{BlockNo{fs->geometry.block_count - 1}, 5},
                                BlockRange{run.start, 0}, BlockRange{run.start, UINT64_MAX}}) {
    EXPECT_EQ(reserve({.frees = {bad}}).error(), Errc::kBadValue) << bad.start.value << " " << bad.count;
  }
  EXPECT_EQ(reserve({.frees = {run, {run.start + 7, 1}}}).error(), Errc::kBadValue);
  EXPECT_TRUE(reserve({.frees = {run}}).has_value());
}

TEST_F(AllocatorTest, AlignedChunks) {
  start();
  ASSERT_TRUE(allocate(5).has_value());
  for (int i = 0; i < 20; ++i) {
    auto reserved = reserve({.data = 16, .alignment = 16, .frees = {}});
    ASSERT_TRUE(reserved.has_value());
    ASSERT_EQ(reserved->runs().size(), 1u);
    const BlockRange run = reserved->runs()[0];
    EXPECT_EQ(run.start.value % 16, 0u);
    EXPECT_EQ(run.count, 16u);
    TxHandle tx = fs->begin(reserved->credits());
    reserved->take_data(tx, run);
  }
}

// Everything is handed out, block for block, then the answer is kNoSpace; one block freed and committed can be had.
TEST_F(AllocatorTest, NoSpaceIsExact) {
  start();
  std::set<BlockNo> mine;
  const std::uint64_t before = free_on_disk();
  // The metadata pool must not keep anything from data.
  ASSERT_TRUE(reserve({.metadata = 1, .frees = {}}).has_value());
  std::vector<BlockRange> runs;
  for (std::uint64_t want = 1000; want > 0;) {
    const auto got = allocate(want);
    if (!got) {
      ASSERT_EQ(got.error(), Errc::kNoSpace);
      want /= 2;
      continue;
    }
    for (const BlockRange& run : *got) {
      runs.push_back(run);
      for (std::uint64_t i = 0; i < run.count; ++i)
        ASSERT_TRUE(mine.insert(run.start + i).second) << "handed out twice";
    }
  }
  EXPECT_EQ(mine.size(), before);
  EXPECT_EQ(free_on_disk(), 0u);
  EXPECT_EQ(reserve({.metadata = 1, .frees = {}}).error(), Errc::kNoSpace);
  EXPECT_FALSE(space->try_promise(1));
  // Freed, not committed: prepare() commits it.
  free({runs[0].start, 2});
  const auto got = allocate(2);
  ASSERT_TRUE(got.has_value());
  EXPECT_EQ(got->front(), (BlockRange{runs[0].start, 2}));
  EXPECT_EQ(allocate(1).error(), Errc::kNoSpace);
}

TEST_F(AllocatorTest, PromisesKeepTheirSpace) {
  start();
  ASSERT_TRUE(fs->run(space->prepare({.data = 1, .frees = {}})).has_value());
  const std::uint64_t all = free_on_disk();
  // More than one group has.
  ASSERT_FALSE(space->try_promise(all - 10));
  ASSERT_TRUE(fs->run(space->prepare({.data = all - 10, .frees = {}})).has_value());
  ASSERT_TRUE(space->try_promise(all - 10));
  EXPECT_FALSE(space->try_promise(11));
  EXPECT_EQ(allocate(11).error(), Errc::kNoSpace);
  ASSERT_TRUE(allocate(10).has_value());
  // The promised ones turn into blocks, all of them, data and metadata.
  ASSERT_TRUE(fs->run(space->prepare_held({.data = 500, .metadata = 40, .promised = 540, .frees = {}})).has_value());
  {
    auto reserved = space->try_reserve({.data = 500, .metadata = 40, .promised = 540, .frees = {}});
    ASSERT_TRUE(reserved.has_value());
    EXPECT_EQ(space->promised(), all - 550);
  }
  EXPECT_EQ(space->promised(), all - 10);
  std::uint64_t got = 0;
  while (space->promised() > 0) {
    const std::uint64_t want = std::min<std::uint64_t>(space->promised(), 700);
    const SpaceRequest request{.data = want, .promised = want, .frees = {}};
    ASSERT_TRUE(fs->run(space->prepare_held(request)).has_value());
    auto reserved = space->try_reserve(request);
    ASSERT_TRUE(reserved.has_value());
    got += reserved->data_blocks();
    TxHandle tx = fs->begin(reserved->credits());
    while (!reserved->runs().empty()) reserved->take_data(tx, reserved->runs()[0]);
  }
  EXPECT_EQ(got, all - 10);
  EXPECT_EQ(free_on_disk(), 0u);
}

TEST_F(AllocatorTest, AGroupGoesOnlyWhenItsPromisesHaveBecomeBlocks) {
  start();
  ASSERT_TRUE(fs->run(space->prepare({.data = 1, .frees = {}})).has_value());
  const GroupNo home = space->home();
  ASSERT_TRUE(space->try_promise(100));
  EXPECT_EQ(space->promises_resting_on(home), 100u);
  bool converted = false;
  during_invalidate = [&]() -> Task<void> {
    EXPECT_FALSE(space->try_promise(1));
    EXPECT_EQ(space->try_reserve({.data = 1, .frees = {}}).error(), Errc::kAgain);
    EXPECT_FALSE(space->try_hold(home));
    const SpaceRequest request{.data = 100, .promised = 100, .frees = {}};
    const auto ready = co_await space->prepare_held(request);
    EXPECT_TRUE(ready.has_value());
    auto reserved = space->try_reserve(request);
    EXPECT_TRUE(reserved.has_value());
    if (!reserved) co_return;
    auto tx = co_await fs->log->begin(reserved->credits());
    while (!reserved->runs().empty()) reserved->take_data(*tx, reserved->runs()[0]);
    converted = true;
  };
  ASSERT_TRUE(fs->run(fs->locks->give_up(lock_of(fs->geometry, home), LockMode::kNone)).has_value());
  EXPECT_TRUE(converted);
  EXPECT_EQ(space->promised(), 0u);
  EXPECT_TRUE(space->loaded_groups({}).empty());
  EXPECT_EQ(space->promises_resting_on(home), 0u);
}

TEST_F(AllocatorTest, OtherGroupsCoverPromises) {
  start();
  ASSERT_TRUE(fs->run(space->prepare_group(GroupNo{0})).has_value());
  ASSERT_TRUE(fs->run(space->prepare_group(GroupNo{1})).has_value());
  ASSERT_TRUE(space->try_promise(100));
  EXPECT_EQ(space->promises_resting_on(GroupNo{0}), 0u);
  EXPECT_EQ(space->promises_resting_on(GroupNo{1}), 0u);
  space->unpromise(100);
}

// A node withdraws while a lock of a dirty file goes: its promises outlive the groups that they rested on.
TEST_F(AllocatorTest, PromisesAreGivenBackAfterTheEnd) {
  start();
  ASSERT_TRUE(fs->run(space->prepare_group(GroupNo{0})).has_value());
  ASSERT_TRUE(space->try_promise(100));
  space->abandon();
  EXPECT_EQ(space->promised(), 0u);
  EXPECT_FALSE(space->try_promise(1));
  space->unpromise(100);
  EXPECT_EQ(space->promised(), 0u);
}

TEST_F(AllocatorTest, StateIsWrittenWhenTheGroupGoesAndReadAgain) {
  start();
  const auto runs = allocate(77);
  const std::uint64_t free = free_on_disk();
  const GroupNo home = space->home();
  ASSERT_TRUE(fs->run(fs->locks->give_up(lock_of(fs->geometry, home), LockMode::kNone)).has_value());
  fs->remount();
  mount();
  EXPECT_EQ(free_on_disk(), free);
  EXPECT_EQ(reserve({.frees = {{runs->front().start, 78}}}).error(), Errc::kBadValue);
  this->free(runs->front());
  EXPECT_EQ(free_on_disk(), free + 77);
}

TEST_F(AllocatorTest, SettleWaitsForUsersWithoutAHold) {
  start();
  ASSERT_TRUE(fs->run(space->prepare({.data = 1, .frees = {}})).has_value());
  ASSERT_TRUE(space->try_promise(10));
  const GroupNo home = space->home();
  space->leave(home);
  auto reserved = space->try_reserve({.data = 10, .promised = 10, .frees = {}});
  ASSERT_TRUE(reserved.has_value());
  TaskGroup tasks(fs->executor);
  bool settled = false;
  auto settle_it = [](Allocator& allocator, GroupNo group, bool& done) -> Task<void> {
    const auto result = co_await allocator.settle(group);
    EXPECT_TRUE(result.has_value());
    done = true;
  };
  tasks.spawn(settle_it(*space, home, settled));
  fs->loop.run_for(std::chrono::seconds(1));
  EXPECT_FALSE(settled);
  *reserved = Reservation();
  fs->loop.run_for(std::chrono::seconds(1));
  EXPECT_TRUE(settled);
  space->abandon();
}

Task<void> two_seconds(Executor& executor) {
  co_await executor.sleep(std::chrono::seconds(2));
}

TEST_F(AllocatorTest, WhoNeedsAGroupThatIsLeavingHasItAfterwards) {
  start();
  const auto runs = allocate(5);
  const GroupNo home = space->home();
  during_invalidate = [&] { return two_seconds(fs->executor); };
  TaskGroup tasks(fs->executor);
  auto give_up = [](LocalLockService& locks, LockName name) -> Task<void> {
    const auto done = co_await locks.give_up(name, LockMode::kNone);
    EXPECT_TRUE(done.has_value());
  };
  Time ready_at;
  auto prepare = [](Allocator& allocator, Executor& executor, BlockRange range, Time& at) -> Task<void> {
    const auto done = co_await allocator.prepare({.frees = {range}});
    EXPECT_TRUE(done.has_value());
    at = executor.now();
  };
  const Time from = fs->executor.now();
  tasks.spawn(give_up(*fs->locks, lock_of(fs->geometry, home)));
  tasks.spawn(prepare(*space, fs->executor, runs->front(), ready_at));
  fs->run(tasks.join());
  EXPECT_GE(ready_at - from, std::chrono::seconds(2));
  EXPECT_TRUE(space->try_reserve({.frees = {runs->front()}}).has_value());
}

// Another node asks for a group while it is decided whether there is any space.
class AllocatorContendedTest : public AllocatorTest {
 protected:
  static constexpr std::uint64_t kFree = 8;

  // Both groups are full, but for `kFree` blocks of the second one that another node has freed since.
  void fill() {
    start();
    first = space->home();
    std::vector<BlockRange> runs;
    for (std::uint64_t want = 1000; want > 0;) {
      const auto got = allocate(want);
      if (!got) want /= 2;
      if (got) runs.insert(runs.end(), got->begin(), got->end());
    }
    for (const BlockRange& run : runs) {
      const bool here = fs->geometry.group_of(run.start) == first;
      if (run.count >= kFree) (here ? in_first : in_second) = {run.start, kFree};
    }
    second = fs->geometry.group_of(in_second.start);
    ASSERT_NE(second, first);
    commit();
    give_up(second);
    auto mine = std::move(space);
    mount();
    free(in_second);
    commit();
    give_up(second);
    space = std::move(mine);
  }
  void give_up(GroupNo group) {
    ASSERT_TRUE(fs->run(fs->locks->give_up(lock_of(fs->geometry, group), LockMode::kNone)).has_value());
  }
  static Task<void> hold(LockService& locks, LockName name, Executor& executor) {
    auto held = co_await locks.acquire(name, LockMode::kExclusive, LocalUse::kExclusive);
    EXPECT_TRUE(held.has_value());
    co_await executor.sleep(std::chrono::seconds(2));
  }
  static Task<void> lose(LocalLockService& locks, LockName name, Executor& executor) {
    co_await executor.sleep(std::chrono::seconds(1));
    const auto done = co_await locks.give_up(name, LockMode::kNone);
    EXPECT_TRUE(done.has_value());
  }
  static Task<void> take(Allocator& allocator, SpaceRequest request, int& tries, Result<>& result) {
    for (tries = 1;; ++tries) {
      result = co_await allocator.prepare(request);
      if (!result || allocator.try_reserve(request)) co_return;
    }
  }
  // The second group can be had after 2 s; the first one is asked for after 1 s, and goes when the hook has returned.
  Result<> prepare_while_the_first_goes(SpaceRequest request) {
    TaskGroup tasks(fs->executor);
    Result<> result;
    int tries = 0;
    tasks.spawn(hold(*fs->locks, lock_of(fs->geometry, second), fs->executor));
    tasks.spawn(lose(*fs->locks, lock_of(fs->geometry, first), fs->executor));
    tasks.spawn(take(*space, request, tries, result));
    fs->run(tasks.join());
    return result;
  }

  GroupNo first;
  GroupNo second;
  BlockRange in_first;
  BlockRange in_second;
};

TEST_F(AllocatorContendedTest, ALeavingGroupsSpaceIsSpace) {
  fill();
  free(in_first);
  commit();
  during_invalidate = [&] { return two_seconds(fs->executor); };
  EXPECT_TRUE(prepare_while_the_first_goes({.data = 2 * kFree, .frees = {}}).has_value());
}

TEST_F(AllocatorContendedTest, AGroupToFreeInIsKept) {
  fill();
  EXPECT_TRUE(prepare_while_the_first_goes({.data = kFree, .frees = {in_first}}).has_value());
}

TEST_F(AllocatorTest, TotalsAreTheHeaders) {
  start();
  const auto before = fs->run(space->totals());
  ASSERT_TRUE(before.has_value());
  EXPECT_EQ(before->free_blocks, free_on_disk());
  ASSERT_TRUE(allocate(123).has_value());
  const auto after = fs->run(space->totals());
  EXPECT_EQ(after->free_blocks, before->free_blocks - 123);
  EXPECT_GT(after->chunks, 0u);
}

TEST_F(AllocatorTest, AGroupThatLiesAboutItsSpaceIsAnError) {
  start();
  // One bit more in the bitmap than the header counts.
  const GroupNo home = space->home();
  const BlockNo block = fs->geometry.group_bitmap(home, 0);
  format::Bitmap bitmap;
  fs->lun.peek(block.offset_bytes(), std::as_writable_bytes(std::span(&bitmap, 1)));
  std::size_t i = 0;
  while (bitmap.bits[i] != 0) ++i;
  bitmap.bits[i] = 1;
  format::stamp_unverified(std::as_writable_bytes(std::span(&bitmap, 1)));
  fs->lun.poke(block.offset_bytes(), std::as_bytes(std::span(&bitmap, 1)));
  EXPECT_EQ(fs->run(space->prepare({.data = 1, .frees = {}})).error(), Errc::kBadValue);
}

TEST_F(AllocatorTest, LargeGroupsLoadBitmapsAsTheyAreNeeded) {
  start({.size_bytes = std::uint64_t{1200} << 20, .slots = 2, .group_blocks = 150000 / 16 * 16, .journal_blocks = 256});
  ASSERT_GE(fs->geometry.bitmap_blocks(GroupNo{0}), 4u);
  const auto got = allocate(100000);
  ASSERT_TRUE(got.has_value());
  std::uint64_t blocks = 0;
  for (const BlockRange& run : *got) blocks += run.count;
  EXPECT_EQ(blocks, 100000u);
  commit();
  const std::uint64_t free_before = free_on_disk();
  for (const BlockRange& run : *got) free(run);
  commit();
  EXPECT_EQ(free_on_disk(), free_before + 100000);
}

// What every block is, as the operations make it; groups are given up at random.
TEST_F(AllocatorTest, RandomAgainstAModel) {
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    start({.size_bytes = 40 << 20, .slots = 2, .journal_blocks = 256, .seed = seed});
    SeededRandom random(seed);
    std::map<BlockNo, std::uint64_t> used;  // run starts
    std::set<BlockNo> blocks;               // used by the model
    std::vector<BlockRange> freed;          // not committed
    std::set<BlockNo> uncommitted;
    const std::uint64_t all = free_on_disk();
    const auto committed = [&] {
      freed.clear();
      uncommitted.clear();
    };
    for (int step = 0; step < 1500; ++step) {
      const std::uint64_t what = random.below(100);
      if (what < 50) {
        const std::uint64_t commits = fs->log->commits();
        const auto got = allocate(1 + random.below(80), BlockNo{random.below(fs->geometry.block_count)});
        if (fs->log->commits() != commits) committed();
        if (!got) {
          ASSERT_EQ(got.error(), Errc::kNoSpace);
          ASSERT_LT(all - blocks.size(), 80u);
          continue;
        }
        for (const BlockRange& run : *got) {
          used[run.start] = run.count;
          for (std::uint64_t i = 0; i < run.count; ++i) {
            ASSERT_TRUE(blocks.insert(run.start + i).second) << "a used block was handed out";
            ASSERT_FALSE(uncommitted.contains(run.start + i)) << "a block freed but not committed was handed out";
          }
        }
      } else if (what < 88) {
        auto victim = used.lower_bound(BlockNo{random.below(fs->geometry.block_count)});
        if (victim == used.end()) continue;
        const BlockRange run{victim->first, victim->second};
        used.erase(victim);
        free(run);
        freed.push_back(run);
        for (std::uint64_t i = 0; i < run.count; ++i) {
          blocks.erase(run.start + i);
          uncommitted.insert(run.start + i);
        }
      } else if (what < 95) {
        commit();
        committed();
      } else {
        const GroupNo group{static_cast<std::uint32_t>(random.below(fs->geometry.group_count))};
        ASSERT_TRUE(fs->run(fs->locks->give_up(lock_of(fs->geometry, group), LockMode::kNone)).has_value());
        committed();
      }
      if (step % 50 == 0) ASSERT_EQ(free_on_disk(), all - blocks.size());
      if (HasFatalFailure()) return;
    }
    space.reset();
  }
}

}  // namespace
}  // namespace cawfs
