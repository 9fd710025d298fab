// The inside of a BTree: reading nodes with all cross-block checks, and the plan, a set of changed copies of nodes.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "core/fs/btree.h"
#include "core/fs/btree_node.h"

namespace cawfs::btree {

// A leaf as lookups see it. All keys in it are in [low, high), and so would be any key that belongs there.
struct Leaf {
  BufferRef buffer;        // keeps `records` alive; null for a planned node
  std::size_t offset = 0;  // of the records in the buffer
  std::span<const std::byte> records;
  std::uint64_t low = 0;
  std::uint64_t high = kNoBound;
};

// The copies on the way from the root to the leaf where a key belongs.
struct Path {
  struct Step {
    NodeCopy* node = nullptr;
    std::uint64_t low = 0;
    std::uint64_t high = kNoBound;
  };
  std::vector<Step> steps;
  NodeCopy& leaf() const { return *steps.back().node; }
};

class Plan {
 public:
  Plan(BufferCache& buffers, TreePlace place);

  // Reading.
  Task<Result<Leaf>> leaf_of(std::uint64_t key);
  Task<Result<Path>> copy_path(std::uint64_t key);

  // Once the path's leaf has been changed: splits what is overfull (`last`: the record put in is the leaf's last);
  // frees, merges and pulls up what is too small. The first waits for nothing; the second reads neighbours.
  Result<> split_overfull(const Path& path, bool last);
  Task<Result<>> shrink(const Path& path);

  bool empty() const { return copies_.empty(); }
  TreeNeeds needs() const;
  void apply(TxHandle& tx, const LockHold& hold, MetadataBlocks& blocks);

 private:
  // A node in hand: of a buffer or of a copy.
  struct Node {
    BufferRef buffer;
    std::size_t offset = 0;
    std::span<const std::byte> records;
    unsigned level = 0;
  };
  struct Bounds {
    std::uint64_t low = 0;
    std::uint64_t high = kNoBound;
  };
  static constexpr std::uint64_t kRootId = 0;
  static constexpr std::uint64_t kPlanned = std::uint64_t{1} << 63;  // ids of nodes without a block

  static Node view_of(const NodeCopy& copy);
  // The child's record for `key`, and the child's bounds.
  static std::pair<Record, Bounds> child_for(std::span<const std::byte> records, std::uint64_t key, Bounds bounds);

  Node root() const;
  Task<Result<Node>> read_child(std::uint64_t id, unsigned level, Bounds bounds);
  Result<> check_owner(const Buffer& buffer) const;
  static Result<> check_shape(const Node& node, std::uint64_t id, unsigned level, Bounds bounds);
  NodeCopy& copy(std::uint64_t id, const Node& node);
  NodeCopy& new_copy(unsigned level);
  // The node is not part of the tree any more.
  void remove(NodeCopy& node);

  void push_root_down(NodeCopy& root);
  // Returns whether the new node is the parent's last.
  bool split_child(NodeCopy& parent, NodeCopy& node, bool at_end);
  Task<Result<>> merge_with_neighbour(const Path::Step& parent, NodeCopy& node);
  Task<Result<>> pull_up();

  void put_in_place(NodeCopy& node, const std::map<std::uint64_t, std::uint64_t>& numbers);

  BufferCache& buffers_;
  TreePlace place_;
  std::map<std::uint64_t, std::unique_ptr<NodeCopy>> copies_;  // by id
  std::vector<std::unique_ptr<NodeCopy>> removed_;             // nodes with blocks that are freed
  std::uint64_t next_planned_ = kPlanned;
};

}  // namespace cawfs::btree
