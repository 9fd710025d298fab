// A small file system with a file, a directory and free blocks, which fuzzers replace.
#pragma once

#include "tests/fuzz/fresh_image.h"

namespace cawfs::fuzz {

struct VictimImage {
  Geometry geometry;
  testing::DiskImage disk;
  SimulatedLunOptions lun_options;
  InodeNo file;       // "file" in the root, small
  InodeNo directory;  // "directory" in the root, with a file "inside"
  BlockNo free;       // and some hundred blocks after it
};

// Made once.
const VictimImage& victim_image();

}  // namespace cawfs::fuzz
