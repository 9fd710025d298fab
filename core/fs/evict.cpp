// Freeing an inode that nobody can reach any more, and the orphan lists.
#include "core/base/planted_fault.h"
#include "core/fs/chores.h"
#include "core/fs/file_data.h"
#include "core/fs/fs_context.h"
#include "core/fs/link_count.h"
#include "core/fs/truncate.h"

namespace cawfs {

namespace {

constexpr std::size_t kOrphansAtOnce = 64;

// With the inode's lock EX.
Task<Result<bool>> in_use(FsContext& fs, Inode inode) {
  if (inode.state().opens > 0 || inode.state().references > 0) co_return true;
  if (fs.locks.openers(inode.lock()) == 0 || planted(PlantedFault::kOpenersIgnored)) co_return false;
  auto checked = co_await fs.locks.check_openers(inode.lock());
  if (!checked) co_return fail(checked.error());
  if (fs.locks.openers(inode.lock()) == 0) co_return false;
  // Some time the other node will have closed it, or have ended: then its list is looked at again.
  const SlotNo slot{inode.raw().orphan_slot.value()};
  if (slot.value < kSlots) fs.orphans_left |= std::uint64_t{1} << slot.value;
  co_return true;
}

void drop_data(FsContext& fs, const Inode& inode, const LockHold& hold) {
  InodeState& state = inode.state();
  if (!state.dirty()) return;
  DirtyChange change(fs, inode, hold);
  state.data.clear();
  state.size.reset();
  state.modified_ns.reset();
}

void make_free(format::Inode& raw) {
  const format::BlockHeader header = raw.header;
  const std::uint64_t generation = raw.generation.value();
  raw = format::Inode{};
  raw.header = header;
  raw.generation = generation;
}

// Frees the inode, which has no blocks any more. False: the locks were let go, start over.
Task<Result<bool>> free_inode(FsContext& fs, LockSet& locks, Inode inode) {
  const InodeNo number = inode.number();
  const SlotNo slot{inode.raw().orphan_slot.value()};
  if (slot.value >= kSlots) co_return fail(Errc::kBadValue, "orphan", number.value);
  const InodeNo list = OrphanList::inode_of(fs.geometry, slot);
  if (list.value == 0) co_return fail(Errc::kBadValue, "orphan", number.value);
  if (!locks.try_more(lock_of(list), LockMode::kExclusive, LocalUse::kExclusive)) {
    locks.drop();
    co_return false;
  }
  auto orphans = co_await OrphanList::open(fs.buffers, slot);
  if (!orphans) co_return fail(orphans.error());
  auto planned = co_await orphans->remove(number);
  if (!planned && planned.error().code == Errc::kNotFound) co_return fail(Errc::kBadValue, "orphan", number.value);
  if (!planned) co_return fail(planned.error());
  auto mask = co_await fs.numbers.release(number);
  if (!mask && mask.error().code == Errc::kAgain) {
    locks.drop();
    auto ready = co_await fs.numbers.prepare_free(number);
    if (!ready) co_return fail(ready.error());
    co_return false;
  }
  if (!mask) co_return fail(mask.error());
  SpaceRequest request{.goal = {}, .metadata = orphans->needs().new_blocks, .frees = {}};
  add_frees(request.frees, orphans->needs());
  auto space = fs.space.try_reserve(request);
  if (!space && space.error().code == Errc::kAgain) {
    mask = fail(space.error());  // its group goes too
    auto ready = co_await make_room(fs, locks, request);
    if (!ready) co_return fail(ready.error());
    co_return false;
  }
  if (!space) co_return fail(space.error());

  auto tx = co_await fs.log.begin(1 + InodeMaskChange::kCredits + orphans->needs().credits + 1 + space->credits());
  if (!tx) co_return fail(tx.error());
  mask->apply(*tx);
  orphans->apply(*tx, locks.hold(list), *space);
  tx->change(inode.buffer(), locks.hold(number));
  make_free(inode.raw());
  inode.state().unlinked = false;
  inode.state().generation = 0;
  inode.state().write_errors.forget();
  co_return true;
}

}  // namespace

Task<Result<>> evict_inode(FsContext& fs, InodeNo number) {
  auto known = co_await check_number(fs, number);
  if (!known) co_return known;
  LockSet locks = fs.lock_set();
  locks.want_write(number);
  for (;;) {
    auto taken = co_await locks.take();
    if (!taken) co_return taken;
    auto inode = co_await read_named_inode(fs, number);
    if (!inode) co_return fail(inode.error());
    if (inode->nlink() != 0 || !(inode->flags() & format::kInodeOrphan)) co_return Result<>{};
    auto used = co_await in_use(fs, *inode);
    if (!used) co_return fail(used.error());
    if (*used) co_return Result<>{};
    drop_data(fs, *inode, locks.hold(number));
    if (!inode->directory()) {
      auto cut = co_await cut_from(fs, locks, *inode, 0);
      if (!cut) co_return fail(cut.error());
      if (!*cut) continue;
    }
    auto freed = co_await free_inode(fs, locks, *inode);
    if (!freed) co_return fail(freed.error());
    if (*freed) co_return Result<>{};
  }
}

namespace {

// Tries each of the orphans, and again those that only a node which has ended seemed to have open.
Task<Result<>> evict_all(FsContext& fs, std::vector<InodeNo> orphans) {
  for (bool again = false;; again = true) {
    std::vector<LockName> open_elsewhere;
    for (const InodeNo number : orphans) {
      auto evicted = co_await evict_inode(fs, number);
      if (evicted && fs.locks.openers(lock_of(number)) != 0) open_elsewhere.push_back(lock_of(number));
      if (evicted || evicted.error().code == Errc::kStale) continue;
      fs.messages.warning("orphan {}: {}", number.value, describe(evicted.error().code));
      if (error_class(evicted.error().code) != ErrorClass::kCorrupt) co_return evicted;
    }
    if (again || open_elsewhere.empty() || fs.stopping.requested()) co_return Result<>{};
    auto verified = co_await fs.locks.verify_openers(std::move(open_elsewhere));
    if (!verified) co_return verified;
  }
}

}  // namespace

Task<Result<>> sweep_orphans(FsContext& fs, SlotNo slot) {
  const InodeNo list = OrphanList::inode_of(fs.geometry, slot);
  if (list.value == 0) co_return Result<>{};
  fs.orphans_left &= ~(std::uint64_t{1} << slot.value);
  InodeNo after;
  while (!fs.stopping.requested()) {
    std::vector<InodeNo> some;
    {
      LockSet locks = fs.lock_set();
      locks.want_read(list);
      auto taken = co_await locks.take();
      if (!taken) co_return taken;
      auto orphans = co_await OrphanList::open(fs.buffers, slot);
      if (!orphans) co_return fail(orphans.error());
      auto found = co_await orphans->list(after, kOrphansAtOnce);
      if (!found) co_return fail(found.error());
      some = std::move(*found);
    }
    if (some.empty()) co_return Result<>{};
    after = some.back();
    auto evicted = co_await evict_all(fs, std::move(some));
    if (!evicted) co_return evicted;
  }
  co_return Result<>{};
}

}  // namespace cawfs
