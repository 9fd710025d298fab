// The whole file system that image_fuzz edits: something of everything, but little of it.
#pragma once

#include <vector>

#include "tests/support/populated_image.h"
#include "tests/support/structure_map.h"

namespace cawfs::fuzz {

struct ImageBase {
  explicit ImageBase(std::uint32_t logical_block)
      : image(logical_block, {.many_files = 20, .many_names = 70, .pieces = 160}),
        clean(testing::map_structures(image.clean, image.geometry)),
        dirty(testing::map_structures(image.dirty, image.geometry)) {}

  testing::PopulatedImage image;
  std::vector<testing::Structure> clean;
  std::vector<testing::Structure> dirty;
};

// Made once. With logical blocks of 512 bytes, or 4096.
inline const ImageBase& image_base(bool small_blocks) {
  if (small_blocks) {
    static const auto& small = *new ImageBase(512);
    return small;
  }
  static const auto& large = *new ImageBase(4096);
  return large;
}

}  // namespace cawfs::fuzz
