// The FUSE layer over a file system in memory, mounted for real.
#include "mount/fuse_dispatch.h"

#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/fs.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <set>
#include <thread>

#include "tests/unit/mount/fuse_mount.h"

namespace cawfs {
namespace {

using namespace std::chrono_literals;

TEST_F(FuseMountTest, FilesAndDirectories) {
  ASSERT_EQ(mkdir(path("d").c_str(), 0750), 0);
  store("d/file", "hello");
  EXPECT_EQ(content("d/file"), "hello");
  struct stat st{};
  ASSERT_EQ(stat(path("d/file").c_str(), &st), 0);
  EXPECT_EQ(st.st_size, 5);
  EXPECT_EQ(mkdir(path("d").c_str(), 0750), -1);
  EXPECT_EQ(errno, EEXIST);
  ASSERT_EQ(symlink("d/file", path("s").c_str()), 0);
  EXPECT_EQ(content("s"), "hello");
  ASSERT_EQ(link(path("d/file").c_str(), path("h").c_str()), 0);
  ASSERT_EQ(stat(path("h").c_str(), &st), 0);
  EXPECT_EQ(st.st_nlink, 2u);
  ASSERT_EQ(mknod(path("dev").c_str(), S_IFCHR | 0600, makedev(259, 70000)), 0);
  ASSERT_EQ(stat(path("dev").c_str(), &st), 0);
  EXPECT_EQ(major(st.st_rdev), 259u);
  EXPECT_EQ(minor(st.st_rdev), 70000u);
  EXPECT_EQ(rmdir(path("d").c_str()), -1);
  EXPECT_EQ(errno, ENOTEMPTY);
  ASSERT_EQ(unlink(path("d/file").c_str()), 0);
  ASSERT_EQ(rmdir(path("d").c_str()), 0);
  EXPECT_EQ(stat(path("d").c_str(), &st), -1);
}

TEST_F(FuseMountTest, NamesAbove255BytesAreTooLong) {
  struct stat st{};
  EXPECT_EQ(stat(path(std::string(255, 'n')).c_str(), &st), -1);
  EXPECT_EQ(errno, ENOENT);
  EXPECT_EQ(stat(path(std::string(256, 'n')).c_str(), &st), -1);
  EXPECT_EQ(errno, ENAMETOOLONG);
}

TEST_F(FuseMountTest, RenameModes) {
  store("a", "a");
  store("b", "b");
  EXPECT_EQ(renameat2(AT_FDCWD, path("a").c_str(), AT_FDCWD, path("b").c_str(), RENAME_NOREPLACE), -1);
  EXPECT_EQ(errno, EEXIST);
  ASSERT_EQ(renameat2(AT_FDCWD, path("a").c_str(), AT_FDCWD, path("b").c_str(), RENAME_EXCHANGE), 0);
  EXPECT_EQ(content("a"), "b");
  ASSERT_EQ(rename(path("a").c_str(), path("b").c_str()), 0);
  EXPECT_EQ(content("b"), "b");
  EXPECT_FALSE(std::filesystem::exists(path("a")));
}

TEST_F(FuseMountTest, ListsLargeDirectoriesWholeWithDots) {
  std::set<std::string> made;
  for (int i = 0; i < 1500; ++i) {
    made.insert(fmt::format("a rather long file name, so that several listings are needed {}", i));

    store(fmt::format("a rather long file name, so that several listings are needed {}", i), "");
  }
  std::set<std::string> listed;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) listed.insert(entry.path().filename());
  EXPECT_EQ(listed, made);
  DIR* dir = opendir(directory.c_str());
  std::vector<std::string> first;
  while (first.size() < 2) first.emplace_back(readdir(dir)->d_name);
  EXPECT_EQ(first, (std::vector<std::string>{".", ".."}));
  rewinddir(dir);
  std::size_t count = 0;
  while (readdir(dir)) ++count;
  EXPECT_EQ(count, made.size() + 2);
  closedir(dir);
}

TEST_F(FuseMountTest, AppendsGoToTheTrueEnd) {
  store("log", "one ");
  const int fd = open(path("log").c_str(), O_WRONLY | O_APPEND);
  struct stat st{};
  ASSERT_EQ(fstat(fd, &st), 0);  // the kernel knows size 4
  run_there([](Served& served) {
    auto& node = *served.operations.find(served.operations.root(), "log");
    const std::string more = "elsewhere ";
    for (char c : more) node.data.push_back(static_cast<std::byte>(c));
  });
  ASSERT_EQ(write(fd, "two", 3), 3);
  ASSERT_EQ(fstat(fd, &st), 0);
  EXPECT_EQ(st.st_size, 17);
  close(fd);
  EXPECT_EQ(content("log"), "one elsewhere two");
}

TEST_F(FuseMountTest, ReadersSeeDirectWritesThroughTheirCachedPages) {
  store("f", std::string(10000, 'a'));
  const int reader = open(path("f").c_str(), O_RDONLY);
  std::array<char, 10000> out{};
  ASSERT_EQ(pread(reader, out.data(), out.size(), 0), 10000);
  int reads = 0;
  run_there([&](Served& served) { reads = served.operations.reads; });
  ASSERT_EQ(pread(reader, out.data(), out.size(), 0), 10000);
  run_there([&](Served& served) { EXPECT_EQ(served.operations.reads, reads) << "not cached"; });
  const int writer = open(path("f").c_str(), O_RDWR);
  for (char c = 'b'; c < 'z'; ++c) {
    ASSERT_EQ(pwrite(writer, &c, 1, 5000), 1);
    ASSERT_EQ(pread(reader, out.data(), out.size(), 0), 10000);
    ASSERT_EQ(out[5000], c);
    ASSERT_EQ(pread(writer, out.data(), 1, 5000), 1);
    ASSERT_EQ(out[0], c);
  }
  close(writer);
  close(reader);
}

Task<void> change_elsewhere(Served& served, std::string name, std::string text, std::atomic<bool>& done) {
  auto& node = *served.operations.find(served.operations.root(), name);
  co_await served.cache->invalidate_inode(node.attributes.inode, 0, 0);
  const auto bytes = std::as_bytes(std::span(text.data(), text.size()));
  node.data.assign(bytes.begin(), bytes.end());
  done = true;
}

TEST_F(FuseMountTest, InvalidationDropsAttributesAndPages) {
  store("f", "before");
  EXPECT_EQ(content("f"), "before");
  std::atomic<bool> done = false;
  start_there([&](Served& served) { return change_elsewhere(served, "f", "after, and longer", done); });
  while (!done) std::this_thread::yield();
  struct stat st{};
  ASSERT_EQ(stat(path("f").c_str(), &st), 0);
  EXPECT_EQ(st.st_size, 17);
  EXPECT_EQ(content("f"), "after, and longer");
}

Task<void> run_something(Served& served, std::atomic<bool>& done) {
  co_await served.reactor->run_blocking([&] { done = true; });
}

// The READs that notifications wait for may wait for something that takes a helper thread.
TEST_F(FuseMountTest, NotificationsLeaveHelperThreadsToOthers) {
  constexpr std::size_t kFiles = kMostHelperThreads + 8;
  std::vector<std::string> names;
  for (std::size_t i = 0; i < kFiles; ++i) store(names.emplace_back(fmt::format("file{}", i)), "before");
  run_there([](Served& served) { served.operations.read_gate().reset(); });
  std::vector<std::thread> readers;
  for (const auto& name : names) readers.emplace_back([&] { content(name); });
  bool waiting = false;
  while (!waiting) run_there([&](Served& served) { waiting = served.operations.reads == int{kFiles}; });
  std::array<std::atomic<bool>, kFiles> dropped{};
  for (std::size_t i = 0; i < kFiles; ++i) {
    start_there([&](Served& served) { return change_elsewhere(served, names[i], "later!", dropped[i]); });
  }
  std::atomic<bool> done = false;
  start_there([&](Served& served) { return run_something(served, done); });
  while (!done) std::this_thread::yield();
  for (const auto& one : dropped) EXPECT_FALSE(one);
  run_there([](Served& served) { served.operations.read_gate().set(); });
  for (auto& reader : readers) reader.join();
  for (const auto& one : dropped) {
    while (!one) std::this_thread::yield();
  }
}

// Trap 1: the kernel waits for the READ of a page that it is to drop; the READ must be served meanwhile.
TEST_F(FuseMountTest, InvalidationWaitsForAReadWithoutBlockingTheDaemon) {
  store("f", "before");
  run_there([](Served& served) { served.operations.read_gate().reset(); });
  std::string got;
  std::thread reader([&] { got = content("f"); });
  bool waiting = false;
  while (!waiting) run_there([&](Served& served) { waiting = served.operations.reads > 0; });
  std::atomic<bool> done = false;
  start_there([&](Served& served) { return change_elsewhere(served, "f", "later!", done); });
  store("g", "the daemon still serves");
  EXPECT_FALSE(done);
  run_there([](Served& served) { served.operations.read_gate().set(); });
  reader.join();
  // The page may go before the reader has copied it: then it is read anew, before or after the change.
  EXPECT_TRUE(got == "before" || got == "later!") << got;
  while (!done) std::this_thread::yield();
  EXPECT_EQ(content("f"), "later!");
}

// The kernel does not know the inodes of a listing before it has the listing.
TEST_F(FuseMountTest, AListingBeingMadeDoesNotHoldUpInvalidation) {
  run_there([](Served& served) {
    served.operations.make_elsewhere("a");
    served.operations.make_elsewhere("b");
    served.operations.gated_name = "b";
    served.operations.lookup_gate().reset();
  });
  std::thread lister([&] { EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory), {}), 2); });
  bool waiting = false;
  while (!waiting) run_there([&](Served& served) { waiting = served.operations.lookups == 2; });
  std::atomic<bool> done = false;
  start_there([&](Served& served) { return change_elsewhere(served, "a", "changed", done); });
  const auto give_up = std::chrono::steady_clock::now() + 5s;
  while (!done && std::chrono::steady_clock::now() < give_up) std::this_thread::yield();
  EXPECT_TRUE(done);
  run_there([](Served& served) { served.operations.lookup_gate().set(); });
  lister.join();
  while (!done) std::this_thread::yield();
  struct stat st{};
  ASSERT_EQ(stat(path("a").c_str(), &st), 0);
  EXPECT_EQ(st.st_size, 7) << "attributes from before the change are cached";
}

Task<void> unlink_elsewhere(Served& served, std::string name, std::atomic<bool>& done) {
  const InodeNo root = served.operations.root();
  co_await served.cache->invalidate_entries(root);
  served.operations.node(root).names.erase(name);
  done = true;
}

TEST_F(FuseMountTest, ANameGivenUpWhileItsFileIsOpenedIsNotCached) {
  run_there([](Served& served) { served.operations.open_gate().reset(); });
  int fd = -1;
  std::thread creator([&] { fd = open(path("new").c_str(), O_CREAT | O_EXCL | O_RDWR, 0644); });
  bool waiting = false;
  while (!waiting) run_there([&](Served& served) { waiting = served.operations.opens == 1; });
  std::atomic<bool> done = false;
  start_there([&](Served& served) { return unlink_elsewhere(served, "new", done); });
  while (!done) std::this_thread::yield();
  run_there([](Served& served) { served.operations.open_gate().set(); });
  creator.join();
  EXPECT_GE(fd, 0);
  struct stat st{};
  EXPECT_EQ(stat(path("new").c_str(), &st), -1);
  close(fd);
}

constexpr std::size_t kMappedPages = 64;

// Maps a file and reads its pages all the time. A process of its own: who waits for a page may hold the lock of its
// address space, which the daemon, a thread of this one, needs to get memory.
class MapReader {
 public:
  explicit MapReader(const std::string& file) {
    EXPECT_EQ(pipe(ask_.data()), 0);
    EXPECT_EQ(pipe(answer_.data()), 0);
    pid_ = fork();
    if (pid_ == 0) read_for_ever(file);
  }
  MapReader(const MapReader&) = delete;
  ~MapReader() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    for (const int end : {ask_[0], ask_[1], answer_[0], answer_[1]}) close(end);
  }
  // The first byte of each page.
  std::string look() const {
    std::string seen(kMappedPages, '\0');
    EXPECT_EQ(write(ask_[1], "?", 1), 1);
    EXPECT_EQ(read(answer_[0], seen.data(), seen.size()), static_cast<ssize_t>(seen.size()));
    return seen;
  }

 private:
  [[noreturn]] void read_for_ever(const std::string& file) const {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    const int fd = open(file.c_str(), O_RDONLY);
    const auto* map =
        static_cast<const volatile char*>(mmap(nullptr, kMappedPages * 4096, PROT_READ, MAP_SHARED, fd, 0));
    std::array<char, kMappedPages> seen{};
    for (std::size_t page = 0;; page = (page + 7) % kMappedPages) {
      (void)map[page * 4096];
      pollfd asked{.fd = ask_[0], .events = POLLIN, .revents = 0};
      if (poll(&asked, 1, 0) != 1) continue;
      char question = 0;
      if (read(ask_[0], &question, 1) != 1) _exit(1);
      for (std::size_t i = 0; i < kMappedPages; ++i) seen[i] = map[i * 4096];
      if (write(answer_[1], seen.data(), seen.size()) != static_cast<ssize_t>(seen.size())) _exit(1);
    }
  }

  std::array<int, 2> ask_{};
  std::array<int, 2> answer_{};
  pid_t pid_ = -1;
};

// However many read them meanwhile: the lock goes when the invalidation has ended.
TEST_F(FuseMountTest, MapsShowNothingOldOnceTheirPagesAreDropped) {
  store("f", std::string(kMappedPages * 4096, 'A'));
  const std::array<MapReader, 3> readers{MapReader(path("f")), MapReader(path("f")), MapReader(path("f"))};
  for (char c = 'B'; c <= 'Z'; ++c) {
    std::atomic<bool> done = false;
    start_there(
        [&](Served& served) { return change_elsewhere(served, "f", std::string(kMappedPages * 4096, c), done); });
    while (!done) std::this_thread::yield();
    for (const MapReader& reader : readers) EXPECT_EQ(reader.look(), std::string(kMappedPages, c));
  }
}

Task<void> rename_elsewhere(Served& served, std::atomic<bool>& done) {
  const InodeNo root = served.operations.root();
  co_await served.cache->invalidate_entries(root);
  auto& names = served.operations.node(root).names;
  names["new"] = names["old"];
  names.erase("old");
  served.operations.node(root).attributes.mtime_ns += 1000;
  done = true;
}

TEST_F(FuseMountTest, InvalidationDropsNamesAndListings) {
  store("old", "x");
  struct stat st{};
  ASSERT_EQ(stat(path("old").c_str(), &st), 0);
  int lookups = 0;
  run_there([&](Served& served) { lookups = served.operations.lookups; });
  for (int i = 0; i < 10; ++i) stat(path("old").c_str(), &st);
  run_there([&](Served& served) { EXPECT_EQ(served.operations.lookups, lookups) << "names are not cached"; });
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory), {}), 1);
  std::atomic<bool> done = false;
  start_there([&](Served& served) { return rename_elsewhere(served, done); });
  while (!done) std::this_thread::yield();
  EXPECT_EQ(stat(path("old").c_str(), &st), -1);
  EXPECT_EQ(stat(path("new").c_str(), &st), 0);
  EXPECT_EQ(std::filesystem::directory_iterator(directory)->path().filename(), "new");
}

TEST_F(FuseMountTest, SharedMaps) {
  store("f", std::string(8192, 'a'));
  const int fd = open(path("f").c_str(), O_RDWR);
  auto* map = static_cast<char*>(mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  ASSERT_NE(map, MAP_FAILED);
  map[100] = 'b';
  map[5000] = 'c';
  // Bytes that another node changes beside the mapped ones stay.
  run_there([](Served& served) {
    auto& node = *served.operations.find(served.operations.root(), "f");
    node.data[200] = std::byte{'x'};
  });
  ASSERT_EQ(msync(map, 8192, MS_SYNC), 0);
  munmap(map, 8192);
  close(fd);
  run_there([](Served& served) {
    const auto& data = served.operations.find(served.operations.root(), "f")->data;
    EXPECT_EQ(data[100], std::byte{'b'});
    EXPECT_EQ(data[5000], std::byte{'c'});
    EXPECT_GT(served.operations.syncs, 0);
  });
}

// What a map's page holds is kept until the lock is had; a write(2) that comes later is later.
TEST_F(FuseMountTest, AWriteIsNotOverwrittenByAnEarlierOneThroughAMap) {
  store("f", std::string(4096, 'a'));
  const int fd = open(path("f").c_str(), O_RDWR);
  auto* map = static_cast<char*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  ASSERT_NE(map, MAP_FAILED);
  int written = 0;
  run_there([&](Served& served) {
    written = served.operations.writes;
    served.operations.gated_write = written + 1;
    served.operations.write_gate().reset();
  });
  map[100] = 'b';
  ASSERT_EQ(sync_file_range(fd, 0, 4096, SYNC_FILE_RANGE_WRITE), 0);
  bool waiting = false;
  while (!waiting) run_there([&](Served& served) { waiting = served.operations.writes == written + 1; });
  std::thread writer([&] { EXPECT_EQ(pwrite(fd, "c", 1, 100), 1); });
  for (int i = 0; i < 50; ++i) run_there([](Served&) {});
  run_there([](Served& served) { served.operations.write_gate().set(); });
  writer.join();
  ASSERT_EQ(fsync(fd), 0);
  run_there([](Served& served) {
    EXPECT_EQ(served.operations.find(served.operations.root(), "f")->data[100], std::byte{'c'});
  });
  munmap(map, 4096);
  close(fd);
}

// A READ that was begun before the lease lapsed is answered after it has returned, or not at all.
TEST_F(FuseMountTest, NothingIsShownWhileTheLeaseHasLapsed) {
  for (const bool fenced : {false, true}) {
    store("f", fenced ? "second" : "first");
    run_there([](Served& served) { served.operations.read_gate().reset(); });
    const int fd = open(path("f").c_str(), O_RDONLY | O_DIRECT);
    int reads = 0;
    int waits = 0;
    run_there([&](Served& served) {
      reads = served.operations.reads;
      waits = served.operations.lease_waits;
    });
    std::array<char, 16> out{};
    std::atomic<bool> answered = false;
    ssize_t got = 0;
    int error = 0;
    std::thread reader([&] {
      got = pread(fd, out.data(), out.size(), 0);
      error = errno;
      answered = true;
    });
    bool reading = false;
    while (!reading) run_there([&](Served& served) { reading = served.operations.reads > reads; });
    run_there([](Served& served) {
      served.operations.lease().reset();
      served.operations.read_gate().set();
    });
    bool waiting = false;
    while (!waiting && !answered) {
      run_there([&](Served& served) { waiting = served.operations.lease_waits > waits; });
    }
    EXPECT_FALSE(answered);
    run_there([&](Served& served) {
      served.operations.fenced = fenced;
      served.operations.lease().set();
    });
    reader.join();
    EXPECT_EQ(got, fenced ? -1 : 5);
    if (fenced) EXPECT_EQ(error, EIO);
    close(fd);
  }
}

Task<void> drop_all(Served& served, std::atomic<bool>& done) {
  co_await served.cache->invalidate_all();
  done = true;
}

TEST_F(FuseMountTest, ALapsedLeaseDropsAllPages) {
  store("f", std::string(4096, 'a'));
  const int fd = open(path("f").c_str(), O_RDONLY);
  auto* map = static_cast<volatile char*>(mmap(nullptr, 4096, PROT_READ, MAP_SHARED, fd, 0));
  EXPECT_EQ(map[0], 'a');
  int reads = 0;
  run_there([&](Served& served) { reads = served.operations.reads; });
  EXPECT_EQ(map[1], 'a');
  std::atomic<bool> done = false;
  start_there([&](Served& served) { return drop_all(served, done); });
  while (!done) std::this_thread::yield();
  run_there([&](Served& served) { EXPECT_EQ(served.operations.reads, reads); });
  EXPECT_EQ(map[0], 'a');
  run_there([&](Served& served) { EXPECT_EQ(served.operations.reads, reads + 1); });
  munmap(const_cast<char*>(map), 4096);
  close(fd);
}

// As for a lock whose inode's type is not known.
Task<void> drop_names_and_pages(Served& served, std::atomic<bool>& done) {
  const InodeNo inode = served.operations.find(served.operations.root(), "f")->attributes.inode;
  co_await served.cache->invalidate_entries(inode);
  co_await served.cache->invalidate_inode(inode, 0, 0);
  done = true;
}

class SizeChangeTest : public FuseMountTest,
                       public testing::WithParamInterface<Task<void> (*)(Served&, std::atomic<bool>&)> {};

INSTANTIATE_TEST_SUITE_P(Drops, SizeChangeTest, testing::Values(drop_all, drop_names_and_pages));

// Trap 1 (a): while it changes the size the kernel writes back no page, and so drops none that a map has changed. Who
// has the lock shared cannot give it up before it has had it exclusively.
TEST_P(SizeChangeTest, ThatHoldsUpInvalidationPresses) {
  store("f", std::string(8192, 'a'));
  const int fd = open(path("f").c_str(), O_RDWR);
  auto* map = static_cast<char*>(mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  ASSERT_NE(map, MAP_FAILED);
  map[100] = 'b';
  int before = 0;
  run_there([&](Served& served) {
    before = served.operations.setattrs;
    served.operations.setattr_gate().reset();
  });
  std::thread resizer([&] { EXPECT_EQ(ftruncate(fd, 4096), 0); });
  bool waiting = false;
  while (!waiting) run_there([&](Served& served) { waiting = served.operations.setattrs > before; });
  std::atomic<bool> done = false;
  start_there([&](Served& served) { return GetParam()(served, done); });
  int pressed = 0;
  while (pressed == 0 && !done) run_there([&](Served& served) { pressed = served.operations.pressed; });
  EXPECT_EQ(pressed, 1);
  run_there([](Served& served) { served.operations.setattr_gate().set(); });
  resizer.join();
  while (!done) std::this_thread::yield();
  run_there([](Served& served) { EXPECT_EQ(served.operations.pressed, 0); });
  ASSERT_EQ(fsync(fd), 0);
  run_there([](Served& served) {
    EXPECT_EQ(served.operations.find(served.operations.root(), "f")->data[100], std::byte{'b'});
  });
  munmap(map, 8192);
  close(fd);
}

// Another node may have cut the file off before this one has its lock again.
TEST_F(FuseMountTest, WhatAMapWroteGivesAFileNothingBack) {
  store("f", std::string(8192, 'a'));
  const int fd = open(path("f").c_str(), O_RDWR);
  auto* map = static_cast<char*>(mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  ASSERT_NE(map, MAP_FAILED);
  map[100] = 'b';
  map[5000] = 'b';
  run_there([](Served& served) {
    served.operations.gated_write = served.operations.writes + 1;
    served.operations.write_gate().reset();
  });
  std::atomic<bool> done = false;
  start_there([&](Served& served) { return drop_all(served, done); });
  while (!done) std::this_thread::yield();
  bool waiting = false;
  while (!waiting) {
    run_there([&](Served& served) { waiting = served.operations.writes == served.operations.gated_write; });
  }
  run_there([](Served& served) {
    served.operations.find(served.operations.root(), "f")->data.resize(4096);
    served.operations.write_gate().set();
  });
  ASSERT_EQ(fsync(fd), 0);
  run_there([](Served& served) {
    const auto& data = served.operations.find(served.operations.root(), "f")->data;
    EXPECT_EQ(data.size(), 4096u);
    EXPECT_EQ(data[100], std::byte{'b'});
  });
  munmap(map, 8192);
  close(fd);
}

// The attributes that a CREATE answers with are older than what came between.
TEST_F(FuseMountTest, AttributesGivenUpWhileTheFileIsOpenedAreNotCached) {
  run_there([](Served& served) { served.operations.open_gate().reset(); });
  int fd = -1;
  std::thread creator([&] { fd = open(path("new").c_str(), O_CREAT | O_EXCL | O_RDWR, 0644); });
  bool waiting = false;
  while (!waiting) run_there([&](Served& served) { waiting = served.operations.opens == 1; });
  std::atomic<bool> done = false;
  start_there([&](Served& served) { return change_elsewhere(served, "new", "changed", done); });
  while (!done) std::this_thread::yield();
  run_there([](Served& served) { served.operations.open_gate().set(); });
  creator.join();
  struct stat st{};
  EXPECT_EQ(fstat(fd, &st), 0);
  EXPECT_EQ(st.st_size, 7);
  close(fd);
}

// As soon as the answer with the inode is sent; the kernel may not have looked at it yet.
Task<void> change_once_looked_up(Served& served, std::string name, std::atomic<bool>& done) {
  Executor& executor = served.reactor->executor();
  auto& node = *served.operations.find(served.operations.root(), name);
  while (served.operations.references[node.attributes.inode] == 0) co_await executor.yield();
  co_await change_elsewhere(served, name, "changed", done);
}

TEST_F(FuseMountTest, AnInodeOnItsWayToTheKernelIsDroppedThere) {
  for (int i = 0; i < 300; ++i) {
    const std::string name = fmt::format("file{}", i);
    run_there([&](Served& served) { served.operations.make_elsewhere(name); });
    std::atomic<bool> done = false;
    start_there([&](Served& served) { return change_once_looked_up(served, name, done); });
    const int fd = open(path(name).c_str(), O_PATH);
    while (!done) std::this_thread::yield();
    struct stat st{};
    EXPECT_EQ(fstat(fd, &st), 0);
    EXPECT_EQ(st.st_size, 7) << name;
    close(fd);
  }
}

// While a notification waits for something else, READs are let through, of pages also that it has dropped already.
TEST_F(FuseMountTest, WhatIsReadWhilePagesAreDroppedIsDroppedAgain) {
  constexpr std::size_t kBytes = 16384;
  store("f", std::string(kBytes, 'a'));
  const int fd = open(path("f").c_str(), O_RDWR);
  auto* map = static_cast<volatile char*>(mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  ASSERT_NE(map, MAP_FAILED);
  map[kBytes - 1] = 'b';
  int before = 0;
  run_there([&](Served& served) {
    before = served.operations.setattrs;
    served.operations.setattr_gate().reset();
  });
  // To the size that it has: then the kernel drops nothing of its own accord.
  std::thread resizer([&] { EXPECT_EQ(ftruncate(fd, kBytes), 0); });
  bool waiting = false;
  while (!waiting) run_there([&](Served& served) { waiting = served.operations.setattrs > before; });
  std::atomic<bool> done = false;
  start_there([&](Served& served) { return change_elsewhere(served, "f", std::string(kBytes, 'c'), done); });
  int pressed = 0;
  while (pressed == 0) run_there([&](Served& served) { pressed = served.operations.pressed; });
  EXPECT_EQ(map[0], 'a');
  run_there([](Served& served) { served.operations.setattr_gate().set(); });
  resizer.join();
  while (!done) std::this_thread::yield();
  EXPECT_EQ(map[0], 'c');
  munmap(const_cast<char*>(map), kBytes);
  close(fd);
}

// Each kind of answer that shows something; -1 and errno as the system call has it.
TEST_F(FuseMountTest, NoAnswerShowsAnythingWhileTheLeaseHasLapsed) {
  store("f", "text");
  ASSERT_EQ(symlink("target", path("s").c_str()), 0);
  run_there([](Served& served) { served.operations.make_elsewhere("unseen"); });
  const int fd = open(path("f").c_str(), O_RDONLY);
  DIR* listing = opendir(directory.c_str());
  struct stat st{};
  std::array<char, 100> out{};
  const std::vector<std::pair<const char*, std::function<int()>>> calls{
      {"lookup", [&] { return stat(path("unseen").c_str(), &st); }},
      {"getattr", [&] { return fstat(fd, &st); }},
      {"create", [&] { return open(path("new").c_str(), O_CREAT | O_EXCL | O_RDWR, 0644); }},
      {"mkdir", [&] { return mkdir(path("d").c_str(), 0755); }},
      {"readlink", [&] { return static_cast<int>(readlink(path("s").c_str(), out.data(), out.size())); }},
      {"readdir", [&] {
         errno = 0;
         return readdir(listing) || errno == 0 ? 0 : -1;
       }}};
  ASSERT_EQ(lstat(path("s").c_str(), &st), 0);
  for (const auto& [name, call] : calls) {
    int waits = 0;
    run_there([&](Served& served) {
      served.cache->forget_attributes(served.operations.find(served.operations.root(), "f")->attributes.inode);
      served.operations.fenced = false;
      served.operations.lease().reset();
      waits = served.operations.lease_waits;
    });
    std::atomic<bool> answered = false;
    int result = 0;
    int error = 0;
    std::thread caller([&, &make = call] {
      result = make();
      error = errno;
      answered = true;
    });
    bool waiting = false;
    while (!waiting && !answered) {
      run_there([&](Served& served) { waiting = served.operations.lease_waits > waits; });
    }
    EXPECT_FALSE(answered) << name;
    run_there([](Served& served) {
      served.operations.fenced = true;
      served.operations.lease().set();
    });
    caller.join();
    EXPECT_EQ(result, -1) << name;
    EXPECT_EQ(error, EIO) << name;
  }
  closedir(listing);
  close(fd);
}

// Its LOOKUP came while the lease was valid.
TEST_F(FuseMountTest, ACreateIsNotAnsweredWhileTheLeaseHasLapsed) {
  run_there([](Served& served) { served.operations.open_gate().reset(); });
  int result = 0;
  int error = 0;
  std::atomic<bool> answered = false;
  std::thread creator([&] {
    result = open(path("new").c_str(), O_CREAT | O_EXCL | O_RDWR, 0644);
    error = errno;
    answered = true;
  });
  bool waiting = false;
  while (!waiting) run_there([&](Served& served) { waiting = served.operations.opens == 1; });
  int waits = 0;
  run_there([&](Served& served) {
    waits = served.operations.lease_waits;
    served.operations.lease().reset();
    served.operations.open_gate().set();
  });
  waiting = false;
  while (!waiting && !answered) {
    run_there([&](Served& served) { waiting = served.operations.lease_waits > waits; });
  }
  EXPECT_FALSE(answered);
  run_there([](Served& served) {
    served.operations.fenced = true;
    served.operations.lease().set();
  });
  creator.join();
  EXPECT_EQ(result, -1);
  EXPECT_EQ(error, EIO);
}

TEST_F(FuseMountTest, SyncsWhenAsked) {
  const int fd = open(path("f").c_str(), O_RDWR | O_CREAT, 0644);
  ASSERT_EQ(write(fd, "x", 1), 1);
  ASSERT_EQ(fdatasync(fd), 0);
  ASSERT_EQ(fsync(fd), 0);
  run_there([](Served& served) { EXPECT_EQ(served.operations.syncs, 2); });
  const int dsync = open(path("f").c_str(), O_WRONLY | O_DSYNC);
  ASSERT_EQ(write(dsync, "y", 1), 1);
  run_there([](Served& served) { EXPECT_EQ(served.operations.syncs, 3); });
  close(fd);
  close(dsync);
}

TEST_F(FuseMountTest, WhatIsNotThereFailsAsOnAFileSystemWithoutIt) {
  const int fd = open(path("f").c_str(), O_RDWR | O_CREAT, 0644);
  EXPECT_EQ(fallocate(fd, 0, 0, 4096), -1);
  EXPECT_EQ(errno, EOPNOTSUPP);
  EXPECT_EQ(lseek(fd, 0, SEEK_END), 0);
  struct flock lock{};
  lock.l_type = F_WRLCK;
  EXPECT_EQ(fcntl(fd, F_SETLK, &lock), 0);
  close(fd);
  struct statvfs vfs{};
  ASSERT_EQ(statvfs(directory.c_str(), &vfs), 0);
  EXPECT_EQ(vfs.f_bfree, 500u);
  EXPECT_EQ(vfs.f_namemax, 255u);
}

// Trap 5: a killed process goes away although its request is not answered; one with another signal waits.
TEST_F(FuseMountTest, AKilledCallerIsLetGo) {
  run_there([](Served& served) { served.operations.lookup_gate().reset(); });
  const std::string target = path("anything");
  const pid_t child = fork();
  if (child == 0) {
    struct stat st{};
    signal(SIGUSR1, [](int) {});
    stat(target.c_str(), &st);
    _exit(0);
  }
  bool waiting = false;
  while (!waiting) run_there([&](Served& served) { waiting = served.operations.lookups > 0; });
  kill(child, SIGUSR1);
  for (int i = 0; i < 5; ++i) run_there([](Served&) {});
  EXPECT_EQ(waitpid(child, nullptr, WNOHANG), 0);
  kill(child, SIGKILL);
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status));
  run_there([](Served& served) { served.operations.lookup_gate().set(); });
}

}  // namespace
}  // namespace cawfs
