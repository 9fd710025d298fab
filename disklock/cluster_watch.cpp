// What a member does each interval: reads the node table and the heartbeats, sees to its own slot, recovers the dead;
// and each half dead-time looks after its registration and sweeps the keys that nobody stands behind.
#include <algorithm>
#include <utility>

#include "disklock/cluster_member.h"

namespace cawfs {

using format::SlotState;

Task<void> ClusterMember::watch_loop() {
  Time next = executor_.now();
  while (!ending()) {
    co_await watch_once();
    next = std::max(next + interval_, executor_.now());
    co_await stop_.sleep_until(next);
  }
}

Task<void> ClusterMember::watch_once() {
  lease_.look();
  Result<> done = co_await table_.read();
  if (ending()) co_return;
  if (!done) {
    log_.warning("the node table cannot be read: {}", describe(done.error().code));
    co_return;
  }
  co_await check_own_slot();
  if (ending()) co_return;
  note_slots();

  const Time issued = executor_.now();
  done = co_await heartbeats_.read();
  if (ending()) co_return;
  if (!done) {
    log_.warning("the heartbeats cannot be read: {}", describe(done.error().code));
    co_return;
  }
  SilenceWatch::Values values;
  for (std::uint16_t i = 0; i < geometry_.slots; ++i) values[i] = heartbeats_.value(SlotNo{i});
  // A device that takes nobody's writes makes all look silent. Nothing is counted from then.
  if (!lease_valid()) silence_.restart();
  silence_.observe(issued, executor_.now(), subjects_of(table_), values);

  if (recovering_ || !lease_valid()) co_return;
  const std::optional<Suspect> suspect = find_suspect();
  if (!suspect) co_return;
  recovering_ = true;
  tasks_.spawn(recover(*suspect));
}

Task<void> ClusterMember::check_own_slot() {
  const SlotView* view = table_.view(self_.slot);
  if (!view) {
    log_.error("the record of this node's own slot {} is damaged", self_.slot.value);
    co_return;
  }
  switch (judge_own(*view)) {
    case Own::kMine: {
      const bool was_valid = lease_valid();
      lease_.slot_seen(executor_.now());
      // Whoever had claimed the slot may have taken the key away before he had to give it back.
      if (!was_valid && lease_valid()) guard_.doubt();
      heart_.share_block(false);
      lease_changed();
      co_return;
    }
    case Own::kBeingRecovered: {
      heart_.share_block(view->recovered_from_within());
      // Suspected but not fenced: stop serving, go on showing life. Once the key is gone it is too late.
      lease_.suspend();
      lease_changed();
      Result<Registration::State> state = co_await registration_.look();
      const bool lost = state && *state == Registration::State::kKeyMissing;
      if (lost) withdraw(Error{Errc::kFenced, "own slot", self_.slot.value});
      co_return;
    }
    case Own::kLost:
      withdraw(Error{Errc::kFenced, "own slot", self_.slot.value});
      co_return;
  }
}

void ClusterMember::note_slots() {
  active_slots_ = table_.in_use();
  for (std::uint16_t i = 0; i < geometry_.slots; ++i) {
    const SlotView* view = table_.view(SlotNo{i});
    if (!view) continue;
    const Seen before = seen_[i];
    seen_[i] = {view->state, view->in_use() ? view->incarnation : Incarnation{}};
    if (before.state == seen_[i].state && before.incarnation == seen_[i].incarnation) continue;
    notify([&](MembershipObserver& o) { o.slot_changed(SlotNo{i}, before.state, view->state, view->incarnation); });
  }
}

// --- the dead -------------------------------------------------------------------------------------------------------

// One at a time, and of several the one that was tried longest ago: a slot that cannot be recovered holds up no other.
std::optional<Suspect> ClusterMember::find_suspect() const {
  std::optional<Suspect> first;
  for (std::uint16_t i = 0; i < geometry_.slots; ++i) {
    const SlotView* view = table_.view(SlotNo{i});
    if (!view || !view->in_use() || view->slot == self_.slot) continue;
    if (executor_.now() < try_again_at_[i] || (first && try_again_at_[first->slot.value] <= try_again_at_[i])) continue;
    if (auto suspect = suspect_in(*view)) first = suspect;
  }
  return first;
}

std::optional<Suspect> ClusterMember::suspect_in(const SlotView& view) const {
  const Duration silence = silence_.silence(view.slot);
  bool dead = false;
  bool revived = false;
  const bool both = both_silent(table_, silence_, view, options_.dead_time);
  if (view.state == SlotState::kActive) {
    dead = silence >= options_.dead_time;
  } else if (view.recoverer.slot == kNoSlotOfItsOwn) {
    dead = true;  // a tool's fence, which is an order
  } else if (recoverer_has_ended(view)) {
    // Meanwhile the node may have woken.
    dead = view.fenced() || silence >= options_.dead_time;
    revived = !dead && silence_.moved(view.slot);
  } else {
    dead = both;
  }
  if (!dead && !revived) return std::nullopt;
  Suspect suspect = suspect_of(view);
  suspect.revived = revived;
  suspect.both_silent = both;
  suspect.heartbeat = silence_.last(view.slot).value_or(HeartbeatValue{});
  suspect.silence = silence;
  return suspect;
}

bool ClusterMember::recoverer_has_ended(const SlotView& view) const {
  if (view.recoverer == self_) return true;  // an attempt of ours, which failed
  if (view.recovered_from_within()) {
    return silence_.silence(view.slot, SilenceWatch::Heart::kJoiner) >= options_.dead_time;
  }
  // Its own slot comes first, at least as far as its fence.
  const SlotView* recoverer = table_.view(view.recoverer.slot);
  return recoverer && !recoverer->may_write(view.recoverer);
}

Task<void> ClusterMember::recover(Suspect suspect) {
  Result<> done;
  if (suspect.revived) {
    done = co_await recovery_.revive(suspect, card(self_));
  } else {
    const SlotView* view = table_.view(suspect.slot);
    const std::string host(view ? view->host_name : std::string_view());
    log_.info("slot {} (host {}, incarnation {}) suspected: silent for {:.1f} s", suspect.slot.value, host,
              suspect.incarnation.value, std::chrono::duration<double>(suspect.silence).count());
    Result<Recovery::Claimed> claimed = co_await recovery_.claim(suspect, card(self_));
    if (!claimed) done = fail(claimed.error());
    if (claimed) done = co_await recovery_.complete(std::move(*claimed), Recovery::HandOver::kClean);
  }
  recovering_ = false;
  if (!done && !ending()) recovery_failed(suspect, done.error());
}

void ClusterMember::recovery_failed(const Suspect& suspect, const Error& error) {
  const bool others_were_faster = error == Errc::kAgain;
  const Duration pause = others_were_faster ? interval_ : options_.dead_time;
  try_again_at_[suspect.slot.value] = executor_.now() + pause;
  if (others_were_faster) return;
  log_.error("slot {} could not be recovered: {} ({}); it is tried again in {:.0f} s", suspect.slot.value,
             describe(error.code), error.where, std::chrono::duration<double>(pause).count());
  notify([&](MembershipObserver& o) { o.recovery_failed({suspect.slot, suspect.incarnation}, error); });
}

// --- keys -----------------------------------------------------------------------------------------------------------

Task<void> ClusterMember::registration_loop() {
  while (!ending()) {
    co_await stop_.sleep(options_.dead_time / 2);
    if (ending()) co_return;
    Result<Registration::State> state = co_await registration_.look();
    if (ending()) co_return;
    if (!state) continue;
    if (*state != Registration::State::kIntact) {
      guard_.doubt();
      continue;
    }
    Result<RegisteredKeys> keys = co_await registration_.read_keys();
    if (ending()) co_return;
    if (keys) co_await sweep(std::move(*keys));
  }
}

// A joiner registers before its key stands in a record; but it gives up if that takes half the dead-time.
Task<void> ClusterMember::sweep(RegisteredKeys keys) {
  std::map<PrKey, Time> unknown;
  for (const PrKey key : keys.keys) {
    if (key == registration_.key() || key_is_known(table_, key)) continue;
    const auto before = unknown_keys_.find(key);
    unknown[key] = before == unknown_keys_.end() ? executor_.now() : before->second;
  }
  unknown_keys_ = std::move(unknown);

  const std::map<PrKey, Time> candidates = unknown_keys_;
  for (const auto& [key, since] : candidates) {
    if (executor_.now() - since < 2 * options_.dead_time || !lease_valid()) continue;
    // Not table_, which watch_loop() may be reading.
    SlotTable fresh(guard_, editor_, geometry_);
    Result<> read = co_await fresh.read();
    if (!read || ending()) co_return;
    if (key_is_known(fresh, key)) continue;
    log_.info("the key {:#018x} stands in no slot record: swept", key.value);
    co_await fence_.evict_holders(key);
    if (ending()) co_return;
    Result<> done = co_await guard_.pr_preempt_and_abort(registration_.key(), key, kReservationType);
    if (!done || ending()) co_return;
  }
}

}  // namespace cawfs
