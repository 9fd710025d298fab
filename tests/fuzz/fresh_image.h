// A file system as mkfs leaves it, for fuzzers to put one structure of theirs into.
#pragma once

#include <cstdint>

#include "core/format/disk_format.h"
#include "core/format/geometry.h"
#include "tests/support/disk_image.h"

namespace cawfs::fuzz {

struct FreshImage {
  static constexpr std::uint64_t kBytes = 32 << 20;
  std::uint32_t logical_block;
  format::Superblock superblock;
  Geometry geometry;
  testing::DiskImage disk;

  SimulatedLunOptions lun_options() const { return {.size_bytes = kBytes, .logical_block = logical_block}; }
};

// Made once. Three slots, several groups.
const FreshImage& fresh_image(std::uint32_t logical_block);

}  // namespace cawfs::fuzz
