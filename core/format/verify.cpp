#include "core/format/verify.h"

#include <algorithm>
#include <cstring>

#include "core/base/assert.h"
#include "core/format/checksums.h"
#include "core/format/layout.h"
#include "core/format/verify_internal.h"

namespace cawfs::format {
namespace {

const char* name_of(BlockType type) {
  switch (type) {
    case BlockType::kSuperblock:
      return "superblock";
    case BlockType::kGroupHeader:
      return "group header";
    case BlockType::kBitmap:
      return "bitmap";
    case BlockType::kTreeNode:
      return "tree node";
    case BlockType::kInode:
      return "inode";
    case BlockType::kJournalHeader:
      return "journal header";
    case BlockType::kJournalRecord:
      return "journal record";
  }
  return "block of unknown type";
}

Result<> verify_header(std::span<const std::byte> block, const BlockHeader& header, BlockType type, BlockNo address,
                       std::uint64_t fs_id) {
  const char* name = name_of(type);
  if (header.magic.value() != kBlockMagic) return fail(Errc::kBadMagic, name, address.value);
  if (header.crc.value() != block_crc(block)) return fail(Errc::kBadChecksum, name, address.value);
  if (header.type.value() != static_cast<std::uint16_t>(type) || header.address.value() != address.value ||
      header.fs_id.value() != fs_id) {
    return fail(Errc::kBadIdentity, name, address.value);
  }
  if (header.version.value() != kVersion) return fail(Errc::kBadVersion, name, address.value);
  if (header.reserved.value() != 0) return fail(Errc::kBadValue, name, address.value);
  return {};
}

bool bitmap_is_possible(const Bitmap& bitmap, BlockNo address, const Geometry* geometry) {
  if (geometry == nullptr) return true;
  if (!geometry->in_groups(address)) return false;
  const GroupNo group = geometry->group_of(address);
  if (address < geometry->group_bitmap(group, 0) || address >= geometry->group_data(group)) return false;
  const std::uint64_t first = (address.value - geometry->group_bitmap(group, 0).value) * kBitsPerBitmapBlock;
  const std::uint64_t bits = std::min(kBitsPerBitmapBlock, geometry->blocks_in_group(group) - first);
  for (std::uint64_t bit = bits; bit < kBitsPerBitmapBlock; ++bit) {
    if ((bitmap.bits[bit / 8] >> (bit % 8) & 1) == 0) return false;
  }
  return true;
}

template <class T>
const T& view(std::span<const std::byte> block) {
  static_assert(sizeof(T) == kBlockSize && alignof(T) == 1);
  return *reinterpret_cast<const T*>(block.data());
}

Result<> verify_contents(std::span<const std::byte> block, BlockType type, BlockNo address, const Geometry* geometry) {
  bool possible = true;
  switch (type) {
    case BlockType::kSuperblock:
      if (const auto ok = check_features(view<Superblock>(block)); !ok) return ok;
      possible = superblock_is_possible(view<Superblock>(block));
      break;
    case BlockType::kGroupHeader:
      possible = group_header_is_possible(view<GroupHeader>(block), address, geometry);
      break;
    case BlockType::kBitmap:
      possible = bitmap_is_possible(view<Bitmap>(block), address, geometry);
      break;
    case BlockType::kTreeNode:
      possible = tree_node_is_possible(view<TreeNode>(block), address, geometry);
      break;
    case BlockType::kInode:
      possible = inode_is_possible(view<Inode>(block), address, geometry);
      break;
    case BlockType::kJournalHeader:
    case BlockType::kJournalRecord:
      break;
  }
  if (!possible) return fail(Errc::kBadValue, name_of(type), address.value);
  return {};
}

Result<> verify(std::span<const std::byte> block, BlockType type, BlockNo address, std::uint64_t fs_id,
                const Geometry* geometry) {
  CAWFS_ASSERT(block.size() == kBlockSize);
  BlockHeader header;
  std::memcpy(&header, block.data(), sizeof(header));
  if (const auto ok = verify_header(block, header, type, address, fs_id); !ok) return ok;
  return verify_contents(block, type, address, geometry);
}

}  // namespace

Result<> verify_block(std::span<const std::byte> block, BlockType type, BlockNo address, std::uint64_t fs_id) {
  return verify(block, type, address, fs_id, nullptr);
}

Result<> verify_block(std::span<const std::byte> block, BlockType type, BlockNo address, const Geometry& geometry) {
  return verify(block, type, address, geometry.fs_id, &geometry);
}

void start_block(std::span<std::byte> block, BlockType type, BlockNo address, std::uint64_t fs_id) {
  CAWFS_ASSERT(block.size() >= sizeof(BlockHeader));
  BlockHeader header{};
  header.magic = kBlockMagic;
  header.address = address.value;
  header.fs_id = fs_id;
  header.type = static_cast<std::uint16_t>(type);
  header.version = kVersion;
  std::memcpy(block.data(), &header, sizeof(header));
}

void stamp_unverified(std::span<std::byte> block) {
  le32 crc;
  crc = block_crc(block);
  std::memcpy(block.data() + offsetof(BlockHeader, crc), &crc, sizeof(crc));
}

void stamp_block(std::span<std::byte> block) {
  stamp_unverified(block);
  BlockHeader header;
  std::memcpy(&header, block.data(), sizeof(header));
  const auto type = static_cast<BlockType>(header.type.value());
  CAWFS_ASSERT(verify_block(block, type, BlockNo{header.address.value()}, header.fs_id.value()));
}

}  // namespace cawfs::format
