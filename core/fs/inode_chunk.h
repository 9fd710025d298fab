// One inode chunk on disk, and the mask of its free inodes in its group's chunk index.
#pragma once

#include <cstdint>
#include <span>

#include "core/base/types.h"
#include "core/device/io_buffer.h"
#include "core/format/disk_format.h"
#include "core/format/geometry.h"

namespace cawfs {

inline constexpr std::uint32_t kInodesPerChunk = format::kChunkBlocks - 1;
inline constexpr std::uint16_t kAllInodesFree = (1u << kInodesPerChunk) - 1;

inline BlockNo chunk_of(InodeNo inode) {
  return BlockNo{inode.value - inode.value % format::kChunkBlocks};
}
// Its bit in the chunk's mask.
inline std::uint16_t mask_bit(InodeNo inode) {
  return static_cast<std::uint16_t>(1u << (inode.value % format::kChunkBlocks - 1));
}

// A mask in an index record (a format::le16).
std::uint16_t load_mask(std::span<const std::byte> payload);
void store_mask(std::span<std::byte> payload, std::uint16_t mask);

// The blocks of the chunk's 15 inodes, all free, as they are to be written behind its lock block.
IoBuffer free_inode_blocks(BlockNo chunk, const Geometry& geometry);

}  // namespace cawfs
