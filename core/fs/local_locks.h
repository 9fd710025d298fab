// The lock service of `-o local` and of tests: this node is alone, so every lock is held EX from the first use on, with
// generation 1. What remains is the order among the node's own users: first come, first served. Tests force giving a
// lock up, as another node would, and then see the lock's generation grow.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "core/base/error.h"
#include "core/base/types.h"
#include "core/device/device.h"
#include "core/format/geometry.h"
#include "core/fs/lock_service.h"
#include "core/runtime/executor.h"
#include "core/runtime/task.h"

namespace cawfs {

class LocalLockService final : public LockService {
 public:
  // `remember`: for held(), which else knows only locks in use.
  LocalLockService(Executor& executor, BlockDevice& device, const Geometry& geometry, NodeId self,
                   bool remember = false);
  ~LocalLockService() override;

  NodeId self() const override;
  void set_client(LockClient* client) override;
  Task<Result<LockHold>> acquire(LockName name, LockMode mode, LocalUse use,
                                 Pressed pressed = Pressed::kWaits) override;
  std::optional<LockHold> try_acquire(LockName name, LockMode mode, LocalUse use) override;
  // Writes a lock block with all entries free, and flushes.
  Task<Result<>> adopt_chunk(BlockNo lock_block) override;
  bool yielding(LockName name) const override;
  std::uint64_t openers(LockName name) const override;
  Task<Result<>> check_openers(LockName name) override;
  Task<Result<>> verify_openers(std::vector<LockName> names) override;
  Task<Result<>> closed(LockName name) override;
  void press(LockName /*name*/) override {}
  void unpress(LockName /*name*/) override {}
  Time lease_end() const override;
  Task<Result<>> wait_for_lease() override;

  // Users that wait and those that come fail with kStopping.
  void stop();

  // For tests: gives the lock up as if another node wanted it so much that `to` is left: the client's invalidate(),
  // while users come and go, then, without users, its settle(). Whatever `to` is, the next user has the lock EX.
  Task<Result<>> give_up(LockName name, LockMode to);
  // Every lock used since it was last given up, in order; for tests that give up one at random.
  std::vector<LockName> held() const;

 private:
  void release(LockName name, LocalUse use) override;

  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace cawfs
