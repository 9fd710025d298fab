// Verifiers of the blocks that nodes exchange through the disk (core/format/cluster_format.h), to be called after every
// read, and their seals. A block is one logical block long and stands at byte `offset` of the device.
//
// kBadMagic or kBadChecksum may be a read that met a write: read again for a second before calling it corruption.
// kBadValue is not: the checksum is right and no cawfs writes that.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/base/error.h"
#include "core/base/types.h"
#include "core/format/cluster_format.h"

namespace cawfs::format {

Result<> verify_lock_block(std::span<const std::byte> logical_block, std::uint64_t offset, std::uint64_t fs_id);
Result<> verify_slot_record(std::span<const std::byte> logical_block, std::uint64_t offset, std::uint64_t fs_id);
Result<> verify_heartbeat(std::span<const std::byte> logical_block, std::uint64_t offset, std::uint64_t fs_id,
                          SlotNo slot);
Result<> verify_mailbox(std::span<const std::byte> logical_block, std::uint64_t offset, std::uint64_t fs_id, SlotNo to,
                        SlotNo from);

// Fill in the magic and, last, the checksum. The lock block's and slot record's are for images that no other node sees
// yet (mkfs, a new inode chunk): live ones are changed by COMPARE AND WRITE only.
void seal_lock_block(std::span<std::byte> logical_block, std::uint64_t offset, std::uint64_t fs_id);
void seal_slot_record(std::span<std::byte> logical_block, std::uint64_t offset, std::uint64_t fs_id);
void seal_heartbeat_block(std::span<std::byte> logical_block, std::uint64_t offset, std::uint64_t fs_id);
void seal_mailbox(std::span<std::byte> logical_block, std::uint64_t offset, std::uint64_t fs_id);

}  // namespace cawfs::format
