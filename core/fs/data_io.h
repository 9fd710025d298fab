// File data's way to the device and back. A request whose outcome is unknown, or that a unit attention kept from
// running, is issued again until the device answers (design §4 rule 5): so that nothing of it is still to land when it
// returns, and an error returned is final.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/base/error.h"
#include "core/device/device.h"
#include "core/runtime/task_group.h"

namespace cawfs {

class DataIo {
 public:
  // All outlive it. `stop` ends the wait between two attempts, never an attempt.
  DataIo(Executor& executor, BlockDevice& device, StopSource& stop)
      : executor_(executor), device_(device), stop_(stop) {}

  Task<Result<>> read(std::uint64_t offset, std::span<std::byte> out);
  // Cached: whoever needs it durable flushes.
  Task<Result<>> write(std::uint64_t offset, std::span<const std::byte> data);

  struct Write {
    std::uint64_t offset = 0;  // on the device
    std::span<const std::byte> data;
  };
  // All of them at once; ends when the last has ended, with the first error.
  Task<Result<>> write_all(std::vector<Write> writes);

 private:
  Task<Result<>> next_attempt(Error error, Duration& delay);
  Task<void> write_one(Write write, Result<>& result);

  Executor& executor_;
  BlockDevice& device_;
  StopSource& stop_;
};

}  // namespace cawfs
