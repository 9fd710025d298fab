// Where things stand on the device, from a superblock that has been verified: so no later code computes addresses of
// its own, and none of these can point outside the file system.
#pragma once

#include <array>
#include <cstdint>

#include "core/base/checksum.h"
#include "core/base/types.h"
#include "core/format/disk_format.h"

namespace cawfs {

struct Geometry {
  std::uint64_t fs_id = 0;  // low 64 bits of the uuid
  std::uint32_t logical_block = 0;
  std::uint64_t block_count = 0;
  std::uint16_t slots = 0;
  std::uint32_t group_count = 0;
  std::uint32_t group_blocks = 0;
  BlockNo node_table;
  BlockNo heartbeats;
  BlockNo mailboxes;
  BlockNo global_lock;
  BlockNo scratch;
  BlockNo first_group;
  InodeNo root;
  std::array<InodeNo, kSlots> orphan_inodes{};
  SipKey sip_key{};
  bool clustered = false;

  // Byte offsets on the device.
  std::uint64_t slot_record_offset(SlotNo slot) const { return (node_table + slot.value).offset_bytes(); }
  std::uint64_t heartbeat_offset(SlotNo slot) const { return (heartbeats + slot.value).offset_bytes(); }
  std::uint64_t mailbox_offset(SlotNo to, SlotNo from) const {
    return mailboxes.offset_bytes() + (std::uint64_t{to.value} * kSlots + from.value) * logical_block;
  }

  BlockNo group_start(GroupNo group) const { return first_group + std::uint64_t{group.value} * group_blocks; }
  std::uint64_t blocks_in_group(GroupNo group) const {
    const std::uint64_t left = block_count - group_start(group).value;
    return left < group_blocks ? left : group_blocks;
  }
  std::uint32_t bitmap_blocks(GroupNo group) const {
    return static_cast<std::uint32_t>((blocks_in_group(group) + format::kBitsPerBitmapBlock - 1) /
                                      format::kBitsPerBitmapBlock);
  }
  BlockNo group_header(GroupNo group) const { return group_start(group); }
  BlockNo group_lock(GroupNo group) const { return group_start(group) + 1; }
  BlockNo group_bitmap(GroupNo group, std::uint32_t index) const { return group_start(group) + 2 + index; }
  // The first block after the group's own ones.
  BlockNo group_data(GroupNo group) const { return group_bitmap(group, bitmap_blocks(group)); }
  // Of any block at or after first_group.
  GroupNo group_of(BlockNo block) const {
    return GroupNo{static_cast<std::uint32_t>((block.value - first_group.value) / group_blocks)};
  }
  bool in_groups(BlockNo block) const { return block >= first_group && block.value < block_count; }
  // Could all of it belong to an inode: inside one group, none of the group's own blocks among it?
  bool allocatable(BlockRange range) const {
    if (range.count == 0 || !in_groups(range.start) || range.count > block_count - range.start.value) return false;
    const GroupNo group = group_of(range.start);
    const std::uint64_t end = group_start(group).value + blocks_in_group(group);
    return range.start >= group_data(group) && range.count <= end - range.start.value;
  }
};

}  // namespace cawfs
