// The watchdog of real FUSE connections. The daemon is a process whose main thread ends while another keeps its
// descriptors open, as the one does that waits in the kernel. Needs root and /dev/fuse.
#include "mount/watchdog.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <optional>
#include <thread>

#include "mount/mount_record.h"

namespace cawfs {
namespace {

class Mount {
 public:
  explicit Mount(const std::string& directory) : directory_(directory), fd_(open("/dev/fuse", O_RDWR | O_CLOEXEC)) {
    const std::string data = fmt::format("fd={},rootmode=40000,user_id=0,group_id=0", fd_);
    mount("test", directory.c_str(), "fuse.cawfs", MS_NOSUID, data.c_str());
  }
  Mount(const Mount&) = delete;
  ~Mount() {
    umount2(directory_.c_str(), MNT_DETACH);
    close(fd_);
  }
  std::string device() const { return mounted_device(directory_).value_or("none"); }
  bool aborted() const {
    pollfd state{fd_, POLLIN, 0};
    poll(&state, 1, 0);
    return (state.revents & POLLERR) != 0;
  }

 private:
  std::string directory_;
  int fd_;
};

// How a daemon ended.
enum End : int { kUntouched = 10, kAborted, kNotGuarded, kNoReuse };

class WatchdogTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "cawfs-watchdog-XXXXXX";
    directory = mkdtemp(name.data());
  }
  void TearDown() override { rmdir(directory.c_str()); }

  // Runs `life` in a daemon.
  int end_of(void (*life)(std::unique_ptr<Watchdog>, const std::string&)) {
    const pid_t daemon = fork();
    if (daemon == 0) {
      std::string name = "watchdog_test, and room for a longer name";
      char* argument = name.data();
      auto watchdog = Watchdog::start({&argument, 1});
      if (watchdog) life(std::move(*watchdog), directory);
      _exit(kNotGuarded);
    }
    int status = 0;
    waitpid(daemon, &status, 0);
    umount2(directory.c_str(), MNT_DETACH);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -status;
  }

  std::string directory;
};

// The main thread ends; the process does once the watchdog has ended.
[[noreturn]] void die(const Mount& mount) {
  std::thread([&mount] {
    wait(nullptr);
    _exit(mount.aborted() ? kAborted : kUntouched);
  }).detach();
  syscall(SYS_exit, 0);  // this thread alone, and nothing of it is unwound
  __builtin_unreachable();
}

void live(std::unique_ptr<Watchdog> watchdog, const std::string& directory) {
  static std::optional<Mount> mount;
  mount.emplace(directory);
  if (watchdog->guard(mount->device())) die(*mount);
}

void live_twice(std::unique_ptr<Watchdog> watchdog, const std::string& directory) {
  static std::optional<Mount> mount;
  mount.emplace(directory);
  const std::string first = mount->device();
  if (!watchdog->guard(first)) return;
  // Others may mount, too, so that the number may go to them.
  for (int tries = 0; tries < 100; ++tries) {
    mount.reset();
    mount.emplace(directory);
    if (mount->device() == first) die(*mount);
  }
  _exit(kNoReuse);
}

TEST_F(WatchdogTest, AbortsTheConnectionOfADaemonWhoseMainThreadHasEnded) {
  EXPECT_EQ(end_of(live), kAborted);
}

TEST_F(WatchdogTest, ALaterConnectionOfThatNumberIsAnother) {
  EXPECT_EQ(end_of(live_twice), kUntouched);
}

void live_and_let_go(std::unique_ptr<Watchdog> watchdog, const std::string& directory) {
  static std::optional<Mount> mount;
  mount.emplace(directory);
  if (!watchdog->guard(mount->device())) return;
  watchdog.reset();
  _exit(mount->aborted() ? kAborted : kUntouched);
}

TEST_F(WatchdogTest, EndsAndAbortsNothingWhereItIsLetGo) {
  EXPECT_EQ(end_of(live_and_let_go), kUntouched);
}

}  // namespace
}  // namespace cawfs
