#include "mount/watchdog.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace cawfs {

namespace {

constexpr const char* kName = "cawfs-watchdog";
// The daemon has died, or is about to.
constexpr int kDied = SIGUSR1;
constexpr std::array kCrashes{SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP};

// For the signal handler.
pid_t watchdog = 0;

// A core dump waits for all threads, so for the one that waits for this daemon, before it lets the main thread die.
extern "C" void tell_of_crash(int signal) {
  kill(watchdog, kDied);
  raise(signal);
}

void watch_for_crashes(pid_t child) {
  watchdog = child;
  struct sigaction tell{};
  tell.sa_handler = tell_of_crash;
  tell.sa_flags = static_cast<int>(SA_RESETHAND) | SA_NODEFER;
  for (const int signal : kCrashes) {
    struct sigaction now{};
    sigaction(signal, nullptr, &now);
    if (now.sa_handler == SIG_DFL) sigaction(signal, &tell, nullptr);  // else a sanitizer's
  }
}

void forget_crashes() {
  for (const int signal : kCrashes) {
    struct sigaction now{};
    sigaction(signal, nullptr, &now);
    if (now.sa_handler == tell_of_crash) std::signal(signal, SIG_DFL);
  }
}

void put_on_name(std::span<char*> arguments) {
  prctl(PR_SET_NAME, kName);
  char* const begin = arguments.front();
  char* const end = arguments.back() + std::strlen(arguments.back());
  std::fill(begin, end, '\0');
  std::copy_n(kName, std::min<std::ptrdiff_t>(end - begin, static_cast<std::ptrdiff_t>(std::strlen(kName))), begin);
}

// Keeps nothing of the daemon's but `socket`, and is there when memory is short. Without privileges it is less sure of
// that, of which the daemon complains for itself.
void detach(int socket) {
  setsid();
  [[maybe_unused]] const int moved = chdir("/");
  const int null = open("/dev/null", O_RDWR);
  for (int fd = 0; fd <= 2; ++fd) dup2(null, fd);
  if (socket > 3) close_range(3, static_cast<unsigned>(socket) - 1, 0);
  close_range(static_cast<unsigned>(socket) + 1, ~0U, 0);
  const int score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  [[maybe_unused]] const ssize_t written = write(score, "-1000", 5);
  close(score);
  mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT);
}

// The descriptor that came with a message; none at the end of the daemon.
int receive_descriptor(int socket) {
  char byte = 0;
  iovec part{&byte, 1};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) <= 0) return -1;
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  int descriptor = -1;
  if (header && header->cmsg_type == SCM_RIGHTS) std::memcpy(&descriptor, CMSG_DATA(header), sizeof(descriptor));
  return descriptor;
}

[[noreturn]] void watch(int socket, int died) {
  int abort_file = -1;
  while (true) {
    std::array<pollfd, 2> events{{{socket, POLLIN, 0}, {died, POLLIN, 0}}};
    if (poll(events.data(), events.size(), -1) < 0) continue;
    if (events[0].revents != 0) {
      abort_file = receive_descriptor(socket);
      // What closed the socket has closed, or is closing, /dev/fuse.
      if (abort_file < 0) _exit(EXIT_SUCCESS);
    } else if (events[1].revents != 0) {
      [[maybe_unused]] const ssize_t written = write(abort_file, "1", 1);
      _exit(EXIT_SUCCESS);
    }
  }
}

[[noreturn]] void run_child(int end, std::span<char*> arguments) {
  const int socket = fcntl(end, F_DUPFD, STDERR_FILENO + 1);
  sigset_t set;
  sigfillset(&set);
  sigprocmask(SIG_SETMASK, &set, nullptr);
  // At the death of the *thread* that forked: the daemon as a whole may not end.
  prctl(PR_SET_PDEATHSIG, kDied);
  put_on_name(arguments);
  detach(socket);
  sigemptyset(&set);
  sigaddset(&set, kDied);
  const int died = signalfd(-1, &set, SFD_CLOEXEC);
  const char ready = 1;
  if (died < 0 || write(socket, &ready, 1) != 1) _exit(EXIT_FAILURE);
  watch(socket, died);
}

std::unexpected<Failure> cannot_start() {
  return failure(kExitSystem, fmt::format("cannot start the process that watches this one: {}", std::strerror(errno)));
}

// From the control file system where the host has it, or else from one that nobody else sees.
int open_abort_file(const std::string& connection) {
  const std::string name = connection + "/abort";
  int file = open(("/sys/fs/fuse/connections/" + name).c_str(), O_WRONLY | O_CLOEXEC);
  if (file >= 0) return file;
  const int context = fsopen("fusectl", FSOPEN_CLOEXEC);
  if (context < 0) return -1;
  if (fsconfig(context, FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) == 0) {
    const int tree = fsmount(context, FSMOUNT_CLOEXEC, 0);
    if (tree >= 0) {
      file = openat(tree, name.c_str(), O_WRONLY | O_CLOEXEC);
      close(tree);
    }
  }
  close(context);
  return file;
}

bool send_descriptor(int socket, int descriptor) {
  char byte = 1;
  iovec part{&byte, 1};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &descriptor, sizeof(descriptor));
  return sendmsg(socket, &message, MSG_NOSIGNAL) == 1;
}

}  // namespace

Outcome<std::unique_ptr<Watchdog>> Watchdog::start(std::span<char*> arguments) {
  std::array<int, 2> ends{};
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0) return cannot_start();
  const pid_t child = fork();
  if (child < 0) return cannot_start();
  if (child == 0) run_child(ends[1], arguments);
  close(ends[1]);
  std::unique_ptr<Watchdog> made(new Watchdog(ends[0], child));
  char ready = 0;
  if (read(ends[0], &ready, 1) != 1) return cannot_start();
  watch_for_crashes(child);
  return made;
}

Watchdog::~Watchdog() {
  forget_crashes();
  close(socket_);
  while (waitpid(child_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

Outcome<> Watchdog::guard(const std::string& device) {
  const int file = open_abort_file(device.substr(device.find(':') + 1));
  const bool sent = file >= 0 && send_descriptor(socket_, file);
  const int error = errno;
  if (file >= 0) close(file);
  if (sent) return {};
  return failure(kExitSystem, fmt::format("cannot watch this mount's connection: {}; is fusectl mounted on "
                                          "/sys/fs/fuse/connections? If the daemon is killed calls may hang until "
                                          "\"umount -f\"",
                                          std::strerror(error)));
}

}  // namespace cawfs
