#include "core/format/checksums.h"

#include "core/base/assert.h"
#include "core/base/checksum.h"
#include "core/format/block_header.h"
#include "core/format/cluster_format.h"

namespace cawfs::format {
namespace {

constexpr std::size_t kCrcAt = offsetof(BlockHeader, crc);
static_assert(kCrcAt == offsetof(CawHeader, crc) && kCrcAt == offsetof(Heartbeat, crc) &&
              kCrcAt == offsetof(Mailbox, crc));

std::uint32_t crc_without_its_field(std::span<const std::byte> bytes, std::uint32_t seed) {
  constexpr std::array<std::byte, sizeof(le32)> kZero{};
  std::uint32_t crc = crc32c(bytes.first(kCrcAt), seed);
  crc = crc32c(kZero, crc);
  return crc32c(bytes.subspan(kCrcAt + sizeof(le32)), crc);
}

}  // namespace

std::uint64_t fs_id_of(const Uuid& uuid) {
  std::uint64_t id = 0;
  for (std::size_t i = 0; i < 8; ++i) id |= std::uint64_t{uuid[8 + i]} << (8 * i);
  return id;
}

std::uint32_t block_crc(std::span<const std::byte> block) {
  CAWFS_ASSERT(block.size() >= sizeof(BlockHeader));
  return crc_without_its_field(block, 0);
}

std::uint32_t cluster_crc(std::span<const std::byte> logical_block, std::uint64_t offset, std::uint64_t fs_id) {
  CAWFS_ASSERT(logical_block.size() >= kClusterBlockBytes);
  std::array<le64, 2> seed;
  seed[0] = offset;
  seed[1] = fs_id;
  return crc_without_its_field(logical_block.first(kClusterBlockBytes), crc32c(std::as_bytes(std::span(seed))));
}

}  // namespace cawfs::format
