// A directory: its inode and two nodes of its tree. What is listed comes in order and once, whatever the pieces it is
// read in, and each name that can be looked up leads to the inode it was listed with.
#include <sys/stat.h>

#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "core/base/assert.h"
#include "tests/fuzz/block_input.h"
#include "tests/fuzz/mounted_lun.h"
#include "tests/fuzz/victim_image.h"
#include "tests/support/tree_changer.h"

namespace cawfs::fuzz {
namespace {

using testing::tried;

constexpr std::uint8_t kChange = 4;  // mount it for writing, and change it
constexpr std::size_t kNodes = 2;
constexpr std::size_t kMostEntries = 2000;

struct Use {
  InodeNo number;
  std::uint8_t script = 0;
};

using Entries = std::vector<DirectoryEntry>;

Task<Result<Entries>> list(FileSystem& fs, InodeNo directory, std::size_t piece) {
  Entries all;
  std::uint64_t cookie = 0;
  while (true) {
    const auto some = co_await fs.readdir(directory, cookie, piece);
    if (!some) co_return fail(some.error());
    if (some->empty()) co_return all;
    CAWFS_ASSERT(some->size() <= piece);
    for (const DirectoryEntry& entry : *some) {
      CAWFS_ASSERT(entry.cookie > cookie);
      cookie = entry.cookie;
      CAWFS_ASSERT(!entry.name.empty() && entry.name.size() <= format::kNameMax);
      CAWFS_ASSERT(entry.name.find('/') == std::string::npos && entry.name.find('\0') == std::string::npos);
      all.push_back(entry);
    }
    CAWFS_ASSERT(all.size() <= kMostEntries);
  }
}

bool same(const Entries& a, const Entries& b) {
  return std::ranges::equal(a, b, [](const DirectoryEntry& x, const DirectoryEntry& y) {
    return x.name == y.name && x.inode == y.inode && x.type == y.type && x.cookie == y.cookie;
  });
}

Task<void> read_it(FileSystem& fs, Use& use) {
  const auto found = co_await fs.lookup(fs.root(), "directory");
  if (!found) co_return;
  const auto whole = co_await list(fs, use.number, kMostEntries);
  const auto pieces = co_await list(fs, use.number, 1 + use.script % 7);
  if (whole && pieces) {
    CAWFS_ASSERT(same(*whole, *pieces));
    for (const DirectoryEntry& entry : *whole) {
      const auto inode = co_await fs.lookup(use.number, entry.name);
      if (!inode) continue;
      // Two entries of one name lead to either inode.
      const auto leads_there = [&](const DirectoryEntry& e) { return e.name == entry.name && e.inode == inode->inode; };
      CAWFS_ASSERT(std::ranges::any_of(*whole, leads_there));
      fs.forget(inode->inode, 1);
    }
  } else if (S_ISDIR(found->mode)) {
    CAWFS_ASSERT(!whole && error_class(whole.error().code) == ErrorClass::kCorrupt);
  }
  fs.forget(found->inode, 1);
}

Task<void> change_it(FileSystem& fs, Use& use) {
  const auto found = co_await fs.lookup(fs.root(), "directory");
  if (!found) co_return;
  const auto entries = co_await fs.readdir(use.number, 0, 40);
  for (unsigned i = 0; i < 8; ++i) {
    const std::string name = "new " + std::to_string(i) + std::string(i * 30, '-');
    const std::string old = entries && i < entries->size() ? (*entries)[i].name : "inside";
    if ((use.script >> i & 1) != 0) {
      co_await tried(fs.create(use.number, name, {.mode = S_IFREG | 0600}, true));
      co_await tried(fs.rename(use.number, old, use.number, name, RenameMode::kReplace));
    } else {
      co_await tried(fs.unlink(use.number, old));
      co_await tried(fs.rmdir(use.number, old));
      co_await tried(fs.mkdir(use.number, name, {.mode = S_IFDIR | 0700}));
    }
  }
  co_await tried(fs.rmdir(fs.root(), "directory"));
  co_await tried(fs.sync_all());
  fs.forget(found->inode, 1);
}

// Where the bytes are those of a node, its place is made right, too.
Block take_node(FuzzInput& input, std::uint8_t flags, BlockNo address, const VictimImage& image, std::size_t length) {
  auto part = input.take_bytes(length);
  FuzzInput bytes(reinterpret_cast<const std::uint8_t*>(part.data()), part.size());
  Block block;
  bytes.fill(block);
  if ((flags & kRightHeader) != 0) {
    format::start_block(block, format::BlockType::kTreeNode, address, image.geometry.fs_id);
    auto& node = *reinterpret_cast<format::TreeNode*>(block.data());
    node.owner = image.directory.value;
    node.kind = static_cast<std::uint16_t>(format::TreeKind::kDirectory);
  }
  if ((flags & kRightChecksum) != 0) format::stamp_unverified(block);
  return block;
}

void run(FuzzInput input) {
  const VictimImage& image = victim_image();
  const std::uint8_t flags = input.byte();
  Use use{.number = image.directory, .script = input.byte()};
  std::array<std::size_t, kNodes> lengths{};
  for (std::size_t& length : lengths) length = std::min<std::size_t>(input.take<std::uint16_t>(), kBlockSize);

  MountedLun mounted(image.disk, image.lun_options);
  for (std::size_t i = 0; i < kNodes; ++i) {
    const BlockNo address = image.free + i;
    mounted.lun().poke(address.offset_bytes(), take_node(input, flags, address, image, lengths[i]));
  }
  const Block inode = take_block(input, flags, format::BlockType::kInode, use.number.block(), image.geometry.fs_id);
  mounted.lun().poke(use.number.block().offset_bytes(), inode);
  if ((flags & kChange) == 0) {
    CAWFS_ASSERT(mounted.mount({.no_recovery = true}, read_it, use));
    return;
  }
  static_cast<void>(mounted.mount({.local = true}, change_it, use));
  CAWFS_ASSERT(mounted.fsck());
}

}  // namespace
}  // namespace cawfs::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  cawfs::fuzz::run({data, size});
  return 0;
}
