// Replay of a dead node's journal: its committed changes go in place, as far as they still count.
//
// The node has been fenced, nothing of it lands any more, and its locks stay as they are: nobody takes an entry whose
// owner is RECOVERING. Replay reads the log, and applies the newest image of each block
// - unless a later or the same transaction has freed the block (a revoke), and
// - only if the block's lock entry still says EX by the dead node with the generation of the record. A lock that was
// let
//   go was written in place first, and others may have changed the block since.
// A journal of an -o local mount names no entries: there all records count.
//
// May be cut at any write and run again: it writes what was committed, and empties the journal only once that is
// durable.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/random.h"
#include "core/device/device.h"
#include "core/format/geometry.h"
#include "core/runtime/executor.h"
#include "core/runtime/task.h"
#include "disklock/recovery_client.h"
#include "journal/record.h"

namespace cawfs {

struct ReplayParts {
  Executor& executor;
  BlockDevice& device;
  const Geometry& geometry;
  Random& random;
  Log& messages;
};

struct ReplayReport {
  bool empty = false;  // the journal is nobody's
  std::uint64_t first_sequence = 0;
  std::uint64_t records = 0;
  std::uint32_t ring_blocks = 0;
  std::uint32_t used_blocks = 0;
  std::uint64_t images = 0;   // in all records
  std::uint64_t blocks = 0;   // distinct ones
  std::uint64_t revoked = 0;  // of these: freed later,
  std::uint64_t stale = 0;    // their lock was let go,
  std::uint64_t applied = 0;  // written in place (or to be)
};

enum class ReplayMode : std::uint8_t {
  kDryRun,  // reads only
  kReplay,  // writes, flushes and empties the journal
};

// Errors: those of the device; kBadMagic, kBadChecksum, kBadIdentity, kBadValue where the journal, or a lock block it
// names, holds what no cawfs writes. Nothing is written unless all of the log is good.
Task<Result<ReplayReport>> replay_journal(ReplayParts parts, JournalPlace place, ReplayMode mode);

// The journal of a slot, from its record. `node` is the dead one. kBadValue where the record's extents cannot be.
Result<JournalPlace> journal_place(const format::SlotRecord& record, NodeId node, const Geometry& geometry);

// What recovery asks of the journal layer.
class JournalRecovery final : public RecoveryClient {
 public:
  // All parts outlive it.
  explicit JournalRecovery(ReplayParts parts) : parts_(parts) {}
  Task<Result<>> replay(const format::SlotRecord& dead, NodeId dead_node) override;

 private:
  ReplayParts parts_;
};

}  // namespace cawfs
