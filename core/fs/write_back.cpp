#include "core/fs/write_back.h"

#include <vector>

#include "core/fs/file_data.h"
#include "core/fs/fs_context.h"

namespace cawfs {

namespace {

constexpr Duration kDirtyAge = std::chrono::seconds(5);
constexpr Duration kPauseForGroup = std::chrono::milliseconds(1);
constexpr Duration kPauseAfterError = std::chrono::seconds(1);

// All that is dirty of it but its times is dropped, as it finds no place; sync() will tell.
void lose_everything(FsContext& fs, InodeState& state, const LockHold& hold, const Error& error) {
  fs.messages.error("inode {}: written data is lost: {}", state.number.value, describe(error.code));
  state.write_errors.note(error);
  DirtyChange change(fs, state, hold.generation());
  state.data.clear();
  state.size.reset();
}

std::vector<InodeNo> dirty_inodes(FsContext& fs) {
  std::vector<InodeNo> inodes;
  for (const InodeState& state : fs.inodes.dirty()) inodes.push_back(state.number);
  return inodes;
}

// Groups held by this node have it.
bool is_promised(const SpaceRequest& request) {
  return request.frees.empty() && request.promised >= request.data + request.metadata;
}

bool under_pressure(const FsContext& fs) {
  return fs.dirty_bytes > fs.options.dirty_data_bytes / 2;
}

Task<Result<>> try_write_back_unused(FsContext& fs, InodeState& state, const LockHold& hold) {
  while (state.dirty()) {
    auto inode = co_await read_named_inode(fs, state.number);
    if (!inode) co_return fail(inode.error());
    auto room = co_await write_back_step(fs, *inode, hold);
    if (!room) co_return fail(room.error());
    if (!*room) continue;
    auto ready = co_await fs.space.prepare_held(**room);
    if (ready) continue;
    if (ready.error().code == Errc::kAgain && is_promised(**room) && !fs.stop_io.requested()) {
      // It is there, in a group whose lock somebody else here is waiting for at the moment.
      co_await fs.executor.sleep(kPauseForGroup);
      continue;
    }
    if (ready.error().code == Errc::kAgain) ready = fail(Errc::kNoSpace, "write back", state.number.value);
    co_return ready;
  }
  co_return Result<>{};
}

}  // namespace

bool is_loss(Errc code) {
  return code == Errc::kMedium || code == Errc::kThinFull || code == Errc::kNoSpace || code == Errc::kBounds ||
         error_class(code) == ErrorClass::kCorrupt;
}

Task<Result<>> write_back_inode(FsContext& fs, InodeNo number) {
  const InodePin state = fs.inodes.find(number);
  LockSet locks = fs.lock_set();
  locks.want_write(number);
  bool no_space = false;
  while (state && state->dirty()) {
    auto taken = co_await locks.take();
    if (!taken) co_return taken;
    // Giving the lock up meanwhile has written it.
    if (!state->dirty()) break;
    const LockHold& hold = locks.hold(number);
    auto inode = co_await read_named_inode(fs, number);
    if (!inode) co_return fail(inode.error());
    if (no_space) {
      lose_everything(fs, *state, hold, {Errc::kNoSpace, "write back", number.value});
      break;
    }
    auto room = co_await write_back_step(fs, *inode, hold);
    if (!room) co_return fail(room.error());
    locks.drop();
    if (!*room) continue;
    auto ready = co_await fs.space.prepare(**room);
    if (ready) continue;
    if (ready.error().code != Errc::kNoSpace) co_return ready;
    no_space = true;
  }
  co_return Result<>{};
}

Task<Result<>> write_back_all(FsContext& fs) {
  Result<> result;
  for (const InodeNo number : dirty_inodes(fs)) {
    auto written = co_await write_back_inode(fs, number);
    if (!written && result) result = written;
  }
  co_return result;
}

// The lock goes: what finds no place now is lost, be it that the file's own metadata cannot be read. That is no reason
// to keep the lock, and take everything else of this node along.
Task<Result<>> write_back_unused(FsContext& fs, InodeNo number) {
  const InodePin state = fs.inodes.find(number);
  if (!state || !state->dirty()) co_return Result<>{};
  const LockHold hold(nullptr, lock_of(number), LockMode::kExclusive, LocalUse::kExclusive, state->tenure);
  auto written = co_await try_write_back_unused(fs, *state, hold);
  if (written || !is_loss(written.error().code)) co_return written;
  lose_everything(fs, *state, hold, written.error());
  // The times find a place where the inode's block can be read.
  written = co_await try_write_back_unused(fs, *state, hold);
  if (written || !is_loss(written.error().code)) co_return written;
  DirtyChange change(fs, *state, hold.generation());
  state->modified_ns.reset();
  co_return Result<>{};
}

Task<Result<>> wait_for_dirty_room(FsContext& fs, std::uint64_t bytes) {
  while (fs.dirty_bytes > 0 && fs.dirty_bytes + bytes > fs.options.dirty_data_bytes && !fs.write_back_failed) {
    if (fs.stopping.requested()) co_return fail(Errc::kStopping);
    fs.dirty_more.notify_all();
    co_await fs.dirty_less.wait();
  }
  co_return Result<>{};
}

Task<void> run_write_back(FsContext& fs) {
  while (!fs.stopping.requested()) {
    if (fs.inodes.dirty().empty()) {
      co_await fs.dirty_more.wait();
      continue;
    }
    const InodeState& oldest = fs.inodes.dirty().front();
    const Time due = oldest.dirty_since + kDirtyAge;
    if (!under_pressure(fs) && fs.executor.now() < due) {
      co_await fs.dirty_more.wait_until(due);
      continue;
    }
    const InodeNo number = oldest.number;
    auto written = co_await write_back_inode(fs, number);
    fs.write_back_failed = !written;
    if (written) continue;
    fs.messages.warning("inode {}: writing back failed: {}", number.value, describe(written.error().code));
    fs.dirty_less.notify_all();
    co_await fs.stopping.sleep(kPauseAfterError);
  }
}

}  // namespace cawfs
