// Fences a slot's node from outside the cluster, as an administrator who cannot wait, or whose nodes are all gone.
#pragma once

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/random.h"
#include "core/base/types.h"
#include "core/device/device.h"
#include "core/runtime/executor.h"
#include "core/runtime/task.h"

namespace cawfs {

enum class FenceForce : bool { kNo, kYes };

// The node's writes are refused when this returns, and its slot is RECOVERING, fenced: the next node that looks, or the
// next mount, replays its journal. Another node may have been faster: then it is recovering the slot or has done so.
// Waits for up to the dead-time to see whether the node lives. Errors: kNotFound (no node in that slot), kLive (it
// lives, and no force was asked for), kAgain (the slot changed meanwhile), those of read_superblock(),
// Registration::establish(), Fence::run() and the device.
Task<Result<>> fence_slot(Executor& executor, BlockDevice& device, Random& random, Log& log, SlotNo slot,
                          FenceForce force);

}  // namespace cawfs
