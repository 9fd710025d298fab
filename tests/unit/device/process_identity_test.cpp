#include "core/device/process_identity.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

namespace cawfs {
namespace {

// A child that does nothing until it is killed; it tells who it is.
struct ProcessIdentityTest : ::testing::Test {
  pid_t pid = -1;
  ProcessIdentity child;

  void SetUp() override {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    pid = ::fork();
    if (pid == 0) {
      const ProcessIdentity self = current_process();
      if (::write(ends[1], &self, sizeof self) != sizeof self) ::_exit(1);
      while (true) ::pause();
    }
    ASSERT_EQ(::read(ends[0], &child, sizeof child), static_cast<ssize_t>(sizeof child));
    ::close(ends[0]);
    ::close(ends[1]);
  }
  void TearDown() override {
    if (pid < 0) return;
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
  }
};

TEST_F(ProcessIdentityTest, KnowsItself) {
  const ProcessIdentity self = current_process();
  EXPECT_EQ(self.pid, ::getpid());
  EXPECT_NE(self.start_time, 0u);
  EXPECT_NE(self.boot, BootId{});
  EXPECT_EQ(self, current_process());
  EXPECT_EQ(process_state(self), ProcessState::kRunning);
}

TEST_F(ProcessIdentityTest, SeesAStoppedProcess) {
  EXPECT_EQ(child.pid, pid);
  EXPECT_EQ(process_state(child), ProcessState::kRunning);
  ::kill(pid, SIGSTOP);
  int status = 0;
  ASSERT_EQ(::waitpid(pid, &status, WUNTRACED), pid);
  EXPECT_EQ(process_state(child), ProcessState::kStopped);
}

TEST_F(ProcessIdentityTest, KillsTheProcessThatIsMeant) {
  ASSERT_TRUE(kill_process(child));
  int status = 0;
  ASSERT_EQ(::waitpid(pid, &status, 0), pid);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  pid = -1;
  EXPECT_EQ(process_state(child), ProcessState::kGone);
  EXPECT_FALSE(kill_process(child));
}

TEST_F(ProcessIdentityTest, SparesAnotherThatHasItsNumberNow) {
  ProcessIdentity earlier = child;
  --earlier.start_time;
  EXPECT_EQ(process_state(earlier), ProcessState::kGone);
  EXPECT_FALSE(kill_process(earlier));
  ProcessIdentity before_boot = child;
  before_boot.boot[3] ^= 1;
  EXPECT_FALSE(kill_process(before_boot));
  EXPECT_EQ(::waitpid(pid, nullptr, WNOHANG), 0);
  EXPECT_EQ(process_state(child), ProcessState::kRunning);
}

}  // namespace
}  // namespace cawfs
