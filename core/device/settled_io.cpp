#include "core/device/settled_io.h"

#include <algorithm>

namespace cawfs {

namespace {

constexpr Duration kFirstDelay = std::chrono::milliseconds(1);
constexpr Duration kLongestDelay = std::chrono::seconds(1);

bool settled(const Error& error) {
  switch (error.code) {
    case Errc::kTransport:
    case Errc::kUnitAttentionReset:
    case Errc::kUnitAttentionReservations:
    case Errc::kUnitAttentionOther:
    case Errc::kLeaseLapsed:
    case Errc::kAgain:
      return false;
    default:
      return true;
  }
}

}  // namespace

Task<Result<>> SettledIo::next_attempt(Error error, Duration& delay) {
  if (settled(error)) co_return fail(error);
  co_await stop_.sleep(delay);
  if (stop_.requested()) co_return fail(Errc::kStopping, error.where, error.address);
  delay = std::min(delay * 2, kLongestDelay);
  co_return Result<>{};
}

Task<Result<>> SettledIo::read(std::uint64_t offset, std::span<std::byte> out) {
  Duration delay = kFirstDelay;
  while (true) {
    const auto done = co_await device_.read(offset, out);
    if (done) co_return done;
    const auto again = co_await next_attempt(done.error(), delay);
    if (!again) co_return again;
  }
}

Task<Result<>> SettledIo::write(std::uint64_t offset, std::span<const std::byte> data, Durability durability) {
  Duration delay = kFirstDelay;
  while (true) {
    if (stop_.requested()) co_return fail(Errc::kStopping, "write", offset);
    const auto done = co_await device_.write(offset, data, durability);
    if (done) co_return done;
    const auto again = co_await next_attempt(done.error(), delay);
    if (!again) co_return again;
  }
}

Task<void> SettledIo::write_one(Write write, Durability durability, Result<>& result) {
  const auto done = co_await this->write(write.offset, write.data, durability);
  if (!done && result) result = done;
}

Task<Result<>> SettledIo::write_all(std::vector<Write> writes, Durability durability) {
  Result<> result;
  if (writes.empty()) co_return result;
  if (writes.size() == 1) {
    result = co_await write(writes[0].offset, writes[0].data, durability);
    co_return result;
  }
  TaskGroup group(executor_);
  for (const Write& one : writes) group.spawn(write_one(one, durability, result));
  co_await group.join();
  co_return result;
}

Task<Result<>> SettledIo::flush() {
  Duration delay = kFirstDelay;
  while (true) {
    const auto done = co_await device_.flush();
    if (done) co_return done;
    const auto again = co_await next_attempt(done.error(), delay);
    if (!again) co_return again;
  }
}

}  // namespace cawfs
