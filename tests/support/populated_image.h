// A file system with something of everything, made by two real nodes of which one died: what bad-input tests damage.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/format/geometry.h"
#include "tests/support/disk_image.h"

namespace cawfs::testing {

// What files and symbolic links have held, by path; the last is what they hold. Directories hold nothing.
using Truth = std::map<std::string, std::vector<std::string>>;

struct PopulatedAmounts {
  // Enough inodes for a chunk index of several nodes, enough names for a directory of several.
  int many_files = 620;
  int many_names = 250;
  // One extent each: an extent tree of several nodes.
  int pieces = 200;
};

struct PopulatedImage {
  explicit PopulatedImage(std::uint32_t logical_block, PopulatedAmounts amounts = {});

  SimulatedLunOptions lun_options() const { return {.size_bytes = kBytes, .logical_block = logical_block}; }

  static constexpr std::uint64_t kBytes = 48 << 20;
  std::uint32_t logical_block;
  PopulatedAmounts amounts;
  Geometry geometry;
  DiskImage older;             // some time before
  DiskImage dirty;             // slot 0's node has died; its journal holds what is not in place yet
  DiskImage clean;             // the same, recovered and left
  Truth truth;                 // after recovery
  std::set<std::string> ever;  // paths that were there once and are gone
};

}  // namespace cawfs::testing
