#include "core/fs/chores.h"

#include <algorithm>

#include "core/fs/file_data.h"
#include "core/fs/fs_context.h"
#include "core/fs/orphans.h"

namespace cawfs {

namespace {

constexpr std::int64_t kDayNs = std::int64_t{24} * 3600 * 1'000'000'000;
constexpr Duration kSweepInterval = std::chrono::seconds(30);

std::int64_t changed_ns(const Inode& inode) {
  const format::Inode& raw = inode.raw();
  return std::max(inode.state().modified_ns.value_or(raw.mtime_ns.value()), raw.ctime_ns.value());
}

bool access_time_is_due(const Inode& inode, std::int64_t now) {
  const std::int64_t atime = inode.raw().atime_ns.value();
  return atime <= changed_ns(inode) || now - atime >= kDayNs;
}

void add_chore(FsContext& fs, FsContext::Chore chore, InodeNo inode) {
  fs.chores.emplace_back(chore, inode);
  fs.chores_more.notify_all();
}

Task<Result<>> update_access_time(FsContext& fs, InodeNo number) {
  LockSet locks = fs.lock_set();
  locks.want_write(number);
  auto taken = co_await locks.take();
  if (!taken) co_return taken;
  auto inode = co_await read_inode(fs, number);
  if (!inode) co_return fail(inode.error());
  // Somebody may have set it since.
  const auto read_ns = std::exchange(inode->state().read_ns, std::nullopt);
  if (!read_ns) co_return Result<>{};
  // So may another node, which has marked a change then; or another has read it later.
  if (*read_ns <= changed_ns(*inode) || !access_time_is_due(*inode, *read_ns)) co_return Result<>{};
  auto tx = co_await fs.log.begin(1);
  if (!tx) co_return fail(tx.error());
  tx->change(inode->buffer(), locks.hold(number));
  inode->raw().atime_ns = *read_ns;
  co_return Result<>{};
}

// The lock had been let go while the inode was open: its openers bit may be set, and its last link may have gone.
Task<Result<>> look_after_close(FsContext& fs, InodeNo number) {
  const InodePin state = fs.inodes.get(number);
  if (state->opens > 0) co_return Result<>{};
  state->lost_while_open = false;
  auto closed = co_await fs.locks.closed(lock_of(number));
  if (!closed) co_return closed;
  bool unlinked = false;
  {
    LockSet locks = fs.lock_set();
    locks.want_read(number);
    auto taken = co_await locks.take();
    if (!taken) co_return taken;
    auto inode = co_await read_named_inode(fs, number);
    if (!inode) co_return fail(inode.error());
    unlinked = inode->nlink() == 0;
  }
  if (!unlinked) co_return Result<>{};
  auto evicted = co_await evict_inode(fs, number);
  co_return evicted;
}

Task<Result<>> do_chore(FsContext& fs, FsContext::Chore chore, InodeNo number) {
  switch (chore) {
    case FsContext::Chore::kEvict:
      return evict_inode(fs, number);
    case FsContext::Chore::kLookAfterClose:
      return look_after_close(fs, number);
    case FsContext::Chore::kAccessTime:
      return update_access_time(fs, number);
  }
  std::unreachable();
}

std::uint64_t own_slot_bit(const FsContext& fs) {
  return std::uint64_t{1} << fs.locks.self().slot.value;
}

bool is_quiet(const Error& error) {
  return error.code == Errc::kStale || error.code == Errc::kStopping || error.code == Errc::kReadOnly ||
         error.code == Errc::kAgain;
}

void look_again(FsContext& fs) {
  for (const InodeNo number : std::exchange(fs.look_again, {})) {
    const InodePin state = fs.inodes.get(number);
    state->lost_while_open = true;
    note_released(fs, *state);  // one that is open again is looked at after its next close
  }
}

}  // namespace

void note_access(FsContext& fs, const Inode& inode) {
  InodeState& state = inode.state();
  if (fs.options.read_only || fs.stopping.requested()) return;
  const std::int64_t now = fs.wall_ns();
  if (!access_time_is_due(inode, now)) return;
  if (!state.read_ns) add_chore(fs, FsContext::Chore::kAccessTime, inode.number());
  state.read_ns = now;
}

void note_released(FsContext& fs, InodeState& state) {
  if (fs.options.read_only || state.opens > 0) return;
  if (state.lost_while_open) {
    add_chore(fs, FsContext::Chore::kLookAfterClose, state.number);
  } else if (state.unlinked && state.references == 0 && !state.eviction_queued) {
    state.eviction_queued = true;
    add_chore(fs, FsContext::Chore::kEvict, state.number);
  }
}

Task<void> run_chores(FsContext& fs) {
  for (;;) {
    if (fs.chores.empty()) {
      if (fs.stopping.requested()) co_return;
      co_await fs.chores_more.wait();
      continue;
    }
    const auto [chore, number] = fs.chores.front();
    fs.chores.pop_front();
    const InodePin state = fs.inodes.get(number);
    if (chore == FsContext::Chore::kEvict) state->eviction_queued = false;
    auto done = co_await do_chore(fs, chore, number);
    if (!done && chore == FsContext::Chore::kAccessTime) state->read_ns.reset();
    // To be tried again.
    if (!done && chore == FsContext::Chore::kEvict) fs.orphans_left |= own_slot_bit(fs);
    if (!done && chore == FsContext::Chore::kLookAfterClose && done.error() != Errc::kStale) {
      state->lost_while_open = true;
      fs.look_again.insert(number);
    }
    if (!done && !is_quiet(done.error())) {
      fs.messages.warning("inode {}: background work failed: {}", number.value, describe(done.error().code));
    }
  }
}

Task<void> run_sweeps(FsContext& fs) {
  while (!fs.stopping.requested()) {
    while (!fs.orphan_sweeps.empty()) {
      const SlotNo slot = fs.orphan_sweeps.front();
      fs.orphan_sweeps.pop_front();
      auto swept = co_await sweep_orphans(fs, slot);
      if (!swept && !is_quiet(swept.error())) {
        fs.messages.warning("orphans of slot {}: {}", slot.value, describe(swept.error().code));
      }
      if (fs.stopping.requested()) co_return;
    }
    co_await fs.sweeps_more.wait_until(fs.executor.now() + kSweepInterval);
    look_again(fs);
    if (fs.orphans_left & own_slot_bit(fs)) fs.orphan_sweeps.push_back(fs.locks.self().slot);
  }
}

}  // namespace cawfs
