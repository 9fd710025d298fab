// Makes the device this program's own: its key the only one registered, under a reservation that keeps everybody else
// from writing; and proves on the way that the device can do what cawfs needs.
#pragma once

#include <string>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/random.h"
#include "core/device/device.h"
#include "core/runtime/executor.h"
#include "core/runtime/task.h"

namespace cawfs {

enum class OldKeys : bool { kRefuse, kPreempt };

class Claim {
 public:
  // All outlive it.
  Claim(Executor& executor, BlockDevice& device, Random& random, Log& log)
      : executor_(executor), device_(device), random_(random), log_(log) {}

  // Registers a fresh key and reserves the device. Where others' keys or a reservation stand: preempts them all
  // (whoever wakes up later cannot write), or refuses. kUnsupported, kForeignReservation, device errors.
  Task<Result<>> take(OldKeys old_keys);
  // After take() has refused: what stands there, in words; empty where its error says enough.
  const std::string& in_the_way() const { return in_the_way_; }
  // Tries COMPARE AND WRITE and the reservation against `second`, another session; null: there can be none, and less is
  // proved. After take(). Destroys the contents of what will be the scratch block.
  Task<Result<>> prove(BlockDevice* second);
  // For who has made no file system after all: takes key and reservation away again, unless there was a reservation
  // before. After a success both stay, as after the last unmount: a node of what was there before, fenced long ago,
  // that wakes up still cannot write. The first mount replaces the key or sweeps it (design §7, "Leave").
  Task<Result<>> give_up();

 private:
  Task<Result<>> check_capabilities();
  Task<Result<>> reserve();
  Task<void> evict_others();
  Task<Result<>> preempt_others();

  Executor& executor_;
  BlockDevice& device_;
  Random& random_;
  Log& log_;
  PrKey key_;
  Aptpl aptpl_ = Aptpl::kYes;
  bool reserved_before_ = false;
  std::string in_the_way_;
};

}  // namespace cawfs
