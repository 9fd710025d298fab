// Openers (design §6.1): the slots that have an inode open while they hold no lock on it.
#include <bit>

#include "core/base/assert.h"
#include "disklock/lock_manager.h"

namespace cawfs {

std::uint64_t LockManager::openers(LockName name) const {
  const CachedLock* lock = find(name);
  return lock == nullptr ? 0 : lock->openers;
}

// Nobody can set a bit while it is held EX here. So a slot that has no node now had none that set its bit later.
Task<Result<>> LockManager::check_openers(LockName name) {
  for (std::uint64_t left = openers(name); left != 0; left &= left - 1) {
    const SlotNo slot{static_cast<std::uint16_t>(std::countr_zero(left))};
    ++counts_.record_reads;
    Result<bool> vacant = co_await membership_.is_vacant(slot);
    if (!vacant) co_return fail(vacant.error());
    const auto at = blocks_.find(name.block);
    if (at == blocks_.end()) co_return fail(end_error());
    if (*vacant) at->second->locks[name.entry].openers &= ~slot_bit(slot);
  }
  co_return Result<>{};
}

Task<Result<>> LockManager::closed(LockName name) {
  const CachedLock* lock = find(name);
  if (lock == nullptr) co_return Result<>{};
  // A CAW under way may just be setting the bit.
  CachedBlock& block = block_of(name.block);
  if (!lock->opener_on_disk && !block.working) co_return Result<>{};
  block.locks[name.entry].check_opener = true;
  start_work(block);
  while (true) {
    if (ended()) co_return fail(end_error());
    lock = find(name);
    if (lock == nullptr || !lock->check_opener) co_return Result<>{};
    co_await block_of(name.block).worked.wait();
  }
}

// A bit may be that of a node that has ended, whose slot another has taken over at once. That one, asked about a lock
// that it does not hold, takes back whatever names its slot.
Task<Result<>> LockManager::verify_openers(std::vector<LockName> names) {
  std::vector<std::uint64_t> asked;
  for (const LockName name : names) {
    asked.push_back(openers(name));
    for (std::uint64_t left = asked.back(); left != 0; left &= left - 1) {
      const SlotNo slot{static_cast<std::uint16_t>(std::countr_zero(left))};
      mailboxes_.want({slot, Incarnation{0}}, name, LockMode::kExclusive);
    }
  }
  co_await stop_.sleep_until(executor_.now() + tuning_.openers_answer);
  for (std::size_t i = 0; i < names.size(); ++i) {
    // Meanwhile it may have gone, and be asked for again.
    const CachedLock* lock = find(names[i]);
    for (std::uint64_t left = asked[i] & ~(lock ? lock->asked : 0); left != 0; left &= left - 1) {
      mailboxes_.unwant(SlotNo{static_cast<std::uint16_t>(std::countr_zero(left))}, names[i]);
    }
  }
  for (const LockName name : names) {
    if (ended()) co_return fail(end_error());
    Result<> read = co_await read_openers(name);
    if (!read) co_return read;
  }
  co_return Result<>{};
}

// Of a lock held EX: which bits have been cleared since it was had?
Task<Result<>> LockManager::read_openers(LockName name) {
  ++counts_.reads;
  Result<CawImage> image = co_await editor_.read(name.block.offset_bytes(), format::kLockMagic);
  if (!image) co_return fail(image.error());
  const Result<LockEntry> now = decode(image->as<format::LockBlock>().entries[name.entry]);
  if (!now) co_return fail(now.error());
  const auto at = blocks_.find(name.block);
  if (at == blocks_.end()) co_return Result<>{};
  CachedLock& lock = at->second->locks[name.entry];
  if (holds(*now, self(), LockMode::kExclusive, lock.generation)) lock.openers &= now->openers;
  co_return Result<>{};
}

}  // namespace cawfs
