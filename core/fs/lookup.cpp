#include "core/fs/chores.h"
#include "core/fs/directory.h"
#include "core/fs/fs_context.h"
#include "core/fs/operations.h"

namespace cawfs {

namespace {

constexpr int kDoubts = 8;

}  // namespace

Task<Result<bool>> lock_child(FsContext& fs, LockSet& locks, InodeNo child, LockMode mode, LocalUse use,
                              InodeNo& checked, int& doubts) {
  if (checked != child && !number_known(fs, child)) {
    locks.drop();
    auto good = co_await check_number(fs, child);
    if (!good) {
      if (good.error().code != Errc::kStale) co_return fail(good.error());
      if (++doubts > kDoubts) co_return fail(Errc::kBadValue, "directory entry", child.value);
      co_return false;
    }
    checked = child;
    locks.want(lock_of(child), mode, use);
    co_return false;
  }
  checked = child;
  if (locks.try_more(lock_of(child), mode, use)) co_return true;
  locks.drop();
  co_return false;
}

Task<Result<Attributes>> lookup(FsContext& fs, InodeNo directory, std::string name) {
  if (auto good = check_name(name); !good) co_return fail(good.error());
  auto known = co_await check_number(fs, directory);
  if (!known) co_return fail(known.error());

  InodeNo child;
  int doubts = 0;
  LockSet locks = fs.lock_set();
  locks.want_read(directory);
  for (;;) {
    auto taken = co_await locks.take();
    if (!taken) co_return fail(taken.error());
    auto parent = co_await read_directory(fs, directory);
    if (!parent) co_return fail(parent.error());
    Directory entries(fs, *parent);
    auto entry = co_await entries.find(name);
    if (!entry) co_return fail(entry.error());
    if (!*entry) co_return fail(Errc::kNotFound);
    if (child != (*entry)->inode && child.value != 0) {
      child = InodeNo{};
      locks.reset();
      locks.want_read(directory);
      continue;
    }
    auto held = co_await lock_child(fs, locks, (*entry)->inode, LockMode::kShared, LocalUse::kShared, child, doubts);
    if (!held) co_return fail(held.error());
    if (!*held) continue;
    auto inode = co_await read_named_inode(fs, child);
    if (!inode) co_return fail(inode.error());
    remember(*inode);
    co_return attributes_of(fs, *inode, directory);
  }
}

Task<Result<std::vector<DirectoryEntry>>> readdir(FsContext& fs, InodeNo directory, std::uint64_t cookie,
                                                  std::size_t limit) {
  auto known = co_await check_number(fs, directory);
  if (!known) co_return fail(known.error());
  LockSet locks = fs.lock_set();
  locks.want_read(directory);
  auto taken = co_await locks.take();
  if (!taken) co_return fail(taken.error());
  auto inode = co_await read_directory(fs, directory);
  if (!inode) co_return fail(inode.error());
  note_access(fs, *inode);
  Directory entries(fs, *inode);
  auto list = co_await entries.list(cookie, limit);
  co_return list;
}

Task<Result<InodeNo>> parent_of(FsContext& fs, InodeNo directory) {
  auto known = co_await check_number(fs, directory);
  if (!known) co_return fail(known.error());
  LockSet locks = fs.lock_set();
  locks.want_read(directory);
  auto taken = co_await locks.take();
  if (!taken) co_return fail(taken.error());
  auto inode = co_await read_directory(fs, directory);
  if (!inode) co_return fail(inode.error());
  co_return inode->parent();
}

}  // namespace cawfs
