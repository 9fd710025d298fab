// The worker of a lock block: the only task that reads and writes it, one round after the other.
#include <algorithm>
#include <bit>

#include "core/base/assert.h"
#include "core/base/planted_fault.h"
#include "disklock/lock_round.h"
#include "disklock/slot_table.h"

namespace cawfs {

namespace {

using namespace std::chrono_literals;

// A block that cannot be read, while locks in it are held, is tried again so soon; sooner when somebody asks.
constexpr Duration kTryAgainAfter = 500ms;

}  // namespace

void LockManager::start_work(CachedBlock& block) {
  if (block.working) {
    block.wake.notify_all();
    return;
  }
  if (ended()) return;
  block.working = true;
  tasks_.spawn(work(block));
}

bool LockManager::still_held(const CachedBlock& block) const {
  return std::ranges::any_of(block.locks, [](const CachedLock& lock) { return lock.held != LockMode::kNone; });
}

bool LockManager::has_work(const CachedBlock& block) const {
  if (block.resets_checked != resets_ && still_held(block)) return true;
  return std::ranges::any_of(block.locks, [](const CachedLock& lock) {
    return lock.needs_acquire() || lock.give_up == GiveUp::kReady || lock.disown || lock.check_opener ||
           lock.waits_for_nobody();
  });
}

Task<void> LockManager::work(CachedBlock& block) {
  block.interval = tuning_.poll_fastest;
  block.lives_at = executor_.now();
  // Old news will do for giving up what we hold, not for finding out what others have done.
  const bool look = std::ranges::any_of(
      block.locks, [](const CachedLock& lock) { return lock.needs_acquire() || lock.disown || lock.check_opener; });
  if (block.remembered && !look) {
    block.image = CawImage(block.block.offset_bytes(), geometry_.logical_block);
    block.image.as<format::LockBlock>() = *block.remembered;
    block.read_at = executor_.now();
    block.lives = {};
  }
  while (!ended() && has_work(block)) {
    Result<> done = co_await membership_.wait_for_lease();
    if (done && !ended()) done = co_await work_once(block);
    if (!done) block_failed(block, done.error());
    block.failing = !done;
    block.worked.notify_all();
    if (!done && has_work(block) && !ended()) co_await block.wake.wait_until(executor_.now() + kTryAgainAfter);
  }
  if (ended()) {
    for (CachedLock& lock : block.locks) fail_users(lock, end_error());
  }
  end_work(block);
}

void LockManager::end_work(CachedBlock& block) {
  block.working = false;
  if (block.image) block.remembered = block.image.as<format::LockBlock>();
  block.image = {};
  block.ready_since.reset();
  block.worked.notify_all();
  const BlockNo number = block.block;
  if (block.idle()) blocks_.erase(number);
}

Task<Result<>> LockManager::work_once(CachedBlock& block) {
  const std::uint64_t resets = resets_;
  if (block.resets_checked != resets) block.image = {};
  if (!block.image) {
    if (block.resets_checked != resets) co_await checks_.acquire();
    Result<> read = co_await read_image(block);
    if (block.resets_checked != resets) checks_.release();
    if (!read) co_return read;
    if (ended()) co_return Result<>{};
  }
  if (block.resets_checked != resets) {
    check_held(block);
    block.resets_checked = resets;
    for (std::size_t entry = 0; entry < block.locks.size(); ++entry) admit(block, entry);
  }
  Round round = plan(block);
  if (ended()) co_return Result<>{};
  Result<> done;
  if (round.records != 0) {
    done = co_await read_records(block, round.records);
  } else if (!round.handed.empty()) {
    done = co_await take_handed(block, std::move(round.handed));
  } else if (!round.changes.empty()) {
    const LoggedWork work(log_, "lock change");
    done = co_await write_round(block, std::move(round));
  } else if (round.waiting || round.until) {
    co_await wait_for_change(block, round.waiting, round.until);
  }
  co_return done;
}

Task<Result<>> LockManager::read_image(CachedBlock& block) {
  const std::uint64_t known = block.remembered ? block.remembered->header.sequence.value() : 0;
  ++counts_.reads;
  Result<CawImage> image = co_await editor_.read(block.block.offset_bytes(), format::kLockMagic);
  if (!image) co_return fail(image.error());
  if (image->sequence() != known) block.interval = tuning_.poll_fastest;
  block.image = std::move(*image);
  block.remembered = block.image.as<format::LockBlock>();
  block.lives = {};
  block.read_at = executor_.now();
  co_return Result<>{};
}

// After the image was read, so that what they say holds for it.
Task<Result<>> LockManager::read_records(CachedBlock& block, std::uint64_t slots) {
  block.lives_at = executor_.now();
  for (; slots != 0; slots &= slots - 1) {
    const SlotNo slot{static_cast<std::uint16_t>(std::countr_zero(slots))};
    ++counts_.record_reads;
    Result<format::SlotRecord> record = co_await membership_.read_slot(slot);
    Result<SlotView> view = record ? view_slot(slot, *record) : Result<SlotView>(fail(record.error()));
    if (!view) {
      log_.warning("slot record {}: {}", slot.value, describe(view.error().code));
      if (!is_damage(view.error().code)) {
        co_await block.wake.wait_until(executor_.now() + tuning_.record_check);
        co_return Result<>{};
      }
      seen_[slot.value] = Seen{executor_.now(), std::nullopt, true};
      block.lives.set_unknown(slot);
      slot_unknown(block, slot, view.error());
      continue;
    }
    bool in_use = view->in_use();
    if (planted(PlantedFault::kCachedSlotRecord)) in_use = membership_.incarnation_of(slot) == view->incarnation;
    if (planted(PlantedFault::kRecoveringOwnersEntry)) in_use = view->state == format::SlotState::kActive;
    const std::optional<Incarnation> live = in_use ? std::optional(view->incarnation) : std::nullopt;
    seen_[slot.value] = Seen{executor_.now(), live};
    block.lives.set(slot, live);
    if (view->damaged()) slot_unknown(block, slot, Error{Errc::kBadValue, "journal of slot", slot.value});
  }
  co_return Result<>{};
}

// A damaged or unreadable record tells nothing of its node, a damaged journal cannot be replayed, and no node mends
// either: whoever would have to wait for that node is told so, rather than made to wait for ever. Nothing is taken from
// it.
void LockManager::slot_unknown(CachedBlock& block, SlotNo slot, const Error& error) {
  for (std::size_t entry = 0; entry < block.locks.size(); ++entry) {
    CachedLock& lock = block.locks[entry];
    if (!lock.needs_acquire()) continue;
    const Result<LockEntry> now = decode(block.image.as<format::LockBlock>().entries[entry]);
    if (!now) continue;
    const AcquirePlan plan = plan_acquire(*now,
                                          {.self = self(),
                                           .held = lock.held,
                                           .wanted = lock.wanted(),
                                           .handover = lock.handover,
                                           .generation = lock.generation},
                                          block.lives);
    const bool in_the_way = (plan.ask & slot_bit(slot)) != 0;
    if (!in_the_way) continue;
    fail_users(lock, error);
    lock.ahead = false;
    ask(lock, {block.block, static_cast<std::uint8_t>(entry)}, 0, LockMode::kNone, {});
  }
}

// Another node has written these grants. On a volatile cache its image is flushed before anything relies on it.
Task<Result<>> LockManager::take_handed(CachedBlock& block, std::vector<std::size_t> entries) {
  Result<> durable = co_await editor_.make_durable(block.image.writer());
  if (!durable) co_return durable;
  for (const std::size_t entry : entries) {
    const Result<LockEntry> now = decode(block.image.as<format::LockBlock>().entries[entry]);
    CAWFS_ASSERT(now.has_value());
    granted(block, entry, *now, now->mode);
  }
  co_return Result<>{};
}

Task<Result<>> LockManager::write_round(CachedBlock& block, Round round) {
  CawImage next = block.image.clone();
  for (const Round::Change& change : round.changes) {
    encode(change.after, next.as<format::LockBlock>().entries[change.entry]);
  }
  ++counts_.writes;
  Result<CawResult> written = co_await editor_.write(std::move(block.image), std::move(next));
  block.image = {};
  if (!written) {
    for (const Round::Change& change : round.changes) {
      const bool waits = change.after.waiter != LockMode::kNone && change.after.owner == self();
      if (waits) block.locks[change.entry].my_turn = true;  // it may have run
    }
    co_return fail(written.error());
  }
  if (written->outcome == CawOutcome::kOthersChanged) {
    Result<> durable = co_await editor_.make_durable(written->image.writer());
    if (!durable) co_return durable;
  }
  block.image = std::move(written->image);
  block.remembered = block.image.as<format::LockBlock>();
  block.lives = {};
  block.read_at = executor_.now();
  block.interval = tuning_.poll_fastest;
  if (written->outcome == CawOutcome::kRan) {
    ran(block, round);
  } else {
    judge(block, round);
  }
  co_return Result<>{};
}

Task<void> LockManager::wait_for_change(CachedBlock& block, bool waiting, std::optional<Time> until) {
  const Time poll_at = block.read_at + block.interval;
  if (waiting) {
    if (block.interval == tuning_.poll_fastest) mailboxes_.hurry();
    if (!until || poll_at < *until) until = poll_at;
  }
  if (executor_.now() < *until) co_await block.wake.wait_until(*until);
  if (!waiting || executor_.now() < poll_at) co_return;
  block.image = {};
  block.interval = std::min(block.interval * 5 / 4, tuning_.poll_slowest);
}

// The block cannot be read or written: whoever wants something of it is told. What was being given up counts as given
// up, if it was to go: the client has forgotten what it covered. What was to become S is still cached as under S, so it
// is neither given up nor used, but written again until it is known what the entry says. What is held, but could not be
// compared with the disk since a reset, is served to nobody until it has been.
void LockManager::block_failed(CachedBlock& block, const Error& error) {
  if (!ended() && !block.failing) {
    log_.error("lock block {}: {}", block.block.value, describe(error.code));
  }
  block.image = {};
  block.remembered.reset();
  for (std::size_t entry = 0; entry < block.locks.size(); ++entry) {
    CachedLock& lock = block.locks[entry];
    if (lock.give_up == GiveUp::kReady) {
      fail_users(lock, error);
      if (lock.keep == LockMode::kNone) {
        let_go(block, entry, LockMode::kNone, true);
        lock.handover = false;
      }
    } else if (lock.needs_acquire() || block.resets_checked != resets_) {
      fail_users(lock, error);
      lock.ahead = false;
      ask(lock, {block.block, static_cast<std::uint8_t>(entry)}, 0, LockMode::kNone, {});
    }
    lock.disown = false;
    lock.check_opener = false;
  }
}

}  // namespace cawfs
