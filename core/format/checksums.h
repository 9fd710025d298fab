// The checksums of on-disk structures, and the file system's identity that seeds or stands in them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace cawfs::format {

using Uuid = std::array<std::uint8_t, 16>;

// What blocks carry of the uuid: its low 64 bits, that is bytes 8 to 15, read as a little-endian number.
std::uint64_t fs_id_of(const Uuid& uuid);

// Of anything that starts with a BlockHeader: all bytes, with the crc field taken as zero.
std::uint32_t block_crc(std::span<const std::byte> block);

// Of a slot record, heartbeat, mailbox or lock block at byte `offset`: its first 512 bytes with the crc field (at byte
// 4 in all of them) taken as zero, seeded with `offset` and `fs_id`, 8 bytes each.
std::uint32_t cluster_crc(std::span<const std::byte> logical_block, std::uint64_t offset, std::uint64_t fs_id);

}  // namespace cawfs::format
