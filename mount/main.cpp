// mount.cawfs SOURCE DIR [-f] [-o OPTIONS]
#include <sys/mman.h>
#include <sys/prctl.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "mount/background.h"
#include "mount/command_line.h"
#include "mount/daemon_log.h"
#include "mount/mount_session.h"
#include "mount/watchdog.h"

namespace {

using namespace cawfs;

// Why prctl(PR_SET_IO_FLUSHER) failed, and what to do about it.
const char* io_flusher_remedy(int error) {
  switch (error) {
    case EPERM:
      return "it lacks the capability CAP_SYS_RESOURCE; give it that, in the first user namespace (for a container: "
             "docker run --cap-add SYS_RESOURCE)";
    case EINVAL:
      return "this takes Linux 5.6 or newer";
    default:
      return std::strerror(error);
  }
}

// The kernel may want memory back by writing to this very file system: the daemon must neither be paged out nor wait
// for such a write-back itself.
void prepare_memory(Log& log) {
  if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0) {
    log.warning(
        "cannot lock the daemon in memory: {}; it needs the capability CAP_IPC_LOCK. Until then a host that swaps "
        "may miss its heartbeats and be fenced",
        std::strerror(errno));
  }
  if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) != 0) {
    log.warning(
        "cannot mark the daemon as an I/O flusher: {}. Until then a host that runs out of memory may wait for "
        "this mount while this mount waits for memory",
        io_flusher_remedy(errno));
  }
}

int complain(const Failure& failure) {
  std::fprintf(stderr, "mount.cawfs: %s\n", failure.message.c_str());
  return failure.exit_code;
}

int run(int argc, char** argv) {
  auto line = parse_command_line(argc, argv);
  if (!line) return complain(line.error());
  if (!line->message.empty()) {
    std::fputs(line->message.c_str(), stdout);
    return 0;
  }
  const MountOptions& options = line->options;
  Background background(options.foreground);
  auto watchdog = Watchdog::start({argv, static_cast<std::size_t>(argc)});
  if (!watchdog) return complain(watchdog.error());
  DaemonLog log(options.verbose ? LogLevel::kDebug : LogLevel::kInfo);
  prepare_memory(log);
  auto reactor = Reactor::make();
  if (!reactor)
    return complain({kExitSystem,
                     "the kernel has no io_uring (Linux 5.11 or newer), or it is disabled: see "
                     "sysctl kernel.io_uring_disabled"});
  MountSession session(**reactor, log, options, **watchdog);
  bool is_mounted = false;
  auto outcome = (*reactor)->run(session.run([&] {
    is_mounted = true;
    background.mounted();
    if (!options.foreground) log.use_system_log();
  }));
  if (outcome) return 0;
  if (!is_mounted || options.foreground) return complain(outcome.error());
  log.error("{}", outcome.error().message);
  return outcome.error().exit_code;
}

}  // namespace

int main(int argc, char** argv) {
  return run(argc, argv);
}
