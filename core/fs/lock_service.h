// Cluster locks as the file system sees them. disklock/ implements this over on-disk lock blocks; LocalLockService
// (core/fs/local_locks.h) implements it for `-o local` and tests.
//
// A *hold* is one user's use of a lock. The node keeps the lock, cached, after the last hold has gone, until another
// node wants it; then it asks the client (the file system) to settle what the lock covers and gives the lock up.
// Holding nothing, the client must forget what it cached under the lock.
//
// Order (design §6.2 rule 5): global entries by number, then inodes by address, then groups by number. acquire() may
// wait for another node, so the caller must hold nothing that orders after `name`, and have no transaction open.
// try_acquire() never waits and may be called in any order.
#pragma once

#include <chrono>
#include <compare>
#include <cstdint>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/base/types.h"
#include "core/format/disk_format.h"
#include "core/format/geometry.h"
#include "core/runtime/executor.h"
#include "core/runtime/task.h"

namespace cawfs {

// A lock entry: entry `entry` (0..14) of the lock block at `block`.
struct LockName {
  BlockNo block;
  std::uint8_t entry = 0;
  friend constexpr auto operator<=>(const LockName&, const LockName&) = default;
};

// An inode number whose block is the first of its chunk is the chunk's lock block and no inode.
inline bool is_inode_number(InodeNo inode) {
  return inode.value % format::kChunkBlocks != 0;
}
inline LockName lock_of(InodeNo inode) {
  const std::uint64_t index = inode.value % format::kChunkBlocks;
  return {BlockNo{inode.value - index}, static_cast<std::uint8_t>(index - 1)};
}
inline LockName lock_of(const Geometry& geometry, GroupNo group) {
  return {geometry.group_lock(group), 0};
}
inline LockName global_lock(const Geometry& geometry, std::uint8_t entry) {
  return {geometry.global_lock, entry};
}

enum class LockMode : std::uint8_t { kNone, kShared, kDeferred, kExclusive };

// How users of this node share the lock among themselves: kShared users run together (they order themselves, or only
// read), an kExclusive one alone. Under LockMode::kExclusive both make sense.
enum class LocalUse : std::uint8_t { kShared, kExclusive };

// What becomes of a user in the queue when this node has to let another go first, see LockService::press().
enum class Pressed : std::uint8_t { kWaits, kIsRefused };

class LockService;

class LockHold {
 public:
  LockHold() = default;
  // For lock services.
  LockHold(LockService* service, LockName name, LockMode mode, LocalUse use, Generation generation)
      : service_(service), name_(name), mode_(mode), use_(use), generation_(generation) {}
  LockHold(LockHold&& other) noexcept { *this = std::move(other); }
  LockHold& operator=(LockHold&& other) noexcept {
    if (this != &other) {
      release();
      service_ = std::exchange(other.service_, nullptr);
      name_ = other.name_;
      mode_ = other.mode_;
      use_ = other.use_;
      generation_ = other.generation_;
    }
    return *this;
  }
  ~LockHold() { release(); }

  void release();
  explicit operator bool() const { return service_ != nullptr; }
  LockName name() const { return name_; }
  // At least what was asked for; what this use may rely on.
  LockMode mode() const { return mode_; }
  LocalUse use() const { return use_; }
  // The entry's generation: unchanged since an earlier hold means nobody else had EX in between.
  Generation generation() const { return generation_; }

 private:
  LockService* service_ = nullptr;
  LockName name_;
  LockMode mode_ = LockMode::kNone;
  LocalUse use_ = LocalUse::kShared;
  Generation generation_;
};

// Implemented by the file system.
class LockClient {
 public:
  virtual ~LockClient() = default;

  // First step of giving up: drop the kernel's pages and names that `to` does not cover. Users still come and go under
  // the lock held (replies carry no cache timeouts, see LockService::yielding), so this may wait for the kernel.
  virtual Task<void> invalidate(LockName name, LockMode from, LockMode to) = 0;

  // Second step, no user is left and none comes: commit and write in place, durably, everything under the lock; then
  // forget whatever `to` does not cover. Waits for no lock of another node. An error means that it is not in place: the
  // lock is kept and the node withdraws.
  virtual Task<Result<>> settle(LockName name, LockMode from, LockMode to) = 0;

  // Is the inode of this entry open here? Asked when the lock is let go, for the entry's openers.
  virtual bool is_open(LockName name) = 0;
};

class LockService {
 public:
  virtual ~LockService() = default;

  virtual NodeId self() const = 0;
  virtual void set_client(LockClient* client) = 0;

  // Takes the lock in `mode` or a stronger one, waiting as long as it takes. Errors: kFenced, kStopping, and those of
  // the device (after which the lock is not held by this caller); kAgain with Pressed::kIsRefused only. Waits while the
  // self-lease has lapsed.
  virtual Task<Result<LockHold>> acquire(LockName name, LockMode mode, LocalUse use,
                                         Pressed pressed = Pressed::kWaits) = 0;
  // Exactly where acquire() would return at once: it is held already in a sufficient mode, nobody who came before waits
  // to use it here, and it is not being settled for another node.
  virtual std::optional<LockHold> try_acquire(LockName name, LockMode mode, LocalUse use) = 0;

  // Makes the lock block of a new inode chunk, all its entries held EX by this node, durable when this returns. The
  // caller holds the chunk's group EX and the chunk is not live yet. `inodes`: how many of the 15 exist as entries
  // (all).
  virtual Task<Result<>> adopt_chunk(BlockNo lock_block) = 0;

  // Does another node wait for it? A long operation lets go between steps then.
  virtual bool yielding(LockName name) const = 0;
  // Slots, other than ours, that have the inode open without a lock; exact while held EX.
  virtual std::uint64_t openers(LockName name) const = 0;
  // Takes out of openers() the slots whose nodes have ended since the lock was had EX; the caller holds it so.
  virtual Task<Result<>> check_openers(LockName name) = 0;
  // Asks the nodes that stand in openers() of these locks, last held EX here, whether they have the inodes open, and
  // waits for a while; who has not takes its bit back, which openers() then tells. To be called without a hold of them.
  virtual Task<Result<>> verify_openers(std::vector<LockName> names) = 0;
  // Clears this node's own bit in openers after its last close, if it is set; takes no lock.
  virtual Task<Result<>> closed(LockName name) = 0;

  // From press() to unpress(), while the client's invalidate() of a lock held S waits for a user who waits to have it
  // EX: this node goes before others that wait for it. Where two nodes do so at once, the one with the higher slot
  // refuses those of its users with kAgain who have asked for that. Calls may be nested.
  virtual void press(LockName name) = 0;
  virtual void unpress(LockName name) = 0;

  // Until when the kernel may cache what held locks cover; in the past when the lease has lapsed.
  virtual Time lease_end() const = 0;
  // Returns at once while the lease is valid. What was read under a lock before it lapsed is this node's to show still
  // when it has returned. kFenced, kStopping.
  virtual Task<Result<>> wait_for_lease() = 0;

 private:
  friend class LockHold;
  virtual void release(LockName name, LocalUse use) = 0;
};

inline void LockHold::release() {
  if (service_) std::exchange(service_, nullptr)->release(name_, use_);
}

}  // namespace cawfs
