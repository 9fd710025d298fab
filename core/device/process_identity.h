// Names one process of this host, also after its number has been given to another: process number, start time and boot.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>

namespace cawfs {

using BootId = std::array<std::uint8_t, 16>;

// Of the running kernel; all zero where there is none to be had.
BootId current_boot_id();

struct ProcessIdentity {
  pid_t pid = 0;
  std::uint64_t start_time = 0;  // clock ticks since boot (proc(5), stat, field 22)
  BootId boot{};
  friend bool operator==(const ProcessIdentity&, const ProcessIdentity&) = default;
};

ProcessIdentity current_process();

enum class ProcessState : std::uint8_t { kGone, kRunning, kStopped };
ProcessState process_state(const ProcessIdentity& process);

// SIGKILL through a pidfd, so that it reaches this process or none. False: it could not be sent.
bool kill_process(const ProcessIdentity& process);

}  // namespace cawfs
