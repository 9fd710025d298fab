#include "mount/background.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "mount/failure.h"

namespace cawfs {

namespace {

// The child writes a byte once it has mounted; else it ends, having said why.
[[noreturn]] void wait_for_child(int pipe, pid_t child) {
  char byte = 0;
  ssize_t n = 0;
  do {
    n = read(pipe, &byte, 1);
  } while (n < 0 && errno == EINTR);
  if (n == 1) _exit(0);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status)) _exit(WEXITSTATUS(status) == 0 ? kExitSystem : WEXITSTATUS(status));
  std::fprintf(stderr, "mount.cawfs: the daemon was ended by signal %d before it had mounted\n", WTERMSIG(status));
  _exit(kExitSystem);
}

[[noreturn]] void fail_to_start() {
  std::fprintf(stderr, "mount.cawfs: cannot start a process: %s\n", std::strerror(errno));
  _exit(kExitSystem);
}

}  // namespace

Background::Background(bool foreground) {
  if (foreground) return;
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) fail_to_start();
  const pid_t child = fork();
  if (child < 0) fail_to_start();
  if (child > 0) {
    close(ends[1]);
    wait_for_child(ends[0], child);
  }
  close(ends[0]);
  parent_ = ends[1];
}

Background::~Background() {
  if (parent_ >= 0) close(parent_);
}

void Background::mounted() {
  if (parent_ < 0) return;
  setsid();
  if (chdir("/") != 0) std::perror("mount.cawfs: chdir /");
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null >= 0) {
    for (int fd = 0; fd <= 2; ++fd) dup2(null, fd);
    if (null > 2) close(null);
  }
  const char byte = 1;
  // Without a parent there is nobody to tell.
  [[maybe_unused]] const ssize_t written = write(parent_, &byte, 1);
  close(std::exchange(parent_, -1));
}

}  // namespace cawfs
