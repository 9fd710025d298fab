// What a tree node, or a root embedded in an inode or group header, may say.
#include "core/format/layout.h"
#include "core/format/tree_records.h"
#include "core/format/verify.h"
#include "core/format/verify_internal.h"

namespace cawfs::format {
namespace {

constexpr std::uint64_t kMaxFileBlocks = std::uint64_t{1} << (63 - kBlockShift);
constexpr std::uint16_t kOrphanPayload = 0;

bool is_child(std::span<const std::byte> payload, const Geometry* geometry) {
  if (payload.size() != sizeof(le64)) return false;
  const BlockNo child{load_at<le64>(payload, 0).value()};
  return child.value != 0 && (geometry == nullptr || geometry->allocatable({child, 1}));
}

bool is_extent(std::uint64_t key, std::span<const std::byte> payload, const Geometry* geometry) {
  if (payload.size() != sizeof(ExtentPayload)) return false;
  const auto extent = load_at<ExtentPayload>(payload, 0);
  const std::uint64_t start = extent.start.value();
  const std::uint64_t count = extent.count.value();
  if (count == 0 || start == 0 || start >= kMaxBlockCount || (extent.flags.value() & ~kExtentUnwritten) != 0) {
    return false;
  }
  if (key >= kMaxFileBlocks || count > kMaxFileBlocks - key) return false;
  return geometry == nullptr || geometry->allocatable({BlockNo{start}, count});
}

bool is_inode_number(std::uint64_t inode, const Geometry* geometry) {
  return inode % kChunkBlocks != 0 && (geometry == nullptr || geometry->allocatable({BlockNo{inode}, 1}));
}

// The types of st_mode >> 12: FIFO, character device, directory, block device, file, symlink, socket.
bool is_type(unsigned type) {
  return type == 1 || type == 2 || type == 4 || type == 6 || type == 8 || type == 10 || type == 12;
}

bool is_directory_entry(std::uint64_t key, std::span<const std::byte> payload, const Geometry* geometry) {
  if (payload.size() <= sizeof(DirectoryPayload) || payload.size() > sizeof(DirectoryPayload) + kNameMax) return false;
  const auto entry = load_at<DirectoryPayload>(payload, 0);
  const auto name = payload.subspan(sizeof(DirectoryPayload));
  const auto is_bad = [](std::byte c) { return c == std::byte{'/'} || c == std::byte{0}; };
  if (std::ranges::any_of(name, is_bad)) return false;
  if (name[0] == std::byte{'.'} && (name.size() == 1 || (name.size() == 2 && name[1] == std::byte{'.'}))) return false;
  return key >> 63 == 0 && is_type(entry.type) && is_inode_number(entry.inode.value(), geometry);
}

bool is_chunk(std::uint64_t key, std::span<const std::byte> payload, const Geometry* geometry) {
  if (payload.size() != sizeof(le16) || key % kChunkBlocks != 0 || key == 0) return false;
  if (load_at<le16>(payload, 0).value() >= 1u << (kChunkBlocks - 1)) return false;
  return geometry == nullptr || geometry->allocatable({BlockNo{key}, kChunkBlocks});
}

bool is_payload(TreeKind kind, std::uint64_t key, std::span<const std::byte> payload, const Geometry* geometry) {
  switch (kind) {
    case TreeKind::kExtents:
      return is_extent(key, payload, geometry);
    case TreeKind::kDirectory:
      return is_directory_entry(key, payload, geometry);
    case TreeKind::kChunkIndex:
      return is_chunk(key, payload, geometry);
    case TreeKind::kOrphans:
      return payload.size() == kOrphanPayload && is_inode_number(key, geometry);
    case TreeKind::kXattrs:
      return false;
  }
  return false;
}

bool tree_is_possible(const TreeRoot& root, std::span<const std::byte> area, TreeKind kind, const Geometry* geometry) {
  const std::size_t used = root.used.value();
  const std::size_t count = root.count.value();
  const unsigned level = root.level.value();
  if (used > area.size() || root.reserved.value() != 0 || level > kMaxTreeLevel || (level > 0 && count == 0)) {
    return false;
  }
  std::size_t at = 0;
  std::uint64_t free_from = 0;  // the lowest key that the next record may have
  for (std::size_t i = 0; i < count; ++i) {
    if (used - at < sizeof(TreeRecord)) return false;
    const auto record = load_at<TreeRecord>(area, at);
    at += sizeof(TreeRecord);
    const std::size_t length = record.length.value();
    if (length > used - at) return false;
    const std::uint64_t key = record.key.value();
    const auto payload = area.subspan(at, length);
    at += length;
    if (key < free_from || key == UINT64_MAX) return false;
    if (level > 0 ? !is_child(payload, geometry) : !is_payload(kind, key, payload, geometry)) return false;
    free_from = key + 1;
    if (level == 0 && kind == TreeKind::kExtents) free_from = key + load_at<ExtentPayload>(payload, 0).count.value();
  }
  return at == used && all_zero(area.subspan(used));
}

}  // namespace

Result<> verify_tree(const TreeRoot& root, std::span<const std::byte> area, TreeKind kind, const Geometry* geometry) {
  if (!tree_is_possible(root, area, kind, geometry)) return fail(Errc::kBadValue, "tree");
  return {};
}

bool tree_node_is_possible(const TreeNode& node, BlockNo address, const Geometry* geometry) {
  const unsigned kind = node.kind.value();
  if (node.reserved.value() != 0 || node.owner.value() == 0 || kind == 0 ||
      kind > static_cast<unsigned>(TreeKind::kXattrs)) {
    return false;
  }
  if (geometry != nullptr &&
      (!geometry->allocatable({address, 1}) || !geometry->in_groups(BlockNo{node.owner.value()}))) {
    return false;
  }
  return verify_tree(node.root, std::as_bytes(std::span(node.area)), static_cast<TreeKind>(kind), geometry).has_value();
}

}  // namespace cawfs::format
