#include "core/fs/btree_plan.h"

#include <algorithm>

#include "core/base/assert.h"
#include "core/format/verify.h"

namespace cawfs::btree {
namespace {

// A node with less in it looks for a neighbour to merge with, and does so if both leave some room.
constexpr std::size_t kSmall = kNodeArea / 4;
constexpr std::size_t kRoomy = kNodeArea * 3 / 4;

format::TreeRoot root_at(std::span<const std::byte> bytes, std::size_t offset) {
  format::TreeRoot root;
  std::memcpy(&root, bytes.subspan(offset, sizeof(root)).data(), sizeof(root));
  return root;
}

}  // namespace

Plan::Plan(BufferCache& buffers, TreePlace place) : buffers_(buffers), place_(std::move(place)) {}

Plan::Node Plan::view_of(const NodeCopy& copy) {
  return {.buffer = nullptr, .offset = 0, .records = copy.records, .level = copy.level};
}

Plan::Node Plan::root() const {
  if (const auto copied = copies_.find(kRootId); copied != copies_.end()) return view_of(*copied->second);
  const Buffer& buffer = *place_.buffer;
  const auto root = root_at(buffer.bytes(), place_.root_offset);
  const std::size_t offset = place_.root_offset + sizeof(root);
  return {.buffer = place_.buffer,
          .offset = offset,
          .records = buffer.bytes().subspan(offset, root.used.value()),
          .level = root.level.value()};
}

std::pair<Record, Plan::Bounds> Plan::child_for(std::span<const std::byte> records, std::uint64_t key, Bounds bounds) {
  Record child;
  for (Cursor at(records); at; ++at) {
    if (at->index > 0 && at->key > key) {
      bounds.high = at->key;
      break;
    }
    child = *at;
    if (at->index > 0) bounds.low = at->key;
  }
  return {child, bounds};
}

Result<> Plan::check_owner(const Buffer& buffer) const {
  const auto& block = buffer.as<format::TreeNode>();
  if (block.owner.value() != place_.buffer->block().value ||
      block.kind.value() != static_cast<std::uint16_t>(place_.kind)) {
    return fail(Errc::kBadIdentity, "tree node", buffer.block().value);
  }
  return {};
}

Result<> Plan::check_shape(const Node& node, std::uint64_t id, unsigned level, Bounds bounds) {
  bool possible = node.level == level && !node.records.empty();
  for (Cursor at(node.records); at && possible; ++at) {
    if (level > 0 && at->index == 0) {
      possible = at->key == 0;
    } else {
      possible = at->key >= bounds.low && at->key < bounds.high;
    }
  }
  if (!possible) return fail(Errc::kBadValue, "tree node", id);
  return {};
}

Task<Result<Plan::Node>> Plan::read_child(std::uint64_t id, unsigned level, Bounds bounds) {
  Node node;
  if (const auto copied = copies_.find(id); copied != copies_.end()) {
    node = view_of(*copied->second);
  } else {
    const auto buffer = co_await buffers_.read(BlockNo{id}, format::BlockType::kTreeNode, place_.lock);
    if (!buffer) co_return fail(buffer.error());
    if (const auto ok = check_owner(**buffer); !ok) co_return fail(ok.error());
    const auto& block = (*buffer)->as<format::TreeNode>();
    node.buffer = *buffer;
    node.offset = offsetof(format::TreeNode, area);
    node.records = std::as_const(**buffer).bytes().subspan(node.offset, block.root.used.value());
    node.level = block.root.level.value();
  }
  if (const auto ok = check_shape(node, id, level, bounds); !ok) co_return fail(ok.error());
  co_return node;
}

Task<Result<Leaf>> Plan::leaf_of(std::uint64_t key) {
  Node node = root();
  Bounds bounds;
  while (node.level > 0) {
    const auto [child, inner] = child_for(node.records, key, bounds);
    bounds = inner;
    auto next = co_await read_child(child.child(), node.level - 1, bounds);
    if (!next) co_return fail(next.error());
    node = std::move(*next);
  }
  co_return Leaf{node.buffer, node.offset, node.records, bounds.low, bounds.high};
}

Task<Result<Path>> Plan::copy_path(std::uint64_t key) {
  Path path;
  path.steps.push_back({&copy(kRootId, root())});
  Bounds bounds;
  while (path.leaf().level > 0) {
    const auto [child, inner] = child_for(path.leaf().records, key, bounds);
    bounds = inner;
    const std::uint64_t id = child.child();
    const auto next = co_await read_child(id, path.leaf().level - 1, bounds);
    if (!next) co_return fail(next.error());
    path.steps.push_back({&copy(id, *next), bounds.low, bounds.high});
  }
  co_return path;
}

NodeCopy& Plan::copy(std::uint64_t id, const Node& node) {
  auto& copy = copies_[id];
  if (copy) return *copy;
  copy = std::make_unique<NodeCopy>();
  copy->id = id;
  copy->buffer = node.buffer;
  copy->level = node.level;
  copy->capacity = id == kRootId ? place_.area_bytes : kNodeArea;
  copy->records.assign(node.records.begin(), node.records.end());
  return *copy;
}

NodeCopy& Plan::new_copy(unsigned level) {
  return copy(next_planned_++, Node{.buffer = nullptr, .offset = 0, .records = {}, .level = level});
}

void Plan::remove(NodeCopy& node) {
  auto owned = copies_.extract(node.id);
  if (node.id < kPlanned) removed_.push_back(std::move(owned.mapped()));
}

Result<> Plan::split_overfull(const Path& path, bool last) {
  for (std::size_t i = path.steps.size(); i-- > 0;) {
    const auto& step = path.steps[i];
    if (!step.node->overfull()) return {};
    // Keys that come in ascending order fill the tree's last node: it is left full.
    const bool at_end = last && step.high == kNoBound;
    if (i > 0) {
      last = split_child(*path.steps[i - 1].node, *step.node, at_end);
      continue;
    }
    if (step.node->level >= format::kMaxTreeLevel) {
      return fail(Errc::kBadValue, "tree", place_.buffer->block().value);
    }
    push_root_down(*step.node);
    NodeCopy& child = *copies_.at(Cursor(step.node->records)->child());
    if (child.overfull()) split_child(*step.node, child, at_end);
  }
  return {};
}

// The root's records move into a node of their own, the root's only child.
void Plan::push_root_down(NodeCopy& root) {
  NodeCopy& child = new_copy(root.level);
  child.records = std::move(root.records);
  child.changed = true;
  root.records.clear();
  ++root.level;
  root.insert_child(0, child.id);
}

bool Plan::split_child(NodeCopy& parent, NodeCopy& node, bool at_end) {
  NodeCopy& right = new_copy(node.level);
  const std::uint64_t key = node.split(right, at_end);
  if (right.level > 0) right.set_first_key(0);
  return parent.insert_child(key, right.id);
}

Task<Result<>> Plan::shrink(const Path& path) {
  for (std::size_t i = path.steps.size() - 1; i > 0; --i) {
    NodeCopy& node = *path.steps[i].node;
    const Path::Step& above = path.steps[i - 1];
    NodeCopy& parent = *above.node;
    if (node.records.empty()) {
      Cursor at(parent.records);
      while (at->child() != node.id) ++at;
      parent.erase(*at);
      if (!parent.records.empty()) parent.set_first_key(0);
      remove(node);
    } else if (node.records.size() < kSmall) {
      const auto merged = co_await merge_with_neighbour(above, node);
      if (!merged) co_return merged;
    }
  }
  NodeCopy& root = *path.steps[0].node;
  if (root.records.empty()) root.level = 0;
  const auto done = co_await pull_up();
  co_return done;
}

// With the right neighbour under the same parent, or else with the left one.
Task<Result<>> Plan::merge_with_neighbour(const Path::Step& above, NodeCopy& node) {
  NodeCopy& parent = *above.node;
  std::optional<Record> before;
  Cursor at(parent.records);
  for (; at->child() != node.id; ++at) before = *at;
  const Record own = *at;
  Cursor after = at;
  ++after;
  if (!after && !before) co_return Result<>();

  // The pair: `left` stays, `right` goes, together with its record in the parent.
  const Record left_record = after ? own : *before;
  const Record right_record = after ? *after : own;
  const std::uint64_t other_id = after ? right_record.child() : left_record.child();
  if (other_id == node.id) co_return fail(Errc::kBadValue, "tree node", other_id);
  Bounds other;
  other.low = after ? right_record.key : (left_record.index == 0 ? above.low : left_record.key);
  other.high = after ? above.high : own.key;
  if (after) {
    Cursor beyond = after;
    ++beyond;
    if (beyond) other.high = beyond->key;
  }
  const auto neighbour = co_await read_child(other_id, node.level, other);
  if (!neighbour) co_return fail(neighbour.error());
  if (neighbour->records.size() + node.records.size() > kRoomy) co_return Result<>();

  NodeCopy& second = copy(other_id, *neighbour);
  NodeCopy& left = right_record.offset == own.offset ? second : node;
  NodeCopy& right = &left == &node ? second : node;
  if (right.level > 0) right.set_first_key(right_record.key);
  left.records.insert(left.records.end(), right.records.begin(), right.records.end());
  left.changed = true;
  parent.erase(right_record);
  remove(right);
  co_return Result<>();
}

// A root with one child takes its records in where they fit, with some room left, so that it does not swing.
Task<Result<>> Plan::pull_up() {
  NodeCopy& root = *copies_.at(kRootId);
  while (root.level > 0 && root.count() == 1) {
    const std::uint64_t id = Cursor(root.records)->child();
    const auto child = co_await read_child(id, root.level - 1, Bounds{});
    if (!child) co_return fail(child.error());
    if (child->records.size() > root.capacity * 3 / 4) co_return Result<>();
    NodeCopy& taken = copy(id, *child);
    root.records = taken.records;
    root.level = taken.level;
    root.changed = true;
    remove(taken);
  }
  co_return Result<>();
}

TreeNeeds Plan::needs() const {
  TreeNeeds needs;
  for (const auto& [id, node] : copies_) {
    if (id >= kPlanned) ++needs.new_blocks;
    if (node->changed) ++needs.credits;
  }
  for (const auto& node : removed_) needs.freed.push_back(BlockNo{node->id});
  needs.credits += static_cast<std::uint32_t>(removed_.size());
  return needs;
}

void Plan::apply(TxHandle& tx, const LockHold& hold, MetadataBlocks& blocks) {
  std::map<std::uint64_t, std::uint64_t> numbers;
  for (const auto& [id, node] : copies_) {
    if (id >= kPlanned) numbers[id] = blocks.take_metadata(tx).value;
  }
  for (const auto& [id, node] : copies_) {
    if (!node->changed) continue;
    if (id == kRootId) node->buffer = place_.buffer;
    if (id >= kPlanned) {
      node->buffer = buffers_.make(BlockNo{numbers.at(id)}, format::BlockType::kTreeNode, place_.lock);
    }
    tx.change(*node->buffer, hold);
    put_in_place(*node, numbers);
  }
  for (const auto& node : removed_) {
    const BlockNo block{node->id};
    node->buffer.reset();
    blocks.free_metadata(tx, block);
  }
  copies_.clear();
  removed_.clear();
}

void Plan::put_in_place(NodeCopy& node, const std::map<std::uint64_t, std::uint64_t>& numbers) {
  CAWFS_ASSERT(!node.overfull());
  if (node.level > 0) {
    for (Cursor at(node.records); at; ++at) {
      if (at->child() < kPlanned) continue;
      format::le64 block;
      block = numbers.at(at->child());
      std::memcpy(node.records.data() + at->payload_offset(), &block, sizeof(block));
    }
  }
  std::size_t root_offset = place_.root_offset;
  if (node.id != kRootId) {
    auto& header = node.buffer->as<format::TreeNode>();
    header.owner = place_.buffer->block().value;
    header.kind = static_cast<std::uint16_t>(place_.kind);
    root_offset = offsetof(format::TreeNode, root);
  }
  format::TreeRoot root{};
  root.level = static_cast<std::uint16_t>(node.level);
  root.count = static_cast<std::uint16_t>(node.count());
  root.used = static_cast<std::uint16_t>(node.records.size());
  const auto bytes = node.buffer->bytes().subspan(root_offset, sizeof(root) + node.capacity);
  std::memcpy(bytes.data(), &root, sizeof(root));
  const auto area = bytes.subspan(sizeof(root));
  std::ranges::copy(node.records, area.begin());
  std::ranges::fill(area.subspan(node.records.size()), std::byte{0});
}

}  // namespace cawfs::btree
