// The B+tree of extents, directories, chunk indexes and orphan lists: records of a u64 key and a payload, in ascending
// order of unique keys. The root is embedded in an inode's content area or a group header; further nodes are
// format::TreeNode blocks.
//
// A BTree object is one operation's view of a tree, made when the operation has its locks and thrown away with it.
// insert(), replace() and erase() only *plan*: they read what they need and change copies of the nodes, and every
// lookup through the same object sees the planned state. needs() says what the plan takes; apply() puts it into the
// buffers, waits for nothing and cannot fail. So all errors come before the first change, and several changes (a rename
// within one directory) are one plan. A plan that is not applied changes nothing.
//
//   BTree tree(buffers, place);
//   auto done = co_await tree.insert(key, payload);         // and more changes
//   ... reserve tree.needs() of the allocator, TransactionLog::begin(credits) ...
//   tree.apply(tx, hold, reservation);
//
// Locks: the caller holds the lock that covers the tree from the construction to the end, shared and unchanged by
// others for lookups, such that nobody else plans or applies for a change.
//
// Errors: those of reading a block, and kBadValue, kBadIdentity where blocks that verify do not fit together (level,
// owner, kind, key range, a node without records). Levels fall on the way down, so no damage makes a lookup endless.
// kExists and kNotFound leave the plan as it was; after any other error of insert(), replace() or erase() it is not to
// be applied.
//
// A child that becomes empty is freed; one that has become small is merged with a neighbour; a root with a single child
// takes its records in as soon as they fit. So a tree without records has no nodes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/base/assert.h"
#include "core/base/error.h"
#include "core/base/types.h"
#include "core/format/disk_format.h"
#include "core/fs/buffer_cache.h"
#include "core/fs/transaction.h"
#include "core/runtime/task.h"

namespace cawfs {

// Where a tree's new nodes come from and its freed ones go to, during a transaction; core/fs/allocator.h's Reservation.
class MetadataBlocks {
 public:
  virtual ~MetadataBlocks() = default;
  // Takes one of the blocks reserved for metadata; never fails for as many as were reserved.
  virtual BlockNo take_metadata(TxHandle& tx) = 0;
  // Frees a block that was announced when reserving: revokes it, forgets its buffer.
  virtual void free_metadata(TxHandle& tx, BlockNo block) = 0;
};

// Where a tree is.
struct TreePlace {
  BufferRef buffer;             // that the root is embedded in; its block is the nodes' owner
  std::size_t root_offset = 0;  // of the TreeRoot in the buffer; the record area follows it
  std::size_t area_bytes = 0;   // of the record area
  format::TreeKind kind = format::TreeKind::kExtents;
  LockName lock;  // what covers the buffer and the nodes
};
// Of an inode whose content is kTree.
TreePlace tree_of_inode(BufferRef inode, LockName lock);
TreePlace chunk_index_of_group(BufferRef header, LockName lock);

struct TreeEntry {
  std::uint64_t key = 0;
  std::vector<std::byte> payload;

  // The payload as a structure of its size: asserted, as the verifier has checked payloads.
  template <class T>
  T as() const;
};

// What applying a plan takes.
struct TreeNeeds {
  std::uint32_t new_blocks = 0;  // metadata blocks
  std::uint32_t credits = 0;     // buffers of the tree that change, the root's included; not the allocator's
  std::vector<BlockNo> freed;    // metadata blocks
};

// A record's payload in its buffer, for changes that keep its size; valid while the tree's shape does not change.
struct TreeSlot {
  BufferRef buffer;
  std::size_t offset = 0;
  std::size_t length = 0;
  std::span<std::byte> bytes() const { return buffer->bytes().subspan(offset, length); }
};

class BTree {
 public:
  // Of one record with its header: so that two always fit into a node.
  static constexpr std::size_t kMaxPayload = 1400;

  BTree(BufferCache& buffers, TreePlace place);
  BTree(BTree&&) noexcept;
  BTree& operator=(BTree&&) noexcept;
  ~BTree();

  // The record with this key; with the nearest key not above it; with the nearest key not below it. Iterate with
  // at_or_after(last key + 1): right whatever happens to the tree between two steps.
  Task<Result<std::optional<TreeEntry>>> find(std::uint64_t key);
  Task<Result<std::optional<TreeEntry>>> at_or_before(std::uint64_t key);
  Task<Result<std::optional<TreeEntry>>> at_or_after(std::uint64_t key);
  // Up to `limit` records from `key` on: fewer only at the end. One descent for each node rather than each record.
  Task<Result<std::vector<TreeEntry>>> list(std::uint64_t key, std::size_t limit);
  // Where the record lies, in a tree without planned changes.
  Task<Result<std::optional<TreeSlot>>> locate(std::uint64_t key);

  // kExists if the key is there.
  Task<Result<>> insert(std::uint64_t key, std::span<const std::byte> payload);
  // Another payload for an existing key, of any size; kNotFound.
  Task<Result<>> replace(std::uint64_t key, std::span<const std::byte> payload);
  // kNotFound.
  Task<Result<>> erase(std::uint64_t key);
  // Erases the `limit` records with the highest keys, but none below `from`, and returns them, highest first: how a
  // tree is freed in bounded steps.
  Task<Result<std::vector<TreeEntry>>> erase_last(std::uint64_t from, std::size_t limit);

  bool has_changes() const;
  const TreeNeeds& needs();
  // `hold`: the EX hold of the tree's lock. The plan is empty afterwards, and the object can be used on.
  void apply(TxHandle& tx, const LockHold& hold, MetadataBlocks& blocks);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

template <class T>
T TreeEntry::as() const {
  static_assert(alignof(T) == 1);
  CAWFS_ASSERT(payload.size() >= sizeof(T));
  T value;
  std::memcpy(&value, payload.data(), sizeof(T));
  return value;
}

}  // namespace cawfs
