// Inode numbers: claimed without waiting, never twice, in use exactly when a transaction said so; chunks that are found
// again; a bad index is an error. And orphan lists.
#include "core/fs/inode_allocator.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "core/format/cluster_verify.h"
#include "core/fs/inode_chunk.h"
#include "core/fs/orphans.h"
#include "tests/support/small_file_system.h"

namespace cawfs {
namespace {

using testing::SmallFileSystem;

class InodeAllocatorTest : public ::testing::Test, public LockClient {
 protected:
  InodeAllocatorTest() : fs({.size_bytes = 40 << 20}) { mount(); }

  void mount() {
    numbers.reset();
    space = std::make_unique<Allocator>(fs.executor, *fs.device, fs.geometry, *fs.locks, *fs.buffers, *fs.log);
    numbers =
        std::make_unique<InodeAllocator>(fs.executor, *fs.device, fs.geometry, *fs.locks, *fs.buffers, *fs.log, *space);
    fs.locks->set_client(this);
  }
  void remount() {
    numbers.reset();
    EXPECT_TRUE(fs.run(fs.log->write_back_all()).has_value());
    space.reset();
    fs.remount();
    mount();
  }

  Task<void> invalidate(LockName name, LockMode, LockMode) override {
    if (const auto group = space->group_of_lock(name)) space->leave(*group);
    co_return;
  }
  Task<Result<>> settle(LockName name, LockMode, LockMode) override {
    if (const auto group = space->group_of_lock(name)) {
      const auto done = co_await space->settle(*group);
      co_return done;
    }
    const auto done = co_await fs.log->write_back(name);
    fs.buffers->forget(name);
    co_return done;
  }
  bool is_open(LockName) override { return false; }

  Result<InodeClaim> claim(InodeNo near = {}) {
    while (true) {
      auto claimed = fs.run(numbers->claim(near));
      if (claimed || claimed.error() != Errc::kAgain) return claimed;
      const auto ready = fs.run(numbers->refill(near));
      if (!ready) return fail(ready.error());
    }
  }
  Result<InodeNo> create(InodeNo near = {}) {
    auto claimed = claim(near);
    if (!claimed) return fail(claimed.error());
    const InodeNo inode = claimed->inode();
    const auto block = fs.run(fs.buffers->read(inode.block(), format::BlockType::kInode, lock_of(inode)));
    EXPECT_TRUE(block.has_value()) << "the block of a free inode is no inode";
    TxHandle tx = fs.begin(InodeMaskChange::kCredits);
    claimed->mask.apply(tx);
    return inode;
  }
  Result<> destroy(InodeNo inode) {
    while (true) {
      auto change = fs.run(numbers->release(inode));
      if (change) {
        TxHandle tx = fs.begin(InodeMaskChange::kCredits);
        change->apply(tx);
        return {};
      }
      if (change.error() != Errc::kAgain) return fail(change.error());
      const auto ready = fs.run(numbers->prepare_free(inode));
      if (!ready) return ready;
    }
  }
  bool in_use(InodeNo inode) {
    const auto answer = fs.run(numbers->is_inode(inode));
    EXPECT_TRUE(answer.has_value());
    return answer && *answer;
  }
  format::GroupHeader header(GroupNo group) {
    const auto buffer = fs.run(fs.buffers->read(fs.geometry.group_header(group), format::BlockType::kGroupHeader,
                                                lock_of(fs.geometry, group)));
    return (*buffer)->as<format::GroupHeader>();
  }

  SmallFileSystem fs;
  std::unique_ptr<Allocator> space;
  std::unique_ptr<InodeAllocator> numbers;
};

TEST_F(InodeAllocatorTest, ClaimsComeFromMkfsChunksFirst) {
  EXPECT_EQ(fs.run(numbers->claim({})).error(), Errc::kAgain);
  const auto inode = create();
  ASSERT_TRUE(inode.has_value());
  EXPECT_EQ(chunk_of(*inode), chunk_of(fs.geometry.root));
  EXPECT_TRUE(in_use(*inode));
}

TEST_F(InodeAllocatorTest, ManyCreatesNeverGiveOneNumberTwice) {
  std::set<InodeNo> inodes;
  for (int i = 0; i < 600; ++i) {
    const auto inode = create();
    ASSERT_TRUE(inode.has_value());
    ASSERT_TRUE(is_inode_number(*inode));
    ASSERT_TRUE(inodes.insert(*inode).second);
  }
  const auto group = header(space->home());
  EXPECT_GE(group.chunks.value(), 40u);
  EXPECT_EQ(group.free_inodes.value() % 15, numbers->prepared() % 15);
  // A new chunk's lock block is on the device and says that nobody holds anything.
  const BlockNo chunk = chunk_of(*inodes.rbegin());
  std::vector<std::byte> block(fs.geometry.logical_block);
  fs.lun.peek(chunk.offset_bytes(), block);
  EXPECT_TRUE(format::verify_lock_block(block, chunk.offset_bytes(), fs.geometry.fs_id).has_value());
}

TEST_F(InodeAllocatorTest, AClaimThatIsDroppedIsPreparedAgain) {
  InodeNo inode;
  {
    auto first = claim();
    inode = first->inode();
    auto second = claim();
    EXPECT_NE(second->inode(), inode);
  }
  EXPECT_FALSE(in_use(inode));
  std::set<InodeNo> later;
  for (int i = 0; i < 60; ++i) later.insert(*create());
  EXPECT_TRUE(later.contains(inode));
}

TEST_F(InodeAllocatorTest, FreedInodesAreUsedAgain) {
  const InodeNo inode = *create();
  ASSERT_TRUE(destroy(inode).has_value());
  EXPECT_FALSE(in_use(inode));
  EXPECT_EQ(destroy(inode).error(), Errc::kBadValue);
  std::set<InodeNo> later;
  for (int i = 0; i < 60; ++i) later.insert(*create());
  EXPECT_TRUE(later.contains(inode));
}

TEST_F(InodeAllocatorTest, FreeInodesAreFoundAgainAfterARemount) {
  std::set<InodeNo> inodes;
  for (int i = 0; i < 100; ++i) inodes.insert(*create());
  const std::uint32_t chunks = header(space->home()).chunks.value();
  std::set<InodeNo> gone;
  for (const InodeNo inode : inodes) {
    if (inode.value % 3 != 0) continue;
    ASSERT_TRUE(destroy(inode).has_value());
    gone.insert(inode);
  }
  remount();
  for (const InodeNo inode : inodes) ASSERT_EQ(in_use(inode), !gone.contains(inode));
  std::set<InodeNo> again;
  while (again.size() < gone.size()) {
    const InodeNo inode = *create();
    ASSERT_FALSE(inodes.contains(inode) && !gone.contains(inode)) << "a number in use was handed out";
    again.insert(inode);
  }
  EXPECT_EQ(header(space->home()).chunks.value(), chunks) << "chunks were made although there were free inodes";
}

TEST_F(InodeAllocatorTest, NumbersFromOutside) {
  const Geometry& geometry = fs.geometry;
  EXPECT_TRUE(in_use(geometry.root));
  EXPECT_TRUE(in_use(geometry.orphan_inodes[0]));
  for (const std::uint64_t number :
       {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{17}, chunk_of(geometry.root).value, geometry.block_count - 1,
        geometry.block_count + 1, UINT64_MAX, UINT64_MAX - 14, geometry.group_header(GroupNo{1}).value,
        geometry.group_data(GroupNo{1}).value + 101}) {
    EXPECT_FALSE(in_use(InodeNo{number})) << number;
  }
}

TEST_F(InodeAllocatorTest, GroupsThatGoTakeTheirInodesAlong) {
  std::set<InodeNo> inodes;
  SeededRandom random(3);
  for (int i = 0; i < 300; ++i) {
    if (random.one_in(10)) {
      const auto held = fs.locks->held();
      ASSERT_TRUE(fs.run(fs.locks->give_up(held[random.below(held.size())], LockMode::kNone)).has_value());
    }
    if (random.one_in(3) && !inodes.empty()) {
      const InodeNo inode = *inodes.begin();
      ASSERT_TRUE(destroy(inode).has_value());
      inodes.erase(inode);
      continue;
    }
    const auto inode = create();
    ASSERT_TRUE(inode.has_value()) << describe(inode.error().code);
    ASSERT_TRUE(inodes.insert(*inode).second) << "a number in use was handed out";
  }
  for (const InodeNo inode : inodes) ASSERT_TRUE(in_use(inode));
}

TEST_F(InodeAllocatorTest, NoSpaceForAChunk) {
  // Until there is no run of 16 aligned blocks.
  std::set<InodeNo> inodes;
  while (true) {
    const auto inode = create();
    if (!inode) {
      EXPECT_EQ(inode.error(), Errc::kNoSpace);
      break;
    }
    ASSERT_TRUE(inodes.insert(*inode).second);
  }
  // Both groups' chunks, and a deep index.
  EXPECT_GT(inodes.size(), 3000u);
  EXPECT_GT(header(GroupNo{0}).chunk_index.level.value() + header(GroupNo{1}).chunk_index.level.value(), 0);
  EXPECT_EQ(header(GroupNo{0}).free_inodes.value() + header(GroupNo{1}).free_inodes.value(), 0u);
  const InodeNo one = *std::next(inodes.begin(), 1234);
  ASSERT_TRUE(destroy(one).has_value());
  EXPECT_EQ(*create(), one);
  for (const InodeNo inode : inodes) ASSERT_TRUE(in_use(inode));
  remount();
  for (const InodeNo inode : inodes) ASSERT_TRUE(in_use(inode));
}

class OrphanListTest : public InodeAllocatorTest {
 protected:
  void change(std::vector<InodeNo> add, std::vector<InodeNo> remove) {
    const InodeNo system = OrphanList::inode_of(fs.geometry, SlotNo{0});
    auto hold = *fs.run(fs.locks->acquire(lock_of(system), LockMode::kExclusive, LocalUse::kExclusive));
    while (true) {
      auto list = std::move(*fs.run(OrphanList::open(*fs.buffers, SlotNo{0})));
      for (const InodeNo inode : add) ASSERT_TRUE(fs.run(list.add(inode)).has_value());
      for (const InodeNo inode : remove) ASSERT_TRUE(fs.run(list.remove(inode)).has_value());
      SpaceRequest request{.metadata = list.needs().new_blocks};
      for (const BlockNo block : list.needs().freed) request.frees.push_back({block, 1});
      auto reserved = space->try_reserve(request);
      if (!reserved) {
        ASSERT_EQ(reserved.error(), Errc::kAgain);
        ASSERT_TRUE(fs.run(space->prepare(request)).has_value());
        continue;
      }
      TxHandle tx = fs.begin(list.needs().credits + reserved->credits() + 1);
      list.apply(tx, hold, *reserved);
      return;
    }
  }
};

TEST_F(OrphanListTest, AddedListedAndRemoved) {
  const std::uint64_t first = chunk_of(fs.geometry.root).value;
  std::vector<InodeNo> many;
  for (std::uint64_t i = 1; i < 1500; ++i) {
    if (i % 16 != 0) many.push_back(InodeNo{first + i});
  }
  change(many, {});
  remount();
  auto list = std::move(*fs.run(OrphanList::open(*fs.buffers, SlotNo{0})));
  EXPECT_EQ(*fs.run(list.list({}, 5000)), many);
  EXPECT_EQ(*fs.run(list.list(many[9], 3)), (std::vector<InodeNo>{many[10], many[11], many[12]}));
  EXPECT_TRUE(*fs.run(list.contains(many[500])));
  EXPECT_EQ(fs.run(list.add(many[7])).error(), Errc::kExists);
  EXPECT_EQ(fs.run(list.remove(InodeNo{first + 1600})).error(), Errc::kNotFound);
  const auto raw = [&] {
    const InodeNo system = OrphanList::inode_of(fs.geometry, SlotNo{0});
    return fs.buffers->find(system.block())->as<format::Inode>();
  };
  EXPECT_EQ(raw().size.value(), many.size());
  EXPECT_GT(raw().blocks.value(), 0u);
  change({}, many);
  EXPECT_EQ(raw().size.value(), 0u);
  EXPECT_EQ(raw().blocks.value(), 0u);
}

// What would count below zero is refused: no verifier would let it to the disk.
TEST_F(OrphanListTest, OneThatCountsItsEntriesWrong) {
  const InodeNo system = OrphanList::inode_of(fs.geometry, SlotNo{0});
  const InodeNo orphan{system.value + 1};
  change({orphan}, {});
  const auto list = [&] { return std::move(*fs.run(OrphanList::open(*fs.buffers, SlotNo{0}))); };
  const auto set_size = [&](std::uint64_t size) { fs.buffers->find(system.block())->as<format::Inode>().size = size; };
  set_size(0);
  auto below = list();
  EXPECT_EQ(fs.run(below.remove(orphan)).error(), Errc::kBadValue);
  set_size(INT64_MAX);
  auto above = list();
  EXPECT_EQ(fs.run(above.add(InodeNo{system.value + 2})).error(), Errc::kBadValue);
  set_size(1);
  change({}, {orphan});
}

TEST_F(OrphanListTest, ASlotWithoutAList) {
  EXPECT_EQ(fs.run(OrphanList::open(*fs.buffers, SlotNo{50})).error(), Errc::kNotFound);
  EXPECT_EQ(OrphanList::inode_of(fs.geometry, SlotNo{64}), InodeNo{});
}

}  // namespace
}  // namespace cawfs
