#include "core/device/bounded_device.h"

#include <algorithm>

namespace cawfs {

Task<Result<>> BoundedDevice::read(std::uint64_t offset, std::span<std::byte> out) {
  const std::uint64_t bytes = std::min<std::uint64_t>(out.size(), bytes_);
  co_await room_.acquire(bytes);
  const Result<> done = co_await device().read(offset, out);
  room_.release(bytes);
  co_return done;
}

Task<Result<>> BoundedDevice::write(std::uint64_t offset, std::span<const std::byte> data, Durability durability) {
  const std::uint64_t bytes = std::min<std::uint64_t>(data.size(), bytes_);
  co_await room_.acquire(bytes);
  const Result<> done = co_await device().write(offset, data, durability);
  room_.release(bytes);
  co_return done;
}

}  // namespace cawfs
