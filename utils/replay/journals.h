// What the journals of a file system hold: for `cawfs-replay`.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/random.h"
#include "core/device/device.h"
#include "core/format/cluster_format.h"
#include "core/format/disk_format.h"
#include "core/runtime/executor.h"
#include "core/runtime/task.h"
#include "journal/replay.h"

namespace cawfs {

struct JournalState {
  SlotNo slot;
  format::SlotState state = format::SlotState::kFree;
  Incarnation incarnation;
  std::string host;
  bool local = false;  // of an -o local mount
  bool live = false;   // its node's heartbeat moves: the journal was not looked at
  // Of a journal that is not live: what replay would do, or why it cannot.
  Result<ReplayReport> report;

  bool in_use() const { return state == format::SlotState::kActive || state == format::SlotState::kRecovering; }
  bool needs_replay() const { return in_use() && !live; }
  // Cannot be read, or a node left and said that its journal was empty, which it is not.
  bool damaged() const { return !live && (!report || (!in_use() && !report->empty && report->records > 0)); }
};

// The journals of all slots that have one. Writes nothing. Waits up to the dead-time where nodes seem to be dead.
// Errors: the device's; a slot record or journal that is damaged is reported as its slot's.
Task<Result<std::vector<JournalState>>> look_at_journals(Executor& executor, BlockDevice& device, Random& random,
                                                         Log& messages, const format::Superblock& superblock);

// One line for each: "slot 0  host a  ACTIVE  dead  12 transactions, ...".
std::string print_journals(const std::vector<JournalState>& journals);

}  // namespace cawfs
