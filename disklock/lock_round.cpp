// One round of a block's changes: what each entry needs, and what has become of it.
#include "disklock/lock_round.h"

#include <algorithm>
#include <bit>

#include "core/base/assert.h"

namespace cawfs {

namespace {

bool is_sharer(const LockEntry& entry, SlotNo slot) {
  const bool shared = entry.mode == LockMode::kShared || entry.mode == LockMode::kDeferred;
  return shared && (entry.sharers & slot_bit(slot)) != 0;
}

bool is_owner(const LockEntry& entry, NodeId node, Generation generation) {
  return entry.mode == LockMode::kExclusive && entry.owner == node && entry.generation == generation;
}

// What was to become S has done so by a COMPARE AND WRITE that ended with an error: no other node can put the entry so.
bool was_weakened(const LockEntry& entry, NodeId node, const CachedLock& lock) {
  const bool weakening = lock.give_up == GiveUp::kReady && lock.keep == LockMode::kShared;
  return weakening && holds(entry, node, LockMode::kShared, lock.generation);
}

bool is_waiter(const LockEntry& entry, NodeId node) {
  return entry.mode != LockMode::kExclusive && entry.waiter != LockMode::kNone && entry.owner == node;
}

}  // namespace

LockManager::Round LockManager::plan(CachedBlock& block) {
  Round round;
  for (std::size_t entry = 0; entry < block.locks.size() && !ended(); ++entry) plan_entry(block, entry, round);
  return round;
}

void LockManager::plan_entry(CachedBlock& block, std::size_t entry, Round& round) {
  CachedLock& lock = block.locks[entry];
  if (lock.held != LockMode::kNone || lock.needs_acquire()) lock.disown = false;
  if (lock.held != LockMode::kNone) lock.check_opener = false;  // what the bit says counts only once we let go
  const bool releasing = lock.give_up == GiveUp::kReady;
  const bool nothing = !lock.disown && !lock.check_opener && !lock.waits_for_nobody();
  if (!releasing && !lock.needs_acquire() && nothing) return;

  const Result<LockEntry> now = decode(block.image.as<format::LockBlock>().entries[entry]);
  if (!now) {
    log_.error("lock block {} entry {}: {}", block.block.value, entry, now.error().where);
    fail_users(lock, now.error());
    lock.ahead = false;
    lock.disown = false;
    lock.check_opener = false;
    if (lock.held != LockMode::kNone) lost({block.block, static_cast<std::uint8_t>(entry)});
    return;
  }
  if (releasing) {
    plan_releasing(block, entry, *now, round);
  } else if (lock.needs_acquire()) {
    plan_acquiring(block, entry, *now, round);
  } else if (lock.waits_for_nobody()) {
    plan_waiting_no_more(block, entry, *now, round);
  } else {
    plan_cleaning(block, entry, *now, round);
  }
}

void LockManager::plan_acquiring(CachedBlock& block, std::size_t entry, const LockEntry& now, Round& round) {
  using Step = AcquirePlan::Step;
  CachedLock& lock = block.locks[entry];
  const LockName name{block.block, static_cast<std::uint8_t>(entry)};
  if (lock.held == LockMode::kNone && !is_sharer(now, self().slot)) lock.handover = true;
  AcquirePlan plan = plan_acquire(now,
                                  {.self = self(),
                                   .held = lock.held,
                                   .wanted = lock.wanted(),
                                   .handover = lock.handover,
                                   .generation = lock.generation,
                                   .presses = lock.presses(),
                                   .overtook = lock.overtook,
                                   .open = is_open(name)},
                                  block.lives);
  if (plan.step == Step::kLost) return lost(name);
  if (plan.step == Step::kHeld) {
    round.handed.push_back(entry);
    return;
  }
  if (plan.step == Step::kYield) {
    yield(lock, name);
    round.waiting = true;
    return ask(lock, name, 0, LockMode::kNone, now);
  }
  round.records |= records_to_read(block, plan.doubt, now);
  const bool was_turn = lock.my_turn;
  lock.my_turn = is_waiter(now, self());
  if (plan.step == Step::kWait) {
    if (lock.ahead && lock.queue.empty() && executor_.now() >= lock.ahead_until) {
      lock.ahead = false;
      return ask(lock, name, 0, LockMode::kNone, now);
    }
    const bool missed = lock.asked == 0 && !lock.ahead && lock.wanted() == LockMode::kShared;
    if (missed && now.mode == LockMode::kExclusive) ask_ahead(block, now.owner);
    ask(lock, name, plan.ask, lock.wanted(), now);
    const bool own_opener = (now.openers & slot_bit(self().slot)) != 0;
    if (!lock.check_opener || !own_opener || is_open(name)) {
      lock.check_opener = false;
      round.waiting = true;
      if (was_turn && !lock.my_turn) consider(block, entry);
      return;
    }
    plan.after.openers &= ~slot_bit(self().slot);
  }
  const auto kind = plan.step == Step::kGrant ? Round::Kind::kGrant : Round::Kind::kWrite;
  round.changes.push_back({.entry = entry, .kind = kind, .after = plan.after});
}

void LockManager::plan_releasing(CachedBlock& block, std::size_t entry, const LockEntry& now, Round& round) {
  CachedLock& lock = block.locks[entry];
  const LockName name{block.block, static_cast<std::uint8_t>(entry)};
  if (was_weakened(now, self(), lock)) return let_go(block, entry, LockMode::kShared, false);
  if (!holds(now, self(), lock.held, lock.generation)) return lost(name);

  const Time time = executor_.now();
  const bool more_to_come = std::ranges::any_of(block.locks, [](const CachedLock& other) {
    return other.give_up == GiveUp::kAsked || other.give_up == GiveUp::kClosing;
  });
  if (more_to_come && block.ready_since && time < *block.ready_since + tuning_.gather) {
    return round.plan_again_at(*block.ready_since + tuning_.gather);
  }

  const std::vector<Waiting> waiting = waiting_for(name, lock);
  const std::uint64_t expected = time < lock.expected_until ? lock.expected & membership_.active_slots() : 0;
  const bool waited_for = now.waiter != LockMode::kNone && now.owner != self();
  if (waiting.empty() && expected == 0 && !waited_for) return keep_it(block, entry);
  const ReleasePlan plan = plan_release(now, {.self = self(),
                                              .held = lock.held,
                                              .generation = lock.generation,
                                              .keep = lock.keep,
                                              .again = lock.wanted(),
                                              .open = is_open(name),
                                              .waiting = waiting,
                                              .expected = expected});
  if (plan.step == ReleasePlan::Step::kLost) return lost(name);
  if (plan.step == ReleasePlan::Step::kAwaitMail) return round.plan_again_at(lock.expected_until);
  round.changes.push_back({.entry = entry, .kind = Round::Kind::kRelease, .after = plan.after, .held = plan.held});
}

// We hold nothing here: whatever names us goes.
void LockManager::plan_cleaning(CachedBlock& block, std::size_t entry, const LockEntry& now, Round& round) {
  CachedLock& lock = block.locks[entry];
  const LockName name{block.block, static_cast<std::uint8_t>(entry)};
  const bool open = is_open(name);
  std::optional<LockEntry> after;
  if (lock.disown) {
    after = plan_disown(now, self(), open, mailboxes_.waiting(name));
  } else if (!open && (now.openers & slot_bit(self().slot)) != 0) {
    after = now;
    after->openers &= ~slot_bit(self().slot);
  }
  if (after) {
    round.changes.push_back({.entry = entry, .kind = Round::Kind::kWrite, .after = *after});
    return;
  }
  lock.disown = false;
  lock.check_opener = false;
  lock.opener_on_disk = (now.openers & slot_bit(self().slot)) != 0;
}

void LockManager::plan_waiting_no_more(CachedBlock& block, std::size_t entry, const LockEntry& now, Round& round) {
  if (!is_waiter(now, self())) {
    block.locks[entry].my_turn = false;
    return;
  }
  LockEntry after = now;
  after.owner = {};
  after.waiter = LockMode::kNone;
  round.changes.push_back({.entry = entry, .kind = Round::Kind::kWrite, .after = after});
}

// Of the slots in doubt, those whose records should be read now: where something hints that the node has ended, and
// all of them every now and then.
std::uint64_t LockManager::records_to_read(const CachedBlock& block, std::uint64_t doubt, const LockEntry& now) const {
  if (doubt == 0 || executor_.now() - block.lives_at >= tuning_.record_check) return doubt;
  std::uint64_t slots = 0;
  for (std::uint64_t left = doubt; left != 0; left &= left - 1) {
    const SlotNo slot{static_cast<std::uint16_t>(std::countr_zero(left))};
    if (seems_ended(slot, now)) slots |= slot_bit(slot);
  }
  return slots;
}

bool LockManager::seems_ended(SlotNo slot, const LockEntry& now) const {
  const auto& seen = seen_[slot.value];
  const bool recent = seen && executor_.now() - seen->at < tuning_.record_check;
  if (recent && seen->unknown) return false;
  std::optional<Incarnation> live = recent ? seen->live : membership_.incarnation_of(slot);
  if (live == Incarnation{0}) live.reset();
  const bool by_name = now.mode == LockMode::kExclusive || now.waiter != LockMode::kNone;
  if (by_name && now.owner.slot == slot) return live != now.owner.incarnation;
  return !live;
}

// What stands on the disk is what was planned.
void LockManager::ran(CachedBlock& block, const Round& round) {
  for (const Round::Change& change : round.changes) {
    CachedLock& lock = block.locks[change.entry];
    const bool opener = (change.after.openers & slot_bit(self().slot)) != 0;
    switch (change.kind) {
      case Round::Kind::kGrant:
        granted(block, change.entry, change.after, change.after.mode);
        break;
      case Round::Kind::kRelease:
        if (change.held == LockMode::kExclusive) {
          lock.give_up = GiveUp::kNo;
          granted(block, change.entry, change.after, change.held);
        } else {
          let_go(block, change.entry, change.held, opener);
        }
        break;
      case Round::Kind::kWrite:
        lock.my_turn = is_waiter(change.after, self());
        lock.overtook = lock.overtook || (lock.my_turn && lock.presses());
        lock.opener_on_disk = opener;
        break;
    }
  }
  const bool ready = std::ranges::any_of(block.locks, [](const auto& lock) { return lock.give_up == GiveUp::kReady; });
  if (!ready) block.ready_since.reset();
}

// Others have changed the block, and ours may have run before (design §4 rule 2): only what the fresh image proves
// counts, the rest is planned again.
void LockManager::judge(CachedBlock& block, const Round& round) {
  for (const Round::Change& change : round.changes) {
    CachedLock& lock = block.locks[change.entry];
    const LockName name{block.block, static_cast<std::uint8_t>(change.entry)};
    const Result<LockEntry> now = decode(block.image.as<format::LockBlock>().entries[change.entry]);
    if (!now) continue;  // the next round says so
    if (change.kind == Round::Kind::kGrant) {
      const bool ours = change.after.mode == LockMode::kExclusive && is_owner(*now, self(), change.after.generation);
      if (ours) granted(block, change.entry, *now, LockMode::kExclusive);
    } else if (change.kind == Round::Kind::kRelease) {
      if (holds(*now, self(), lock.held, lock.generation)) continue;
      const bool opener = (change.after.openers & slot_bit(self().slot)) != 0;
      const bool shares =
          change.held == LockMode::kShared && holds(*now, self(), LockMode::kShared, change.after.generation);
      if (lock.keep == LockMode::kShared && change.held == LockMode::kShared && !shares) return lost(name);
      let_go(block, change.entry, shares ? LockMode::kShared : LockMode::kNone, opener);
    }
  }
}

void LockManager::granted(CachedBlock& block, std::size_t entry, const LockEntry& now, LockMode mode) {
  CachedLock& lock = block.locks[entry];
  const std::uint64_t mine = slot_bit(self().slot);
  if (lock.held == LockMode::kNone) ++counts_.held;
  lock.held = mode;  // may be being given up already: asked for while the upgrade was under way
  lock.generation = now.generation;
  lock.since = executor_.now();
  lock.openers = now.openers & ~mine;
  lock.handover = false;
  lock.my_turn = false;
  lock.overtook = false;
  lock.opener_on_disk = (now.openers & mine) != 0;
  lock.check_opener = false;
  lock.ahead = false;
  lock.expected = mode == LockMode::kExclusive ? now.sharers & ~mine : 0;
  lock.expected_until = lock.since + tuning_.expect_mail;
  ask(lock, {block.block, static_cast<std::uint8_t>(entry)}, 0, LockMode::kNone, now);
  admit(block, entry);
  consider(block, entry);
}

// An entry that is to be read was missed. Whoever lists a directory goes on to the others of the chunk: once it looks
// like that, all that the owner holds are asked for, and come with one CAW of the owner's.
void LockManager::ask_ahead(CachedBlock& block, NodeId owner) {
  const bool chunk = geometry_.in_groups(block.block) && block.block.value % format::kChunkBlocks == 0;
  const Time now = executor_.now();
  if (!chunk || (++block.misses < 2 && now >= ahead_until_)) return;
  block.misses = 0;
  ahead_until_ = now + tuning_.ahead_again;
  for (std::size_t entry = 0; entry < block.locks.size(); ++entry) {
    CachedLock& lock = block.locks[entry];
    const Result<LockEntry> other = decode(block.image.as<format::LockBlock>().entries[entry]);
    const bool his = other && other->mode == LockMode::kExclusive && other->owner == owner;
    if (!his || !lock.idle()) continue;
    lock.ahead = true;
    lock.ahead_until = now + tuning_.ahead_for;
    block.wake.notify_all();
  }
}

// Makes the mailboxes say that `slots`, and nobody else, are asked for the lock.
void LockManager::ask(CachedLock& lock, LockName name, std::uint64_t slots, LockMode mode, const LockEntry& now) {
  for (std::uint64_t left = lock.asked & ~slots; left != 0; left &= left - 1) {
    mailboxes_.unwant(SlotNo{static_cast<std::uint16_t>(std::countr_zero(left))}, name);
  }
  for (std::uint64_t left = slots; left != 0; left &= left - 1) {
    const SlotNo slot{static_cast<std::uint16_t>(std::countr_zero(left))};
    const bool by_name = now.owner.slot == slot && (now.mode == LockMode::kExclusive || now.waiter != LockMode::kNone);
    mailboxes_.want({slot, by_name ? now.owner.incarnation : Incarnation{0}}, name, mode);
  }
  lock.asked = slots;
}

// After a reset: does the disk still say what we remember?
void LockManager::check_held(CachedBlock& block) {
  for (std::size_t entry = 0; entry < block.locks.size(); ++entry) {
    const CachedLock& lock = block.locks[entry];
    if (lock.held == LockMode::kNone) continue;
    const Result<LockEntry> now = decode(block.image.as<format::LockBlock>().entries[entry]);
    const bool stands = now && (holds(*now, self(), lock.held, lock.generation) || was_weakened(*now, self(), lock));
    if (!stands) return lost({block.block, static_cast<std::uint8_t>(entry)});
  }
}

void LockManager::lost(LockName name) {
  log_.error("lock block {} entry {} is not held any more", name.block.value, name.entry);
  membership_.withdraw(Error{Errc::kFenced, "a lock is not held any more", name.block.value});
}

}  // namespace cawfs
