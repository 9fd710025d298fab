// Walks a B+tree with a stack of its own. Levels fall on the way down and a node that is already in use is not entered
// (the visitor's node()), so no damage makes it endless.
#include <vector>

#include "core/format/tree_records.h"
#include "utils/fsck/check.h"

namespace cawfs {
namespace {

using namespace format;

struct Frame {
  IoBuffer block;  // keeps what `records` point into; empty for the root
  std::vector<TreeRecordView> records;
  std::size_t next = 0;
  unsigned level = 0;
  std::uint64_t end = UINT64_MAX;  // keys are below it
};

const char* kind_name(TreeKind kind) {
  switch (kind) {
    case TreeKind::kExtents:
      return "extent";
    case TreeKind::kDirectory:
      return "directory";
    case TreeKind::kChunkIndex:
      return "chunk index";
    case TreeKind::kOrphans:
      return "orphan";
    case TreeKind::kXattrs:
      return "attribute";
  }
  return "unknown";
}

// Does the verified node belong below `parent`, as the child with keys in [low, high)?
bool fits(Check& check, const TreeNode& node, BlockNo block, BlockNo owner, TreeKind kind, unsigned level,
          std::uint64_t low, std::uint64_t high, const std::vector<TreeRecordView>& records) {
  if (node.owner.value() != owner.value || node.kind.value() != static_cast<std::uint16_t>(kind) ||
      node.root.level.value() != level || records.empty()) {
    check.found(Problem::kTreeNodeMisplaced, block.value,
                "a node of kind {}, level {}, owner {} with {} records where one of the {} tree of block {}, level {}, "
                "should be",
                node.kind.value(), node.root.level.value(), node.owner.value(), records.size(), kind_name(kind),
                owner.value, level);
    return false;
  }
  // An inner node's first key bounds nothing: its parent's does.
  const std::uint64_t first = level == 0 ? records.front().key : records.size() > 1 ? records[1].key : low;
  if (first < low || records.back().key >= high) {
    check.found(Problem::kTreeKeyOutOfRange, block.value, "keys {:#x} to {:#x} in a node for {:#x} to {:#x}", first,
                records.back().key, low, high);
    return false;
  }
  return true;
}

}  // namespace

Task<Result<bool>> walk_tree(Check& check, BlockNo owner, TreeKind kind, TreeRoot root, std::span<const std::byte> area,
                             TreeVisitor& visitor) {
  bool sound = true;
  std::vector<Frame> stack;
  stack.push_back({.block = {}, .records = tree_records(root, area), .level = root.level.value()});
  while (!stack.empty()) {
    Frame& frame = stack.back();
    if (frame.level == 0) {
      for (const TreeRecordView& record : frame.records) visitor.record(record.key, record.payload);
    }
    if (frame.level == 0 || frame.next == frame.records.size()) {
      stack.pop_back();
      continue;
    }
    const TreeRecordView& record = frame.records[frame.next++];
    const BlockNo child{load_at<le64>(record.payload, 0).value()};
    const std::uint64_t low = record.key;
    const std::uint64_t high = frame.next < frame.records.size() ? frame.records[frame.next].key : frame.end;
    const unsigned level = frame.level - 1;
    if (!visitor.node(child)) {
      sound = false;
      continue;
    }
    IoBuffer block(kBlockSize);
    const Result<bool> loaded =
        co_await check.load(child, BlockType::kTreeNode, block.bytes(), Problem::kTreeNodeDamaged);
    if (!loaded) co_return fail(loaded.error());
    if (!*loaded) {
      sound = false;
      continue;
    }
    const auto& node = *reinterpret_cast<const TreeNode*>(block.data());
    auto records = tree_records(node.root, std::as_bytes(std::span(node.area)));
    if (!fits(check, node, child, owner, kind, level, low, high, records)) {
      sound = false;
      continue;
    }
    stack.push_back({.block = std::move(block), .records = std::move(records), .level = level, .end = high});
  }
  co_return sound;
}

Task<Result<bool>> walk_inode_tree(Check& check, InodeNo number, const Inode& inode, TreeVisitor& visitor) {
  const auto content = std::as_bytes(std::span(inode.area)).first(inode.content_bytes.value());
  const auto root = load_at<TreeRoot>(content, 0);
  Result<bool> sound = co_await walk_tree(check, number.block(), static_cast<TreeKind>(inode.tree_kind.value()), root,
                                          content.subspan(sizeof(TreeRoot)), visitor);
  co_return sound;
}

}  // namespace cawfs
