#include "core/fs/link_count.h"

#include "core/fs/chores.h"
#include "core/fs/fs_context.h"

namespace cawfs {

void add_frees(std::vector<BlockRange>& frees, const TreeNeeds& needs) {
  for (const BlockNo block : needs.freed) frees.push_back({block, 1});
}

Task<Result<std::optional<NameLoss>>> NameLoss::plan(FsContext& fs, LockSet& locks, Inode inode) {
  if (inode.nlink() == 0 || (inode.flags() & format::kInodeOrphan)) {
    co_return fail(Errc::kBadValue, "link count", inode.number().value);
  }
  NameLoss loss;
  loss.inode_ = inode;
  if (!inode.directory() && inode.nlink() > 1) co_return std::optional<NameLoss>(std::move(loss));
  const InodeNo list = fs.orphan_inode();
  if (!locks.try_more(lock_of(list), LockMode::kExclusive, LocalUse::kExclusive)) {
    locks.drop();
    co_return std::optional<NameLoss>();
  }
  auto orphans = co_await OrphanList::open(fs.buffers, fs.locks.self().slot);
  if (!orphans) co_return fail(orphans.error());
  auto planned = co_await orphans->add(inode.number());
  if (!planned) co_return fail(planned.error());
  loss.orphans_.emplace(std::move(*orphans));
  co_return std::optional<NameLoss>(std::move(loss));
}

void NameLoss::add_frees(std::vector<BlockRange>& frees) {
  if (orphans_) cawfs::add_frees(frees, orphans_->needs());
}

void NameLoss::apply(FsContext& fs, TxHandle& tx, const LockSet& locks, MetadataBlocks& blocks) {
  tx.change(inode_.buffer(), locks.hold(inode_.number()));
  format::Inode& raw = inode_.raw();
  touch(fs, inode_, false);
  if (!orphans_) {
    raw.nlink = inode_.nlink() - 1;
    return;
  }
  raw.nlink = 0;
  raw.flags = inode_.flags() | format::kInodeOrphan;
  raw.orphan_slot = fs.locks.self().slot.value;
  orphans_->apply(tx, locks.hold(fs.orphan_inode()), blocks);
}

void NameLoss::done(FsContext& fs) {
  if (!last()) return;
  inode_.state().unlinked = true;
  note_released(fs, inode_.state());
}

}  // namespace cawfs
