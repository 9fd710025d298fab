// A block of the file system as a fuzzer has it: one byte of flags, then the block up to its last byte that is not
// zero. Without its checksum made right no input would get behind the verifier's second line.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "core/base/types.h"
#include "core/format/block_header.h"
#include "core/format/checksums.h"
#include "core/format/verify.h"
#include "tests/fuzz/input.h"

namespace cawfs::fuzz {

using Block = std::array<std::byte, kBlockSize>;

inline constexpr std::uint8_t kRightChecksum = 1;
inline constexpr std::uint8_t kRightHeader = 2;  // magic, type, version, address, file system

inline Block take_block(FuzzInput& input, std::uint8_t flags, format::BlockType type, BlockNo address,
                        std::uint64_t fs_id) {
  Block block;
  input.fill(block);
  if ((flags & kRightHeader) != 0) format::start_block(block, type, address, fs_id);
  if ((flags & kRightChecksum) != 0) format::stamp_unverified(block);
  return block;
}

// The same of what nodes exchange: a logical block at byte `offset` of the device.
inline void right_cluster_block(std::span<std::byte> block, std::uint8_t flags, std::uint32_t magic,
                                std::uint64_t offset, std::uint64_t fs_id) {
  const auto put = [&](std::size_t at, std::uint32_t value) {
    const format::le32 number(value);
    std::memcpy(block.data() + at, &number, sizeof(number));
  };
  if ((flags & kRightHeader) != 0) put(offsetof(format::CawHeader, magic), magic);
  if ((flags & kRightChecksum) != 0) {
    put(offsetof(format::CawHeader, crc), format::cluster_crc(block, offset, fs_id));
  }
}

}  // namespace cawfs::fuzz
