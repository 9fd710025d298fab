#include "disklock/lock_manager.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "core/base/assert.h"

namespace cawfs {

namespace {

constexpr std::uint64_t kChecksAtOnce = 64;

bool covers(LockMode held, LockMode wanted) {
  return held == LockMode::kExclusive || held == wanted;
}

}  // namespace

LockManager::LockManager(Membership& membership, Mailboxes& mailboxes, const Geometry& geometry, Random& random,
                         Log& log, LockTuning tuning)
    : executor_(membership.executor()),
      membership_(membership),
      mailboxes_(mailboxes),
      geometry_(geometry),
      random_(random),
      log_(log),
      tuning_(tuning),
      editor_(membership.device(), membership.executor(), random, geometry.fs_id, kForever),
      tasks_(membership.executor()),
      stop_(membership.executor()),
      checks_(membership.executor(), kChecksAtOnce) {}

LockManager::~LockManager() {
  CAWFS_ASSERT(!started_);
}

void LockManager::start() {
  started_ = true;
  editor_.set_writer(membership_.self());
  membership_.add_observer(this);
  mailboxes_.start(this);
}

Task<void> LockManager::stop() {
  if (!started_) co_return;
  stopping_ = true;
  fail_all(Error{Errc::kStopping});
  co_await mailboxes_.stop();
  co_await tasks_.join();
  membership_.remove_observer(this);
  started_ = false;
}

Error LockManager::end_error() const {
  return Error{membership_.withdrawn() ? Errc::kFenced : Errc::kStopping, "lock"};
}

// ---- Users ----

CachedBlock& LockManager::block_of(BlockNo number) {
  auto& block = blocks_[number];
  if (!block) {
    block = std::make_unique<CachedBlock>(executor_, number);
    block->resets_checked = resets_;
  }
  return *block;
}

const CachedLock* LockManager::find(LockName name) const {
  const auto at = blocks_.find(name.block);
  return at == blocks_.end() ? nullptr : &at->second->locks[name.entry];
}

bool LockManager::may_use(const CachedBlock& block, const CachedLock& lock, LockMode mode, LocalUse use) const {
  if (lock.held == LockMode::kNone || !covers(lock.held, mode)) return false;
  if (lock.give_up == GiveUp::kClosing || lock.give_up == GiveUp::kReady) return false;
  if (block.resets_checked != resets_) return false;
  return use == LocalUse::kShared ? !lock.exclusive_user : !lock.users();
}

// acquire() would not wait. try_acquire() says the same: a caller that it refuses has the lock got ready by acquire()
// and tries again, which were an endless loop if one granted what the other refuses.
bool LockManager::at_once(const CachedBlock& block, const CachedLock& lock, LockMode mode, LocalUse use) const {
  return std::ranges::all_of(lock.queue, [&](const LockUser& user) { return may_be_passed(lock, user); }) &&
         may_use(block, lock, mode, use);
}

// While the lock is asked for, the client waits for the kernel, and that maybe for a user who needs no more than is
// held: then those who need more, and so wait for another node, do not stand in its way. The others keep their order,
// or readers without end would keep out a writer whom the client waits for.
bool LockManager::may_be_passed(const CachedLock& lock, const LockUser& user) {
  return lock.give_up == GiveUp::kAsked && !covers(lock.held, user.mode);
}

LockHold LockManager::use(LockName name, CachedLock& lock, LockMode mode, LocalUse use) {
  if (use == LocalUse::kShared) {
    ++lock.shared_users;
  } else {
    lock.exclusive_user = true;
  }
  return LockHold(this, name, mode, use, lock.generation);
}

void LockManager::admit(CachedBlock& block, std::size_t entry) {
  CachedLock& lock = block.locks[entry];
  const LockName name{block.block, static_cast<std::uint8_t>(entry)};
  for (auto next = lock.queue.begin(); next != lock.queue.end();) {
    LockUser& user = *next;
    if (may_use(block, lock, user.mode, user.use)) {
      next = lock.queue.erase(next);
      user.granted.complete(use(name, lock, user.mode, user.use));
    } else if (may_be_passed(lock, user)) {
      ++next;
    } else {
      return;
    }
  }
}

Task<Result<LockHold>> LockManager::acquire(LockName name, LockMode mode, LocalUse local, Pressed pressed) {
  CAWFS_ASSERT(mode != LockMode::kNone && name.entry < format::kEntriesPerLockBlock);
  if (mode == LockMode::kDeferred) mode = LockMode::kExclusive;
  Result<> lease = co_await membership_.wait_for_lease();
  if (!lease) co_return fail(lease.error());
  if (ended()) co_return fail(end_error());

  CachedBlock& block = block_of(name.block);
  CachedLock& lock = block.locks[name.entry];
  if (at_once(block, lock, mode, local)) co_return use(name, lock, mode, local);
  LockUser user(executor_, mode, local, pressed);
  lock.queue.push_back(user);
  if (has_work(block)) start_work(block);
  Result<LockHold> hold = co_await user.granted.wait();
  if (!hold) co_return hold;

  // It may have taken long. What was granted is ours still if the lease comes back.
  lease = co_await membership_.wait_for_lease();
  if (!lease) co_return fail(lease.error());
  co_return hold;
}

std::optional<LockHold> LockManager::try_acquire(LockName name, LockMode mode, LocalUse local) {
  if (ended() || !membership_.lease_valid()) return std::nullopt;
  if (mode == LockMode::kDeferred) mode = LockMode::kExclusive;
  const auto at = blocks_.find(name.block);
  if (at == blocks_.end()) return std::nullopt;
  CachedLock& lock = at->second->locks[name.entry];
  if (!at_once(*at->second, lock, mode, local)) return std::nullopt;
  return use(name, lock, mode, local);
}

void LockManager::release(LockName name, LocalUse local) {
  const auto at = blocks_.find(name.block);
  CAWFS_ASSERT(at != blocks_.end());
  CachedLock& lock = at->second->locks[name.entry];
  CAWFS_ASSERT(local == LocalUse::kShared ? lock.shared_users > 0 : lock.exclusive_user);
  if (local == LocalUse::kShared) {
    --lock.shared_users;
  } else {
    lock.exclusive_user = false;
  }
  if (!lock.users() && lock.drained != nullptr) lock.drained->notify_all();
  admit(*at->second, name.entry);
}

Task<Result<>> LockManager::adopt_chunk(BlockNo lock_block) {
  if (ended()) co_return fail(end_error());
  while (true) {
    CachedBlock& block = block_of(lock_block);
    if (!block.working) break;
    co_await block.worked.wait();
  }
  block_of(lock_block).working = true;  // nobody else touches it until it is there

  IoBuffer image(kBlockSize);
  auto& made = *reinterpret_cast<format::LockBlock*>(image.data());
  made.header.magic = format::kLockMagic;
  made.header.sequence = 1;
  made.header.writer_slot = self().slot.value;
  made.header.writer_incarnation = self().incarnation.value;
  made.header.nonce = random_.next();
  const LockEntry mine{.mode = LockMode::kExclusive, .owner = self(), .generation = Generation{1}};
  for (format::LockEntry& entry : made.entries) encode(mine, entry);
  const std::uint64_t offset = lock_block.offset_bytes();
  seal_caw(image.bytes().first(geometry_.logical_block), offset, geometry_.fs_id);
  Result<> written = co_await membership_.device().write(offset, image.bytes(), Durability::kFua);

  CachedBlock& block = block_of(lock_block);
  block.working = false;
  if (written) {
    block.remembered = made;
    for (std::size_t entry = 0; entry < block.locks.size(); ++entry) {
      CachedLock& lock = block.locks[entry];
      lock.held = LockMode::kExclusive;
      lock.generation = mine.generation;
      lock.since = executor_.now();
      lock.openers = 0;
      admit(block, entry);
      consider(block, entry);
    }
    counts_.held += block.locks.size();
  }
  block.worked.notify_all();
  if (ended()) fail_all(end_error());
  if (has_work(block)) start_work(block);
  co_return written;
}

bool LockManager::yielding(LockName name) const {
  const CachedLock* lock = find(name);
  return lock != nullptr && lock->give_up != GiveUp::kNo;
}

void LockManager::press(LockName name) {
  CachedBlock& block = block_of(name.block);
  ++block.locks[name.entry].pressed;
  if (has_work(block)) start_work(block);
}

void LockManager::unpress(LockName name) {
  CachedBlock& block = block_of(name.block);
  CachedLock& lock = block.locks[name.entry];
  CAWFS_ASSERT(lock.pressed > 0);
  if (--lock.pressed > 0) return;
  lock.overtook = false;
  if (block.idle()) blocks_.erase(name.block);
}

LockCounts LockManager::counts() const {
  return counts_;
}

LockMode LockManager::held(LockName name) const {
  const CachedLock* lock = find(name);
  return lock == nullptr ? LockMode::kNone : lock->held;
}

// ---- News ----

void LockManager::mail_came(SlotNo from) {
  for (const MailWant& want : mailboxes_.wants_of(from)) {
    CachedBlock& block = block_of(want.block);
    for (std::size_t entry = 0; entry < block.locks.size(); ++entry) {
      if ((want.entries >> entry) & 1) consider(block, entry);
    }
    if (block.working) block.wake.notify_all();  // a handover may wait for this want
  }
}

void LockManager::rung(SlotNo from) {
  if (on_ring_) on_ring_(from);
}

void LockManager::reset_seen() {
  ++resets_;
  for (auto& [number, block] : blocks_) start_work(*block);
}

void LockManager::withdrawn(Error reason) {
  fail_all(Error{Errc::kFenced, reason.where, reason.address});
}

// ---- The end ----

void LockManager::fail_users(CachedLock& lock, const Error& error) {
  while (!lock.queue.empty()) {
    LockUser& user = lock.queue.front();
    lock.queue.pop_front();
    user.granted.complete(fail(error));
  }
}

void LockManager::yield(CachedLock& lock, LockName name) {
  for (auto next = lock.queue.begin(); next != lock.queue.end();) {
    LockUser& user = *next++;
    if (user.pressed != Pressed::kIsRefused) continue;
    user.unlink();
    user.granted.complete(fail(Errc::kAgain, "lock", name.block.value));
  }
}

void LockManager::fail_all(const Error& error) {
  stop_.request();
  for (auto& [number, block] : blocks_) {
    for (CachedLock& lock : block->locks) {
      fail_users(lock, error);
      if (lock.drained != nullptr) lock.drained->notify_all();
    }
    block->wake.notify_all();
    block->worked.notify_all();
  }
}

}  // namespace cawfs
