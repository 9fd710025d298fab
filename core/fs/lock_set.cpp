#include "core/fs/lock_set.h"

#include <algorithm>
#include <utility>

#include "core/base/assert.h"
#include "core/format/cluster_format.h"

namespace cawfs {

namespace {

// As often an operation may have to start over for reasons of its own.
constexpr int kStartsOver = 4;
constexpr int kMostDoublings = 6;

}  // namespace

LockSet::LockSet(LockService& locks, const Geometry& geometry, Executor& executor, Random& random)
    : locks_(locks), super_(global_lock(geometry, format::kEntrySuper)), executor_(executor), random_(random) {
  reset();
}

void LockSet::reset() {
  release();
  starts_over_ = 0;
  items_.clear();
  want(super_, LockMode::kShared, LocalUse::kShared);
}

void LockSet::want(LockName name, LockMode mode, LocalUse use) {
  auto it = std::lower_bound(items_.begin(), items_.end(), name,
                             [](const Item& item, const LockName& wanted) { return item.name < wanted; });
  if (it == items_.end() || it->name != name) {
    Item item;
    item.name = name;
    it = items_.insert(it, std::move(item));
  }
  it->mode = std::max(it->mode, mode);
  it->use = std::max(it->use, use);
}

Task<Result<>> LockSet::take() {
  release();
  if (starts_over_ > kStartsOver) co_await back_off();
  auto taken = co_await take_rest();
  co_return taken;
}

Task<void> LockSet::back_off() {
  const int doublings = std::min(starts_over_ - kStartsOver, kMostDoublings);
  const std::uint64_t most_us = std::uint64_t{1000} << doublings;
  co_await executor_.sleep(std::chrono::microseconds(random_.below(most_us)));
}

Task<Result<>> LockSet::take_rest() {
  for (Item& item : items_) {
    if (item.hold) continue;
    auto hold = co_await locks_.acquire(item.name, item.mode, item.use, pressed_);
    if (!hold) {
      release();
      co_return fail(hold.error());
    }
    item.hold = std::move(*hold);
  }
  co_return Result<>{};
}

bool LockSet::try_more(LockName name, LockMode mode, LocalUse use) {
  for (Item& item : items_) {
    if (item.name == name && item.hold) {
      if (item.hold.mode() >= mode && item.hold.use() >= use) return true;
      want(name, mode, use);
      return false;
    }
  }
  want(name, mode, use);
  auto hold = locks_.try_acquire(name, mode, use);
  if (!hold) return false;
  for (Item& item : items_) {
    if (item.name == name) item.hold = std::move(*hold);
  }
  return true;
}

void LockSet::drop() {
  ++starts_over_;
  release();
}

void LockSet::release() {
  // In the opposite order, so that a waiter of the first lock finds the others free.
  for (auto it = items_.rbegin(); it != items_.rend(); ++it) it->hold.release();
}

const LockHold& LockSet::hold(LockName name) const {
  for (const Item& item : items_) {
    if (item.name == name) {
      CAWFS_ASSERT(item.hold);
      return item.hold;
    }
  }
  assertion_failed("the lock is wanted", __FILE__, __LINE__);
}

bool LockSet::all_held() const {
  return std::all_of(items_.begin(), items_.end(), [](const Item& item) { return static_cast<bool>(item.hold); });
}

}  // namespace cawfs
