// What a group header may say.
#include "core/format/verify.h"
#include "core/format/verify_internal.h"

namespace cawfs::format {
namespace {

// Each summary is possible and their sum is the group's free count.
bool summaries_are_possible(const GroupHeader& group) {
  const std::size_t bitmaps = group.bitmap_blocks.value();
  if (bitmaps == 0 || bitmaps > kMaxBitmapBlocks) return false;
  std::uint64_t free = 0;
  for (std::size_t i = 0; i < kMaxBitmapBlocks; ++i) {
    const std::uint32_t summary = group.summary[i].value();
    const std::uint32_t count = summary & ~kBitmapUninit;
    if (i >= bitmaps && summary != 0) return false;
    if (count > kBitsPerBitmapBlock) return false;
    if ((summary & kBitmapUninit) != 0 && count != kBitsPerBitmapBlock) return false;
    free += count;
  }
  return free == group.free_blocks.value();
}

bool fits_geometry(const GroupHeader& group, BlockNo address, const Geometry& geometry) {
  const GroupNo number{group.group.value()};
  if (number.value >= geometry.group_count || geometry.group_header(number) != address) return false;
  const std::uint64_t own = geometry.group_data(number).value - address.value;
  const std::uint64_t usable = geometry.blocks_in_group(number) - own;
  return group.bitmap_blocks.value() == geometry.bitmap_blocks(number) && group.free_blocks.value() <= usable &&
         std::uint64_t{group.chunks.value()} * kChunkBlocks <= usable;
}

}  // namespace

bool group_header_is_possible(const GroupHeader& group, BlockNo address, const Geometry* geometry) {
  if (group.reserved0.value() != 0 || !all_zero(group.reserved1) || !summaries_are_possible(group)) return false;
  if (geometry != nullptr && !fits_geometry(group, address, *geometry)) return false;
  if (group.free_inodes.value() > std::uint64_t{group.chunks.value()} * (kChunkBlocks - 1)) return false;
  if (group.chunk_index.level.value() == 0 && group.chunk_index.count.value() != group.chunks.value()) return false;
  return verify_tree(group.chunk_index, std::as_bytes(std::span(group.chunk_index_area)), TreeKind::kChunkIndex,
                     geometry)
      .has_value();
}

}  // namespace cawfs::format
