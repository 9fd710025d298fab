#include "core/fs/buffer_cache.h"

#include <gtest/gtest.h>

#include "core/runtime/task_group.h"
#include "tests/support/small_file_system.h"

namespace cawfs {
namespace {

using format::BlockType;
using testing::SmallFileSystem;

class BufferCacheTest : public ::testing::Test {
 protected:
  BufferCacheTest() {
    root = fs.geometry.root.block();
    lock = lock_of(fs.geometry.root);
  }
  Result<BufferRef> read(BlockNo block, BlockType type, LockName name) {
    return fs.run(fs.buffers->read(block, type, name));
  }

  SmallFileSystem fs{{.size_bytes = 40 << 20, .cache_bytes = 8 * kBlockSize}};
  BlockNo root;
  LockName lock;
};

TEST_F(BufferCacheTest, ConcurrentReadsAreOneRequest) {
  const std::uint64_t before = fs.lun.executed(SimulatedRequest::Kind::kRead);
  TaskGroup tasks(fs.executor);
  std::vector<BufferRef> got;
  auto reader = [](BufferCache& buffers, BlockNo block, LockName name, std::vector<BufferRef>& out) -> Task<void> {
    const auto buffer = co_await buffers.read(block, BlockType::kInode, name);
    EXPECT_TRUE(buffer.has_value());
    if (buffer) out.push_back(*buffer);
  };
  for (int i = 0; i < 5; ++i) tasks.spawn(reader(*fs.buffers, root, lock, got));
  fs.run(tasks.join());
  EXPECT_EQ(fs.lun.executed(SimulatedRequest::Kind::kRead), before + 1);
  ASSERT_EQ(got.size(), 5u);
  for (const BufferRef& buffer : got) EXPECT_EQ(buffer, got[0]);
  EXPECT_EQ(fs.buffers->find(root), got[0]);
}

TEST_F(BufferCacheTest, EveryReaderLearnsOfAFailure) {
  fs.lun.set_hook([](const SimulatedRequest&) { return SimulatedFate::kMediumError; });
  TaskGroup tasks(fs.executor);
  int failures = 0;
  auto reader = [](BufferCache& buffers, BlockNo block, LockName name, int& failed) -> Task<void> {
    const auto buffer = co_await buffers.read(block, BlockType::kInode, name);
    if (!buffer && buffer.error() == Errc::kMedium) ++failed;
  };
  for (int i = 0; i < 3; ++i) tasks.spawn(reader(*fs.buffers, root, lock, failures));
  fs.run(tasks.join());
  EXPECT_EQ(failures, 3);
  fs.lun.set_hook({});
  EXPECT_TRUE(read(root, BlockType::kInode, lock).has_value());
}

TEST_F(BufferCacheTest, WhatIsReadIsVerified) {
  EXPECT_EQ(read(root, BlockType::kTreeNode, lock).error(), Errc::kBadIdentity);
  EXPECT_FALSE(read(fs.geometry.group_lock(GroupNo{0}), BlockType::kInode, lock).has_value());
  EXPECT_EQ(read(BlockNo{fs.geometry.block_count}, BlockType::kInode, lock).error(), Errc::kBounds);
  EXPECT_EQ(fs.buffers->bytes(), 0u);
}

// A node that has stood still reads what others have written since: that is no damage.
TEST_F(BufferCacheTest, NothingIsMadeOfABlockReadUnderALockThatWasLost) {
  bool held = false;
  fs.buffers->confirm_reads_by([&held]() -> Task<Result<>> {
    if (!held) co_return fail(Errc::kFenced, "self-lease");
    co_return Result<>{};
  });
  EXPECT_EQ(read(root, BlockType::kTreeNode, lock).error(), Errc::kFenced);
  EXPECT_EQ(read(root, BlockType::kInode, lock).error(), Errc::kFenced);
  EXPECT_EQ(fs.buffers->bytes(), 0u);
  held = true;
  EXPECT_EQ(read(root, BlockType::kTreeNode, lock).error(), Errc::kBadIdentity);
  EXPECT_TRUE(read(root, BlockType::kInode, lock).has_value());
}

TEST_F(BufferCacheTest, ABlockClaimedTwiceIsAnError) {
  const auto buffer = read(root, BlockType::kInode, lock);
  EXPECT_EQ(read(root, BlockType::kInode, lock_of(fs.geometry, GroupNo{0})).error(), Errc::kBadIdentity);
  EXPECT_EQ(read(root, BlockType::kTreeNode, lock).error(), Errc::kBadIdentity);
}

TEST_F(BufferCacheTest, TheLeastRecentlyUsedGoesUnlessItIsPinnedOrDirty) {
  const auto at = [&](std::uint64_t i) { return root + 100 + i; };
  const auto made = [&](std::uint64_t i) { return fs.buffers->make(at(i), BlockType::kInode, lock); };
  const BufferRef pinned = made(0);
  made(1)->running = TxId{1};
  for (std::uint64_t i = 2; i < 8; ++i) made(i);
  ASSERT_TRUE(fs.buffers->find(at(2)));  // used again
  made(8);
  made(9);
  EXPECT_TRUE(fs.buffers->find(at(0)));
  EXPECT_TRUE(fs.buffers->find(at(1)));
  EXPECT_TRUE(fs.buffers->find(at(2)));
  EXPECT_FALSE(fs.buffers->find(at(3)));
  EXPECT_FALSE(fs.buffers->find(at(4)));
  EXPECT_TRUE(fs.buffers->find(at(5)));
  EXPECT_EQ(fs.buffers->bytes(), 8 * kBlockSize);
}

TEST_F(BufferCacheTest, ForgettingALock) {
  const LockName other = lock_of(fs.geometry, GroupNo{0});
  fs.buffers->make(root + 200, BlockType::kInode, lock);
  fs.buffers->make(root + 201, BlockType::kInode, lock);
  fs.buffers->make(root + 202, BlockType::kInode, other);
  fs.buffers->forget(lock);
  EXPECT_FALSE(fs.buffers->find(root + 200));
  EXPECT_FALSE(fs.buffers->find(root + 201));
  EXPECT_TRUE(fs.buffers->find(root + 202));
  fs.buffers->forget(lock);
}

TEST_F(BufferCacheTest, AForgottenBlockLivesAsLongAsItIsPinned) {
  BufferRef old = fs.buffers->make(root + 200, BlockType::kInode, lock);
  old->running = TxId{1};
  fs.buffers->forget(root + 200);
  EXPECT_FALSE(fs.buffers->find(root + 200));
  EXPECT_EQ(old->block(), root + 200);
  const BufferRef fresh = fs.buffers->make(root + 200, BlockType::kTreeNode, lock);
  EXPECT_NE(fresh, old);
  old.reset();
  EXPECT_EQ(fs.buffers->find(root + 200), fresh);
}

}  // namespace
}  // namespace cawfs
