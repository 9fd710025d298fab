// One verifier for each type of metadata block, to be called after every read; and the stamp, to be called before every
// write, which verifies before it fills in the checksum, so that a bug of ours is caught on the way out.
//
// A verifier looks at one block: magic, checksum, identity (own address, file system, type), version, every size,
// count, offset and address, packing and order of records, reserved bytes. Whatever the bytes, it returns an Error and
// never reads outside the block. What needs a second block (free counts against bitmaps, extents against each other)
// is fsck's.
//
// Errors, in the order of the checks: kBadMagic, kBadChecksum, kBadIdentity, kBadVersion, kBadFeature (superblock),
// kBadValue. Their `where` names the structure, their `address` is the block.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/base/error.h"
#include "core/base/types.h"
#include "core/format/block_header.h"
#include "core/format/disk_format.h"
#include "core/format/geometry.h"

namespace cawfs::format {

// `block` is kBlockSize bytes. Of the journal's types only the header is looked at here: core/format/journal_verify.h
// has their verifiers.
Result<> verify_block(std::span<const std::byte> block, BlockType type, BlockNo address, std::uint64_t fs_id);
// The same, and every address in the block lies where the geometry allows. What the buffer cache calls.
Result<> verify_block(std::span<const std::byte> block, BlockType type, BlockNo address, const Geometry& geometry);

// Fills in the BlockHeader of a new block, which is zero otherwise; not the checksum.
void start_block(std::span<std::byte> block, BlockType type, BlockNo address, std::uint64_t fs_id);
// Fills in the checksum. Asserts that the block verifies as the type, address and file system of its own header.
void stamp_block(std::span<std::byte> block);
// Only the checksum, of whatever stands there: for tools that plant faults.
void stamp_unverified(std::span<std::byte> block);

// A root embedded in an inode or group header, or a node's own: records packed and in order, payloads possible for
// the kind (a node's or root's level decides whether they are children), zeros after the last. `geometry` may be null.
// The error has no address.
Result<> verify_tree(const TreeRoot& root, std::span<const std::byte> area, TreeKind kind, const Geometry* geometry);

inline constexpr std::uint16_t kMaxTreeLevel = 16;

}  // namespace cawfs::format
