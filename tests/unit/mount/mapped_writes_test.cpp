// What a map wrote, from the answer to the kernel until the lock is had: write_gate() stands for the lock.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cerrno>

#include "tests/unit/mount/fuse_mount.h"

namespace cawfs {
namespace {

class MappedWritesTest : public FuseMountTest {
 protected:
  static constexpr std::size_t kBytes = 8192;

  void SetUp() override {
    FuseMountTest::SetUp();
    store("f", std::string(kBytes, 'a'));
    fd = open(path("f").c_str(), O_RDWR);
    map = static_cast<char*>(mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    ASSERT_NE(map, MAP_FAILED);
  }
  void TearDown() override {
    run_there([](Served& served) { served.operations.write_gate().set(); });
    munmap(map, kBytes);
    if (fd >= 0) close(fd);
    FuseMountTest::TearDown();
  }

  void lose_lock() {
    run_there([](Served& served) {
      served.operations.gated_write = served.operations.writes + 1;
      served.operations.write_gate().reset();
    });
  }
  void have_lock() {
    run_there([](Served& served) { served.operations.write_gate().set(); });
  }
  // What the map has is with the daemon when this returns.
  void hand_over() const {
    constexpr unsigned kAll = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
    ASSERT_EQ(sync_file_range(fd, 0, kBytes, kAll), 0);
  }
  void keep(std::size_t at, char byte) {
    lose_lock();
    map[at] = byte;
    hand_over();
    bool waiting = false;
    while (!waiting) {
      run_there([&](Served& served) { waiting = served.operations.writes == served.operations.gated_write; });
    }
  }
  // Gives what must wait the time to go wrong.
  void linger() {
    for (int i = 0; i < 50; ++i) run_there([](Served&) {});
  }
  std::string stored() {
    std::string text;
    run_there([&](Served& served) {
      for (const std::byte b : served.operations.find(served.operations.root(), "f")->data) {
        text.push_back(static_cast<char>(b));
      }
    });
    return text;
  }
  void change_elsewhere(std::function<void(std::vector<std::byte>&)> change) {
    run_there([&](Served& served) { change(served.operations.find(served.operations.root(), "f")->data); });
  }

  int fd = -1;
  char* map = nullptr;
};

TEST_F(MappedWritesTest, BytesOfOtherNodesBesideThemStay) {
  keep(100, 'b');
  change_elsewhere([](auto& data) { data[200] = std::byte{'x'}; });
  have_lock();
  ASSERT_EQ(fsync(fd), 0);
  EXPECT_EQ(stored()[100], 'b');
  EXPECT_EQ(stored()[200], 'x');
}

TEST_F(MappedWritesTest, ReadsShowThem) {
  keep(100, 'b');
  char byte = 0;
  ASSERT_EQ(pread(fd, &byte, 1, 100), 1);
  EXPECT_EQ(byte, 'b');
}

TEST_F(MappedWritesTest, TheLastStoreOfAMapWins) {
  keep(100, 'b');
  map[100] = 'a';  // as it is in the file still
  hand_over();
  have_lock();
  ASSERT_EQ(fsync(fd), 0);
  EXPECT_EQ(stored()[100], 'a');
}

TEST_F(MappedWritesTest, FsyncWaitsForThem) {
  keep(100, 'b');
  std::atomic<bool> synced = false;
  std::thread syncer([&] {
    EXPECT_EQ(fsync(fd), 0);
    synced = true;
  });
  linger();
  EXPECT_FALSE(synced);
  have_lock();
  syncer.join();
}

TEST_F(MappedWritesTest, FsyncTellsEachOpenOnceThatTheyAreLost) {
  const int second = open(path("f").c_str(), O_RDONLY);
  run_there([](Served& served) { served.operations.mapped_error = Errc::kNoSpace; });
  map[100] = 'b';
  for (const int each : {fd, second}) {
    EXPECT_EQ(fsync(each), -1);
    EXPECT_EQ(errno, ENOSPC);
    run_there([](Served& served) { served.operations.mapped_error.reset(); });
    EXPECT_EQ(fsync(each), 0);
  }
  close(second);
}

TEST_F(MappedWritesTest, AFileStaysOpenForThem) {
  keep(100, 'b');
  munmap(std::exchange(map, nullptr), kBytes);
  close(std::exchange(fd, -1));
  linger();
  run_there([](Served& served) { EXPECT_GE(served.operations.opens, 1); });
}

TEST_F(MappedWritesTest, AnAppendComesAfterThem) {
  keep(5000, 'b');
  change_elsewhere([](auto& data) { data.resize(100); });
  std::thread appender([&] {
    const int log = open(path("f").c_str(), O_WRONLY | O_APPEND);
    const std::string text(7000, 'n');
    EXPECT_EQ(write(log, text.data(), text.size()), 7000);
    close(log);
  });
  linger();
  have_lock();
  appender.join();
  ASSERT_EQ(fsync(fd), 0);
  EXPECT_EQ(stored(), std::string(100, 'a') + std::string(7000, 'n'));
}

TEST_F(MappedWritesTest, ASizeChangeComesAfterThem) {
  keep(5000, 'b');
  std::thread resizer([&] {
    EXPECT_EQ(ftruncate(fd, 100), 0);
    EXPECT_EQ(ftruncate(fd, kBytes), 0);
  });
  linger();
  have_lock();
  resizer.join();
  ASSERT_EQ(fsync(fd), 0);
  EXPECT_EQ(stored(), std::string(100, 'a') + std::string(kBytes - 100, '\0'));
}

class MappedWritesLimitTest : public MappedWritesTest {
 protected:
  void SetUp() override {
    options.mapped_bytes = 1000;
    MappedWritesTest::SetUp();
    keep(100, 'b');
    std::memset(map + 4096, 'c', 4096);
    writer = std::thread([this] {
      hand_over();
      handed_over = true;
    });
    linger();
    EXPECT_FALSE(handed_over) << "kept without room";
  }

  std::thread writer;
  std::atomic<bool> handed_over = false;
};

TEST_F(MappedWritesLimitTest, WritesWaitForRoom) {
  run_there([](Served& served) { EXPECT_LT(served.dispatcher->mapped_bytes(), 1000u); });
  have_lock();
  writer.join();
  ASSERT_EQ(fsync(fd), 0);
  EXPECT_EQ(stored().substr(4000), std::string(96, 'a') + std::string(4096, 'c'));
  run_there([](Served& served) { EXPECT_EQ(served.dispatcher->mapped_bytes(), 0u); });
}

// The lock is to be given up, and somebody who holds it waits for that: see docs/design.md, "The kernel's caches".
TEST_F(MappedWritesLimitTest, NotWhileTheFilesPagesAreDropped) {
  start_there([](Served& served) {
    const auto file = served.operations.find(served.operations.root(), "f");
    return served.cache->invalidate_inode(file->attributes.inode, 0, 0);
  });
  writer.join();
  run_there([](Served& served) { EXPECT_GT(served.dispatcher->mapped_bytes(), 4096u); });
  have_lock();
  ASSERT_EQ(fsync(fd), 0);
  EXPECT_EQ(stored().substr(4000), std::string(96, 'a') + std::string(4096, 'c'));
}

// LockService::press() refuses this node's users while another's goes first.
TEST_F(MappedWritesTest, RefusedOnesAreTriedAgain) {
  run_there([](Served& served) { served.operations.mapped_refusals = 3; });
  map[100] = 'b';
  ASSERT_EQ(fsync(fd), 0);
  EXPECT_EQ(stored()[100], 'b');
}

TEST_F(MappedWritesTest, ASizeChangeBehindRefusedOnesIsRefusedToo) {
  run_there([](Served& served) { served.operations.mapped_refusals = 1'000'000; });
  map[100] = 'b';
  hand_over();
  EXPECT_EQ(ftruncate(fd, 4096), -1);
  EXPECT_EQ(errno, EAGAIN);
  run_there([](Served& served) { served.operations.mapped_refusals = 0; });
  ASSERT_EQ(fsync(fd), 0);
  EXPECT_EQ(stored().size(), kBytes);
}

}  // namespace
}  // namespace cawfs
