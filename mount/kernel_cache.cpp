#include "mount/kernel_cache.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "core/runtime/task_group.h"

namespace cawfs {

namespace {

using namespace std::chrono_literals;

constexpr Duration kRetryInterval = 1ms;
// The kernel has an answer's inode in its table within microseconds; on a host that is short of processors later.
constexpr Duration kLongWait = 10s;
// A notification that waits for no READ ends sooner than this.
constexpr Duration kGrace = 500us;
constexpr Duration kGraceMost = 50ms;
// More pieces than this are dropped as one.
constexpr std::size_t kMostRanges = 64;
constexpr std::uint64_t kWholeFile = UINT64_MAX;

// Sorted, with those that touch joined.
template <class Range>
void join(std::vector<Range>& ranges) {
  std::ranges::sort(ranges, {}, &Range::begin);
  std::vector<Range> joined;
  for (const Range& range : ranges) {
    if (!joined.empty() && range.begin <= joined.back().end) {
      joined.back().end = std::max(joined.back().end, range.end);
    } else {
      joined.push_back(range);
    }
  }
  if (joined.size() > kMostRanges) joined = {Range{joined.front().begin, joined.back().end}};
  ranges = std::move(joined);
}

}  // namespace

FuseKernelCache::Answer::Answer(FuseKernelCache& cache) : cache_(cache) {
  cache_.answers_.push_back(this);
}

FuseKernelCache::Answer::~Answer() {
  std::erase(cache_.answers_, this);
}

void FuseKernelCache::dropping(InodeNo inode) {
  for (Answer* answer : answers_) answer->dropped_.insert(inode);
}

// Without pages there is nothing to wait for, and a helper thread would only cost time.
bool FuseKernelCache::may_wait(InodeNo inode) const {
  auto known = inodes_.find(inode);
  return known != inodes_.end() && (known->second.pages || known->second.readable_opens > 0);
}

Task<void> FuseKernelCache::invalidate_inode(InodeNo inode, std::uint64_t offset, std::uint64_t length) {
  if (offset == 0 && length == 0) {
    co_await drop_whole(inode);
  } else {
    const Range range{offset, length == 0 ? kWholeFile : offset + length};
    const bool sent = co_await send_inode(inode, range, may_wait(inode));
    if (!sent) co_await send_inode(inode, range, true);
  }
}

Task<void> FuseKernelCache::drop_whole(InodeNo inode) {
  dropping(inode);
  while (drops_.contains(inode)) co_await gate_.wait();
  if (!may_wait(inode)) {
    const bool sent = co_await send_inode(inode, {0, kWholeFile}, false);
    if (sent) co_return;
    while (drops_.contains(inode)) co_await gate_.wait();
  }
  Drop drop(executor_);
  drops_.emplace(inode, &drop);
  if (drop_began_) drop_began_();
  drop.ranges = {{0, kWholeFile}};
  while (!drop.ranges.empty()) {
    co_await drop_pass(inode, drop);
    drop.ranges = std::exchange(drop.again, {});
    join(drop.ranges);
  }
  drops_.erase(inode);
  gate_.notify_all();
}

Task<void> FuseKernelCache::drop_pass(InodeNo inode, Drop& drop) {
  drop.pass = ++passes_;
  drop.gate = Drop::Gate::kClosed;
  drop.sent = false;
  if (auto known = inodes_.find(inode); known != inodes_.end()) known->second.pages = false;
  TaskGroup sender(executor_);
  sender.spawn(send_ranges(inode, drop, true));
  Duration grace = kGrace;
  while (!drop.sent) {
    co_await drop.sent_change.wait_until(executor_.now() + grace);
    // It may wait for a READ that is being served; or for one at the gate, those that came before it first.
    auto known = inodes_.find(inode);
    if (drop.sent || (known != inodes_.end() && known->second.page_reads > 0)) {
      grace = std::min(grace * 2, kGraceMost);
      continue;
    }
    grace = drop.gate == Drop::Gate::kOpen ? std::min(grace * 2, kGraceMost) : kGrace;
    unblock(inode, drop);
  }
  co_await sender.join();
  if (drop.pressed) press_(inode, false);
  drop.pressed = false;
}

// No READ is being served, and still the notification does not end.
void FuseKernelCache::unblock(InodeNo inode, Drop& drop) {
  if (drop.gate != Drop::Gate::kOpen) {
    drop.gate = drop.gate == Drop::Gate::kClosed ? Drop::Gate::kEarlier : Drop::Gate::kOpen;
    gate_.notify_all();
    return;
  }
  auto known = inodes_.find(inode);
  const bool resizing = known != inodes_.end() && known->second.size_changes > 0;
  if (!resizing || drop.pressed || !press_) return;
  drop.pressed = true;
  press_(inode, true);
}

Task<void> FuseKernelCache::send_ranges(InodeNo inode, Drop& drop, bool may_wait) {
  for (std::size_t i = 0; i < drop.ranges.size(); ++i) co_await send_inode(inode, drop.ranges[i], may_wait);
  drop.sent = true;
  drop.sent_change.notify_all();
}

bool FuseKernelCache::admit(Drop& drop, Range read, std::uint64_t arrived) {
  if (drop.gate == Drop::Gate::kClosed) return false;
  const bool earlier =
      arrived < drop.pass &&
      std::ranges::any_of(
          drop.ranges, [&](const Range& range) { return range.begin <= read.begin && read.end <= range.end; });
  if (earlier) return true;
  if (drop.gate != Drop::Gate::kOpen) return false;
  drop.again.push_back(read);
  return true;
}

Task<FuseKernelCache::PageRead> FuseKernelCache::begin_page_read(InodeNo inode, std::uint64_t offset,
                                                                 std::uint64_t length) {
  const std::uint64_t arrived = passes_;
  const Range read{offset, offset + length};
  for (auto drop = drops_.find(inode); drop != drops_.end(); drop = drops_.find(inode)) {
    if (admit(*drop->second, read, arrived)) break;
    co_await gate_.wait();
  }
  Known& known = inodes_[inode];
  known.pages = true;
  ++known.page_reads;
  co_return PageRead(*this, inode);
}

void FuseKernelCache::page_read_ended(InodeNo inode) {
  --inodes_.at(inode).page_reads;
  drop_if_unknown(inode);
}

Task<bool> FuseKernelCache::send_inode(InodeNo inode, Range range, bool may_wait) {
  Time complain_at = executor_.now() + kLongWait;
  while (true) {
    auto known = inodes_.find(inode);
    if (connection_.closed() || (known == inodes_.end() && inode != root_)) co_return true;
    // Opened, and mapped perhaps, since it was found to have no pages.
    if (!may_wait && this->may_wait(inode)) co_return false;
    const int result = co_await send_once(inode, range, may_wait);
    if (result != -ENOENT) {
      if (result < 0 && result != -ENODEV && result != -ENOTCONN) {
        log_.error("cannot drop the kernel's cache of inode {}: {}", inode.value, std::strerror(-result));
      }
      co_return true;
    }
    known = inodes_.find(inode);
    if (inode == root_ || known == inodes_.end() || known->second.references == 0) co_return true;
    if (executor_.now() >= complain_at) {
      log_.warning("the kernel has not taken up inode {} for {} s", inode.value, kLongWait / 1s);
      complain_at = executor_.now() + kLongWait;
    }
    co_await executor_.sleep(kRetryInterval);
  }
}

Task<int> FuseKernelCache::send_once(InodeNo inode, Range range, bool may_wait) {
  const std::uint64_t length = range.end == kWholeFile ? 0 : range.end - range.begin;
  const fuse_notify_inval_inode_out payload{
      .ino = node_id(inode), .off = static_cast<std::int64_t>(range.begin), .len = static_cast<std::int64_t>(length)};
  const auto bytes = std::as_bytes(std::span(&payload, 1));
  if (!may_wait) co_return connection_.notify(FUSE_NOTIFY_INVAL_INODE, bytes);
  std::vector<std::byte> owned(bytes.begin(), bytes.end());
  const int result = co_await connection_.notify_and_wait(FUSE_NOTIFY_INVAL_INODE, std::move(owned));
  co_return result;
}

Task<void> FuseKernelCache::invalidate_entries(InodeNo directory) {
  dropping(directory);
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
  // The cached listing. The caller may not know whether it is a directory at all: a file's pages are dropped by
  // invalidate_inode(), since the kernel may wait for a size change of it.
  if (!may_wait(directory)) co_await send_once(directory, {0, kWholeFile}, false);
}

Task<void> FuseKernelCache::invalidate_all() {
  std::vector<InodeNo> files;
  for (const auto& [inode, known] : inodes_) {
    if (known.pages || known.readable_opens > 0) files.push_back(inode);
  }
  // Side by side: one may have to wait for a READ that is not answered before the lease is back.
  TaskGroup drops(executor_);
  for (const InodeNo inode : files) drops.spawn(drop_whole(inode));
  co_await drops.join();
}

void FuseKernelCache::forget_attributes(InodeNo inode) {
  const fuse_notify_inval_inode_out payload{.ino = node_id(inode), .off = -1, .len = 0};
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
  if (known == inodes_.end() || inode == root_) return;
  const Known& uses = known->second;
  if (uses.references == 0 && uses.readable_opens == 0 && uses.page_reads == 0 && uses.size_changes == 0) {
    inodes_.erase(known);
  }
}

}  // namespace cawfs
