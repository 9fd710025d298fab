// What an inode may say.
#include <sys/stat.h>

#include "core/format/tree_records.h"
#include "core/format/verify.h"
#include "core/format/verify_internal.h"

namespace cawfs::format {
namespace {

constexpr std::uint64_t kMaxSize = INT64_MAX;

bool is_possible_mode(std::uint32_t mode) {
  if ((mode & ~0177777u) != 0) return false;
  switch (mode & S_IFMT) {
    case S_IFREG:
    case S_IFDIR:
    case S_IFLNK:
    case S_IFCHR:
    case S_IFBLK:
    case S_IFIFO:
    case S_IFSOCK:
      return true;
    default:
      return false;
  }
}

// A system inode holds an orphan list; other inodes what their type says.
bool is_possible_kind(const Inode& inode, unsigned kind) {
  if ((inode.flags.value() & kInodeSystem) != 0) return kind == static_cast<unsigned>(TreeKind::kOrphans);
  const unsigned type = inode.mode.value() & S_IFMT;
  if (type == S_IFDIR) return kind == static_cast<unsigned>(TreeKind::kDirectory);
  return (type == S_IFREG || type == S_IFLNK) && kind == static_cast<unsigned>(TreeKind::kExtents);
}

bool inline_is_possible(const Inode& inode, std::span<const std::byte> content) {
  const unsigned type = inode.mode.value() & S_IFMT;
  if ((type != S_IFREG && type != S_IFLNK) || inode.size.value() > content.size()) return false;
  return inode.tree_kind.value() == 0 && all_zero(content.subspan(inode.size.value()));
}

bool tree_is_possible(const Inode& inode, std::span<const std::byte> content, const Geometry* geometry) {
  const unsigned kind = inode.tree_kind.value();
  if (!is_possible_kind(inode, kind)) return false;
  const auto root = load_at<TreeRoot>(content, 0);
  return verify_tree(root, content.subspan(sizeof(TreeRoot)), static_cast<TreeKind>(kind), geometry).has_value();
}

bool content_is_possible(const Inode& inode, const Geometry* geometry) {
  const auto content = std::as_bytes(std::span(inode.area));
  switch (static_cast<InodeContent>(inode.content)) {
    case InodeContent::kNone: {
      const unsigned type = inode.mode.value() & S_IFMT;
      return type != S_IFREG && type != S_IFDIR && type != S_IFLNK && inode.tree_kind.value() == 0 && all_zero(content);
    }
    case InodeContent::kInline:
      return inline_is_possible(inode, content);
    case InodeContent::kTree:
      return tree_is_possible(inode, content, geometry);
  }
  return false;
}

}  // namespace

bool inode_is_possible(const Inode& inode, BlockNo address, const Geometry* geometry) {
  if (address.value % kChunkBlocks == 0) return false;
  if (geometry != nullptr && !geometry->allocatable({address, 1})) return false;
  if (inode.reserved0 != 0 || !all_zero(inode.reserved1)) return false;
  // Of a free inode only the number's generation means anything.
  if (inode.mode.value() == 0) return true;
  if (!is_possible_mode(inode.mode.value()) || inode.size.value() > kMaxSize) return false;
  constexpr std::uint32_t kKnown = kInodeSystem | kInodeOrphan | kInodeCutting;
  if ((inode.flags.value() & ~kKnown) != 0 || inode.orphan_slot.value() >= kSlots) return false;
  if (inode.content_bytes.value() != kInodeContent || inode.xattr_bytes.value() != 0) return false;
  if (geometry != nullptr && S_ISDIR(inode.mode.value()) &&
      !geometry->allocatable({BlockNo{inode.parent.value()}, 1})) {
    return false;
  }
  return content_is_possible(inode, geometry);
}

}  // namespace cawfs::format
