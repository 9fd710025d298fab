// Proves, or disproves, that fencing works on a device: a victim with many large writes in flight is fenced, over and
// over, and none of them may land after the fence has returned (design §4 rule 6). Overwrites what it writes to.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/random.h"
#include "core/device/device.h"
#include "core/runtime/executor.h"
#include "core/runtime/task.h"

namespace cawfs {

struct SelfTestOptions {
  std::uint64_t offset = 0;               // of the area that is overwritten, bytes
  std::uint64_t length = 0;               // a multiple of write_bytes
  std::uint32_t write_bytes = 256 << 10;  // of one write
  std::uint32_t in_flight = 32;
  std::uint32_t rounds = 20;
  Duration watch_for = std::chrono::seconds(5);  // after each fence
};

struct SelfTestReport {
  std::uint32_t rounds = 0;
  std::uint64_t writes_before = 0;  // of the victim, answered before it was fenced
  std::uint64_t late_blocks = 0;    // logical blocks that changed after a fence had returned: must be 0
  Duration longest_fence{0};
};

// `fencer` and `victim` are two nexuses of one LUN; nobody else uses it. Both are unregistered at the end. Errors: as
// Registration::establish(), Fence::run() and the device; kUnsupported where both share a registration.
Task<Result<SelfTestReport>> fence_self_test(Executor& executor, BlockDevice& fencer, BlockDevice& victim,
                                             Random& random, Log& log, SelfTestOptions options);

}  // namespace cawfs
