// An inode: what its verifier says, and what reading and changing a mounted file system makes of it. Reading finds what
// stands there, or says that it is damaged; changing it ends with an answer, and fsck with a verdict.
#include <sys/stat.h>

#include <cstring>

#include "core/base/assert.h"
#include "tests/fuzz/block_input.h"
#include "tests/fuzz/mounted_lun.h"
#include "tests/fuzz/victim_image.h"
#include "tests/support/tree_changer.h"

namespace cawfs::fuzz {
namespace {

using testing::tried;

constexpr std::uint8_t kChange = 4;     // mount it for writing, and change it
constexpr std::uint8_t kDirectory = 8;  // it takes the place of the directory, not of the file
constexpr std::size_t kMostRead = 1 << 16;

struct Use {
  format::Inode inode;
  std::optional<Error> damage;
  InodeNo number;
  const char* name = nullptr;
  std::uint64_t offset = 0;
  std::uint64_t size = 0;
  std::uint8_t script = 0;
};

void check_attributes(const Attributes& attributes, const Use& use) {
  CAWFS_ASSERT(attributes.inode == use.number);
  CAWFS_ASSERT(attributes.mode == use.inode.mode.value() && attributes.nlink == use.inode.nlink.value());
  CAWFS_ASSERT(attributes.size == use.inode.size.value() && attributes.size <= INT64_MAX);
}

Task<void> read_contents(FileSystem& fs, Use& use) {
  const std::uint64_t size = use.inode.size.value();
  const bool as_inline = use.inode.content == static_cast<std::uint8_t>(format::InodeContent::kInline);
  if (S_ISLNK(use.inode.mode.value())) {
    const auto target = co_await fs.readlink(use.number);
    if (target && as_inline) CAWFS_ASSERT(std::memcmp(target->data(), use.inode.area.data(), target->size()) == 0);
    co_return;
  }
  if (!S_ISREG(use.inode.mode.value())) co_return;
  std::vector<std::byte> out(kMostRead);
  for (const std::uint64_t offset : {std::uint64_t{0}, use.offset, size - std::min<std::uint64_t>(size, 10)}) {
    const auto read = co_await fs.read(use.number, offset, out, (use.script & 1) != 0);
    if (!read) {
      CAWFS_ASSERT(!as_inline);
      continue;
    }
    const std::uint64_t left = offset < size ? size - offset : 0;
    CAWFS_ASSERT(*read == std::min<std::uint64_t>(left, out.size()));
    if (as_inline) CAWFS_ASSERT(std::memcmp(out.data(), use.inode.area.data() + offset, *read) == 0);
  }
}

Task<void> read_it(FileSystem& fs, Use& use) {
  const auto attributes = co_await fs.lookup(fs.root(), use.name);
  const bool there =
      !use.damage && use.inode.mode.value() != 0 && (use.inode.flags.value() & format::kInodeSystem) == 0;
  CAWFS_ASSERT(attributes.has_value() == there);
  if (!attributes) {
    CAWFS_ASSERT(attributes.error().code == (use.damage ? use.damage->code : Errc::kStale));
    co_return;
  }
  check_attributes(*attributes, use);
  co_await read_contents(fs, use);
  const auto listed = co_await fs.readdir(use.number, 0, 1000);
  CAWFS_ASSERT(S_ISDIR(use.inode.mode.value()) || !listed);
  co_await tried(fs.parent(use.number));
  fs.forget(use.number, 1);
}

Task<void> change_it(FileSystem& fs, Use& use) {
  const auto attributes = co_await fs.lookup(fs.root(), use.name);
  if (!attributes) co_return;
  const std::string text(5000, 'n');
  const auto data = std::as_bytes(std::span(text)).first(1 + use.size % text.size());
  AttributeChange cut;
  cut.size = use.size;
  AttributeChange mode;
  mode.mode = 0600;
  const InodeNo root = fs.root();
  co_await tried(fs.open(use.number));
  for (unsigned step = 0; step < 4; ++step) {
    switch (use.script >> (2 * step) & 3) {
      case 0:
        co_await tried(fs.write(use.number, use.offset, data, step == 2, step == 1, true));
        break;
      case 1:
        co_await tried(fs.setattr(use.number, cut));
        co_await tried(fs.setattr(use.number, mode));
        break;
      case 2:
        co_await tried(fs.create(use.number, "new", {.mode = S_IFREG | 0600}, false));
        co_await tried(fs.link(use.number, root, "another"));
        co_await tried(fs.rename(root, use.name, root, "link", RenameMode::kExchange));
        break;
      default:
        co_await tried(fs.sync(use.number, false));
        co_await tried(fs.unlink(root, use.name));
        co_await tried(fs.rmdir(root, use.name));
    }
  }
  std::vector<std::byte> out(100);
  co_await tried(fs.read(use.number, use.offset, out, false));
  co_await fs.close(use.number);
  co_await tried(fs.sync_all());
  fs.forget(use.number, 1);
}

void run(FuzzInput input) {
  const VictimImage& image = victim_image();
  const std::uint8_t flags = input.byte();
  Use use{};
  use.offset = input.take<std::uint64_t>() & INT64_MAX;
  use.size = input.take<std::uint32_t>();
  use.script = input.byte();
  use.number = (flags & kDirectory) != 0 ? image.directory : image.file;
  use.name = (flags & kDirectory) != 0 ? "directory" : "file";
  const Block block = take_block(input, flags, format::BlockType::kInode, use.number.block(), image.geometry.fs_id);
  std::memcpy(&use.inode, block.data(), sizeof(use.inode));
  const auto verdict = format::verify_block(block, format::BlockType::kInode, use.number.block(), image.geometry);
  if (!verdict) use.damage = verdict.error();

  MountedLun mounted(image.disk, image.lun_options);
  mounted.lun().poke(use.number.block().offset_bytes(), block);
  if ((flags & kChange) == 0) {
    CAWFS_ASSERT(mounted.mount({.no_recovery = true}, read_it, use));
    return;
  }
  static_cast<void>(mounted.mount({.local = true}, change_it, use));
  const auto report = mounted.fsck();
  CAWFS_ASSERT(report && !(use.damage && report->clean()));
}

}  // namespace
}  // namespace cawfs::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  cawfs::fuzz::run({data, size});
  return 0;
}
