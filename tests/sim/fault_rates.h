// Which faults strike a simulated cluster, and how often.
#pragma once

#include <cstdint>

#include "core/runtime/executor.h"

namespace cawfs::sim {

// Mostly chosen by the seed: one with few of them gets further between two. A profile (profile.h) chooses them itself.
struct FaultRates {
  bool crashes = false;
  bool pauses = false;
  bool cut_paths = false;
  bool resets = false;      // LUN resets from outside
  bool power_cuts = false;  // of the whole cluster, or of the target alone
  bool unmounts = false;    // and mounts again
  // One command in so many (0: none) is lost, and in another the reply.
  std::uint64_t lost_caws = 0;
  std::uint64_t lost_others = 0;
  std::uint64_t medium_caws = 0;  // of lock blocks in groups: one in so many is not executed, a medium error
  std::uint64_t odd_caws = 0;     // one CAW in so many miscompares with what it has written, or with nothing
  bool clock_drift = false;       // of up to a tenth
  std::uint32_t stalls = 0;
  bool only_writes_stall = false;  // of file data, metadata and journal
  Duration longest_stall = std::chrono::milliseconds(800);
  bool outages = false;          // everything loses power, now or when the next flush reaches the target
  bool restarts = false;         // of the target
  bool late_heartbeats = false;  // heartbeats of a node are answered late, then its path is cut
  bool one_at_a_time = false;    // no node is cut off or stands still while another one does, and always for long
  bool holds = false;            // what a node sends stays on its way for longer than the dead-time
  bool silences = false;         // of the device towards everybody, for moments and for longer than the dead-time
  bool only_first = false;       // nothing happens to other hosts
  bool near_dead_time = false;   // pauses and cuts end when the node may just be being fenced
  Duration longest_quiet = std::chrono::milliseconds(1500);  // between two strikes
  Duration longest_absence = std::chrono::seconds(6);        // of a node that has crashed
};

}  // namespace cawfs::sim
