#include "tests/support/populated_image.h"

#include <sys/stat.h>

#include "core/base/assert.h"
#include "core/format/make_file_system.h"
#include "core/runtime/virtual_loop.h"
#include "tests/support/whole_node.h"

namespace cawfs::testing {
namespace {

std::string text(std::size_t size, std::uint64_t seed) {
  SeededRandom random(seed);
  std::string out(size, '\0');
  for (char& c : out) c = static_cast<char>('a' + random.below(26));
  return out;
}

class Author {
 public:
  explicit Author(PopulatedImage& image) : image_(image) {}

  Task<void> write_most(WholeNode& node, WholeNode& other) {
    FileSystem& fs = node.fs();
    const InodeNo root = fs.root();
    for (int i = 0; i < 8; ++i) {
      co_await put(fs, root, "", "small" + std::to_string(i), text(static_cast<std::size_t>(10 + i * 450), 7));
    }
    co_await put(fs, root, "", "big", text(100'000, 8));
    co_await put_sparse(fs, root);
    co_await nest(fs, root);
    const auto wide = co_await fs.mkdir(root, "wide", {.mode = S_IFDIR | 0755});
    const auto many = co_await fs.mkdir(root, "many", {.mode = S_IFDIR | 0755});
    CAWFS_ASSERT(wide && many);
    image_.truth["/wide"] = image_.truth["/many"] = {};
    wide_ = wide->inode;
    for (int i = 0; i < image_.amounts.many_names; ++i) co_await link(fs, "/small1", wide_, "/wide", i);
    for (int i = 0; i < image_.amounts.many_files; ++i) {
      co_await put(fs, many->inode, "/many", "m" + std::to_string(i), text(static_cast<std::size_t>(i % 50), 9));
    }
    const auto synced = co_await fs.sync_all();
    CAWFS_ASSERT(synced);
    co_await trade(node, other);
  }

  // What stays in the journal.
  Task<void> write_more(WholeNode& node) {
    FileSystem& fs = node.fs();
    const InodeNo root = fs.root();
    co_await append(fs, "/small2", text(200, 10));
    co_await append(fs, "/big", text(20'000, 11));
    for (int i = image_.amounts.many_names; i < image_.amounts.many_names + 20; ++i)
      co_await link(fs, "/small1", wide_, "/wide", i);
    for (int i = 0; i < 3; ++i) {
      const std::string name = "orphan" + std::to_string(i);
      co_await put(fs, root, "", name, text(5000, 12));
      const auto opened = co_await fs.open(inodes_["/" + name]);
      const auto removed = co_await fs.unlink(root, name);
      CAWFS_ASSERT(opened && removed);
      image_.truth.erase("/" + name);
      image_.ever.insert("/" + name);
    }
    const auto renamed = co_await fs.rename(root, "small3", wide_, "renamed", RenameMode::kReplace);
    CAWFS_ASSERT(renamed);
    image_.ever.insert("/small3");
    image_.truth["/wide/renamed"] = std::move(image_.truth["/small3"]);
    image_.truth.erase("/small3");
    const auto synced = co_await fs.sync_all();
    CAWFS_ASSERT(synced);
  }

 private:
  Task<void> put(FileSystem& fs, InodeNo directory, std::string path, std::string name, std::string content) {
    const auto made = co_await fs.create(directory, name, {.mode = S_IFREG | 0644}, true);
    CAWFS_ASSERT(made);
    path += "/" + name;
    inodes_[path] = made->inode;
    image_.truth[path] = {""};
    if (!content.empty()) co_await append(fs, path, content);
  }
  Task<void> append(FileSystem& fs, std::string path, std::string content) {
    const auto wrote = co_await fs.write(inodes_.at(path), 0, std::as_bytes(std::span(content.data(), content.size())),
                                         true, false, false);
    CAWFS_ASSERT(wrote);
    auto& versions = image_.truth.at(path);
    versions.push_back(versions.back() + content);
  }
  Task<void> put_sparse(FileSystem& fs, InodeNo root) {
    co_await put(fs, root, "", "sparse", "");
    std::string& content = image_.truth.at("/sparse").back();
    const std::string piece = text(kBlockSize, 13);
    for (int i = 0; i < image_.amounts.pieces; ++i) {
      const std::uint64_t offset = std::uint64_t{2} * static_cast<std::uint64_t>(i) * kBlockSize;
      const auto wrote = co_await fs.write(inodes_.at("/sparse"), offset,
                                           std::as_bytes(std::span(piece.data(), piece.size())), false, true, false);
      CAWFS_ASSERT(wrote);
      content.resize(offset, '\0');
      content += piece;
    }
  }
  Task<void> nest(FileSystem& fs, InodeNo root) {
    InodeNo directory = root;
    std::string path;
    for (int i = 0; i < 5; ++i) {
      const auto made = co_await fs.mkdir(directory, "d" + std::to_string(i), {.mode = S_IFDIR | 0755});
      CAWFS_ASSERT(made);
      path += "/d" + std::to_string(i);
      directory = made->inode;
      image_.truth[path] = {};
      co_await put(fs, directory, path, "file", text(static_cast<std::size_t>(20 + i), 14));
      const std::string target = "../file" + std::string(static_cast<std::size_t>(i) * 60, 'x');
      const auto symlink = co_await fs.symlink(directory, "link", target, {.mode = S_IFLNK | 0777});
      const auto fifo = co_await fs.mknod(directory, "fifo", {.mode = S_IFIFO | 0644});
      CAWFS_ASSERT(symlink && fifo);
      image_.truth[path + "/link"] = {target};
      image_.truth[path + "/fifo"] = {};
    }
  }
  Task<void> link(FileSystem& fs, std::string from, InodeNo directory, std::string path, int number) {
    const std::string name = "a rather long name, so that there are several nodes " + std::to_string(number);
    const auto made = co_await fs.link(inodes_.at(from), directory, name);
    CAWFS_ASSERT(made);
    image_.truth[path + "/" + name] = image_.truth.at(from);
  }
  // Locks, and so mail, go both ways.
  Task<void> trade(WholeNode& node, WholeNode& other) {
    for (int i = 0; i < 3; ++i) {
      for (WholeNode* who : {&other, &node}) {
        std::string& content = image_.truth.at("/small0").emplace_back(image_.truth.at("/small0").back());
        content += "x";
        const auto wrote =
            co_await who->fs().write(inodes_.at("/small0"), 0, std::as_bytes(std::span("x", 1)), true, false, false);
        CAWFS_ASSERT(wrote);
      }
    }
  }

  PopulatedImage& image_;
  std::map<std::string, InodeNo> inodes_;
  InodeNo wide_;
};

void recover(PopulatedImage& image) {
  VirtualLoop loop;
  SeededRandom random(3);
  SimulatedLun lun(loop.clock(), random, image.lun_options());
  image.dirty.put(lun);
  Executor& executor = loop.add_executor();
  WholeNode node(executor, lun.connect(executor, "c"), 4, {.host = "c", .uuid = 3});
  CAWFS_ASSERT(loop.run(executor, node.start()));
  // Until the dead node's slot is recovered, and what it had unlinked is freed.
  loop.run_for(std::chrono::seconds(30));
  CAWFS_ASSERT(loop.run(executor, node.stop()));
  image.clean = DiskImage(lun, PopulatedImage::kBytes);
}

}  // namespace

PopulatedImage::PopulatedImage(std::uint32_t block, PopulatedAmounts how_much)
    : logical_block(block), amounts(how_much) {
  // What is left of the dead node lives on, unreachable.
  struct World {
    explicit World(const PopulatedImage& image) : lun(loop.clock(), random, image.lun_options()) {}
    VirtualLoop loop;
    SeededRandom random{1};
    SimulatedLun lun;
    std::unique_ptr<WholeNode> dead;
  };
  static auto& graveyard = *new std::vector<std::unique_ptr<World>>;
  World& world = *graveyard.emplace_back(std::make_unique<World>(*this));
  VirtualLoop& loop = world.loop;

  Executor& tool = loop.add_executor();
  const auto device = world.lun.connect(tool, "mkfs");
  MakeOptions make;
  make.slots = 3;
  make.journal_blocks = 512;
  make.dead_time_ms = 2000;
  make.discard = false;
  const auto made = loop.run(tool, make_file_system(*device, world.random, make));
  CAWFS_ASSERT(made);
  geometry = make_geometry(*made);
  loop.run(tool, device->close());

  Author author(*this);
  {
    Executor& first = loop.add_executor();
    WholeNode node(first, world.lun.connect(first, "a"), 1, {.host = "a", .uuid = 1});
    CAWFS_ASSERT(loop.run(first, node.start()));
    Executor& second = loop.add_executor();
    WholeNode other(second, world.lun.connect(second, "b"), 2, {.host = "b", .uuid = 2});
    CAWFS_ASSERT(loop.run(second, other.start()));
    loop.run(first, author.write_most(node, other));
    CAWFS_ASSERT(loop.run(second, other.stop()));
    CAWFS_ASSERT(loop.run(first, node.stop()));
  }
  older = DiskImage(world.lun, kBytes);
  Executor& dying = loop.add_executor();
  world.dead = std::make_unique<WholeNode>(dying, world.lun.connect(dying, "a again"), 3,
                                           WholeNodeOptions{.host = "a", .uuid = 1});
  CAWFS_ASSERT(loop.run(dying, world.dead->start()));
  loop.run(dying, author.write_more(*world.dead));
  dying.kill();
  dirty = DiskImage(world.lun, kBytes);
  recover(*this);
}

}  // namespace cawfs::testing
