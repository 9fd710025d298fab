#include "core/fs/inode_chunk.h"

#include <cstring>

#include "core/base/assert.h"
#include "core/format/verify.h"

namespace cawfs {

std::uint16_t load_mask(std::span<const std::byte> payload) {
  format::le16 mask;
  CAWFS_ASSERT(payload.size() == sizeof(mask));
  std::memcpy(&mask, payload.data(), sizeof(mask));
  return mask.value();
}

void store_mask(std::span<std::byte> payload, std::uint16_t mask) {
  format::le16 stored;
  stored = mask;
  CAWFS_ASSERT(payload.size() == sizeof(stored));
  std::memcpy(payload.data(), &stored, sizeof(stored));
}

IoBuffer free_inode_blocks(BlockNo chunk, const Geometry& geometry) {
  IoBuffer blocks(std::size_t{kInodesPerChunk} * kBlockSize);
  for (std::uint32_t i = 0; i < kInodesPerChunk; ++i) {
    const auto block = blocks.bytes().subspan(std::size_t{i} * kBlockSize, kBlockSize);
    format::start_block(block, format::BlockType::kInode, chunk + 1 + i, geometry.fs_id);
    format::stamp_block(block);
  }
  return blocks;
}

}  // namespace cawfs
