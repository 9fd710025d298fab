// What the LUN itself says about a file system and its nodes; reads only, joins nothing.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/base/types.h"
#include "core/device/device.h"
#include "core/format/cluster_format.h"
#include "core/format/disk_format.h"
#include "core/runtime/executor.h"
#include "core/runtime/task.h"

namespace cawfs {

struct NodeStatus {
  SlotNo slot;
  format::SlotState state = format::SlotState::kFree;
  std::uint8_t flags = 0;
  Incarnation incarnation;
  std::string host;
  std::string initiator;
  PrKey key;
  bool key_registered = false;
  std::string recoverer;  // RECOVERING: by whom
  bool damaged = false;   // the record does not verify; nothing else is known

  // Of a node that is ACTIVE.
  bool heartbeat_moves = false;
  double silent_seconds = 0;  // at least, where it does not move
  std::uint64_t locks_held = 0;
  std::uint64_t dirty_bytes = 0;
  std::uint64_t operations = 0;
  std::uint32_t journal_blocks = 0;
  std::uint32_t journal_used = 0;
};

struct ClusterStatus {
  format::Superblock superblock;
  std::uint64_t total_bytes = 0;
  std::optional<std::uint64_t> free_bytes;  // none where a group's header could not be read
  std::string reservation;                  // "type 7", "none" or why it is not known
  std::vector<PrKey> keys;
  std::vector<PrKey> stray_keys;  // stand in no slot record
  std::vector<NodeStatus> nodes;  // slots that are not FREE
};

// Watches the heartbeats for up to two intervals of the file system. Errors: those of read_superblock() and of reading.
Task<Result<ClusterStatus>> read_cluster_status(Executor& executor, BlockDevice& device);

const char* state_name(format::SlotState state);
std::string status_text(const ClusterStatus& status);
std::string status_json(const ClusterStatus& status);

}  // namespace cawfs
