// The keeper of a nexus without a slot, as a tool has: what it does counts as long as its key stands. It never
// registers again, for a key that has gone was taken away.
#pragma once

#include "core/runtime/executor.h"
#include "disklock/guarded_device.h"
#include "disklock/reservation.h"

namespace cawfs {

class RegistrationKeeper final : public NexusKeeper {
 public:
  RegistrationKeeper(Registration& registration, Executor& executor)
      : registration_(registration), executor_(executor) {}

  Task<Result<>> regain(bool reset) override;

 private:
  Registration& registration_;
  Executor& executor_;
};

}  // namespace cawfs
