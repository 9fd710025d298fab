#include "disklock/reservation.h"

#include <algorithm>

#include "core/base/planted_fault.h"

namespace cawfs {

namespace {

using namespace std::chrono_literals;

constexpr Duration kTryAgainAfter = 50ms;
constexpr int kDropAttempts = 5;

}  // namespace

bool is_passing_error(Errc code) {
  return code == Errc::kTransport || code == Errc::kUnitAttentionReset || code == Errc::kUnitAttentionReservations ||
         code == Errc::kUnitAttentionOther;
}

bool contains(const RegisteredKeys& keys, PrKey key) {
  return std::ranges::find(keys.keys, key) != keys.keys.end();
}

Error Registration::foreign(const ReservationState& state) const {
  log_.error("the device is reserved by somebody else: type {}, key {:#018x}", state.raw_type, state.holder.value);
  return Error{Errc::kForeignReservation, "reservation", state.holder.value};
}

Task<Result<>> Registration::check_capabilities() {
  Result<ReservationCapabilities> able = co_await device_.pr_report_capabilities();
  if (!able) co_return fail(able.error());
  if (!able->all_registrants) {
    log_.error("the device lacks reservation type 7 (Write Exclusive - All Registrants)");
    co_return fail(Errc::kUnsupported, "reservation type 7");
  }
  if (!able->persist_through_power_loss && aptpl_ == Aptpl::kYes) {
    log_.error(
        "the device forgets registrations when it loses its power (no APTPL), so that a fenced host could write "
        "again after that; -o noaptpl accepts this");
    co_return fail(Errc::kUnsupported, "APTPL");
  }
  co_return Result<>{};
}

Task<Result<>> Registration::make_reservation() {
  Result<ReservationState> state = co_await device_.pr_read_reservation();
  if (!state) co_return fail(state.error());
  if (state->type == kReservationType) co_return Result<>{};
  if (state->type != ReservationType::kNone) co_return fail(foreign(*state));
  Result<> made = co_await device_.pr_reserve(key_, kReservationType);
  if (made || made.error() != Errc::kReservationConflict) co_return made;
  // Somebody was faster.
  state = co_await device_.pr_read_reservation();
  if (!state) co_return fail(state.error());
  if (state->type == kReservationType) co_return Result<>{};
  if (state->type == ReservationType::kNone) co_return fail(Errc::kTransport, "reservation");
  co_return fail(foreign(*state));
}

Task<Result<>> Registration::establish(Duration patience) {
  const Time give_up = executor_.now() + patience;
  do {
    key_ = PrKey{random_.next()};
  } while (key_.value == 0);
  registered_again_ = false;
  while (true) {
    Result<> done = co_await check_capabilities();
    if (done) done = co_await device_.pr_register_ignore(key_, aptpl_);
    if (done) done = co_await make_reservation();
    if (done) {
      registered_ = true;
      co_return done;
    }
    if (!is_passing_error(done.error().code) || executor_.now() >= give_up) {
      // Nobody sweeps keys there. Ours may have taken the place of the only one that keeps the reservation.
      if (done.error() == Errc::kForeignReservation) co_await drop();
      co_return done;
    }
    co_await executor_.sleep(kTryAgainAfter);
  }
}

Task<Result<Registration::State>> Registration::look() {
  Result<RegisteredKeys> keys = co_await device_.pr_read_keys();
  if (!keys) co_return fail(keys.error());
  if (!contains(*keys, key_)) co_return State::kKeyMissing;
  Result<ReservationState> state = co_await device_.pr_read_reservation();
  if (!state) co_return fail(state.error());
  co_return state->type == kReservationType ? State::kIntact : State::kReservationMissing;
}

Task<Result<Registration::State>> Registration::restore() {
  Result<State> found = co_await look();
  if (!found) co_return found;
  if (*found == State::kKeyMissing) {
    registered_again_ = true;
    Result<> again = co_await device_.pr_register_ignore(key_, aptpl_);
    if (!again) co_return fail(again.error());
  }
  if (*found != State::kIntact && !planted(PlantedFault::kReservationNotMadeAgain)) {
    Result<> reserved = co_await make_reservation();
    if (!reserved) co_return fail(reserved.error());
  }
  co_return registered_again_ ? State::kKeyMissing : *found;
}

Task<void> Registration::drop() {
  registered_ = false;
  for (int attempt = 0; attempt < kDropAttempts; ++attempt) {
    Result<> done = co_await raw_.pr_register(key_, PrKey{0}, aptpl_);
    if (done || !is_passing_error(done.error().code)) co_return;
    co_await executor_.sleep(kTryAgainAfter);
  }
}

}  // namespace cawfs
