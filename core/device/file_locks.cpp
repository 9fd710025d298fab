#include "core/device/file_locks.h"

#include <algorithm>
#include <optional>

namespace cawfs {
namespace {

using std::chrono::microseconds;
using std::chrono::seconds;

constexpr std::int64_t kLockBase = std::int64_t{1} << 62;
constexpr std::int64_t kIndexBytes = kLockBase;
constexpr std::int64_t kAliveBytes = kLockBase + 1024;
constexpr std::int64_t kWriteBytes = kLockBase + 2048;
constexpr std::int64_t kMarkSpacing = 1024;  // more than the longest lock
constexpr std::int64_t kFirstMark = kLockBase + (1 << 20);
static_assert(kMaxFileOpeners <= 512);

constexpr Duration kShortestBackoff = microseconds(20);
constexpr Duration kLongestBackoff = microseconds(2000);
constexpr Duration kStoppedPatience = seconds(1);
constexpr Duration kFencedPatience = seconds(5);

std::int64_t signed_index(std::size_t index) {
  return static_cast<std::int64_t>(index);
}

}  // namespace

LockRange index_lock(std::size_t index) {
  return {.start = kIndexBytes + signed_index(index), .length = 1};
}

LockRange alive_lock(std::size_t index) {
  return {.start = kAliveBytes + signed_index(index), .length = 1};
}

LockRange alive_locks() {
  return {.start = kAliveBytes, .length = kMaxFileOpeners};
}

LockRange write_lock(std::size_t index, FileChannel channel) {
  return {.start = kWriteBytes + 2 * signed_index(index) + (channel == FileChannel::kFua ? 1 : 0), .length = 1};
}

LockRange write_locks(std::size_t index) {
  return {.start = kWriteBytes + 2 * signed_index(index), .length = 2};
}

LockRange Mark::as_held_by(std::size_t index) const {
  return {.start = byte - signed_index(index), .length = signed_index(index) + 1};
}

Mark compare_and_write_mark(std::uint64_t logical_block_number) {
  const auto mark = static_cast<std::int64_t>(logical_block_number % kCompareAndWriteMarks);
  return {.byte = kFirstMark + (mark + 1) * kMarkSpacing};
}

Mark sidecar_mark() {
  return {.byte = kFirstMark};
}

Task<void> FileLocks::back_off(Duration& backoff) {
  const auto bound = static_cast<std::uint64_t>(backoff.count());
  const Duration pause(static_cast<std::int64_t>(bound / 2 + random_.below(bound / 2)));
  backoff = std::min(2 * backoff, kLongestBackoff);
  co_await reactor_.executor().sleep(pause);
}

Task<ProcessState> FileLocks::state_of(std::size_t index) {
  ProcessState state = ProcessState::kGone;
  co_await reactor_.run_blocking([&] {
    const auto opener = sidecar_.read_opener(index);
    if (opener) state = process_state(opener->process);
  });
  co_return state;
}

Task<void> FileLocks::kill(std::size_t index, const char* reason) {
  std::optional<SidecarOpener> opener;
  bool killed = false;
  co_await reactor_.run_blocking([&] {
    opener = sidecar_.read_opener(index);
    // Another device of this very process ends by itself.
    if (opener && opener->process != current_process()) killed = kill_process(opener->process);
  });
  if (killed) log_.warning("killed process {} ({}): {}", opener->process.pid, opener->nexus, reason);
}

Task<Result<>> FileLocks::acquire(const FileHandle& file, Mark mark, std::size_t index) {
  Executor& executor = reactor_.executor();
  const Time start = executor.now();
  Duration backoff = kShortestBackoff;
  std::optional<std::size_t> holder;  // the same one since `held_since`
  Time held_since = start;
  while (true) {
    const auto locked = file.try_lock(mark.as_held_by(index));
    if (!locked) co_return fail(locked.error());
    if (*locked) co_return Result<>();

    const auto conflict = file.conflicting_lock(mark.as_held_by(index));
    if (!conflict) co_return fail(conflict.error());
    const Time now = executor.now();
    if (*conflict && (!holder || *holder != mark.holder(**conflict))) {
      holder = mark.holder(**conflict);
      held_since = now;
    }
    if (now - start > timeout_) co_return fail(Errc::kTransport, "a lock of the file LUN stays held");
    if (holder && now - held_since > kStoppedPatience) {
      const ProcessState state = co_await state_of(*holder);
      if (state == ProcessState::kStopped) co_await kill(*holder, "it is stopped, and holds a lock that all need");
      held_since = executor.now();
    }
    co_await back_off(backoff);
  }
}

void FileLocks::release(const FileHandle& file, Mark mark, std::size_t index) const {
  file.unlock(mark.as_held_by(index));
}

Task<Result<>> FileLocks::drain(const FileHandle& file, std::vector<FileVictim> victims) {
  for (const FileVictim& victim : victims) {
    auto drained = co_await drain_one(file, victim);
    if (!drained) co_return drained;
  }
  co_return Result<>();
}

Task<Result<>> FileLocks::drain_one(const FileHandle& file, FileVictim victim) {
  Executor& executor = reactor_.executor();
  const Time start = executor.now();
  Duration backoff = kShortestBackoff;
  Time look_again = start + kStoppedPatience;
  while (true) {
    const auto in_flight = file.conflicting_lock(write_locks(victim.index));
    if (!in_flight) co_return fail(in_flight.error());
    if (!*in_flight) co_return Result<>();

    const Time now = executor.now();
    if (now > look_again) {
      if (!victim.fenced) co_return Result<>();
      if (now - start > timeout_) co_return fail(Errc::kTransport, "a fenced process does not die", victim.index);
      const ProcessState state = co_await state_of(victim.index);
      const bool kill_it = state == ProcessState::kStopped || now - start > kFencedPatience;
      if (kill_it) co_await kill(victim.index, "it was fenced with a write in flight");
      look_again = executor.now() + microseconds(100'000);
    }
    co_await back_off(backoff);
  }
}

}  // namespace cawfs
