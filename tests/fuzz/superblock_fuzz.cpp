// A superblock: where it is accepted, nothing that is computed from it lies outside the file system, and reading the
// file system's superblock gives it, or a copy where it is damaged.
#include <cstring>

#include "core/base/assert.h"
#include "core/format/layout.h"
#include "core/format/superblock_io.h"
#include "core/runtime/virtual_loop.h"
#include "tests/fuzz/block_input.h"
#include "tests/fuzz/fresh_image.h"

namespace cawfs::fuzz {
namespace {

using format::Superblock;

constexpr std::uint8_t kLogicalBlock512 = 4;
constexpr std::uint8_t kAsCopy = 8;  // it stands in the first group, and the one at the start is damaged
// Where the one at the start is damaged, 4 MiB are read in search of copies.
constexpr std::uint32_t kSearchOneIn = 32;

void check_group(const Geometry& g, GroupNo group) {
  const BlockNo start = g.group_start(group);
  CAWFS_ASSERT(g.in_groups(start) && g.group_of(start) == group);
  CAWFS_ASSERT(g.blocks_in_group(group) <= g.block_count - start.value);
  CAWFS_ASSERT(g.bitmap_blocks(group) >= 1 && g.bitmap_blocks(group) <= format::kMaxBitmapBlocks);
  CAWFS_ASSERT(g.group_data(group).value < start.value + g.blocks_in_group(group));
  CAWFS_ASSERT(!g.allocatable({g.group_header(group), 1}));
}

void check_geometry(const Geometry& g, std::uint32_t some_group) {
  // Each area ends before the next begins.
  constexpr SlotNo kLast{kSlots - 1};
  CAWFS_ASSERT(g.slot_record_offset(SlotNo{0}) > BlockNo{format::kSuperblockBlock}.offset_bytes());
  CAWFS_ASSERT(g.slot_record_offset(kLast) + kBlockSize <= g.heartbeat_offset(SlotNo{0}));
  CAWFS_ASSERT(g.heartbeat_offset(kLast) + kBlockSize <= g.mailbox_offset(SlotNo{0}, SlotNo{0}));
  CAWFS_ASSERT(g.mailbox_offset(kLast, kLast) + g.logical_block <= g.global_lock.offset_bytes());
  CAWFS_ASSERT(g.global_lock < g.scratch && g.scratch < g.first_group);
  CAWFS_ASSERT(g.slots >= 1 && g.slots <= kSlots && g.group_count >= 1);
  check_group(g, GroupNo{0});
  check_group(g, GroupNo{g.group_count - 1});
  check_group(g, GroupNo{some_group % g.group_count});
  CAWFS_ASSERT(g.group_of(BlockNo{g.block_count - 1}).value == g.group_count - 1);
  CAWFS_ASSERT(g.in_groups(g.root.block()) && g.root.value % format::kChunkBlocks != 0);
  for (std::uint16_t slot = 0; slot < g.slots; ++slot) CAWFS_ASSERT(g.in_groups(g.orphan_inodes[slot].block()));
  CAWFS_ASSERT(g.in_groups(first_superblock_copy(g)) && g.in_groups(last_superblock_copy(g)));
}

Result<Superblock> read_from_device(const Block& block, BlockNo place, std::uint32_t logical_block) {
  const FreshImage& fresh = fresh_image(logical_block);
  VirtualLoop loop;
  SeededRandom random(1);
  SimulatedLun lun(loop.clock(), random, fresh.lun_options());
  if (place.value != format::kSuperblockBlock) {
    Superblock damaged = fresh.superblock;
    damaged.header.crc = damaged.header.crc.value() + 1;
    lun.poke(BlockNo{format::kSuperblockBlock}.offset_bytes(), std::as_bytes(std::span(&damaged, 1)));
  }
  lun.poke(place.offset_bytes(), block);
  Executor& executor = loop.add_executor();
  const auto device = lun.connect(executor, "reader");
  auto read = loop.run(executor, read_superblock(*device));
  loop.run(executor, device->close());
  return read;
}

void run(FuzzInput input) {
  const std::uint8_t flags = input.byte();
  const auto some_group = input.take<std::uint32_t>();
  const std::uint32_t logical_block = (flags & kLogicalBlock512) != 0 ? 512 : 4096;
  const FreshImage& fresh = fresh_image(logical_block);
  const bool search = input.one_in(kSearchOneIn);
  const bool as_copy = search && (flags & kAsCopy) != 0;
  const BlockNo place = as_copy ? first_superblock_copy(fresh.geometry) : BlockNo{format::kSuperblockBlock};
  const Block block =
      take_block(input, flags, format::BlockType::kSuperblock, place, fresh.superblock.header.fs_id.value());
  Superblock superblock;
  std::memcpy(&superblock, block.data(), sizeof(superblock));

  const auto verdict =
      format::verify_block(block, format::BlockType::kSuperblock, place, superblock.header.fs_id.value());
  const bool fits_device = verdict && superblock.logical_block.value() == logical_block &&
                           superblock.block_count.value() <= FreshImage::kBytes / kBlockSize;
  if (verdict || search) {
    const auto read = read_from_device(block, place, logical_block);
    CAWFS_ASSERT(read.has_value() == fits_device);
    if (read) CAWFS_ASSERT(std::memcmp(&*read, block.data(), block.size()) == 0);
  }
  if (!verdict) return;
  Block again = block;
  format::stamp_block(again);
  CAWFS_ASSERT(again == block);
  const Geometry geometry = make_geometry(superblock);
  check_geometry(geometry, some_group);
  CAWFS_ASSERT(format::verify_block(block, format::BlockType::kSuperblock, place, geometry));
}

}  // namespace
}  // namespace cawfs::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  cawfs::fuzz::run({data, size});
  return 0;
}
