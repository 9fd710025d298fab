#include "core/fs/local_locks.h"

#include <deque>
#include <map>

#include "core/base/assert.h"
#include "core/device/io_buffer.h"
#include "core/format/cluster_format.h"
#include "core/format/cluster_verify.h"
#include "core/runtime/sync.h"

namespace cawfs {
namespace {

struct Waiter {
  Waiter(Executor& executor, LocalUse u) : use(u), turn(executor) {}
  LocalUse use;
  Completion<Result<>> turn;
};

struct Lock {
  std::deque<Waiter*> queue;
  std::uint32_t shared = 0;
  bool exclusive = false;
  bool leaving = false;
  bool held = false;  // used since it was last given up
  Generation generation{1};

  bool free_for(LocalUse use) const { return !exclusive && (use == LocalUse::kShared || shared == 0); }
  void take(LocalUse use) {
    held = true;
    if (use == LocalUse::kShared) {
      ++shared;
    } else {
      exclusive = true;
    }
  }
};

}  // namespace

class LocalLockService::Impl {
 public:
  Impl(Executor& executor, BlockDevice& device, const Geometry& geometry, NodeId self, bool remember)
      : executor_(executor), device_(device), geometry_(geometry), self_(self), remember_(remember) {}

  Task<Result<>> take(LockName name, LocalUse use) {
    if (stopping_) co_return fail(Errc::kStopping, "lock", name.block.value);
    Lock& lock = locks_[name];
    if (lock.queue.empty() && lock.free_for(use)) {
      lock.take(use);
      co_return Result<>();
    }
    Waiter waiter(executor_, use);
    lock.queue.push_back(&waiter);
    const Result<> turn = co_await waiter.turn.wait();
    co_return turn;
  }

  bool try_take(LockName name, LocalUse use) {
    if (stopping_) return false;
    Lock& lock = locks_[name];
    if (!lock.queue.empty() || !lock.free_for(use)) return false;
    lock.take(use);
    return true;
  }

  void release(LockName name, LocalUse use) {
    const auto found = locks_.find(name);
    CAWFS_ASSERT(found != locks_.end());
    Lock& lock = found->second;
    if (use == LocalUse::kShared) {
      CAWFS_ASSERT(lock.shared > 0);
      --lock.shared;
    } else {
      CAWFS_ASSERT(lock.exclusive);
      lock.exclusive = false;
    }
    while (!lock.queue.empty() && lock.free_for(lock.queue.front()->use)) {
      Waiter& next = *lock.queue.front();
      lock.queue.pop_front();
      lock.take(next.use);
      next.turn.complete(Result<>());
    }
    const bool idle = lock.shared == 0 && !lock.exclusive && !lock.leaving;
    if (idle && !remember_ && lock.generation == Generation{1}) locks_.erase(found);
  }

  void stop() {
    stopping_ = true;
    for (auto& [name, lock] : locks_) {
      for (Waiter* waiter : lock.queue) waiter->turn.complete(fail(Errc::kStopping, "lock", name.block.value));
      lock.queue.clear();
    }
  }

  Task<Result<>> give_up(LockName name, LockMode to) {
    Lock& lock = locks_[name];  // stays where it is while `leaving`
    if (lock.leaving || !lock.held) co_return Result<>();
    lock.leaving = true;
    if (client_) co_await client_->invalidate(name, LockMode::kExclusive, to);
    const auto alone = co_await take(name, LocalUse::kExclusive);
    if (!alone) {
      lock.leaving = false;
      co_return alone;
    }
    Result<> settled;
    if (client_) settled = co_await client_->settle(name, LockMode::kExclusive, to);
    lock.leaving = false;
    if (settled) {
      lock.held = false;
      ++lock.generation.value;
    }
    release(name, LocalUse::kExclusive);
    co_return settled;
  }

  // The whole block is written: its tail behind the lock block's logical block is nobody's.
  Task<Result<>> adopt_chunk(BlockNo block) {
    IoBuffer image(kBlockSize);
    auto& lock_block = *reinterpret_cast<format::LockBlock*>(image.data());
    lock_block.header.sequence = 1;
    lock_block.header.writer_slot = self_.slot.value;
    lock_block.header.writer_incarnation = self_.incarnation.value;
    format::seal_lock_block(image.bytes().first(geometry_.logical_block), block.offset_bytes(), geometry_.fs_id);
    const auto written = co_await device_.write(block.offset_bytes(), image.bytes(), Durability::kCached);
    if (!written) co_return written;
    const auto flushed = co_await device_.flush();
    co_return flushed;
  }

  const Lock* find(LockName name) const {
    const auto found = locks_.find(name);
    return found == locks_.end() ? nullptr : &found->second;
  }
  Generation generation(LockName name) const { return find(name)->generation; }

  std::vector<LockName> held() const {
    std::vector<LockName> names;
    for (const auto& [name, lock] : locks_) {
      if (lock.held) names.push_back(name);
    }
    return names;
  }

  void set_client(LockClient* client) { client_ = client; }
  NodeId self() const { return self_; }
  Time lease_end() const { return executor_.now() + std::chrono::hours(1); }

 private:
  Executor& executor_;
  BlockDevice& device_;
  const Geometry& geometry_;
  const NodeId self_;
  const bool remember_;
  LockClient* client_ = nullptr;
  bool stopping_ = false;
  std::map<LockName, Lock> locks_;
};

LocalLockService::LocalLockService(Executor& executor, BlockDevice& device, const Geometry& geometry, NodeId self,
                                   bool remember)
    : impl_(std::make_unique<Impl>(executor, device, geometry, self, remember)) {}
LocalLockService::~LocalLockService() = default;

NodeId LocalLockService::self() const {
  return impl_->self();
}

void LocalLockService::set_client(LockClient* client) {
  impl_->set_client(client);
}

Task<Result<LockHold>> LocalLockService::acquire(LockName name, LockMode /*mode*/, LocalUse use, Pressed /*pressed*/) {
  const auto taken = co_await impl_->take(name, use);
  if (!taken) co_return fail(taken.error());
  co_return LockHold(this, name, LockMode::kExclusive, use, impl_->generation(name));
}

std::optional<LockHold> LocalLockService::try_acquire(LockName name, LockMode /*mode*/, LocalUse use) {
  if (!impl_->try_take(name, use)) return std::nullopt;
  return LockHold(this, name, LockMode::kExclusive, use, impl_->generation(name));
}

Task<Result<>> LocalLockService::adopt_chunk(BlockNo lock_block) {
  return impl_->adopt_chunk(lock_block);
}

bool LocalLockService::yielding(LockName name) const {
  const Lock* lock = impl_->find(name);
  return lock != nullptr && lock->leaving;
}

std::uint64_t LocalLockService::openers(LockName /*name*/) const {
  return 0;
}

Task<Result<>> LocalLockService::check_openers(LockName /*name*/) {
  co_return Result<>{};
}

Task<Result<>> LocalLockService::verify_openers(std::vector<LockName> /*names*/) {
  co_return Result<>{};
}

Task<Result<>> LocalLockService::closed(LockName /*name*/) {
  co_return Result<>();
}

Time LocalLockService::lease_end() const {
  return impl_->lease_end();
}

Task<Result<>> LocalLockService::wait_for_lease() {
  co_return Result<>{};
}

void LocalLockService::stop() {
  impl_->stop();
}

Task<Result<>> LocalLockService::give_up(LockName name, LockMode to) {
  return impl_->give_up(name, to);
}

std::vector<LockName> LocalLockService::held() const {
  return impl_->held();
}

void LocalLockService::release(LockName name, LocalUse use) {
  impl_->release(name, use);
}

}  // namespace cawfs
