// The whole file system that image_fuzz edits: something of everything, but little of it.
#pragma once

#include <vector>

#include "tests/support/populated_image.h"
#include "tests/support/structure_map.h"

namespace cawfs::fuzz {

struct ImageBase {
  testing::PopulatedImage image{512, {.many_files = 20, .many_names = 70, .pieces = 160}};
  std::vector<testing::Structure> clean = testing::map_structures(image.clean, image.geometry);
  std::vector<testing::Structure> dirty = testing::map_structures(image.dirty, image.geometry);
};

// Made once. With logical blocks of 512 bytes: its mailboxes, which are copied for each input, take 2 MiB and not 16.
inline const ImageBase& image_base() {
  static const auto& base = *new ImageBase;
  return base;
}

}  // namespace cawfs::fuzz
