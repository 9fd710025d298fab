// Fencing: makes the device refuse a node's writes and waits until those in flight are done or dead (design §7).
//
//   evict    ends the victim's session, and with it every COMPARE AND WRITE that it decided on before this: they have
//            run, or will never be sent. On LIO one that arrived after the next step, and was refused, would break
//            COMPARE AND WRITE for all (see BlockDevice::session()). On a session begun later the victim sends none,
//            because it reads its slot record first, and that says RECOVERING.
//   preempt  PREEMPT AND ABORT: from here nothing new of the victim is accepted. It is no fence alone: a command that
//            waits in the target's backend lands after it.
//   evict    again, for the victim may have been back in between, and written. The login is answered when its last
//            command has ended.
//   reset    the LUN, where there are no sessions or the login was refused. Not otherwise: it gives every survivor a
//            unit attention, and a survivor's next command may be a COMPARE AND WRITE.
//   look     nothing is believed until the keys read back agree.
//
// docs/design.md, "No refused COMPARE AND WRITE", has the whole argument.
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
  // Ends the sessions of those who have registered `key`, as well as it goes: before a preemption without a slot
  // record.
  Task<void> evict_holders(PrKey key);

 private:
  enum class Step : std::uint8_t { kDone, kAgain };
  Task<Result<Step>> attempt(const std::vector<FenceVictim>& victims);
  Task<Result<Step>> preempt(PrKey victim);
  // Has every command of the victim's session ended?
  Task<bool> evict(const FenceVictim& victim);
  bool is_self(const std::string& initiator_name, std::uint64_t isid) const;
  Task<Result<>> reset();

  GuardedDevice& device_;
  Registration& registration_;
  Executor& executor_;
  Log& log_;
  std::function<void()> reset_observer_;
};

}  // namespace cawfs
