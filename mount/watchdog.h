// Sees to it that nobody waits for a daemon that has died. Where the kernel drops pages for the daemon, a thread of it
// waits, beyond the reach of any signal, for READs and SETATTRs that the daemon has not answered. A daemon killed just
// then stays as a zombie whose descriptor of /dev/fuse is open still, and the host's calls would hang rather than fail
// with ENOTCONN.
//
// So a small process of its own, `cawfs-watchdog`, a child of the daemon, waits for the end of the daemon's main thread
// and aborts the FUSE connection. It has the connection's `abort` file open, which is that connection's for ever,
// whatever comes to have its number later, and in whatever mount namespace the mount point lies; it has no descriptor
// of /dev/fuse. It ends when the daemon closes its end of a socket, so at the latest with the daemon's descriptors.
#pragma once

#include <sys/types.h>

#include <memory>
#include <span>
#include <string>

#include "mount/failure.h"

namespace cawfs {

class Watchdog {
 public:
  // From the main thread, before there are others and before anything is opened. `arguments` are main()'s: the child
  // shows a name of its own in their place. kExitSystem.
  static Outcome<std::unique_ptr<Watchdog>> start(std::span<char*> arguments);
  Watchdog(const Watchdog&) = delete;
  ~Watchdog();

  // `device` is the mount's number, as in mounted_device(). kExitSystem: the connection is not watched.
  Outcome<> guard(const std::string& device);

 private:
  Watchdog(int socket, pid_t child) : socket_(socket), child_(child) {}

  int socket_;
  pid_t child_;
};

}  // namespace cawfs
