#include "core/device/probe.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "core/device/io_buffer.h"
#include "core/runtime/task_group.h"

namespace cawfs {
namespace {

constexpr std::uint32_t kCountsPerSession = 64;
constexpr std::uint32_t kMostTries = 100 * kCountsPerSession;

// The scratch block is an array of lanes; each racer counts in one of its own, so that racers of other nodes do no
// harm but to make the race harder.
struct Lane {
  std::uint64_t nonce;
  std::uint64_t count;
};
constexpr std::uint64_t kLanes = 512 / sizeof(Lane);

bool is_attention(const Result<>& done) {
  if (done) return false;
  const Errc code = done.error().code;
  return code == Errc::kUnitAttentionReset || code == Errc::kUnitAttentionReservations ||
         code == Errc::kUnitAttentionOther;
}

constexpr int kMostAttentions = 8;

// Unit attentions tell of what was before, to a request that was not executed. (Not for COMPARE AND WRITE: that is sent
// only where no unit attention can wait any more.)
template <class Request>
Task<Result<>> past_attentions(Request request) {
  Result<> done = co_await request();
  for (int i = 0; i < kMostAttentions && is_attention(done); ++i) done = co_await request();
  co_return done;
}

Task<Result<>> read_again(BlockDevice& device, std::uint64_t offset, std::span<std::byte> out) {
  return past_attentions([=, &device] { return device.read(offset, out); });
}

class Racer {
 public:
  Racer(BlockDevice& device, Random& random, std::uint64_t scratch, std::uint64_t lane)
      : device_(device),
        scratch_(scratch),
        lane_(lane),
        nonce_(random.next()),
        image_(device.facts().logical_block),
        next_(device.facts().logical_block) {}

  Task<void> run() { outcome_ = co_await race(); }
  const Result<>& outcome() const { return outcome_; }
  // Is the lane as this racer has left it?
  bool kept(std::span<const std::byte> block) const {
    const Lane lane = load(block);
    return lane.nonce == nonce_ && lane.count == count_;
  }
  // Did somebody else take the lane?
  bool taken(std::span<const std::byte> block) const { return load(block).nonce != nonce_; }

 private:
  Lane load(std::span<const std::byte> block) const {
    Lane lane;
    std::memcpy(&lane, block.data() + lane_ * sizeof(Lane), sizeof(lane));
    return lane;
  }

  Task<Result<>> race() {
    const Result<> first = co_await read_again(device_, scratch_, image_.bytes());
    if (!first) co_return first;
    for (std::uint32_t tries = 0; count_ < kCountsPerSession; ++tries) {
      if (tries == kMostTries) co_return fail(Errc::kUnsupported, "COMPARE AND WRITE never succeeds");
      const Lane lane{nonce_, count_ + 1};
      std::memcpy(next_.data(), image_.data(), image_.size());
      std::memcpy(next_.data() + lane_ * sizeof(Lane), &lane, sizeof(lane));
      const Result<> done = co_await device_.compare_and_write(scratch_, image_.bytes(), next_.bytes());
      if (done) {
        ++count_;
        std::memcpy(image_.data(), next_.data(), image_.size());
        continue;
      }
      if (done.error().code != Errc::kMiscompare) co_return done;
      const Result<> fresh = co_await read_again(device_, scratch_, image_.bytes());
      if (!fresh) co_return fresh;
      if (count_ > 0 && !kept(image_.bytes())) break;  // lost: the judge finds out why
    }
    co_return Result<>{};
  }

  BlockDevice& device_;
  std::uint64_t scratch_;
  std::uint64_t lane_;
  std::uint64_t nonce_;
  std::uint64_t count_ = 0;
  IoBuffer image_;
  IoBuffer next_;
  Result<> outcome_;
};

// A COMPARE AND WRITE that expects other bytes than there are changes nothing and says so.
Task<Result<>> probe_miscompare(BlockDevice& device, Random& random, std::uint64_t scratch) {
  IoBuffer expected(device.facts().logical_block);
  IoBuffer data(device.facts().logical_block);
  const std::array values{random.next(), random.next()};
  std::memcpy(expected.data(), &values[0], sizeof(values[0]));
  std::memcpy(data.data(), &values[1], sizeof(values[1]));
  const Result<> done = co_await device.compare_and_write(scratch, expected.bytes(), data.bytes());
  if (done) co_return fail(Errc::kUnsupported, "COMPARE AND WRITE does not compare");
  if (done.error().code != Errc::kMiscompare) co_return done;
  const Result<> looked = co_await read_again(device, scratch, expected.bytes());
  if (!looked) co_return looked;
  if (std::memcmp(expected.data(), &values[1], sizeof(values[1])) == 0) {
    co_return fail(Errc::kUnsupported, "COMPARE AND WRITE writes in spite of a miscompare");
  }
  co_return Result<>{};
}

// kAgain: another node took one of our lanes.
Task<Result<>> race_once(Executor& executor, Random& random, BlockDevice& first, BlockDevice& second,
                         std::uint64_t scratch) {
  const std::uint64_t lane = random.below(kLanes);
  Racer one(first, random, scratch, lane);
  Racer two(second, random, scratch, (lane + 1 + random.below(kLanes - 1)) % kLanes);
  TaskGroup group(executor);
  group.spawn(one.run());
  group.spawn(two.run());
  co_await group.join();
  if (!one.outcome()) co_return one.outcome();
  if (!two.outcome()) co_return two.outcome();
  IoBuffer block(first.facts().logical_block);
  const Result<> looked = co_await read_again(first, scratch, block.bytes());
  if (!looked) co_return looked;
  if (one.kept(block.bytes()) && two.kept(block.bytes())) co_return Result<>{};
  if (one.taken(block.bytes()) || two.taken(block.bytes())) co_return fail(Errc::kAgain, "scratch block");
  co_return fail(Errc::kUnsupported, "COMPARE AND WRITE is not atomic between two sessions");
}

}  // namespace

Task<Result<>> probe_compare_and_write(Executor& executor, Random& random, BlockDevice& first, BlockDevice& second,
                                       std::uint64_t scratch) {
  constexpr int kRounds = 5;
  if (!first.facts().compare_and_write) co_return fail(Errc::kUnsupported, "the device has no COMPARE AND WRITE");
  const Result<> miscompare = co_await probe_miscompare(first, random, scratch);
  if (!miscompare) co_return miscompare;
  for (int round = 0; round < kRounds; ++round) {
    const Result<> raced = co_await race_once(executor, random, first, second, scratch);
    if (raced || raced.error().code != Errc::kAgain) co_return raced;
  }
  // So often by chance? Sooner a target that loses updates of whole lanes.
  co_return fail(Errc::kUnsupported, "COMPARE AND WRITE is not atomic between two sessions");
}

namespace {

bool is_conflict(const Result<>& done) {
  return !done && done.error().code == Errc::kReservationConflict;
}

// A WRITE. No COMPARE AND WRITE is tried that may be refused: the Linux target (LIO, seen with kernel 6.x) releases the
// lock that makes it atomic once too often when it fails one early, and then it is not atomic any more until the target
// restarts.
Task<Result<>> try_write(BlockDevice& device, const ReservationProbe& probe) {
  const IoBuffer block(device.facts().logical_block);
  const Result<> done =
      co_await past_attentions([&] { return device.write(probe.plain_scratch, block.bytes(), Durability::kCached); });
  co_return done;
}

// A COMPARE AND WRITE that changes nothing, of a session that has no unit attention waiting (see above).
Task<Result<>> try_caw(BlockDevice& device, const ReservationProbe& probe) {
  IoBuffer block(device.facts().logical_block);
  const Result<> looked = co_await read_again(device, probe.scratch, block.bytes());
  if (!looked) co_return looked;
  const Result<> done = co_await device.compare_and_write(probe.scratch, block.bytes(), block.bytes());
  // Another node's probe changed the block in between: it was let through to the comparison.
  if (!done && done.error().code == Errc::kMiscompare) co_return Result<>{};
  co_return done;
}

Task<Result<>> register_second(BlockDevice& second, const ReservationProbe& probe) {
  const Result<> done =
      co_await past_attentions([&] { return second.pr_register_ignore(probe.second_key, probe.aptpl); });
  co_return done;
}

// `done` must be a conflict: any other error is itself, success is `complaint`.
Result<> expect_conflict(const Result<>& done, const char* complaint) {
  if (done) return fail(Errc::kUnsupported, complaint);
  if (!is_conflict(done)) return done;
  return {};
}

}  // namespace

Task<Result<>> probe_reservations(BlockDevice& first, BlockDevice& second, ReservationProbe probe) {
  const Result<> stranger = co_await try_write(second, probe);
  if (const auto ok = expect_conflict(stranger, "the device takes writes of a session that is not registered"); !ok) {
    co_return ok;
  }
  const Result<> registered = co_await register_second(second, probe);
  if (!registered) co_return registered;
  const Result<> written = co_await try_write(second, probe);
  const Result<> swapped = co_await try_caw(second, probe);
  if (is_conflict(written) || is_conflict(swapped)) {
    co_return fail(Errc::kUnsupported, "the device refuses writes of a registered session");
  }
  if (!written) co_return written;
  if (!swapped) co_return swapped;
  const Result<> preempted =
      co_await past_attentions([&] { return first.pr_preempt_and_abort(probe.key, probe.second_key, probe.type); });
  if (!preempted) co_return preempted;
  const Result<> victim = co_await try_write(second, probe);
  co_return expect_conflict(victim, "the device takes writes of a session that was preempted");
}

Task<Result<>> probe_beside_others(Executor& executor, Random& random, BlockDevice& first, BlockDevice& second,
                                   ReservationProbe probe) {
  const Result<RegisteredKeys> keys = co_await first.pr_read_keys();
  if (!keys) co_return fail(keys.error());
  const bool alone = std::ranges::all_of(keys->keys, [&](PrKey key) { return key == probe.key; });
  if (alone) {
    const Result<> refuses = co_await probe_reservations(first, second, probe);
    if (!refuses) co_return refuses;
  }
  const Result<> registered = co_await register_second(second, probe);
  if (!registered) co_return registered;
  const Result<> raced = co_await probe_compare_and_write(executor, random, first, second, probe.scratch);
  const Result<> gone =
      co_await past_attentions([&] { return second.pr_register(probe.second_key, PrKey{}, probe.aptpl); });
  co_return raced ? gone : raced;
}

}  // namespace cawfs
