// unlink and rmdir.
#include "core/fs/directory.h"
#include "core/fs/fs_context.h"
#include "core/fs/link_count.h"
#include "core/fs/operations.h"

namespace cawfs {

namespace {

enum class Kind : std::uint8_t { kDirectory, kOther };

Result<> check_kind(Kind wanted, bool is_directory) {
  if (wanted == Kind::kDirectory && !is_directory) return fail(Errc::kNotDirectory);
  if (wanted == Kind::kOther && is_directory) return fail(Errc::kIsDirectory);
  return {};
}

// Removes `entry` from `parent`, all locks held but perhaps the orphan list's. False: everything was let go, start
// over.
Task<Result<bool>> try_remove(FsContext& fs, LockSet& locks, Inode parent, Directory::Entry entry, Inode child) {
  auto loss = co_await NameLoss::plan(fs, locks, child);
  if (!loss) co_return fail(loss.error());
  if (!*loss) co_return false;
  Directory entries(fs, parent);
  auto planned = co_await entries.remove(entry);
  if (!planned) co_return fail(planned.error());

  SpaceRequest request{.goal = {}, .metadata = entries.needs().new_blocks + (*loss)->new_blocks(), .frees = {}};
  add_frees(request.frees, entries.needs());
  (*loss)->add_frees(request.frees);
  auto space = fs.space.try_reserve(request);
  if (!space && space.error().code == Errc::kAgain) {
    auto ready = co_await make_room(fs, locks, request);
    if (!ready) co_return fail(ready.error());
    co_return false;
  }
  if (!space) co_return fail(space.error());

  auto tx = co_await fs.log.begin(entries.credits() + (*loss)->credits() + space->credits());
  if (!tx) co_return fail(tx.error());
  entries.apply(*tx, locks.hold(parent.number()), *space);
  if (child.directory()) parent.raw().nlink = parent.nlink() - 1;
  (*loss)->apply(fs, *tx, locks, *space);
  tx->end();
  (*loss)->done(fs);
  co_return true;
}

Task<Result<>> check_empty(FsContext& fs, Inode directory) {
  Directory entries(fs, directory);
  auto first = co_await entries.list(0, 1);
  if (!first) co_return fail(first.error());
  if (!first->empty()) co_return fail(Errc::kNotEmpty);
  co_return Result<>{};
}

Task<Result<>> remove_name(FsContext& fs, InodeNo directory, std::string name, Kind kind) {
  if (auto good = check_name(name); !good) co_return good;
  if (auto good = check_writable(fs); !good) co_return good;
  auto known = co_await check_number(fs, directory);
  if (!known) co_return known;

  InodeNo checked;
  int doubts = 0;
  LockSet locks = fs.lock_set();
  locks.want_write(directory);
  for (;;) {
    auto taken = co_await locks.take();
    if (!taken) co_return taken;
    auto parent = co_await read_directory(fs, directory);
    if (!parent) co_return fail(parent.error());
    Directory entries(fs, *parent);
    auto entry = co_await entries.find(name);
    if (!entry) co_return fail(entry.error());
    if (!*entry) co_return fail(Errc::kNotFound);
    if (auto good = check_kind(kind, (*entry)->type == kTypeDirectory); !good) co_return good;
    if (checked.value != 0 && checked != (*entry)->inode) {
      checked = InodeNo{};
      locks.reset();
      locks.want_write(directory);
      continue;
    }
    auto held =
        co_await lock_child(fs, locks, (*entry)->inode, LockMode::kExclusive, LocalUse::kExclusive, checked, doubts);
    if (!held) co_return fail(held.error());
    if (!*held) continue;
    auto child = co_await read_named_inode(fs, checked);
    if (!child) co_return fail(child.error());
    if (auto good = check_kind(kind, child->directory()); !good) co_return good;
    if (child->directory()) {
      auto empty = co_await check_empty(fs, *child);
      if (!empty) co_return empty;
    }
    auto removed = co_await try_remove(fs, locks, *parent, **entry, *child);
    if (!removed) co_return fail(removed.error());
    if (*removed) co_return Result<>{};
  }
}

}  // namespace

Task<Result<>> unlink(FsContext& fs, InodeNo directory, std::string name) {
  return remove_name(fs, directory, std::move(name), Kind::kOther);
}

Task<Result<>> rmdir(FsContext& fs, InodeNo directory, std::string name) {
  return remove_name(fs, directory, std::move(name), Kind::kDirectory);
}

}  // namespace cawfs
