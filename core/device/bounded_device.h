// Bounds how many bytes are on their way to and from a device at once, so that who uses the device beside this one,
// the heartbeat most of all, waits behind no more than those.
#pragma once

#include <cstdint>
#include <span>

#include "core/device/forwarding_device.h"
#include "core/runtime/executor.h"
#include "core/runtime/sync.h"

namespace cawfs {

// Reads and writes wait their turn, first come, first served, until there is room for them; one that is larger than
// the bound goes alone. All else passes at once: a flush, a discard or a COMPARE AND WRITE carries next to nothing.
class BoundedDevice final : public ForwardingDevice {
 public:
  // `device` and `executor` outlive it, and so does whoever waits here.
  BoundedDevice(BlockDevice& device, Executor& executor, std::uint64_t bytes)
      : ForwardingDevice(device), bytes_(bytes), room_(executor, bytes) {}

  Task<Result<>> read(std::uint64_t offset, std::span<std::byte> out) override;
  Task<Result<>> write(std::uint64_t offset, std::span<const std::byte> data, Durability durability) override;

 private:
  const std::uint64_t bytes_;
  Semaphore room_;  // in bytes
};

}  // namespace cawfs
