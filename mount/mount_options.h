// What the user asked for: the words of -o, checked one by one.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "core/runtime/executor.h"
#include "mount/failure.h"

namespace cawfs {

struct MountOptions {
  std::string source;
  std::string directory;  // absolute once checked
  bool foreground = false;
  bool verbose = false;

  unsigned long mount_flags = 0;  // MS_*
  bool read_only = false;
  bool synchronous = false;  // every write as with O_SYNC
  bool no_recovery = false;  // with read_only: joins nothing, replays nothing, writes nothing
  bool local = false;        // one node, no cluster
  bool no_aptpl = false;     // go on where the target does not keep registrations through a power loss
  bool network = false;      // _netdev
  bool discard = false;      // tells the device of freed blocks
  std::string initiator;     // iSCSI initiator name; empty: the host's
  Duration poll_slowest = std::chrono::milliseconds(20);  // of mailboxes, when nothing moves
};

// Adds the comma-separated words of `text`. `sloppy` ignores unknown ones. Refuses a word that is unknown, lacks its
// value or has one that it does not take, by name, with kExitUsage.
Outcome<> parse_option_words(std::string_view text, bool sloppy, MountOptions& options);
// Once all have been added: that they go together.
Outcome<> check_options(const MountOptions& options);

}  // namespace cawfs
