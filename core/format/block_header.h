// What every metadata block starts with. docs/format.md describes all on-disk structures byte by byte; all of them are
// defined in core/format/*.h and nowhere else. Little-endian throughout, no padding, reserved bytes written as zero and
// checked on read.
#pragma once

#include <boost/endian/buffers.hpp>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace cawfs::format {

using le8 = std::uint8_t;
using le16 = boost::endian::little_uint16_buf_t;
using le32 = boost::endian::little_uint32_buf_t;
using le64 = boost::endian::little_uint64_buf_t;
using lei64 = boost::endian::little_int64_buf_t;

inline constexpr std::uint16_t kVersion = 1;

enum class BlockType : std::uint16_t {
  kSuperblock = 1,
  kGroupHeader = 2,
  kBitmap = 3,
  kTreeNode = 4,
  kInode = 5,
  kJournalHeader = 6,
  kJournalRecord = 7,
};

inline constexpr std::uint32_t kBlockMagic = 0x42574143;      // "CAWB"
inline constexpr std::uint32_t kSlotMagic = 0x53574143;       // "CAWS"
inline constexpr std::uint32_t kHeartbeatMagic = 0x48574143;  // "CAWH"
inline constexpr std::uint32_t kMailboxMagic = 0x4d574143;    // "CAWM"
inline constexpr std::uint32_t kLockMagic = 0x4c574143;       // "CAWL"

// The crc covers the whole 4096-byte block with the crc field taken as zero.
struct BlockHeader {
  le32 magic;    // kBlockMagic
  le32 crc;      // crc32c
  le64 address;  // this block's number
  le64 fs_id;    // low 64 bits of the file system's uuid
  le16 type;     // BlockType
  le16 version;  // kVersion
  le32 reserved;
};
static_assert(sizeof(BlockHeader) == 32);

// What every block that is changed by COMPARE AND WRITE starts with (lock blocks, slot records). The crc covers the
// first 512 bytes with the crc field taken as zero, seeded with the block's byte address and the fs_id (8 bytes each,
// little-endian), which the header lacks.
struct CawHeader {
  le32 magic;
  le32 crc;
  le64 sequence;  // grows with every image of this block; never repeats
  le16 writer_slot;
  le16 reserved;
  le32 writer_incarnation;
  le64 nonce;  // random: tells an image of mine from one like it
};
static_assert(sizeof(CawHeader) == 32);

}  // namespace cawfs::format
