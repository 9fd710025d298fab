// Bounds how many bytes are on their way to and from a device at once, so that who uses the device beside this one,
// the heartbeat most of all, waits behind no more than the device does in a short time.
#pragma once

#include <cstdint>
#include <span>

#include "core/device/forwarding_device.h"
#include "core/runtime/executor.h"
#include "core/runtime/sync.h"

namespace cawfs {

// Reads and writes wait their turn, first come, first served, until there is room for them; one that is larger than
// the bound goes alone. All else passes at once: a flush, a discard or a COMPARE AND WRITE carries next to nothing.
//
// The bound follows the device, as TCP's congestion window follows the network (RFC 5681): a request that takes longer
// than `patience` halves it, down to `most` / 16; each quick one raises it by a sixteenth of its bytes, up to `most`.
class BoundedDevice final : public ForwardingDevice {
 public:
  // `device` and `executor` outlive it, and so does whoever waits here. `most` is in bytes.
  BoundedDevice(BlockDevice& device, Executor& executor, std::uint64_t most, Duration patience)
      : ForwardingDevice(device),
        executor_(executor),
        most_(most),
        patience_(patience),
        bound_(most),
        turn_(executor, 1),
        room_(executor) {}

  Task<Result<>> read(std::uint64_t offset, std::span<std::byte> out) override;
  Task<Result<>> write(std::uint64_t offset, std::span<const std::byte> data, Durability durability) override;

  std::uint64_t bound() const { return bound_; }

 private:
  Task<void> enter(std::uint64_t bytes);
  void leave(std::uint64_t bytes, Time issued);

  Executor& executor_;
  const std::uint64_t most_;
  const Duration patience_;
  std::uint64_t bound_;
  std::uint64_t in_flight_ = 0;  // bytes
  Time halved_{};
  Semaphore turn_;  // to wait for room
  Condition room_;
};

}  // namespace cawfs
