#include "mount/kernel_cache.h"

#include <cerrno>
#include <cstring>
#include <vector>

namespace cawfs {

namespace {

using namespace std::chrono_literals;

constexpr Duration kRetryInterval = 1ms;
// The kernel has an answer's inode in its table within microseconds; on a host that is short of processors later.
constexpr Duration kRetryLimit = 10s;
// Over a file that is read all the time; a bound, so that other nodes are not kept waiting for as long as that goes on.
constexpr int kPasses = 32;

fuse_notify_inval_inode_out inode_notification(std::uint64_t node_id, std::int64_t offset, std::int64_t length) {
  return {.ino = node_id, .off = offset, .len = length};
}

}  // namespace

// A whole file is dropped until no READ has come meanwhile: those that came before are waited for by the kernel, but
// the page of one that came meanwhile may have been passed already.
Task<void> FuseKernelCache::invalidate_inode(InodeNo inode, std::uint64_t offset, std::uint64_t length) {
  const Time give_up = executor_.now() + kRetryLimit;
  const bool whole = offset == 0 && length == 0;
  for (int pass = 1;; ++pass) {
    auto known = inodes_.find(inode);
    if (connection_.closed() || (known == inodes_.end() && inode != root_)) co_return;
    const bool may_wait = known != inodes_.end() && (known->second.pages || known->second.readable_opens > 0);
    if (whole && known != inodes_.end()) known->second.pages = false;
    const int result =
        co_await send_inode(inode, static_cast<std::int64_t>(offset), static_cast<std::int64_t>(length), may_wait);
    if (result == 0 && whole && may_have_pages(inode) && pass < kPasses) continue;
    if (result != -ENOENT || inode == root_) {
      if (result < 0 && result != -ENOENT && result != -ENODEV && result != -ENOTCONN) {
        log_.error("cannot drop the kernel's cache of inode {}: {}", inode.value, std::strerror(-result));
      }
      co_return;
    }
    if (executor_.now() >= give_up) {
      log_.error("the kernel has not taken up inode {} for {} s", inode.value, kRetryLimit / 1s);
      co_return;
    }
    co_await executor_.sleep(kRetryInterval);
  }
}

Task<int> FuseKernelCache::send_inode(InodeNo inode, std::int64_t offset, std::int64_t length, bool may_wait) {
  const auto payload = inode_notification(node_id(inode), offset, length);
  const auto bytes = std::as_bytes(std::span(&payload, 1));
  // Without pages there is nothing to wait for, and a helper thread would only cost time.
  if (!may_wait) co_return connection_.notify(FUSE_NOTIFY_INVAL_INODE, bytes);
  std::vector<std::byte> owned(bytes.begin(), bytes.end());
  const int result = co_await connection_.notify_and_wait(FUSE_NOTIFY_INVAL_INODE, std::move(owned));
  co_return result;
}

Task<void> FuseKernelCache::invalidate_entries(InodeNo directory) {
  auto known = inodes_.find(directory);
  if (connection_.closed() || known == inodes_.end()) co_return;
  // Without the epoch names are never given for longer than the answer itself (name_timeout()).
  if (connection_.features().inc_epoch && known->second.names_until > executor_.now()) {
    known->second.names_until = {};
    const int result = connection_.notify(fuse::kNotifyIncEpoch, {});
    if (result < 0 && result != -ENODEV && result != -ENOTCONN) {
      log_.error("cannot drop the kernel's names: {}", std::strerror(-result));
    }
  }
  // The cached listing. The caller may not know whether it is a directory at all: a file's pages may have to be waited
  // for.
  co_await send_inode(directory, 0, 0, known->second.pages || known->second.readable_opens > 0);
}

void FuseKernelCache::forget_attributes(InodeNo inode) {
  const auto payload = inode_notification(node_id(inode), -1, 0);
  connection_.notify(FUSE_NOTIFY_INVAL_INODE, std::as_bytes(std::span(&payload, 1)));
}

void FuseKernelCache::forgotten(InodeNo inode, std::uint64_t count) {
  auto known = inodes_.find(inode);
  if (known == inodes_.end()) return;
  known->second.references -= std::min(count, known->second.references);
  drop_if_unknown(inode);
}

void FuseKernelCache::name_given(InodeNo directory, Time until) {
  auto& known = inodes_[directory];
  known.names_until = std::max(known.names_until, until);
}

void FuseKernelCache::closed_readable(InodeNo inode) {
  auto known = inodes_.find(inode);
  CAWFS_ASSERT(known != inodes_.end() && known->second.readable_opens > 0);
  --known->second.readable_opens;
  drop_if_unknown(inode);
}

bool FuseKernelCache::may_have_pages(InodeNo inode) const {
  auto known = inodes_.find(inode);
  return known != inodes_.end() && known->second.pages;
}

void FuseKernelCache::drop_if_unknown(InodeNo inode) {
  auto known = inodes_.find(inode);
  if (known != inodes_.end() && known->second.references == 0 && known->second.readable_opens == 0 && inode != root_) {
    inodes_.erase(known);
  }
}

}  // namespace cawfs
