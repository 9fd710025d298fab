#include "core/device/file_device.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>

#include "core/base/random.h"
#include "core/device/file_locks.h"
#include "core/device/file_lun.h"
#include "core/device/io_buffer.h"
#include "core/runtime/task_group.h"

namespace cawfs {
namespace {

constexpr std::uint64_t kBlock = 4096;
constexpr std::uint64_t kSize = 32 << 20;
constexpr auto kType7 = ReservationType::kWriteExclusiveAllRegistrants;
constexpr PrKey kA{0xa};
constexpr PrKey kB{0xb};

IoBuffer filled(char c, std::uint64_t size = kBlock) {
  IoBuffer buffer(size);
  std::ranges::fill(buffer.bytes(), static_cast<std::byte>(c));
  return buffer;
}

// One process's event loop and its openers of the LUN.
struct Host {
  std::unique_ptr<Reactor> reactor;
  std::unique_ptr<Log> log = stderr_log("file_device_test", LogLevel::kWarning);

  Host() {
    auto made = Reactor::make();
    if (!made) std::abort();
    reactor = std::move(*made);
  }
  template <class T>
  T run(Task<T> task) {
    return reactor->run(std::move(task));
  }
  Result<std::unique_ptr<BlockDevice>> try_open(const std::string& path, OpenOptions options = {}) {
    return run(open_device(*reactor, *log, path, options));
  }
  std::unique_ptr<BlockDevice> open(const std::string& path, OpenOptions options = {}) {
    auto device = try_open(path, options);
    if (!device) std::abort();
    return std::move(*device);
  }
};

// A process that stands for another node. Made before the parent has a reactor, so that nothing of it is shared. `body`
// reads its orders from one pipe and answers on another; the process ends with its return value.
class Child {
 public:
  using Body = std::function<int(Child&)>;

  explicit Child(const Body& body) {
    if (::pipe2(orders_, O_CLOEXEC) != 0 || ::pipe2(answers_, O_CLOEXEC) != 0) std::abort();
    pid_ = ::fork();
    if (pid_ != 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const int status = body(*this);
    ::_exit(status);
  }
  ~Child() {
    if (status_) return;
    ::kill(pid_, SIGKILL);
    static_cast<void>(wait());
  }
  Child(const Child&) = delete;

  // In the child.
  char order() { return take(orders_[0]); }
  void answer(char c) { give(answers_[1], c); }

  // In the parent.
  void send(char c) { give(orders_[1], c); }
  char receive() { return take(answers_[0]); }
  void signal(int number) { ::kill(pid_, number); }
  // SIGSTOP, and waits until it has stopped.
  void stop() {
    ::kill(pid_, SIGSTOP);
    int status = 0;
    ::waitpid(pid_, &status, WUNTRACED);
    ASSERT_TRUE(WIFSTOPPED(status));
  }
  int wait() {
    if (!status_) {
      int status = 0;
      while (::waitpid(pid_, &status, 0) == pid_ && WIFSTOPPED(status)) continue;
      status_ = status;
    }
    return *status_;
  }
  bool was_killed() { return WIFSIGNALED(wait()) && WTERMSIG(wait()) == SIGKILL; }

 private:
  static void give(int fd, char c) {
    if (::write(fd, &c, 1) != 1) std::abort();
  }
  static char take(int fd) {
    char c = 0;
    if (::read(fd, &c, 1) != 1) std::abort();
    return c;
  }

  pid_t pid_ = -1;
  int orders_[2];
  int answers_[2];
  std::optional<int> status_;
};

struct FileDeviceTest : ::testing::Test {
  std::string directory;
  std::string path;

  void SetUp() override {
    std::string pattern = std::filesystem::temp_directory_path() / "cawfs-file-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    directory = pattern;
    path = directory + "/lun";
    make_file(path);
  }
  void TearDown() override { std::filesystem::remove_all(directory); }

  static void make_file(const std::string& name) {
    const FileHandle file(::open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    ASSERT_EQ(::ftruncate(file.get(), kSize), 0);
  }
  // Flips a byte of the sidecar.
  void damage(std::uint64_t offset) const {
    const FileHandle file(::open((path + ".pr").c_str(), O_RDWR | O_CLOEXEC));
    std::byte b{};
    ASSERT_TRUE(file.read_exactly({&b, 1}, offset));
    b ^= std::byte{0x55};
    ASSERT_TRUE(file.write_exactly({&b, 1}, offset));
  }
  FileSidecar sidecar() const { return FileSidecar(FileHandle(::open((path + ".pr").c_str(), O_RDWR | O_CLOEXEC))); }
};

char first_byte(Host& host, BlockDevice& device, std::uint64_t offset) {
  IoBuffer block(kBlock);
  if (!host.run(device.read(offset, block.bytes()))) std::abort();
  return static_cast<char>(block.bytes()[0]);
}

void register_both(Host& host, BlockDevice& a, BlockDevice& b) {
  ASSERT_TRUE(host.run(a.pr_register(PrKey{}, kA, Aptpl::kYes)));
  ASSERT_TRUE(host.run(b.pr_register(PrKey{}, kB, Aptpl::kYes)));
  ASSERT_TRUE(host.run(a.pr_reserve(kA, kType7)));
}

TEST_F(FileDeviceTest, ReadsWhatWasWritten) {
  Host host;
  auto device = host.open(path);
  EXPECT_EQ(device->facts().size_bytes, kSize);
  EXPECT_EQ(device->facts().logical_block, kBlock);
  const IoBuffer data = filled('x', 3 << 20);
  for (auto durability : {Durability::kCached, Durability::kFua}) {
    const std::uint64_t offset = durability == Durability::kFua ? 4 << 20 : 1 << 20;
    ASSERT_TRUE(host.run(device->write(offset, data.bytes(), durability)));
    IoBuffer back(data.size());
    ASSERT_TRUE(host.run(device->read(offset, back.bytes())));
    EXPECT_TRUE(std::ranges::equal(back.bytes(), data.bytes()));
  }
  ASSERT_TRUE(host.run(device->flush()));

  // Memory that direct I/O does not take.
  std::vector<std::byte> unaligned(kBlock + 1, std::byte{'u'});
  ASSERT_TRUE(host.run(device->write(0, std::span(unaligned).subspan(1), Durability::kCached)));
  std::vector<std::byte> back(kBlock + 1);
  ASSERT_TRUE(host.run(device->read(0, std::span(back).subspan(1))));
  EXPECT_TRUE(std::ranges::equal(std::span(back).subspan(1), std::span(unaligned).subspan(1)));
  host.run(device->close());
}

TEST_F(FileDeviceTest, UnmapsAndZeroes) {
  Host host;
  auto device = host.open(path);
  ASSERT_TRUE(host.run(device->write(0, filled('x', 16 * kBlock).bytes(), Durability::kCached)));
  ASSERT_TRUE(host.run(device->unmap(kBlock, kBlock)));
  ASSERT_TRUE(host.run(device->write_zeroes(4 * kBlock, 2 * kBlock)));
  EXPECT_EQ(first_byte(host, *device, 0), 'x');
  EXPECT_EQ(first_byte(host, *device, 3 * kBlock), 'x');
  EXPECT_EQ(first_byte(host, *device, 4 * kBlock), 0);
  EXPECT_EQ(first_byte(host, *device, 5 * kBlock), 0);
  EXPECT_EQ(first_byte(host, *device, 6 * kBlock), 'x');
  struct stat facts{};
  ASSERT_EQ(::stat(path.c_str(), &facts), 0);
  EXPECT_EQ(facts.st_size, static_cast<off_t>(kSize));
}

TEST_F(FileDeviceTest, RefusesWhatIsOutsideOrUnaligned) {
  Host host;
  auto device = host.open(path);
  IoBuffer buffer(kBlock);
  EXPECT_EQ(host.run(device->read(kSize, buffer.bytes())).error(), Errc::kBounds);
  EXPECT_EQ(host.run(device->read(~std::uint64_t{0} - 4095, buffer.bytes())).error(), Errc::kBounds);
  EXPECT_EQ(host.run(device->write(512, buffer.bytes(), Durability::kFua)).error(), Errc::kBounds);
  EXPECT_EQ(host.run(device->write(0, buffer.bytes().first(512), Durability::kFua)).error(), Errc::kBounds);
  EXPECT_EQ(host.run(device->unmap(kBlock, kSize)).error(), Errc::kBounds);
  EXPECT_EQ(host.run(device->write_zeroes(1, kBlock)).error(), Errc::kBounds);
  EXPECT_EQ(host.run(device->compare_and_write(0, buffer.bytes(), buffer.bytes().first(512))).error(), Errc::kBounds);
  EXPECT_EQ(host.run(device->compare_and_write(kSize, buffer.bytes(), buffer.bytes())).error(), Errc::kBounds);
  EXPECT_EQ(host.run(device->evict("x", 0)).error(), Errc::kUnsupported);
}

TEST_F(FileDeviceTest, TheSidecarRemembersTheLogicalBlock) {
  Host host;
  {
    auto device = host.open(path, {.file_logical_block = 512});
    EXPECT_EQ(device->facts().logical_block, 512u);
    ASSERT_TRUE(host.run(device->write(512, filled('x', 512).bytes(), Durability::kFua)));
    const IoBuffer old = filled('x', 512);
    const IoBuffer now = filled('y', 512);
    ASSERT_TRUE(host.run(device->compare_and_write(512, old.bytes(), now.bytes())));
    EXPECT_EQ(host.run(device->compare_and_write(512, old.bytes(), now.bytes())).error(), Errc::kMiscompare);
    EXPECT_EQ(host.open(path)->facts().logical_block, 512u);
    EXPECT_EQ(host.try_open(path, {.file_logical_block = 4096}).error(), Errc::kBusy);
  }
  EXPECT_EQ(host.open(path)->facts().logical_block, 512u);
  EXPECT_EQ(host.open(path, {.file_logical_block = 4096})->facts().logical_block, 4096u);
  EXPECT_EQ(host.open(path)->facts().logical_block, 4096u);
  EXPECT_EQ(host.try_open(path, {.file_logical_block = 1024}).error(), Errc::kInvalid);
}

TEST_F(FileDeviceTest, RefusesWhatIsNoFileLun) {
  Host host;
  EXPECT_EQ(host.try_open(directory).error(), Errc::kUnsupported);
  EXPECT_EQ(host.try_open(directory + "/none").error(), Errc::kNotFound);
  ASSERT_EQ(::link(path.c_str(), (directory + "/second").c_str()), 0);
  EXPECT_EQ(host.try_open(path).error(), Errc::kUnsupported);
  ASSERT_EQ(::unlink((directory + "/second").c_str()), 0);
  ASSERT_EQ(::truncate(path.c_str(), 100), 0);
  EXPECT_EQ(host.try_open(path).error(), Errc::kBounds);
}

TEST_F(FileDeviceTest, ReadOnlyOpenersChangeNothing) {
  Host host;
  EXPECT_TRUE(host.try_open(path, {.read_only = true}));
  EXPECT_FALSE(std::filesystem::exists(path + ".pr"));
  auto writer = host.open(path);
  ASSERT_TRUE(host.run(writer->pr_register(PrKey{}, kA, Aptpl::kYes)));
  auto reader = host.open(path, {.read_only = true});
  EXPECT_TRUE(reader->facts().write_protected);
  const IoBuffer data(kBlock);
  EXPECT_EQ(host.run(reader->write(0, data.bytes(), Durability::kCached)).error(), Errc::kReadOnly);
  EXPECT_EQ(host.run(reader->compare_and_write(0, data.bytes(), data.bytes())).error(), Errc::kReadOnly);
  EXPECT_EQ(host.run(reader->pr_register(PrKey{}, kB, Aptpl::kYes)).error(), Errc::kReadOnly);
  EXPECT_EQ(host.run(reader->pr_read_keys())->keys, std::vector{kA});
  EXPECT_EQ(first_byte(host, *reader, 0), 0);
}

TEST_F(FileDeviceTest, FencedOpenerReadsButDoesNotWrite) {
  Host host;
  auto a = host.open(path);
  auto b = host.open(path);
  register_both(host, *a, *b);
  IoBuffer data = filled('x');
  ASSERT_TRUE(host.run(b->write(0, data.bytes(), Durability::kFua)));
  ASSERT_TRUE(host.run(a->pr_preempt_and_abort(kA, kB, kType7)));
  const IoBuffer late = filled('!');
  EXPECT_EQ(host.run(b->write(0, late.bytes(), Durability::kFua)).error(), Errc::kUnitAttentionReservations);
  for (auto durability : {Durability::kCached, Durability::kFua}) {
    EXPECT_EQ(host.run(b->write(0, late.bytes(), durability)).error(), Errc::kReservationConflict);
  }
  EXPECT_EQ(host.run(b->compare_and_write(0, data.bytes(), late.bytes())).error(), Errc::kReservationConflict);
  EXPECT_EQ(host.run(b->unmap(0, kBlock)).error(), Errc::kReservationConflict);
  EXPECT_EQ(host.run(b->write_zeroes(0, kBlock)).error(), Errc::kReservationConflict);
  EXPECT_EQ(host.run(b->flush()).error(), Errc::kReservationConflict);
  EXPECT_EQ(first_byte(host, *b, 0), 'x');
  EXPECT_EQ(host.run(b->pr_read_keys())->keys, std::vector{kA});
  EXPECT_EQ(host.run(b->pr_read_reservation())->type, kType7);

  // Fenced once more is a conflict; registered again it may write.
  EXPECT_EQ(host.run(a->pr_preempt_and_abort(kA, kB, kType7)).error(), Errc::kReservationConflict);
  ASSERT_TRUE(host.run(b->pr_register(PrKey{}, kB, Aptpl::kYes)));
  EXPECT_TRUE(host.run(b->write(0, late.bytes(), Durability::kFua)));
  EXPECT_TRUE(host.run(a->reset_lun()));
  EXPECT_TRUE(host.run(a->write(0, data.bytes(), Durability::kFua)));
}

TEST_F(FileDeviceTest, RegistrationsOutliveTheirOpenerUntilPreempted) {
  Host host;
  auto a = host.open(path);
  {
    auto b = host.open(path);
    register_both(host, *a, *b);
  }
  EXPECT_EQ(host.run(a->pr_read_keys())->keys, (std::vector{kA, kB}));
  auto c = host.open(path);
  EXPECT_EQ(host.run(c->flush()).error(), Errc::kReservationConflict);
  ASSERT_TRUE(host.run(a->pr_preempt_and_abort(kA, kB, kType7)));
  EXPECT_EQ(host.run(a->pr_read_keys())->keys, std::vector{kA});
  EXPECT_TRUE(host.run(a->flush()));  // the fence of another is no unit attention for a
}

TEST_F(FileDeviceTest, ReleaseIsAUnitAttentionForOthers) {
  Host host;
  auto a = host.open(path);
  auto b = host.open(path);
  register_both(host, *a, *b);
  EXPECT_TRUE(host.run(b->flush()));
  ASSERT_TRUE(host.run(a->pr_release(kA, kType7)));
  EXPECT_EQ(host.run(b->flush()).error(), Errc::kUnitAttentionReservations);
  EXPECT_TRUE(host.run(b->flush()));
  EXPECT_TRUE(host.run(a->flush()));
  EXPECT_TRUE(host.run(host.open(path)->flush()));
}

Task<void> write_until_refused(BlockDevice& device, std::uint64_t block, IoBuffer& data, std::uint64_t& count) {
  while (true) {
    auto done =
        co_await device.write(block * kBlock, data.bytes(), block % 2 == 0 ? Durability::kCached : Durability::kFua);
    if (!done) co_return;
    ++count;
    // The next image differs: whatever lands after the fence is seen.
    std::memcpy(data.data(), &count, sizeof count);
  }
}

// How many of the victim's writes had succeeded when the fence returned.
Task<Result<std::uint64_t>> fence_and_count(BlockDevice& device, const std::uint64_t& writes) {
  auto fenced = co_await device.pr_preempt_and_abort(kA, kB, kType7);
  if (!fenced) co_return fail(fenced.error());
  co_return writes;
}

TEST_F(FileDeviceTest, NothingOfTheVictimLandsAfterPreempt) {
  constexpr std::uint64_t kWriters = 16;
  Host host;
  auto a = host.open(path);
  ASSERT_TRUE(host.run(a->pr_register(PrKey{}, kA, Aptpl::kYes)));
  ASSERT_TRUE(host.run(a->pr_reserve(kA, kType7)));
  for (int round = 0; round < 20; ++round) {
    auto b = host.open(path);
    ASSERT_TRUE(host.run(b->pr_register(PrKey{}, kB, Aptpl::kYes)));
    std::uint64_t writes = 0;
    std::vector<IoBuffer> images(kWriters);
    TaskGroup group(host.reactor->executor());
    for (std::uint64_t i = 0; i < kWriters; ++i) {
      images[i] = IoBuffer(kBlock);
      group.spawn(write_until_refused(*b, i, images[i], writes));
    }
    host.reactor->run_until([&] { return writes > 50; });
    const auto before_fence = host.run(fence_and_count(*a, writes));
    ASSERT_TRUE(before_fence);
    IoBuffer at_fence(kWriters * kBlock);
    ASSERT_TRUE(host.run(a->read(0, at_fence.bytes())));
    host.reactor->run_until([&] { return group.running() == 0; });
    EXPECT_EQ(*before_fence, writes);
    IoBuffer later(kWriters * kBlock);
    ASSERT_TRUE(host.run(a->read(0, later.bytes())));
    ASSERT_TRUE(std::ranges::equal(at_fence.bytes(), later.bytes())) << "round " << round;
  }
}

// Raises the counter in block 0 by COMPARE AND WRITE, `times` times; returns how often it had to look again.
Task<Result<std::uint64_t>> count_up(BlockDevice& device, std::uint64_t times) {
  std::uint64_t misses = 0;
  for (std::uint64_t done = 0; done < times;) {
    IoBuffer old(kBlock);
    auto read = co_await device.read(0, old.bytes());
    if (!read) co_return fail(read.error());
    IoBuffer raised(kBlock);
    std::uint64_t value = 0;
    std::memcpy(&value, old.data(), sizeof value);
    ++value;
    std::memcpy(raised.data(), &value, sizeof value);
    auto swapped = co_await device.compare_and_write(0, old.bytes(), raised.bytes());
    if (swapped) {
      ++done;
    } else if (swapped.error() == Errc::kMiscompare) {
      ++misses;
    } else {
      co_return fail(swapped.error());
    }
  }
  co_return misses;
}

TEST_F(FileDeviceTest, CompareAndWriteRaceHasOneWinnerEachRound) {
  constexpr std::uint64_t kTimes = 100;
  Child other([&](Child& child) {
    child.order();
    Host host;
    auto device = host.open(path);
    return host.run(count_up(*device, kTimes)) ? 0 : 1;
  });
  Host host;
  auto a = host.open(path);
  auto b = host.open(path);
  other.send('g');
  std::uint64_t finished = 0;
  TaskGroup group(host.reactor->executor());
  auto count = [](BlockDevice& device, std::uint64_t& ended) -> Task<void> {
    auto misses = co_await count_up(device, kTimes);
    if (misses) ++ended;
  };
  // Two openers in this process, two requests of one opener at a time, and another process.
  group.spawn(count(*a, finished));
  group.spawn(count(*a, finished));
  group.spawn(count(*b, finished));
  host.reactor->run_until([&] { return group.running() == 0; });
  EXPECT_EQ(finished, 3u);
  EXPECT_EQ(other.wait(), 0);
  IoBuffer block(kBlock);
  ASSERT_TRUE(host.run(a->read(0, block.bytes())));
  std::uint64_t value = 0;
  std::memcpy(&value, block.data(), sizeof value);
  EXPECT_EQ(value, 4 * kTimes);
}

// A node that writes without end; says when it has begun.
int write_for_ever(Child& child, const std::string& path, bool registers) {
  Host host;
  auto device = host.open(path);
  if (registers && !host.run(device->pr_register(PrKey{}, kB, Aptpl::kYes))) return 1;
  std::uint64_t writes = 0;
  std::vector<IoBuffer> images(8);
  TaskGroup group(host.reactor->executor());
  for (std::uint64_t i = 0; i < images.size(); ++i) {
    images[i] = IoBuffer(kBlock);
    group.spawn(write_until_refused(*device, i, images[i], writes));
  }
  host.reactor->run_until([&] { return writes > 100; });
  child.answer('w');
  host.reactor->run_until([&] { return group.running() == 0; });
  child.answer('r');  // refused
  return 0;
}

// Stops the child at a moment when it has writes in flight. It is the only other opener with any.
void stop_while_writing(Child& child, const std::string& path) {
  const FileHandle file(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  const LockRange all{.start = write_locks(0).start, .length = 2 * kMaxFileOpeners};
  while (true) {
    child.stop();
    auto held = file.conflicting_lock(all);
    ASSERT_TRUE(held);
    if (*held) return;
    child.signal(SIGCONT);
  }
}

TEST_F(FileDeviceTest, PreemptKillsAVictimStoppedInTheMiddleOfAWrite) {
  Child victim([&](Child& child) { return write_for_ever(child, path, true); });
  ASSERT_EQ(victim.receive(), 'w');
  Host host;
  auto a = host.open(path);
  ASSERT_TRUE(host.run(a->pr_register(PrKey{}, kA, Aptpl::kYes)));
  ASSERT_TRUE(host.run(a->pr_reserve(kA, kType7)));
  stop_while_writing(victim, path);
  ASSERT_TRUE(host.run(a->pr_preempt_and_abort(kA, kB, kType7)));
  EXPECT_TRUE(victim.was_killed());
  EXPECT_EQ(host.run(a->pr_read_keys())->keys, std::vector{kA});
}

// The kernel may still be writing for a process that has just been killed.
TEST_F(FileDeviceTest, NothingOfAKilledVictimLandsAfterPreempt) {
  constexpr std::uint64_t kWriters = 8;
  constexpr std::uint64_t kLarge = 1 << 20;
  for (int round = 0; round < 5; ++round) {
    Child victim([&](Child& child) {
      Host host;
      auto device = host.open(path);
      if (!host.run(device->pr_register(PrKey{}, kB, Aptpl::kYes))) return 1;
      const IoBuffer data = filled('v', kLarge);
      TaskGroup group(host.reactor->executor());
      auto write = [](BlockDevice& to, std::uint64_t offset, const IoBuffer& from) -> Task<void> {
        while (true) {
          auto done = co_await to.write(offset, from.bytes(), Durability::kFua);
          if (!done) co_return;
        }
      };
      for (std::uint64_t i = 0; i < kWriters; ++i) group.spawn(write(*device, i * kLarge, data));
      child.answer('w');
      host.reactor->run_until([&] { return group.running() == 0; });
      return 0;
    });
    ASSERT_EQ(victim.receive(), 'w');
    Host host;
    auto a = host.open(path);
    ASSERT_TRUE(host.run(a->pr_register(PrKey{}, kA, Aptpl::kYes)));
    ASSERT_TRUE(host.run(a->pr_reserve(kA, kType7)));
    victim.signal(SIGKILL);
    ASSERT_TRUE(host.run(a->pr_preempt_and_abort(kA, kB, kType7)));
    const IoBuffer mine = filled('m', kWriters * kLarge);
    ASSERT_TRUE(host.run(a->write(0, mine.bytes(), Durability::kCached)));
    EXPECT_TRUE(victim.was_killed());
    for (int look = 0; look < 5; ++look) {
      IoBuffer seen(kWriters * kLarge);
      ASSERT_TRUE(host.run(a->read(0, seen.bytes())));
      ASSERT_TRUE(std::ranges::equal(seen.bytes(), mine.bytes())) << "round " << round << ", look " << look;
    }
    ASSERT_TRUE(host.run(a->pr_clear(kA)));
  }
}

TEST_F(FileDeviceTest, PreemptLetsAVictimLiveThatRuns) {
  Child victim([&](Child& child) { return write_for_ever(child, path, true); });
  ASSERT_EQ(victim.receive(), 'w');
  Host host;
  auto a = host.open(path);
  ASSERT_TRUE(host.run(a->pr_register(PrKey{}, kA, Aptpl::kYes)));
  ASSERT_TRUE(host.run(a->pr_reserve(kA, kType7)));
  ASSERT_TRUE(host.run(a->pr_preempt_and_abort(kA, kB, kType7)));
  EXPECT_EQ(victim.receive(), 'r');
  EXPECT_EQ(victim.wait(), 0);
}

TEST_F(FileDeviceTest, ResetWaitsForTheUnregisteredAndSparesTheRegistered) {
  Child stranger([&](Child& child) { return write_for_ever(child, path, false); });
  ASSERT_EQ(stranger.receive(), 'w');
  stop_while_writing(stranger, path);
  Child member([&](Child& child) { return write_for_ever(child, path, true); });
  ASSERT_EQ(member.receive(), 'w');
  member.stop();
  Host host;
  auto a = host.open(path);
  ASSERT_TRUE(host.run(a->reset_lun()));
  EXPECT_TRUE(stranger.was_killed());
  member.signal(SIGCONT);
  ASSERT_TRUE(host.run(a->pr_register(PrKey{}, kA, Aptpl::kYes)));
  ASSERT_TRUE(host.run(a->pr_reserve(kA, kType7)));
  ASSERT_TRUE(host.run(a->pr_preempt_and_abort(kA, kB, kType7)));
  EXPECT_EQ(member.receive(), 'r');
  EXPECT_EQ(member.wait(), 0);
}

// A node that holds a lock which all need.
int hold_mark(Child& child, const std::string& path, Mark mark, bool of_sidecar) {
  Host host;
  auto lun = host.run(open_file_lun(*host.reactor, *host.log, path, {}));
  if (!lun) return 1;
  const FileHandle& file = of_sidecar ? lun->sidecar.file() : lun->fua;
  const auto locked = file.try_lock(mark.as_held_by(lun->index));
  if (!locked || !*locked) return 1;
  child.answer('h');
  child.order();
  return 0;
}

TEST_F(FileDeviceTest, AProcessStoppedInsideCompareAndWriteIsKilled) {
  const IoBuffer zero(kBlock);
  const IoBuffer one = filled(1);
  Child holder([&](Child& child) { return hold_mark(child, path, compare_and_write_mark(5), false); });
  ASSERT_EQ(holder.receive(), 'h');
  holder.stop();
  Host host;
  auto a = host.open(path);
  EXPECT_TRUE(host.run(a->compare_and_write(6 * kBlock, zero.bytes(), one.bytes())));
  ASSERT_TRUE(host.run(a->compare_and_write(5 * kBlock, zero.bytes(), one.bytes())));
  EXPECT_TRUE(holder.was_killed());
}

TEST_F(FileDeviceTest, AProcessStoppedWithTheSidecarsLockIsKilled) {
  Child holder([&](Child& child) { return hold_mark(child, path, sidecar_mark(), true); });
  ASSERT_EQ(holder.receive(), 'h');
  holder.stop();
  Host host;
  auto a = host.open(path);  // needs the lock
  EXPECT_TRUE(holder.was_killed());
  EXPECT_TRUE(host.run(a->pr_register(PrKey{}, kA, Aptpl::kYes)));
}

TEST_F(FileDeviceTest, ALockHeldByARunningProcessIsWaitedForUpToTheTimeout) {
  Child holder([&](Child& child) { return hold_mark(child, path, compare_and_write_mark(5), false); });
  ASSERT_EQ(holder.receive(), 'h');
  Host host;
  auto a = host.open(path, {.timeout_ms = 1500});
  const IoBuffer zero(kBlock);
  EXPECT_EQ(host.run(a->compare_and_write(5 * kBlock, zero.bytes(), zero.bytes())).error(), Errc::kTransport);
  holder.send('e');
  EXPECT_EQ(holder.wait(), 0);
  EXPECT_TRUE(host.run(a->compare_and_write(5 * kBlock, zero.bytes(), zero.bytes())));
}

Task<void> run_into(Task<Result<>> task, std::optional<Result<>>& out) {
  Result<> done = co_await std::move(task);
  out = done;
}

// A fence resets; the fencer's own heartbeats must not wait for what the reset waits for.
TEST_F(FileDeviceTest, WritesPassAResetThatWaitsForASlowCommand) {
  Child holder([&](Child& child) { return hold_mark(child, path, compare_and_write_mark(5), false); });
  ASSERT_EQ(holder.receive(), 'h');
  Host host;
  auto a = host.open(path);
  const IoBuffer zero(kBlock);
  std::optional<Result<>> slow;
  std::optional<Result<>> reset;
  TaskGroup group(host.reactor->executor());
  group.spawn(run_into(a->compare_and_write(5 * kBlock, zero.bytes(), zero.bytes()), slow));
  group.spawn(run_into(a->reset_lun(), reset));
  EXPECT_TRUE(host.run(a->write(0, zero.bytes(), Durability::kFua)));
  EXPECT_FALSE(slow);
  EXPECT_FALSE(reset);
  holder.send('e');
  host.reactor->run_until([&] { return reset.has_value(); });
  EXPECT_TRUE(*reset);
  EXPECT_TRUE(slow && *slow) << "the reset did not wait";
  host.run(group.join());
}

TEST_F(FileDeviceTest, ADamagedSidecarIsAClearError) {
  Host host;
  const auto register_once = [&] {
    auto a = host.open(path);
    ASSERT_TRUE(host.run(a->pr_register_ignore(kA, Aptpl::kYes)));
  };
  register_once();
  const auto table = *sidecar().load();
  const std::uint64_t images[2] = {64 << 10, 256 << 10};
  const std::uint64_t newest = images[table.sequence % 2 == 1 ? 0 : 1];
  const std::uint64_t older = images[table.sequence % 2 == 1 ? 1 : 0];

  damage(older + 20);
  EXPECT_TRUE(host.try_open(path));
  damage(newest + 20);
  EXPECT_EQ(host.try_open(path).error(), Errc::kBadChecksum);
  damage(older + 20);  // whole again, but a table that is no longer the present one
  EXPECT_FALSE(host.try_open(path));
  damage(newest + 20);
  EXPECT_TRUE(host.try_open(path));

  damage(3);
  EXPECT_EQ(host.try_open(path).error(), Errc::kBadMagic);
  damage(3);
  damage(16);
  EXPECT_EQ(host.try_open(path).error(), Errc::kBadChecksum);
  damage(16);
  EXPECT_EQ(host.run(host.open(path)->pr_read_keys())->keys.size(), 1u);
  ASSERT_EQ(::truncate((path + ".pr").c_str(), 65536), 0);
  EXPECT_FALSE(host.try_open(path));
  ASSERT_EQ(::truncate((path + ".pr").c_str(), 0), 0);  // its making was cut short
  EXPECT_TRUE(host.try_open(path));
}

TEST_F(FileDeviceTest, ASidecarOfAnEarlierFileIsMadeAnewOnlyWhereNobodyIsAlive) {
  Host host;
  {
    auto a = host.open(path);
    ASSERT_TRUE(host.run(a->pr_register(PrKey{}, kA, Aptpl::kYes)));
    ASSERT_TRUE(host.run(a->pr_reserve(kA, kType7)));
  }
  std::filesystem::remove(path);
  make_file(path);
  auto b = host.open(path);
  EXPECT_TRUE(host.run(b->pr_read_keys())->keys.empty());
  EXPECT_TRUE(host.run(b->flush()));

  std::filesystem::remove(path + ".pr");
  EXPECT_EQ(host.try_open(path).error(), Errc::kBusy);
  EXPECT_EQ(host.run(b->pr_read_keys()).error(), Errc::kTransport);
  b.reset();
  EXPECT_TRUE(host.try_open(path));
}

TEST_F(FileDeviceTest, ABootTakesWhatWasRegisteredWithoutAptpl) {
  Host host;
  for (const auto aptpl : {Aptpl::kYes, Aptpl::kNo}) {
    ASSERT_TRUE(host.run(host.open(path)->pr_register_ignore(kA, aptpl)));
    auto table = *sidecar().load();
    table.boot[0] ^= 1;
    FileSidecar earlier = sidecar();
    ASSERT_TRUE(earlier.store(table));
    EXPECT_EQ(host.run(host.open(path)->pr_read_keys())->keys.size(), aptpl == Aptpl::kYes ? 1u : 0u);
  }
}

// Somebody died between the new image and the new sequence: whoever reads the reservations next settles it, and then
// every opener sees it.
TEST_F(FileDeviceTest, AChangeCutShortIsSettledByTheNextReader) {
  Host host;
  auto a = host.open(path);
  auto b = host.open(path);
  register_both(host, *a, *b);
  ASSERT_TRUE(host.run(b->flush()));
  FileSidecar dying = sidecar();
  auto table = *dying.load();
  const SidecarTable before = table;
  const auto nexuses = [&] {
    std::vector<std::string> names;
    for (std::size_t i = 0; i < kMaxFileOpeners; ++i) {
      if (auto opener = dying.read_opener(i)) names.push_back(opener->nexus);
    }
    return names;
  }();
  ASSERT_EQ(nexuses.size(), 2u);
  ASSERT_TRUE(table.reservations.preempt(nexuses[0], kA, kB, kType7));
  ASSERT_TRUE(dying.store(table));
  ASSERT_TRUE(dying.settle(before));
  EXPECT_TRUE(host.run(b->flush()));
  EXPECT_EQ(host.run(a->pr_preempt_and_abort(kA, kB, kType7)).error(), Errc::kReservationConflict);
  EXPECT_EQ(host.run(b->flush()).error(), Errc::kUnitAttentionReservations);
  EXPECT_EQ(host.run(b->flush()).error(), Errc::kReservationConflict);
}

TEST_F(FileDeviceTest, ManyOpenersUntilThereAreTooMany) {
  Host host;
  std::vector<std::unique_ptr<BlockDevice>> devices;
  for (std::size_t i = 0; i < kMaxFileOpeners; ++i) devices.push_back(host.open(path));
  EXPECT_EQ(host.try_open(path).error(), Errc::kBusy);
  devices.erase(devices.begin() + 5);
  EXPECT_TRUE(host.try_open(path));
}

}  // namespace
}  // namespace cawfs
