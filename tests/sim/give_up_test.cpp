// What a lock covers is durable before the lock goes, not only in the device's cache: from then on it is another node's
// to write, and a device that loses its cache is given again (GuardedDevice) what no flush has covered.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <map>
#include <vector>

#include "core/device/forwarding_device.h"
#include "tests/sim/sim_mount.h"
#include "tests/sim/sim_world.h"

namespace cawfs::test {
namespace {

// Blocks that were written to the device's cache, and that no flush has covered since.
class CachedBlocks {
 public:
  void written(std::uint64_t offset, std::uint64_t length) {
    for (std::uint64_t at = 0; at < length; at += kBlockSize)
      blocks_[BlockNo{(offset + at) / kBlockSize}] = ++sequence_;
  }
  void written_durably(std::uint64_t offset, std::uint64_t length) {
    for (std::uint64_t at = 0; at < length; at += kBlockSize) blocks_.erase(BlockNo{(offset + at) / kBlockSize});
  }
  std::uint64_t now() const { return sequence_; }
  void flushed(std::uint64_t up_to) {
    std::erase_if(blocks_, [up_to](const auto& block) { return block.second <= up_to; });
  }
  std::vector<std::uint64_t> list() const {
    std::vector<std::uint64_t> all;
    for (const auto& [block, sequence] : blocks_) all.push_back(block.value);
    return all;
  }

 private:
  std::map<BlockNo, std::uint64_t> blocks_;  // with their last write
  std::uint64_t sequence_ = 0;
};

class WatchedDevice final : public ForwardingDevice {
 public:
  WatchedDevice(std::unique_ptr<BlockDevice> device, CachedBlocks& cached)
      : ForwardingDevice(*device), own_(std::move(device)), cached_(cached) {}

  Task<Result<>> write(std::uint64_t offset, std::span<const std::byte> data, Durability durability) override {
    const Result<> done = co_await device().write(offset, data, durability);
    if (durability == Durability::kCached) {
      cached_.written(offset, data.size());
    } else {
      cached_.written_durably(offset, data.size());
    }
    co_return done;
  }
  Task<Result<>> flush() override {
    const std::uint64_t up_to = cached_.now();
    const Result<> done = co_await device().flush();
    if (done) cached_.flushed(up_to);
    co_return done;
  }

 private:
  std::unique_ptr<BlockDevice> own_;
  CachedBlocks& cached_;
};

struct GiveUpTest : ::testing::Test {
  GiveUpTest() { EXPECT_TRUE(run(mount.start())); }
  ~GiveUpTest() override { EXPECT_TRUE(run(mount.stop())); }
  template <class T>
  T run(Task<T> task) {
    return world.loop.run(executor, std::move(task));
  }
  FileSystem& fs() { return mount.fs(); }
  InodeNo create(const std::string& name) {
    const NewInode fresh{.mode = S_IFREG | 0644};
    const auto file = run(fs().create(fs().root(), name, fresh, false));
    EXPECT_TRUE(file);
    return file->inode;
  }
  void write(InodeNo file, std::uint64_t block, bool direct) {
    const std::vector<std::byte> data(kBlockSize, std::byte{0x5a});
    EXPECT_TRUE(run(fs().write(file, block * kBlockSize, data, false, direct, false)));
  }
  void give_up(LockName name) { EXPECT_TRUE(run(mount.locks().give_up(name, LockMode::kNone))); }
  // The locks of groups, or all others.
  std::vector<LockName> held(bool of_groups) {
    std::vector<LockName> names;
    const Geometry& geometry = mount.geometry();
    for (const LockName name : mount.locks().held()) {
      const bool of_group = geometry.in_groups(name.block) && name == lock_of(geometry, geometry.group_of(name.block));
      if (of_group == of_groups) names.push_back(name);
    }
    return names;
  }

  const MadeImage image{4096};
  World world{image, 1};
  Executor& executor = world.loop.add_executor();
  CachedBlocks cached;
  SimMount mount{executor, std::make_unique<WatchedDevice>(world.connect(executor), cached), 1, Incarnation{1}};
};

// Blocks for metadata are written, with zeros, ahead of need, and not by a transaction that a commit would flush for.
TEST_F(GiveUpTest, NothingOfAGroupIsLeftInTheDevicesCache) {
  for (int i = 0; cached.list().empty() && i < 300; ++i) {
    create("the directory grows" + std::to_string(i));
    EXPECT_TRUE(run(fs().sync_all()));
  }
  EXPECT_FALSE(cached.list().empty());
  const auto groups = held(true);
  EXPECT_FALSE(groups.empty());
  for (const LockName group : groups) give_up(group);
  EXPECT_EQ(cached.list(), std::vector<std::uint64_t>{});
}

TEST_F(GiveUpTest, NothingOfAFileIsLeftInTheDevicesCache) {
  const InodeNo file = create("file");
  for (const bool direct : {false, true}) {
    for (std::uint64_t i = 0; i < 16; ++i) write(file, i, direct);
    if (direct) EXPECT_FALSE(cached.list().empty());
    give_up(lock_of(file));
    EXPECT_EQ(cached.list(), std::vector<std::uint64_t>{});
  }
}

// Nothing is committed for it; what did reach the cache is the next node's to overwrite all the same.
TEST_F(GiveUpTest, NothingOfAWriteThatFailedIsLeftInTheDevicesCache) {
  const InodeNo file = create("file");
  const InodeNo between = create("between");
  for (const auto& [inode, block] : {std::pair(file, 0), std::pair(between, 0), std::pair(file, 1)}) {
    write(inode, static_cast<std::uint64_t>(block), false);
    EXPECT_TRUE(run(fs().sync(inode, false)));
  }
  give_up(lock_of(file));
  EXPECT_EQ(cached.list(), std::vector<std::uint64_t>{});
  unsigned writes = 0;
  world.lun.set_hook([&writes](const SimulatedRequest& request) {
    const bool second = request.kind == SimulatedRequest::Kind::kWrite && ++writes == 2;
    return second ? SimulatedFate::kMediumError : SimulatedFate::kRun;
  });
  const std::vector<std::byte> data(2 * kBlockSize, std::byte{0xa5});
  EXPECT_EQ(run(fs().write(file, 0, data, false, true, false)).error(), Errc::kMedium);
  world.lun.set_hook({});
  EXPECT_FALSE(cached.list().empty());
  give_up(lock_of(file));
  EXPECT_EQ(cached.list(), std::vector<std::uint64_t>{});
}

}  // namespace
}  // namespace cawfs::test
