#include "utils/mkfs/claim.h"

#include <fmt/format.h>

#include <functional>

#include "core/device/probe.h"
#include "core/format/file_system_plan.h"
#include "core/format/layout.h"

namespace cawfs {
namespace {

constexpr auto kType = ReservationType::kWriteExclusiveAllRegistrants;
constexpr int kMostAttentions = 8;

// Unit attentions tell of what was before; a new session gets a few of them first.
template <class T>
bool is_attention(const Result<T>& done) {
  if (done) return false;
  const Errc code = done.error().code;
  return code == Errc::kUnitAttentionReset || code == Errc::kUnitAttentionReservations ||
         code == Errc::kUnitAttentionOther;
}

template <class T>
Task<Result<T>> past_attentions(std::function<Task<Result<T>>()> request) {
  Result<T> done = co_await request();
  for (int i = 0; i < kMostAttentions && is_attention(done); ++i) done = co_await request();
  co_return done;
}

}  // namespace

Task<Result<>> Claim::check_capabilities() {
  if (!device_.facts().reservations) co_return fail(Errc::kUnsupported, "the device has no persistent reservations");
  if (!device_.facts().compare_and_write) co_return fail(Errc::kUnsupported, "the device has no COMPARE AND WRITE");
  const auto capabilities =
      co_await past_attentions<ReservationCapabilities>([&] { return device_.pr_report_capabilities(); });
  if (!capabilities) co_return fail(capabilities.error());
  if (!capabilities->all_registrants) {
    co_return fail(Errc::kUnsupported, "the device lacks reservations of type 7 (Write Exclusive, All Registrants)");
  }
  if (!capabilities->persist_through_power_loss) {
    log_.warning("the device forgets registrations when it loses power (no APTPL): mounts need -o noaptpl");
    aptpl_ = Aptpl::kNo;
  }
  co_return Result<>{};
}

Task<Result<>> Claim::reserve() {
  const auto state = co_await past_attentions<ReservationState>([&] { return device_.pr_read_reservation(); });
  if (!state) co_return fail(state.error());
  Result<> done;
  if (state->type == ReservationType::kNone) {
    done = co_await past_attentions<void>([&] { return device_.pr_reserve(key_, kType); });
  } else if (state->type != kType) {
    done = co_await past_attentions<void>([&] { return device_.pr_preempt_and_abort(key_, state->holder, kType); });
  }
  co_return done;
}

// Before their keys go: a COMPARE AND WRITE that was refused would break the device (see BlockDevice::session()).
Task<void> Claim::evict_others() {
  const auto registrants =
      co_await past_attentions<std::vector<Registrant>>([&] { return device_.pr_read_full_status(); });
  if (!registrants) co_return;
  for (const Registrant& one : *registrants) {
    if (one.key != key_ && !one.initiator_name.empty()) co_await device_.evict(one.initiator_name, one.isid);
  }
}

Task<Result<>> Claim::preempt_others() {
  co_await evict_others();
  const auto registered = co_await past_attentions<RegisteredKeys>([&] { return device_.pr_read_keys(); });
  if (!registered) co_return fail(registered.error());
  for (const PrKey other : registered->keys) {
    if (other == key_) continue;
    const Result<> done =
        co_await past_attentions<void>([&] { return device_.pr_preempt_and_abort(key_, other, kType); });
    // A conflict: another nexus with the same key, preempted with the one before.
    if (!done && done.error().code != Errc::kReservationConflict) co_return done;
  }
  co_return Result<>{};
}

Task<Result<>> Claim::take(OldKeys old_keys) {
  const Result<> able = co_await check_capabilities();
  if (!able) co_return able;
  const auto before = co_await past_attentions<ReservationState>([&] { return device_.pr_read_reservation(); });
  if (!before) co_return fail(before.error());
  reserved_before_ = before->type != ReservationType::kNone;
  if (reserved_before_ && old_keys == OldKeys::kRefuse) {
    in_the_way_ = fmt::format("it is reserved (type {}, key {:#018x}); --force takes it over", before->raw_type,
                              before->holder.value);
    co_return fail(Errc::kForeignReservation);
  }
  do key_ = PrKey{random_.next()};
  while (key_.value == 0);
  const Result<> registered = co_await past_attentions<void>([&] { return device_.pr_register_ignore(key_, aptpl_); });
  if (!registered) co_return registered;
  const Result<> reserved = co_await reserve();
  if (!reserved) co_return reserved;
  const Result<> alone = co_await preempt_others();
  co_return alone;
}

Task<Result<>> Claim::prove(BlockDevice* second) {
  const std::uint32_t logical_block = device_.facts().logical_block;
  const BlockNo scratch = format::scratch_block(logical_block);
  BlockDevice& other = second == nullptr ? device_ : *second;
  ReservationProbe probe;
  probe.key = key_;
  probe.type = kType;
  probe.second_key = PrKey{key_.value + 1 == 0 ? 1 : key_.value + 1};
  probe.aptpl = aptpl_;
  probe.scratch = scratch.offset_bytes();
  probe.plain_scratch = (scratch + 1).offset_bytes();
  if (second != nullptr) {
    const Result<> reserved = co_await probe_reservations(device_, other, probe);
    if (!reserved) co_return reserved;
    const Result<> admitted =
        co_await past_attentions<void>([&] { return other.pr_register_ignore(probe.second_key, aptpl_); });
    if (!admitted) co_return admitted;
  }
  const Result<> raced = co_await probe_compare_and_write(executor_, random_, device_, other, probe.scratch);
  if (second == nullptr || !raced) co_return raced;
  const Result<> gone =
      co_await past_attentions<void>([&] { return device_.pr_preempt_and_abort(key_, probe.second_key, kType); });
  co_return gone;
}

Task<Result<>> Claim::give_up() {
  if (reserved_before_) co_return Result<>{};
  const Result<> done = co_await past_attentions<void>([&] { return device_.pr_clear(key_); });
  co_return done;
}

}  // namespace cawfs
