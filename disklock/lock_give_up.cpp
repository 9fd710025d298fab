// Giving locks up to other nodes (design §6.2 rule 3).
#include <algorithm>

#include "core/base/assert.h"
#include "disklock/lock_manager.h"

namespace cawfs {

// The strongest mode that another node wants and that `held` stands in the way of.
LockMode LockManager::conflicting_want(const std::vector<Waiting>& waiting, LockMode held) const {
  LockMode strongest = LockMode::kNone;
  for (const Waiting& want : waiting) {
    if (!compatible(held, want.mode)) strongest = std::max(strongest, want.mode);
  }
  return strongest;
}

// The strongest of the conflicting wants that stand in full mailboxes.
Waiting LockManager::want_in_turns(const std::vector<Waiting>& waiting, LockMode held) const {
  Waiting strongest;
  for (const Waiting& want : waiting) {
    const bool counts = mailboxes_.takes_turns(want.node.slot) && !compatible(held, want.mode);
    if (counts && want.mode > strongest.mode) strongest = want;
  }
  return strongest;
}

// What mail says now, and what it said when the give-up began and may have lost its turn since.
std::vector<Waiting> LockManager::waiting_for(LockName name, const CachedLock& lock) const {
  std::vector<Waiting> waiting = mailboxes_.waiting(name);
  const SlotNo slot = lock.in_turns.node.slot;
  const bool there = std::ranges::any_of(waiting, [slot](const Waiting& want) { return want.node.slot == slot; });
  if (lock.in_turns.mode != LockMode::kNone && !there) waiting.push_back(lock.in_turns);
  return waiting;
}

// What mail asks of this lock, now that mail or lock has changed.
void LockManager::consider(CachedBlock& block, std::size_t entry) {
  CachedLock& lock = block.locks[entry];
  const LockName name{block.block, static_cast<std::uint8_t>(entry)};
  if (ended() || lock.give_up != GiveUp::kNo) return;
  if (lock.held == LockMode::kNone) {
    if (lock.needs_acquire() || mailboxes_.waiting(name).empty()) return;
    lock.disown = true;
    start_work(block);
    return;
  }
  const std::vector<Waiting> waiting = mailboxes_.waiting(name);
  if (conflicting_want(waiting, lock.held) == LockMode::kNone) return;
  // The others leave for us: it will be EX before it is theirs.
  if (lock.my_turn && lock.needs_acquire()) return;
  lock.give_up = GiveUp::kAsked;
  lock.in_turns = want_in_turns(waiting, lock.held);
  tasks_.spawn(give_up(block, entry));
}

Task<void> LockManager::give_up(CachedBlock& block, std::size_t entry) {
  CachedLock& lock = block.locks[entry];
  const LockName name{block.block, static_cast<std::uint8_t>(entry)};
  co_await stop_.sleep_until(lock.since + tuning_.minimum_hold);
  if (ended()) co_return;
  const LockMode wanted = conflicting_want(waiting_for(name, lock), lock.held);
  if (wanted == LockMode::kNone) {
    keep_it(block, entry);
    co_return;
  }
  const LoggedWork work(log_, "handover");
  const LockMode keep = lock.held == LockMode::kExclusive && wanted == LockMode::kShared ? wanted : LockMode::kNone;

  admit(block, entry);
  if (client_ != nullptr) co_await client_->invalidate(name, lock.held, keep);
  lock.give_up = GiveUp::kClosing;
  CAWFS_ASSERT(lock.drained == nullptr);
  Condition drained(executor_);
  lock.drained = &drained;
  while (lock.users() && !ended()) co_await drained.wait();
  lock.drained = nullptr;
  // After a reset nothing is written under the lock before it is known to be held still.
  while (block.resets_checked != resets_ && !ended()) co_await block.worked.wait();
  if (ended()) co_return;

  if (client_ != nullptr) {
    Result<> settled = co_await client_->settle(name, lock.held, keep);
    if (ended()) co_return;
    if (!settled) {
      log_.error("lock block {} entry {}: cannot be given up: {}", name.block.value, name.entry,
                 describe(settled.error().code));
      membership_.withdraw(settled.error());
      co_return;
    }
  }
  lock.keep = keep;
  lock.give_up = GiveUp::kReady;
  if (!block.ready_since) block.ready_since = executor_.now();
  start_work(block);
}

// The lock has gone, or has become `now_held`, weaker than it was.
void LockManager::let_go(CachedBlock& block, std::size_t entry, LockMode now_held, bool opener_on_disk) {
  CachedLock& lock = block.locks[entry];
  lock.held = now_held;
  lock.give_up = GiveUp::kNo;
  lock.since = executor_.now();
  lock.expected = 0;
  lock.my_turn = false;
  lock.handover = now_held == LockMode::kNone;
  lock.opener_on_disk = opener_on_disk;
  ++counts_.given_up;
  if (now_held == LockMode::kNone) --counts_.held;
  admit(block, entry);
  if (now_held != LockMode::kNone) consider(block, entry);
}

// Nobody wants it any more.
void LockManager::keep_it(CachedBlock& block, std::size_t entry) {
  block.locks[entry].give_up = GiveUp::kNo;
  admit(block, entry);
  if (has_work(block)) start_work(block);
}

}  // namespace cawfs
