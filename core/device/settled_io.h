// Device I/O whose outcome is settled before it returns (design §4 rule 5): a write or flush of unknown outcome, or one
// that a unit attention or a lapsed lease kept from running, is issued again, byte for byte, until the device answers.
// So an error returned here is final: the medium's, a fence, or kStopping once `stop` asks for it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/base/error.h"
#include "core/device/device.h"
#include "core/runtime/task_group.h"

namespace cawfs {

class SettledIo {
 public:
  // All outlive it. `stop` ends the wait between two attempts, never an attempt; no write begins once it is requested.
  SettledIo(Executor& executor, BlockDevice& device, StopSource& stop)
      : executor_(executor), device_(device), stop_(stop) {}

  Task<Result<>> read(std::uint64_t offset, std::span<std::byte> out);
  // `data` outlives the call.
  Task<Result<>> write(std::uint64_t offset, std::span<const std::byte> data, Durability durability);
  Task<Result<>> flush();

  struct Write {
    std::uint64_t offset = 0;  // on the device
    std::span<const std::byte> data;
  };
  // All of them at once; ends when the last has ended, with the first error.
  Task<Result<>> write_all(std::vector<Write> writes, Durability durability);

  Executor& executor() const { return executor_; }
  BlockDevice& device() const { return device_; }

 private:
  // Waits before the attempt after `error`, or says that there is none.
  Task<Result<>> next_attempt(Error error, Duration& delay);
  Task<void> write_one(Write write, Durability durability, Result<>& result);

  Executor& executor_;
  BlockDevice& device_;
  StopSource& stop_;
};

}  // namespace cawfs
