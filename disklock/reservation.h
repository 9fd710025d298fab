// This node's registration and the reservation: type 7, Write Exclusive - All Registrants, under which the device takes
// writes from registered nodes only (design §7). Type 5 is for a later version.
#pragma once

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/random.h"
#include "core/base/types.h"
#include "core/device/device.h"
#include "core/runtime/executor.h"
#include "core/runtime/task.h"

namespace cawfs {

inline constexpr ReservationType kReservationType = ReservationType::kWriteExclusiveAllRegistrants;

// Errors after which the same request may succeed: transport errors and unit attentions.
bool is_passing_error(Errc code);
bool contains(const RegisteredKeys& keys, PrKey key);

class Registration {
 public:
  // `raw`, the device underneath `device`, is for unregistering when `device` has ended.
  Registration(BlockDevice& raw, BlockDevice& device, Executor& executor, Random& random, Log& log, Aptpl aptpl)
      : raw_(raw), device_(device), executor_(executor), random_(random), log_(log), aptpl_(aptpl) {}

  PrKey key() const { return key_; }
  // From establish() to drop().
  bool registered() const { return registered_; }

  // Sees that the device can do it, registers a fresh random key, makes the reservation. kUnsupported (with a line in
  // the log saying what is missing), kForeignReservation (naming its holder), device errors after `patience`: the key
  // may be registered then.
  Task<Result<>> establish(Duration patience);

  enum class State : std::uint8_t { kIntact, kKeyMissing, kReservationMissing };
  // Asks once.
  Task<Result<State>> look();
  // Registers the same key again if it is missing and makes the reservation; tries once. Says what it found first:
  // kKeyMissing as long as registered_again(), for a REGISTER whose reply was lost hides that the key had gone.
  Task<Result<State>> restore();
  // A missing key may have been registered again since slot_seen(): if somebody has claimed the slot by now, he may
  // have taken it away.
  bool registered_again() const { return registered_again_; }
  // The slot was read, after a restore() that succeeded, and stands.
  void slot_seen() { registered_again_ = false; }
  Task<Result<RegisteredKeys>> read_keys() { return device_.pr_read_keys(); }

  // Unregisters, as well as it goes; a key left behind is swept by others. With the last key the reservation ends.
  Task<void> drop();

 private:
  Task<Result<>> check_capabilities();
  Task<Result<>> make_reservation();
  Error foreign(const ReservationState& state) const;

  BlockDevice& raw_;
  BlockDevice& device_;
  Executor& executor_;
  Random& random_;
  Log& log_;
  Aptpl aptpl_;
  PrKey key_;
  bool registered_ = false;
  bool registered_again_ = false;
};

}  // namespace cawfs
