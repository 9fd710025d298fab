#include "core/fs/btree.h"

#include "core/base/assert.h"
#include "core/fs/btree_node.h"
#include "core/fs/btree_plan.h"

namespace cawfs {

using btree::Record;

namespace {

TreeEntry entry_of(const Record& record) {
  return {record.key, {record.payload.begin(), record.payload.end()}};
}

}  // namespace

TreePlace tree_of_inode(BufferRef inode, LockName lock) {
  const auto& block = inode->as<format::Inode>();
  const std::size_t area = block.content_bytes.value() - sizeof(format::TreeRoot);
  const auto kind = static_cast<format::TreeKind>(block.tree_kind.value());
  return {std::move(inode), offsetof(format::Inode, area), area, kind, lock};
}

TreePlace chunk_index_of_group(BufferRef header, LockName lock) {
  return {std::move(header), offsetof(format::GroupHeader, chunk_index), format::kTreeRootInGroup,
          format::TreeKind::kChunkIndex, lock};
}

class BTree::Impl {
 public:
  Impl(BufferCache& buffers, TreePlace place) : plan(buffers, std::move(place)) {}
  btree::Plan plan;
  TreeNeeds needs;
};

BTree::BTree(BufferCache& buffers, TreePlace place) : impl_(std::make_unique<Impl>(buffers, std::move(place))) {}
BTree::BTree(BTree&&) noexcept = default;
BTree& BTree::operator=(BTree&&) noexcept = default;
BTree::~BTree() = default;

Task<Result<std::optional<TreeEntry>>> BTree::find(std::uint64_t key) {
  const auto leaf = co_await impl_->plan.leaf_of(key);
  if (!leaf) co_return fail(leaf.error());
  const auto record = btree::exact(leaf->records, key);
  if (!record) co_return std::optional<TreeEntry>();
  co_return std::optional(entry_of(*record));
}

// A leaf's bounds are kept wide when records go, so the nearest key may be in the leaf beside; no leaf is empty.
Task<Result<std::optional<TreeEntry>>> BTree::at_or_before(std::uint64_t key) {
  while (true) {
    const auto leaf = co_await impl_->plan.leaf_of(key);
    if (!leaf) co_return fail(leaf.error());
    if (const auto record = btree::at_or_before(leaf->records, key)) co_return std::optional(entry_of(*record));
    if (leaf->low == 0) co_return std::optional<TreeEntry>();
    key = leaf->low - 1;
  }
}

Task<Result<std::optional<TreeEntry>>> BTree::at_or_after(std::uint64_t key) {
  while (true) {
    const auto leaf = co_await impl_->plan.leaf_of(key);
    if (!leaf) co_return fail(leaf.error());
    if (const auto record = btree::at_or_after(leaf->records, key)) co_return std::optional(entry_of(*record));
    if (leaf->high == btree::kNoBound) co_return std::optional<TreeEntry>();
    key = leaf->high;
  }
}

Task<Result<std::vector<TreeEntry>>> BTree::list(std::uint64_t key, std::size_t limit) {
  std::vector<TreeEntry> entries;
  while (entries.size() < limit) {
    const auto leaf = co_await impl_->plan.leaf_of(key);
    if (!leaf) co_return fail(leaf.error());
    for (btree::Cursor at(leaf->records); at && entries.size() < limit; ++at) {
      if (at->key >= key) entries.push_back(entry_of(*at));
    }
    if (leaf->high == btree::kNoBound) break;
    key = leaf->high;
  }
  co_return entries;
}

Task<Result<std::optional<TreeSlot>>> BTree::locate(std::uint64_t key) {
  CAWFS_ASSERT(impl_->plan.empty());
  const auto leaf = co_await impl_->plan.leaf_of(key);
  if (!leaf) co_return fail(leaf.error());
  const auto record = btree::exact(leaf->records, key);
  if (!record) co_return std::optional<TreeSlot>();
  co_return std::optional(TreeSlot{leaf->buffer, leaf->offset + record->payload_offset(), record->payload.size()});
}

Task<Result<>> BTree::insert(std::uint64_t key, std::span<const std::byte> payload) {
  CAWFS_ASSERT(payload.size() <= kMaxPayload && key < btree::kNoBound);
  const auto path = co_await impl_->plan.copy_path(key);
  if (!path) co_return fail(path.error());
  if (btree::exact(path->leaf().records, key)) co_return fail(Errc::kExists, "tree record", key);
  const bool last = path->leaf().insert(key, payload);
  co_return impl_->plan.split_overfull(*path, last);
}

Task<Result<>> BTree::replace(std::uint64_t key, std::span<const std::byte> payload) {
  CAWFS_ASSERT(payload.size() <= kMaxPayload);
  const auto path = co_await impl_->plan.copy_path(key);
  if (!path) co_return fail(path.error());
  const auto record = btree::exact(path->leaf().records, key);
  if (!record) co_return fail(Errc::kNotFound, "tree record", key);
  path->leaf().erase(*record);
  const bool last = path->leaf().insert(key, payload);
  co_return impl_->plan.split_overfull(*path, last);
}

Task<Result<>> BTree::erase(std::uint64_t key) {
  const auto path = co_await impl_->plan.copy_path(key);
  if (!path) co_return fail(path.error());
  const auto record = btree::exact(path->leaf().records, key);
  if (!record) co_return fail(Errc::kNotFound, "tree record", key);
  path->leaf().erase(*record);
  const auto done = co_await impl_->plan.shrink(*path);
  co_return done;
}

Task<Result<std::vector<TreeEntry>>> BTree::erase_last(std::uint64_t from, std::size_t limit) {
  std::vector<TreeEntry> erased;
  while (erased.size() < limit) {
    auto last = co_await at_or_before(btree::kNoBound - 1);
    if (!last) co_return fail(last.error());
    if (!*last || (*last)->key < from) break;
    const auto done = co_await erase((*last)->key);
    if (!done) co_return fail(done.error());
    erased.push_back(std::move(**last));
  }
  co_return erased;
}

bool BTree::has_changes() const {
  const TreeNeeds needs = impl_->plan.needs();
  return needs.credits > 0;
}

const TreeNeeds& BTree::needs() {
  impl_->needs = impl_->plan.needs();
  return impl_->needs;
}

void BTree::apply(TxHandle& tx, const LockHold& hold, MetadataBlocks& blocks) {
  impl_->plan.apply(tx, hold, blocks);
}

}  // namespace cawfs
