#include "tests/support/tree_changer.h"

#include <sys/stat.h>

#include <span>
#include <string>

namespace cawfs::testing {

Task<void> change_everything(FileSystem& fs, Random& random) {
  const InodeNo root = fs.root();
  const auto made = co_await fs.create(root, "new", {.mode = S_IFREG | 0644}, true);
  const std::string data(10'000, 'n');
  const auto bytes = std::as_bytes(std::span(data.data(), data.size()));
  if (made) co_await tried(fs.write(made->inode, 0, bytes, false, false, false));
  co_await tried(fs.mkdir(root, "new directory", {.mode = S_IFDIR | 0755}));
  for (const char* name : {"big", "sparse", "small1", "small5"}) {
    const auto file = co_await fs.lookup(root, name);
    if (!file) continue;
    const std::uint64_t offset = random.below(400) * kBlockSize;
    co_await tried(fs.write(file->inode, offset, bytes, random.one_in(2), random.one_in(3), false));
    AttributeChange truncation;
    truncation.size = random.below(30'000);
    if (random.one_in(2)) co_await tried(fs.setattr(file->inode, truncation));
    co_await tried(fs.sync(file->inode, false));
    fs.forget(file->inode, 1);
  }
  co_await tried(fs.rename(root, "small4", root, "small5", RenameMode::kReplace));
  co_await tried(fs.unlink(root, "small6"));
  co_await tried(fs.unlink(root, "sparse"));
  co_await tried(fs.rename(root, "d0", root, "moved", RenameMode::kReplace));
  const auto wide = co_await fs.lookup(root, "wide");
  if (wide && made) co_await tried(fs.link(made->inode, wide->inode, "link"));
  const auto many = co_await fs.lookup(root, "many");
  if (many) {
    for (std::uint64_t i = 0; i < 20; ++i) {
      co_await tried(fs.create(many->inode, "new" + std::to_string(i), {.mode = S_IFREG | 0600}, true));
      co_await tried(fs.unlink(many->inode, "m" + std::to_string(random.below(600))));
    }
  }
  co_await tried(fs.space());
  co_await tried(fs.sync_all());
}

}  // namespace cawfs::testing
