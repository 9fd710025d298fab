// Limits of what a cawfs file system may look like, kept by mkfs and required by the verifiers; and where the fixed
// areas and the superblock's copies stand, so that they can be found without a superblock.
#pragma once

#include <cstdint>

#include "core/base/types.h"
#include "core/format/disk_format.h"

namespace cawfs::format {

inline constexpr std::uint64_t kMaxBlockCount = std::uint64_t{1} << 50;  // 4 EiB
inline constexpr std::uint64_t kMinGroupBlocks = 2048;
inline constexpr std::uint64_t kMaxGroupBlocks = kMaxBitmapBlocks * kBitsPerBitmapBlock;
// The last group may be shorter, but not more than this; a smaller rest of the device is left unused.
inline constexpr std::uint64_t kMinLastGroupBlocks = kMaxBitmapBlocks + 144;
static_assert(kMinLastGroupBlocks == 1024 && kMinLastGroupBlocks <= kMinGroupBlocks);
static_assert(kMaxGroupBlocks % kChunkBlocks == 0);

inline constexpr std::uint32_t kMinDeadTimeMs = 2'000;
inline constexpr std::uint32_t kMaxDeadTimeMs = 600'000;

// The fixed areas stand one after the other from here, in the order of the superblock's fields.
inline constexpr std::uint64_t kFixedAreasBlock = 32;

constexpr std::uint64_t mailbox_blocks(std::uint32_t logical_block) {
  return std::uint64_t{kSlots} * kSlots * logical_block / kBlockSize;
}

// Probed with COMPARE AND WRITE; the block after it belongs to nothing, and probes write it plainly.
constexpr BlockNo scratch_block(std::uint32_t logical_block) {
  return BlockNo{kFixedAreasBlock + 2 * std::uint64_t{kSlots} + mailbox_blocks(logical_block) + 1};
}

constexpr std::uint64_t first_group_block(std::uint32_t logical_block) {
  const std::uint64_t end = scratch_block(logical_block).value + 2;
  return (end + kChunkBlocks - 1) / kChunkBlocks * kChunkBlocks;
}

// The superblock's copies: this block of the first group, and the last block of the last group. The file system ends
// less than kMinLastGroupBlocks before its device does (unless the device has grown), so the second one is found by
// reading the device's last blocks.
inline constexpr std::uint64_t kCopyInFirstGroup = 896;
static_assert(kCopyInFirstGroup > 2 + kMaxBitmapBlocks && kCopyInFirstGroup < kMinLastGroupBlocks);

}  // namespace cawfs::format
