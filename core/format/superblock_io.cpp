#include "core/format/superblock_io.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "core/device/io_buffer.h"
#include "core/format/layout.h"
#include "core/format/verify.h"

namespace cawfs {
namespace {

using format::Superblock;

// Verified as a superblock of whatever file system it names.
Result<Superblock> parse(std::span<const std::byte> block, BlockNo address) {
  Superblock superblock;
  std::memcpy(&superblock, block.data(), sizeof(superblock));
  const auto ok = format::verify_block(block, format::BlockType::kSuperblock, address, superblock.header.fs_id.value());
  if (!ok) return fail(ok.error());
  return superblock;
}

Task<Result<Superblock>> read_at(BlockDevice& device, BlockNo address) {
  if (device.facts().size_bytes < address.offset_bytes() + kBlockSize) {
    co_return fail(Errc::kBadMagic, "superblock", address.value);
  }
  IoBuffer buffer(kBlockSize);
  const Result<> read = co_await device.read(address.offset_bytes(), buffer.bytes());
  if (!read) co_return fail(read.error());
  co_return parse(buffer.bytes(), address);
}

// The copy in the last group is the file system's last block: somewhere in the device's last ones.
Task<Result<Superblock>> find_last_copy(BlockDevice& device) {
  const std::uint64_t blocks = device.facts().size_bytes / kBlockSize;
  const std::uint64_t count = std::min(blocks, format::kMinLastGroupBlocks);
  if (count == 0) co_return fail(Errc::kBadMagic, "superblock");
  const BlockNo start{blocks - count};
  IoBuffer buffer(count * kBlockSize);
  const Result<> read = co_await device.read(start.offset_bytes(), buffer.bytes());
  if (!read) co_return fail(read.error());
  for (std::uint64_t i = count; i-- > 0;) {
    auto superblock = parse(buffer.bytes().subspan(i * kBlockSize, kBlockSize), start + i);
    if (superblock && superblock->block_count.value() == start.value + i + 1) co_return superblock;
  }
  co_return fail(Errc::kBadMagic, "superblock");
}

Task<Result<Superblock>> read_copies(BlockDevice& device, Error primary) {
  std::optional<Superblock> newest;
  const BlockNo in_first{format::first_group_block(device.facts().logical_block) + format::kCopyInFirstGroup};
  const Result<Superblock> first = co_await read_at(device, in_first);
  if (first) newest = *first;
  const Result<Superblock> last = co_await find_last_copy(device);
  if (last && (!newest || last->sequence.value() > newest->sequence.value())) newest = *last;
  if (!newest) co_return fail(primary);
  co_return *newest;
}

bool copies_may_stand_in(Errc code) {
  return code == Errc::kBadChecksum || code == Errc::kBadIdentity || code == Errc::kBadValue || code == Errc::kMedium;
}

Result<> check_device(const Superblock& superblock, const DeviceFacts& facts) {
  if (superblock.logical_block.value() != facts.logical_block) {
    return fail(Errc::kBadBlockSize, "superblock", superblock.logical_block.value());
  }
  if (superblock.block_count.value() > facts.size_bytes / kBlockSize) {
    return fail(Errc::kBounds, "the device is smaller than its file system; blocks", superblock.block_count.value());
  }
  return {};
}

}  // namespace

Task<Result<Superblock>> read_superblock(BlockDevice& device) {
  Result<Superblock> superblock = co_await read_at(device, BlockNo{format::kSuperblockBlock});
  if (!superblock && copies_may_stand_in(superblock.error().code)) {
    superblock = co_await read_copies(device, superblock.error());
  }
  if (!superblock) co_return superblock;
  const auto ok = check_device(*superblock, device.facts());
  if (!ok) co_return fail(ok.error());
  co_return superblock;
}

Geometry make_geometry(const Superblock& s) {
  Geometry geometry;
  geometry.fs_id = s.header.fs_id.value();
  geometry.logical_block = s.logical_block.value();
  geometry.block_count = s.block_count.value();
  geometry.slots = static_cast<std::uint16_t>(s.slots.value());
  geometry.group_count = s.group_count.value();
  geometry.group_blocks = s.group_blocks.value();
  geometry.node_table = BlockNo{s.node_table.value()};
  geometry.heartbeats = BlockNo{s.heartbeats.value()};
  geometry.mailboxes = BlockNo{s.mailboxes.value()};
  geometry.global_lock = BlockNo{s.global_lock.value()};
  geometry.scratch = BlockNo{s.scratch.value()};
  geometry.first_group = BlockNo{s.first_group.value()};
  geometry.root = InodeNo{s.root_inode.value()};
  for (std::size_t i = 0; i < kSlots; ++i) geometry.orphan_inodes[i] = InodeNo{s.orphan_inodes[i].value()};
  geometry.sip_key = s.sip_key;
  geometry.clustered = (s.incompat.value() & format::kIncompatClustered) != 0;
  return geometry;
}

bool writable(const Superblock& superblock) {
  return (superblock.ro_compat.value() & ~format::kRoCompatKnown) == 0;
}

BlockNo first_superblock_copy(const Geometry& geometry) {
  return geometry.first_group + format::kCopyInFirstGroup;
}

BlockNo last_superblock_copy(const Geometry& geometry) {
  return BlockNo{geometry.block_count - 1};
}

}  // namespace cawfs
