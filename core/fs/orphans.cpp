#include "core/fs/orphans.h"

namespace cawfs {

OrphanList::OrphanList(BufferCache& buffers, BufferRef inode, LockName lock)
    : inode_(inode), tree_(buffers, tree_of_inode(std::move(inode), lock)) {}

InodeNo OrphanList::inode_of(const Geometry& geometry, SlotNo slot) {
  return slot.value < kSlots ? geometry.orphan_inodes[slot.value] : InodeNo{};
}

Task<Result<OrphanList>> OrphanList::open(BufferCache& buffers, SlotNo slot) {
  const InodeNo inode = inode_of(buffers.geometry(), slot);
  if (inode == InodeNo{}) co_return fail(Errc::kNotFound, "orphan list", slot.value);
  const LockName lock = lock_of(inode);
  const auto buffer = co_await buffers.read(inode.block(), format::BlockType::kInode, lock);
  if (!buffer) co_return fail(buffer.error());
  const auto& raw = (*buffer)->as<format::Inode>();
  const bool is_list = raw.mode.value() != 0 && (raw.flags.value() & format::kInodeSystem) != 0 &&
                       raw.content == static_cast<std::uint8_t>(format::InodeContent::kTree) &&
                       raw.tree_kind.value() == static_cast<std::uint16_t>(format::TreeKind::kOrphans);
  if (!is_list) co_return fail(Errc::kBadValue, "orphan list", inode.value);
  co_return OrphanList(buffers, *buffer, lock);
}

Task<Result<std::vector<InodeNo>>> OrphanList::list(InodeNo after, std::size_t limit) {
  std::vector<InodeNo> inodes;
  const auto entries = co_await tree_.list(after.value + 1, limit);
  if (!entries) co_return fail(entries.error());
  for (const TreeEntry& entry : *entries) inodes.push_back(InodeNo{entry.key});
  co_return inodes;
}

Task<Result<bool>> OrphanList::contains(InodeNo inode) {
  const auto entry = co_await tree_.find(inode.value);
  if (!entry) co_return fail(entry.error());
  co_return entry->has_value();
}

std::uint64_t OrphanList::counted() const {
  return inode_->as<format::Inode>().size.value() + static_cast<std::uint64_t>(delta_);
}

Task<Result<>> OrphanList::add(InodeNo inode) {
  if (counted() == INT64_MAX) co_return fail(Errc::kBadValue, "orphan list's size", inode_->block().value);
  const auto done = co_await tree_.insert(inode.value, {});
  if (done) ++delta_;
  co_return done;
}

Task<Result<>> OrphanList::remove(InodeNo inode) {
  const auto done = co_await tree_.erase(inode.value);
  if (!done) co_return done;
  if (counted() == 0) co_return fail(Errc::kBadValue, "orphan list's size", inode_->block().value);
  --delta_;
  co_return done;
}

void OrphanList::apply(TxHandle& tx, const LockHold& hold, MetadataBlocks& blocks) {
  const std::uint64_t made = tree_.needs().new_blocks;
  const std::uint64_t freed = tree_.needs().freed.size();
  tx.change(*inode_, hold);
  auto& raw = inode_->as<format::Inode>();
  raw.blocks = raw.blocks.value() + made - freed;
  raw.size = counted();
  delta_ = 0;
  tree_.apply(tx, hold, blocks);
}

}  // namespace cawfs
