// What sync() waits for, with a whole node on a simulated LUN.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/sim/sim_mount.h"
#include "tests/sim/sim_world.h"

namespace cawfs::test {
namespace {

Task<void> sync_file(FileSystem& fs, InodeNo file, bool& done) {
  const auto synced = co_await fs.sync(file, false);
  EXPECT_TRUE(synced);
  done = true;
}

// The second sync comes when the record of the first is on its way to the device: it must not return before that is
// durable, though there is nothing left to commit.
Task<void> sync_twice(SimMount& mount) {
  const auto started = co_await mount.start();
  EXPECT_TRUE(started);
  FileSystem& fs = mount.fs();
  const NewInode fresh{.mode = S_IFREG | 0644};
  const auto file = co_await fs.create(fs.root(), "file", fresh, true);
  EXPECT_TRUE(file);
  const std::string text = "small enough for the inode's own block";
  const auto written = co_await fs.write(file->inode, 0, std::as_bytes(std::span(text)), false, false, false);
  EXPECT_TRUE(written);

  bool first_done = false;
  TaskGroup group(mount.executor());
  group.spawn(sync_file(fs, file->inode, first_done));
  co_await mount.executor().sleep(std::chrono::microseconds(10));
  EXPECT_FALSE(first_done);
  bool second_done = false;
  co_await sync_file(fs, file->inode, second_done);
  EXPECT_TRUE(first_done);
  co_await group.join();
  fs.forget(file->inode, 1);
  const auto stopped = co_await mount.stop();
  EXPECT_TRUE(stopped);
}

TEST(Sync, WaitsForATransactionThatIsOnItsWay) {
  const MadeImage image(512);
  World world(image, 1);
  Executor& executor = world.loop.add_executor();
  SimMount mount(executor, world.connect(executor), 1, Incarnation{1});
  world.loop.run(executor, sync_twice(mount));
}

}  // namespace
}  // namespace cawfs::test
