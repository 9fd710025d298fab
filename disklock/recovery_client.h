// What recovery asks of the journal layer. journal/ implements it.
#pragma once

#include "core/base/error.h"
#include "core/base/types.h"
#include "core/format/cluster_format.h"
#include "core/runtime/task.h"

namespace cawfs {

class RecoveryClient {
 public:
  virtual ~RecoveryClient() = default;

  // Replays the journal of a dead node. It has been fenced: nothing of it lands any more, and its slot record (`dead`,
  // RECOVERING by us) stays as it is until this returns. May be cut at any write and run again, by any node. The caller
  // flushes afterwards. An error leaves the slot RECOVERING; it is tried again. Nothing is under way any more when it
  // returns.
  virtual Task<Result<>> replay(const format::SlotRecord& dead, NodeId dead_node) = 0;
};

}  // namespace cawfs
