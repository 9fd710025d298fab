// getattr, setattr, and who uses an inode: open, close, forget.
#include "core/fs/chores.h"
#include "core/fs/file_data.h"
#include "core/fs/fs_context.h"
#include "core/fs/operations.h"
#include "core/fs/truncate.h"

namespace cawfs {

namespace {

Result<> check_change(const Inode& inode, const AttributeChange& change) {
  if (!change.size) return {};
  if (inode.directory()) return fail(Errc::kIsDirectory);
  if (!inode.regular()) return fail(Errc::kInvalid);
  if (*change.size > kFileSizeMax) return fail(Errc::kFileTooBig);
  return {};
}

bool changes_inode(const AttributeChange& change) {
  return change.mode || change.uid || change.gid || change.atime_ns || change.mtime_ns || change.atime_now ||
         change.mtime_now || change.kill_suid_sgid;
}

void store_change(FsContext& fs, const Inode& inode, const AttributeChange& change) {
  touch(fs, inode, false);
  format::Inode& raw = inode.raw();
  if (change.mode) raw.mode = inode.type() | (*change.mode & kPermissionBits);
  if (change.uid) raw.uid = *change.uid;
  if (change.gid) raw.gid = *change.gid;
  if (change.kill_suid_sgid && inode.regular()) raw.mode = without_privileges(inode.mode());
  const std::int64_t now = fs.wall_ns();
  // What was read before does not count any more.
  if (change.atime_ns || change.atime_now) inode.state().read_ns.reset();
  if (change.atime_ns) raw.atime_ns = *change.atime_ns;
  if (change.atime_now) raw.atime_ns = now;
  if (change.mtime_ns) raw.mtime_ns = *change.mtime_ns;
  if (change.mtime_now) raw.mtime_ns = now;
}

}  // namespace

Task<Result<Attributes>> getattr(FsContext& fs, InodeNo number) {
  auto known = co_await check_number(fs, number);
  if (!known) co_return fail(known.error());
  LockSet locks = fs.lock_set();
  locks.want_read(number);
  auto taken = co_await locks.take();
  if (!taken) co_return fail(taken.error());
  auto inode = co_await read_inode(fs, number);
  if (!inode) co_return fail(inode.error());
  co_return attributes_of(fs, *inode);
}

Task<Result<Attributes>> setattr(FsContext& fs, InodeNo number, AttributeChange change) {
  if (auto good = check_writable(fs); !good) co_return fail(good.error());
  auto known = co_await check_number(fs, number);
  if (!known) co_return fail(known.error());
  LockSet locks = fs.lock_set();
  if (change.refuse_when_pressed) locks.refuse_when_pressed();
  locks.want_write(number);
  for (;;) {
    auto taken = co_await locks.take();
    if (!taken) co_return fail(taken.error());
    auto inode = co_await read_inode(fs, number);
    if (!inode) co_return fail(inode.error());
    if (auto good = check_change(*inode, change); !good) co_return fail(good.error());
    if (change.size) {
      auto sized = co_await set_size(fs, locks, *inode, *change.size);
      if (!sized) co_return fail(sized.error());
      if (!*sized) continue;
    }
    if (changes_inode(change)) {
      auto tx = co_await fs.log.begin(1);
      if (!tx) co_return fail(tx.error());
      tx->change(inode->buffer(), locks.hold(number));
      store_change(fs, *inode, change);
    }
    co_return attributes_of(fs, *inode);
  }
}

Task<Result<>> open_inode(FsContext& fs, InodeNo number) {
  auto known = co_await check_number(fs, number);
  if (!known) co_return known;
  LockSet locks = fs.lock_set();
  locks.want_read(number);
  auto taken = co_await locks.take();
  if (!taken) co_return taken;
  auto inode = co_await read_inode(fs, number);
  if (!inode) co_return fail(inode.error());
  ++inode->state().opens;
  inode->state().generation = inode->raw().generation.value();
  co_return Result<>{};
}

void close_inode(FsContext& fs, InodeNo number) {
  const InodePin state = fs.inodes.find(number);
  CAWFS_ASSERT(state && state->opens > 0);
  --state->opens;
  note_released(fs, *state);
}

void forget_inode(FsContext& fs, InodeNo number, std::uint64_t references) {
  const InodePin state = fs.inodes.find(number);
  if (!state) return;
  state->references -= std::min(references, state->references);
  note_released(fs, *state);
}

}  // namespace cawfs
