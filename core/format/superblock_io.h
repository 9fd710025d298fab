// Finds and reads the superblock, and derives the geometry from it.
#pragma once

#include <cstdint>

#include "core/base/error.h"
#include "core/device/device.h"
#include "core/format/disk_format.h"
#include "core/format/geometry.h"
#include "core/runtime/task.h"

namespace cawfs {

// The superblock at 64 KiB, verified, known features only, and agreeing with the device: logical block size
// (kBadBlockSize) and size (kBounds: the device is smaller than the file system).
//
// Where that block is ours but damaged (kBadChecksum, kBadIdentity, kBadValue) or cannot be read (kMedium), its copies
// in the first and the last group are taken, the one with the higher sequence. Where it is not ours at all (kBadMagic)
// they are not: whatever has been made over the start of the device, an old copy behind it must not bring a dead file
// system back.
Task<Result<format::Superblock>> read_superblock(BlockDevice& device);

// Of a verified superblock.
Geometry make_geometry(const format::Superblock& superblock);

// May this version write to it? False where the superblock has a read-only-compatible feature that is not known here.
bool writable(const format::Superblock& superblock);

// The blocks of the superblock's copies.
BlockNo first_superblock_copy(const Geometry& geometry);
BlockNo last_superblock_copy(const Geometry& geometry);

}  // namespace cawfs
