#include "disklock/fence.h"

#include <algorithm>

#include "core/base/planted_fault.h"

namespace cawfs {

namespace {

using namespace std::chrono_literals;

constexpr Duration kTryAgainAfter = 100ms;

}  // namespace

Task<Result<>> Fence::run(std::vector<FenceVictim> victims) {
  // A victim that stood on this very nexus lost its key to our REGISTER: there is nothing to preempt.
  std::erase_if(victims, [this](const FenceVictim& v) { return v.key == registration_.key(); });
  while (true) {
    Result<Step> done = co_await attempt(victims);
    if (done && *done == Step::kDone) co_return Result<>{};
    if (!done && !is_passing_error(done.error().code)) co_return fail(done.error());
    co_await executor_.sleep(kTryAgainAfter);
    if (device_.ended()) co_return fail(Errc::kFenced, "fencing another node");
  }
}

Task<Result<Fence::Step>> Fence::attempt(const std::vector<FenceVictim>& victims) {
  Result<Registration::State> state = co_await registration_.look();
  if (!state) co_return fail(state.error());
  if (*state != Registration::State::kIntact) {
    // Have I been fenced myself? The keeper finds out, and registers again if not.
    device_.doubt();
    co_return Step::kAgain;
  }
  for (const FenceVictim& victim : victims) {
    if (!planted(PlantedFault::kNoEvictionBeforePreempt)) co_await evict(victim);
  }
  for (const FenceVictim& victim : victims) {
    if (victim.key.value == 0) continue;
    Result<Step> preempted = co_await preempt(victim.key);
    if (!preempted || *preempted == Step::kAgain) co_return preempted;
  }
  bool all_ended = true;
  for (const FenceVictim& victim : victims) {
    const bool ended = co_await evict(victim);
    all_ended = all_ended && ended;
  }
  if (!all_ended && !planted(PlantedFault::kNoResetAfterPreempt)) {
    Result<> was_reset = co_await reset();
    if (!was_reset) co_return fail(was_reset.error());
  }

  Result<RegisteredKeys> keys = co_await registration_.read_keys();
  if (!keys) co_return fail(keys.error());
  for (const FenceVictim& victim : victims) {
    if (victim.key.value != 0 && contains(*keys, victim.key)) co_return Step::kAgain;
  }
  state = co_await registration_.look();
  if (!state) co_return fail(state.error());
  co_return *state == Registration::State::kIntact ? Step::kDone : Step::kAgain;
}

Task<Result<Fence::Step>> Fence::preempt(PrKey victim) {
  Result<> done = co_await device_.pr_preempt_and_abort(registration_.key(), victim, kReservationType);
  if (done) co_return Step::kDone;
  if (done.error() != Errc::kReservationConflict) co_return fail(done.error());
  // The victim's key was absent, so that this is done; or mine is.
  Result<RegisteredKeys> keys = co_await registration_.read_keys();
  if (!keys) co_return fail(keys.error());
  if (contains(*keys, registration_.key()) && !contains(*keys, victim)) co_return Step::kDone;
  co_return Step::kAgain;
}

bool Fence::is_self(const std::string& initiator_name, std::uint64_t isid) const {
  const DeviceFacts& own = device_.facts();
  return initiator_name == own.initiator_name && isid == own.isid;
}

Task<bool> Fence::evict(const FenceVictim& victim) {
  if (victim.initiator_name.empty()) co_return false;
  // On its own nexus the login of this node has ended the victim's session.
  if (is_self(victim.initiator_name, victim.isid)) co_return true;
  Result<> done = co_await device_.evict(victim.initiator_name, victim.isid);
  if (done) co_return true;
  if (done.error() != Errc::kUnsupported) {
    log_.warning("the session of {} could not be taken over ({}); a LUN reset has to end its commands",
                 victim.initiator_name, describe(done.error().code));
  }
  co_return false;
}

Task<void> Fence::evict_holders(PrKey key) {
  Result<std::vector<Registrant>> registrants = co_await device_.pr_read_full_status();
  if (!registrants) co_return;
  for (const Registrant& one : *registrants) {
    if (one.key != key || one.initiator_name.empty() || is_self(one.initiator_name, one.isid)) continue;
    co_await device_.evict(one.initiator_name, one.isid);
  }
}

Task<Result<>> Fence::reset() {
  if (reset_observer_) reset_observer_();
  Result<> done = co_await device_.reset_lun();
  co_return done;
}

}  // namespace cawfs
