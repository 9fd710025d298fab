#include "core/fs/lock_client.h"

#include <optional>
#include <vector>

#include "core/base/planted_fault.h"
#include "core/fs/fs_context.h"
#include "core/fs/inode.h"
#include "core/fs/write_back.h"

namespace cawfs {

namespace {

constexpr Duration kPause = std::chrono::milliseconds(1);

// The inode a lock covers, if it is not a global or a group's lock.
std::optional<InodeNo> inode_of(FsContext& fs, LockName name) {
  if (!fs.geometry.in_groups(name.block) || fs.space.group_of_lock(name)) return std::nullopt;
  return InodeNo{name.block.value + name.entry + 1};
}

bool is_directory(FsContext& fs, InodeNo inode) {
  const BufferRef buffer = fs.buffers.find(inode.block());
  // Without its block nothing is known: then it may be one.
  return !buffer || (buffer->as<format::Inode>().mode.value() & kTypeMask) == kTypeDirectory;
}

}  // namespace

Task<void> FsLockClient::invalidate(LockName name, LockMode from, LockMode to) {
  if (const auto group = fs_.space.group_of_lock(name)) {
    fs_.space.leave(*group);
    co_await convert_promises(*group);
  } else if (const auto inode = inode_of(fs_, name)) {
    co_await invalidate_inode(*inode, from, to);
  }
}

Task<void> FsLockClient::invalidate_inode(InodeNo inode, LockMode from, LockMode to) {
  if (fs_.kernel == nullptr) co_return;
  // The kernel knows the root without a lookup, so nothing counts its references.
  if (inode != fs_.geometry.root) {
    const InodePin state = fs_.inodes.find(inode);
    if (!state || state->references == 0) co_return;
  }
  const bool directory = is_directory(fs_, inode);
  // Under S the kernel's names stay right; its pages too, but for those that a shared map has dirtied.
  if (directory && to >= LockMode::kShared && from == LockMode::kExclusive) co_return;
  if (directory) co_await fs_.kernel->invalidate_entries(inode);
  // Last: a page read after this one has returned would stay.
  co_await fs_.kernel->invalidate_inode(inode, 0, 0);
}

// Dirty data that rests on the group gets its blocks. Only inodes whose lock can be had at once: one that cannot is in
// use, or being given up itself, and then is written by its own settle(). A writer that has its promise and is about to
// make its inode dirty is not listed yet.
Task<void> FsLockClient::convert_promises(GroupNo group) {
  while (fs_.space.promises_resting_on(group) > 0) {
    std::vector<InodeNo> inodes;
    for (const InodeState& state : fs_.inodes.dirty()) {
      if (state.promised_blocks > 0) inodes.push_back(state.number);
    }
    bool wrote = false;
    for (const InodeNo number : inodes) {
      auto hold = fs_.locks.try_acquire(lock_of(number), LockMode::kExclusive, LocalUse::kExclusive);
      if (!hold) continue;
      auto written = co_await write_back_unused(fs_, number);
      if (!written) {
        fs_.messages.warning("inode {}: writing back failed: {}", number.value, describe(written.error().code));
        co_return;
      }
      wrote = true;
      if (fs_.space.promises_resting_on(group) == 0) co_return;
    }
    if (!wrote) co_await fs_.executor.sleep(kPause);
    if (fs_.stop_io.requested()) co_return;
  }
}

Task<Result<>> FsLockClient::settle_inode(InodeNo inode, LockMode from, LockMode to) {
  const LockName name = lock_of(inode);
  if (from == LockMode::kExclusive) {
    Result<> written;
    if (!planted(PlantedFault::kDirtyDataLeft)) written = co_await write_back_unused(fs_, inode);
    if (!written) co_return written;
    if (!planted(PlantedFault::kReleaseBeforeInPlace)) written = co_await fs_.log.write_back(name);
    if (!written) co_return written;
    written = co_await fs_.log.flush_data();
    if (!written) co_return written;
  }
  if (to != LockMode::kNone) co_return Result<>{};
  const InodePin state = fs_.inodes.find(inode);
  if (state && state->opens > 0) state->lost_while_open = true;
  if (!planted(PlantedFault::kBuffersKept)) fs_.buffers.forget(name);
  co_return Result<>{};
}

Task<Result<>> FsLockClient::settle(LockName name, LockMode from, LockMode to) {
  if (const auto group = fs_.space.group_of_lock(name)) {
    if (from != LockMode::kExclusive) {
      // Read under S, to check inode numbers from outside.
      if (to == LockMode::kNone) fs_.buffers.forget(name);
      co_return Result<>{};
    }
    co_await convert_promises(*group);
    auto settled = co_await fs_.space.settle(*group);
    if (!settled) co_return settled;
    // What was written ahead of need, and is another node's blocks from now on, must not be written again by this one
    // after a reset of the LUN: the device keeps it no longer than until a flush.
    fs_.log.data_written();
    auto flushed = co_await fs_.log.flush_data();
    co_return flushed;
  }
  if (const auto inode = inode_of(fs_, name)) {
    auto settled = co_await settle_inode(*inode, from, to);
    co_return settled;
  }
  // SUPER, RENAME and the like cover nothing that is kept here.
  co_return Result<>{};
}

bool FsLockClient::is_open(LockName name) {
  const auto inode = inode_of(fs_, name);
  if (!inode) return false;
  const InodePin state = fs_.inodes.find(*inode);
  return state && state->opens > 0;
}

}  // namespace cawfs
