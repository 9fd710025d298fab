#include "tests/fuzz/fresh_image.h"

#include "core/base/assert.h"
#include "core/format/make_file_system.h"
#include "core/format/superblock_io.h"
#include "core/runtime/virtual_loop.h"

namespace cawfs::fuzz {
namespace {

FreshImage make(std::uint32_t logical_block) {
  FreshImage image{.logical_block = logical_block, .superblock = {}, .geometry = {}, .disk = {}};
  VirtualLoop loop;
  SeededRandom random(1);
  SimulatedLun lun(loop.clock(), random, image.lun_options());
  Executor& executor = loop.add_executor();
  const auto device = lun.connect(executor, "mkfs");
  MakeOptions options;
  options.label = "fuzzed";
  options.slots = 3;
  options.journal_blocks = 256;
  options.dead_time_ms = 2000;
  options.discard = false;
  const auto made = loop.run(executor, make_file_system(*device, random, options));
  CAWFS_ASSERT(made);
  loop.run(executor, device->close());
  image.superblock = *made;
  image.geometry = make_geometry(*made);
  image.disk = testing::DiskImage(lun, FreshImage::kBytes);
  return image;
}

}  // namespace

const FreshImage& fresh_image(std::uint32_t logical_block) {
  if (logical_block == 512) {
    static const FreshImage small = make(512);
    return small;
  }
  static const FreshImage large = make(4096);
  return large;
}

}  // namespace cawfs::fuzz
