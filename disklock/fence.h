// Fencing: makes the device refuse a node's writes and waits until those in flight are done or dead (design §7).
// PREEMPT AND ABORT alone is not one: a command of the victim that waits in the target's backend lands after it. So the
// victim's session is ended where there are sessions, and the LUN is reset, and nothing is believed until the keys read
// back agree.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/types.h"
#include "core/device/device.h"
#include "core/runtime/executor.h"
#include "core/runtime/task.h"
#include "disklock/guarded_device.h"
#include "disklock/reservation.h"

namespace cawfs {

struct FenceVictim {
  PrKey key;
  std::string initiator_name;  // empty: no sessions
  std::uint64_t isid = 0;
};

class Fence {
 public:
  Fence(GuardedDevice& device, Registration& registration, Executor& executor, Log& log)
      : device_(device), registration_(registration), executor_(executor), log_(log) {}

  // Called when a LUN reset was sent, before its answer.
  void set_reset_observer(std::function<void()> observer) { reset_observer_ = std::move(observer); }

  // When it returns ok, no write of the victims lands any more, not even one that was in flight. Goes on through
  // transport errors until the device ends (kFenced, kStopping). Errors: kUnsupported where the device cannot reset.
  Task<Result<>> run(std::vector<FenceVictim> victims);

 private:
  enum class Step : std::uint8_t { kDone, kAgain };
  Task<Result<Step>> attempt(const std::vector<FenceVictim>& victims);
  Task<Result<Step>> preempt(PrKey victim);
  Task<void> evict(const FenceVictim& victim);
  Task<Result<>> reset();

  GuardedDevice& device_;
  Registration& registration_;
  Executor& executor_;
  Log& log_;
  std::function<void()> reset_observer_;
};

}  // namespace cawfs
