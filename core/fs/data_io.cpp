#include "core/fs/data_io.h"

#include <algorithm>

namespace cawfs {

namespace {

constexpr Duration kFirstDelay = std::chrono::milliseconds(1);
constexpr Duration kLongestDelay = std::chrono::seconds(1);

bool is_final(Errc code) {
  switch (code) {
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

Task<Result<>> DataIo::next_attempt(Error error, Duration& delay) {
  if (is_final(error.code)) co_return fail(error);
  co_await stop_.sleep(delay);
  if (stop_.requested()) co_return fail(Errc::kStopping, error.where, error.address);
  delay = std::min(delay * 2, kLongestDelay);
  co_return Result<>{};
}

Task<Result<>> DataIo::read(std::uint64_t offset, std::span<std::byte> out) {
  Duration delay = kFirstDelay;
  for (;;) {
    auto done = co_await device_.read(offset, out);
    if (done) co_return done;
    auto again = co_await next_attempt(done.error(), delay);
    if (!again) co_return again;
  }
}

Task<Result<>> DataIo::write(std::uint64_t offset, std::span<const std::byte> data) {
  Duration delay = kFirstDelay;
  for (;;) {
    auto done = co_await device_.write(offset, data, Durability::kCached);
    if (done) co_return done;
    auto again = co_await next_attempt(done.error(), delay);
    if (!again) co_return again;
  }
}

Task<void> DataIo::write_one(Write write, Result<>& result) {
  auto done = co_await this->write(write.offset, write.data);
  if (!done && result) result = done;
}

Task<Result<>> DataIo::write_all(std::vector<Write> writes) {
  Result<> result;
  if (writes.empty()) co_return result;
  if (writes.size() == 1) {
    result = co_await write(writes[0].offset, writes[0].data);
    co_return result;
  }
  TaskGroup group(executor_);
  for (const Write& one : writes) group.spawn(write_one(one, result));
  co_await group.join();
  co_return result;
}

}  // namespace cawfs
