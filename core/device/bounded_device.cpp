#include "core/device/bounded_device.h"

#include <algorithm>

namespace cawfs {

namespace {

constexpr std::uint64_t kFraction = 16;

}  // namespace

Task<Result<>> BoundedDevice::read(std::uint64_t offset, std::span<std::byte> out) {
  co_await enter(out.size());
  const Time issued = executor_.now();
  const Result<> done = co_await device().read(offset, out);
  leave(out.size(), issued);
  co_return done;
}

Task<Result<>> BoundedDevice::write(std::uint64_t offset, std::span<const std::byte> data, Durability durability) {
  co_await enter(data.size());
  const Time issued = executor_.now();
  const Result<> done = co_await device().write(offset, data, durability);
  leave(data.size(), issued);
  co_return done;
}

Task<void> BoundedDevice::enter(std::uint64_t bytes) {
  co_await turn_.acquire();
  while (in_flight_ > 0 && in_flight_ + bytes > bound_) co_await room_.wait();
  in_flight_ += bytes;
  turn_.release();
}

void BoundedDevice::leave(std::uint64_t bytes, Time issued) {
  in_flight_ -= bytes;
  room_.notify_one();
  const Time now = executor_.now();
  if (now - issued <= patience_) {
    bound_ = std::min(bound_ + bytes / kFraction, most_);
  } else if (issued >= halved_) {  // one from before tells of the bound that was
    bound_ = std::max(bound_ / 2, most_ / kFraction);
    halved_ = now;
  }
}

}  // namespace cawfs
