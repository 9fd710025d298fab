#include "core/runtime/reactor.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pthread.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "core/runtime/sync.h"

namespace cawfs {
namespace {

using namespace std::chrono_literals;

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

struct TemporaryFile {
  int fd = -1;
  TemporaryFile() {
    std::string name = testing::TempDir() + "reactor_test_XXXXXX";
    fd = mkstemp(name.data());
    unlink(name.c_str());
  }
  ~TemporaryFile() { close(fd); }
};

struct Pipe {
  std::array<int, 2> ends{-1, -1};
  Pipe() { EXPECT_EQ(pipe2(ends.data(), O_CLOEXEC), 0); }
  ~Pipe() {
    close(ends[0]);
    close(ends[1]);
  }
  int reader() const { return ends[0]; }
  int writer() const { return ends[1]; }
};

struct ReactorTest : ::testing::Test {
  std::unique_ptr<Reactor> reactor = Reactor::make().value();
  Executor& executor = reactor->executor();

  void run(Task<void> task) {
    TaskGroup group(executor);
    group.spawn(std::move(task));
    reactor->run_until([&] { return group.running() == 0; });
  }
};

TEST_F(ReactorTest, WritesAndReadsAFile) {
  TemporaryFile file;
  const std::string text = "as the system call would";
  EXPECT_EQ(reactor->run(reactor->write(file.fd, bytes_of(text), 100)), static_cast<int>(text.size()));
  EXPECT_EQ(reactor->run(reactor->fdatasync(file.fd)), 0);
  std::array<std::byte, 64> out{};
  EXPECT_EQ(reactor->run(reactor->read(file.fd, out, 100)), static_cast<int>(text.size()));
  EXPECT_EQ(std::memcmp(out.data(), text.data(), text.size()), 0);
}

TEST_F(ReactorTest, DurableWritesAreWritesToo) {
  TemporaryFile file;
  const std::string text = "as the system call would";
  EXPECT_EQ(reactor->run(reactor->write_durable(file.fd, bytes_of(text), 100)), static_cast<int>(text.size()));
  std::array<std::byte, 64> out{};
  EXPECT_EQ(reactor->run(reactor->read(file.fd, out, 100)), static_cast<int>(text.size()));
  EXPECT_EQ(std::memcmp(out.data(), text.data(), text.size()), 0);
}

TEST_F(ReactorTest, MinusOneIsTheFilesOwnPosition) {
  TemporaryFile file;
  const std::string first = "first ";
  const std::string second = "second";
  reactor->run(reactor->write(file.fd, bytes_of(first), -1));
  reactor->run(reactor->write(file.fd, bytes_of(second), -1));
  std::array<char, 12> out{};
  EXPECT_EQ(pread(file.fd, out.data(), out.size(), 0), 12);
  EXPECT_EQ(std::string(out.data(), out.size()), first + second);
}

TEST_F(ReactorTest, WritevGathers) {
  TemporaryFile file;
  std::string a = "gather";
  std::string b = "ed";
  const std::array<iovec, 2> parts{{{a.data(), a.size()}, {b.data(), b.size()}}};
  EXPECT_EQ(reactor->run(reactor->writev(file.fd, parts, 0)), 8);
  std::array<char, 8> out{};
  EXPECT_EQ(pread(file.fd, out.data(), out.size(), 0), 8);
  EXPECT_EQ(std::string(out.data(), out.size()), "gathered");
}

TEST_F(ReactorTest, ErrorsAreNegativeErrno) {
  std::array<std::byte, 8> out{};
  EXPECT_EQ(reactor->run(reactor->read(-1, out, 0)), -EBADF);
  EXPECT_EQ(reactor->run(reactor->fdatasync(-1)), -EBADF);
}

Task<void> write_then_read_block(Reactor& reactor, int fd, int index, int& good) {
  std::vector<std::byte> block(512, static_cast<std::byte>(index));
  int written = co_await reactor.write(fd, block, index * 512);
  std::vector<std::byte> back(512);
  int got = co_await reactor.read(fd, back, index * 512);
  if (written == 512 && got == 512 && back == block) ++good;
}

// Several times the submission queue's and the completion queue's size.
TEST_F(ReactorTest, ManyInFlight) {
  TemporaryFile file;
  int good = 0;
  TaskGroup group(executor);
  for (int i = 0; i < 20'000; ++i) group.spawn(write_then_read_block(*reactor, file.fd, i, good));
  reactor->run_until([&] { return group.running() == 0; });
  EXPECT_EQ(good, 20'000);
}

Task<void> echo(Reactor& reactor, int from, int to, std::string& got) {
  std::array<std::byte, 16> buffer{};
  int n = co_await reactor.read(from, buffer, -1);
  if (n <= 0) co_return;
  got.assign(reinterpret_cast<const char*>(buffer.data()), static_cast<std::size_t>(n));
  co_await reactor.write(to, std::span<const std::byte>(buffer).first(static_cast<std::size_t>(n)), -1);
}

TEST_F(ReactorTest, ABlockedReadDoesNotStopTheOthers) {
  Pipe there;
  Pipe back;
  std::string got;
  TaskGroup group(executor);
  group.spawn(echo(*reactor, there.reader(), back.writer(), got));
  int good = 0;
  TemporaryFile file;
  for (int i = 0; i < 10; ++i) group.spawn(write_then_read_block(*reactor, file.fd, i, good));
  reactor->run_until([&] { return good == 10; });
  EXPECT_EQ(got, "");
  const std::string text = "ping";
  ASSERT_EQ(::write(there.writer(), text.data(), text.size()), 4);
  reactor->run_until([&] { return group.running() == 0; });
  EXPECT_EQ(got, "ping");
}

Task<void> poll_once(Reactor& reactor, int fd, std::uint32_t events, int& result) {
  result = co_await reactor.poll(fd, events);
}

TEST_F(ReactorTest, PollReturnsTheEventsThatCame) {
  Pipe pipe;
  int result = 0;
  TaskGroup group(executor);
  group.spawn(poll_once(*reactor, pipe.reader(), POLLIN, result));
  int writable = 0;
  group.spawn(poll_once(*reactor, pipe.writer(), POLLOUT, writable));
  reactor->run_until([&] { return group.running() == 1; });
  EXPECT_EQ(writable, POLLOUT);
  EXPECT_EQ(result, 0);
  ASSERT_EQ(::write(pipe.writer(), "x", 1), 1);
  reactor->run_until([&] { return group.running() == 0; });
  EXPECT_EQ(result, POLLIN);
}

TEST_F(ReactorTest, CancelPollEndsAllPollsOfTheDescriptorAndNoOther) {
  Pipe cancelled;
  Pipe kept;
  std::vector<int> results(1000, 0);
  int other = 0;
  TaskGroup group(executor);
  group.spawn(poll_once(*reactor, kept.reader(), POLLIN, other));
  for (auto& result : results) group.spawn(poll_once(*reactor, cancelled.reader(), POLLIN, result));
  // Some of them are with the kernel, some on the ring, some in the backlog.
  executor.run_ready();
  reactor->cancel_poll(cancelled.reader());
  reactor->run_until([&] { return group.running() == 1; });
  for (int result : results) EXPECT_EQ(result, -ECANCELED);
  EXPECT_EQ(other, 0);
  // And of those that the kernel has had for a while.
  group.spawn(poll_once(*reactor, cancelled.reader(), POLLIN, results[0]));
  results[0] = 0;
  reactor->run(reactor->fdatasync(-1));
  reactor->cancel_poll(cancelled.reader());
  reactor->run_until([&] { return group.running() == 1; });
  EXPECT_EQ(results[0], -ECANCELED);
  reactor->cancel_poll(kept.reader());
  reactor->run_until([&] { return group.running() == 0; });
  EXPECT_EQ(other, -ECANCELED);
}

Task<void> sleep_then_note(Executor& executor, Duration duration, int id, std::vector<int>& order) {
  co_await executor.sleep(duration);
  order.push_back(id);
}

TEST_F(ReactorTest, TimersFireInOrderAndNotEarly) {
  std::vector<int> order;
  TaskGroup group(executor);
  group.spawn(sleep_then_note(executor, 30ms, 2, order));
  group.spawn(sleep_then_note(executor, 1ms, 1, order));
  group.spawn(sleep_then_note(executor, 50ms, 3, order));
  const Time start = executor.now();
  reactor->run_until([&] { return group.running() == 0; });
  EXPECT_GE(executor.now() - start, 50ms);
  EXPECT_EQ(order, (std::vector{1, 2, 3}));
}

Task<void> spin(Executor& executor, const bool& stop) {
  while (!stop) co_await executor.yield();
}

TEST_F(ReactorTest, ABusyQueueStarvesNeitherTimersNorCompletions) {
  bool stop = false;
  std::vector<int> order;
  int good = 0;
  TemporaryFile file;
  TaskGroup group(executor);
  group.spawn(spin(executor, stop));
  group.spawn(sleep_then_note(executor, 5ms, 1, order));
  group.spawn(write_then_read_block(*reactor, file.fd, 1, good));
  reactor->run_until([&] { return good == 1 && !order.empty(); });
  stop = true;
  reactor->run_until([&] { return group.running() == 0; });
}

Task<void> block(Reactor& reactor, std::function<void()> work, std::thread::id& resumed_on) {
  co_await reactor.run_blocking(std::move(work));
  resumed_on = std::this_thread::get_id();
}

TEST_F(ReactorTest, RunBlockingRunsElsewhereAndResumesHere) {
  std::thread::id worked_on;
  std::thread::id resumed_on;
  run(block(*reactor, [&] { worked_on = std::this_thread::get_id(); }, resumed_on));
  EXPECT_NE(worked_on, std::this_thread::get_id());
  EXPECT_EQ(resumed_on, std::this_thread::get_id());
}

// Each job ends only when the next has run: one blocked helper must not hold up another.
TEST_F(ReactorTest, BlockedHelpersDoNotWaitForEachOther) {
  constexpr int kJobs = 32;
  std::vector<Pipe> pipes(kJobs + 1);
  std::vector<std::thread::id> resumed(kJobs);
  TaskGroup group(executor);
  for (std::size_t i = 0; i < kJobs; ++i) {
    const int from = pipes[i + 1].reader();
    const int to = pipes[i].writer();
    group.spawn(block(
        *reactor,
        [from, to] {
          char token = 0;
          if (::read(from, &token, 1) == 1 && ::write(to, &token, 1) != 1) std::abort();
        },
        resumed[i]));
  }
  executor.run_ready();
  ASSERT_EQ(::write(pipes[kJobs].writer(), "t", 1), 1);
  reactor->run_until([&] { return group.running() == 0; });
  char token = 0;
  EXPECT_EQ(::read(pipes[0].reader(), &token, 1), 1);
}

TEST_F(ReactorTest, MoreBlockingWorkThanThreads) {
  std::atomic<int> ran = 0;
  std::vector<std::thread::id> resumed(2000);
  TaskGroup group(executor);
  for (auto& id : resumed) group.spawn(block(*reactor, [&] { ++ran; }, id));
  reactor->run_until([&] { return group.running() == 0; });
  EXPECT_EQ(ran, 2000);
}

// A signal that arrives while the reactor waits ends no wait early and no request with EINTR.
TEST_F(ReactorTest, SignalsInterruptNothing) {
  static std::atomic<int> signals = 0;
  struct sigaction action{};
  action.sa_handler = [](int) { ++signals; };
  struct sigaction before{};
  ASSERT_EQ(sigaction(SIGUSR1, &action, &before), 0);
  Pipe pipe;
  std::string got;
  std::vector<int> order;
  TaskGroup group(executor);
  group.spawn(echo(*reactor, pipe.reader(), pipe.writer(), got));
  group.spawn(sleep_then_note(executor, 20ms, 1, order));
  const Time start = executor.now();
  const pthread_t self = pthread_self();
  std::thread sender([&] {
    while (signals < 50) pthread_kill(self, SIGUSR1);
    EXPECT_EQ(::write(pipe.writer(), "done", 4), 4);
  });
  reactor->run_until([&] { return group.running() == 0; });
  sender.join();
  sigaction(SIGUSR1, &before, nullptr);
  EXPECT_EQ(got, "done");
  EXPECT_GE(executor.now() - start, 20ms);
}

}  // namespace
}  // namespace cawfs
