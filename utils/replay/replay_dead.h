// Replays dead nodes' journals as a member of the cluster: joins, so that the device accepts our writes and the others
// know of us, fences and recovers the dead, and leaves.
#pragma once

#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/random.h"
#include "core/base/types.h"
#include "core/device/device.h"
#include "core/format/disk_format.h"
#include "core/runtime/executor.h"
#include "core/runtime/task.h"

namespace cawfs {

struct ReplayDeadParts {
  Executor& executor;
  BlockDevice& device;  // nobody else uses it meanwhile
  Random& random;
  Log& messages;
  std::string host_name;
};

// Returns once none of `dead` is that node any more; other dead nodes may have been recovered on the way. Each is
// judged again by its heartbeat, so it takes the dead-time and more; one that lives after all is waited for. One that
// cannot be recovered is tried once and holds up no other. Errors: those of joining (ClusterMember::join), of the first
// recovery that failed, and the device's; kFenced if this node was fenced itself.
Task<Result<>> replay_dead(ReplayDeadParts parts, const format::Superblock& superblock, std::vector<NodeId> dead);

}  // namespace cawfs
