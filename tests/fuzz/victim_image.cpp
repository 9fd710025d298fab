#include "tests/fuzz/victim_image.h"

#include <sys/stat.h>

#include "core/base/assert.h"
#include "tests/fuzz/mounted_lun.h"

namespace cawfs::fuzz {
namespace {

Task<void> populate(FileSystem& fs, VictimImage& image) {
  const InodeNo root = fs.root();
  const auto file = co_await fs.create(root, "file", {.mode = S_IFREG | 0644}, true);
  const auto directory = co_await fs.mkdir(root, "directory", {.mode = S_IFDIR | 0755});
  CAWFS_ASSERT(file && directory);
  image.file = file->inode;
  image.directory = directory->inode;
  const std::string_view text = "what a small file holds";
  const auto wrote = co_await fs.write(image.file, 0, std::as_bytes(std::span(text)), false, false, false);
  const auto inside = co_await fs.create(image.directory, "inside", {.mode = S_IFREG | 0600}, true);
  const auto link = co_await fs.symlink(root, "link", "file", {.mode = S_IFLNK | 0777});
  CAWFS_ASSERT(wrote && inside && link);
}

VictimImage make() {
  const FreshImage& fresh = fresh_image(512);
  VictimImage image{.geometry = fresh.geometry,
                    .disk = {},
                    .lun_options = fresh.lun_options(),
                    .file = {},
                    .directory = {},
                    .free = fresh.geometry.group_data(GroupNo{fresh.geometry.group_count - 1}) + 200};
  MountedLun mounted(fresh.disk, image.lun_options);
  CAWFS_ASSERT(mounted.mount({.local = true}, populate, image));
  image.disk = testing::DiskImage(mounted.lun(), FreshImage::kBytes);
  return image;
}

}  // namespace

const VictimImage& victim_image() {
  static const VictimImage image = make();
  return image;
}

}  // namespace cawfs::fuzz
