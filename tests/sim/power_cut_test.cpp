// One node against a simple model of a file system, with a power cut at every device write of a random script. After
// each cut: replay, fsck finds nothing, the tree is the model's as it was after some operation at or after the last
// sync, and every file that was synced and not touched since is whole.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>

#include "tests/sim/sim_mount.h"
#include "tests/sim/sim_world.h"

namespace cawfs::test {
namespace {

// The model: what is linked where, and what files hold.
struct ModelNode {
  std::uint32_t type = S_IFREG;
  InodeNo inode;
  std::string content;  // of files and symlinks
  std::map<std::string, std::shared_ptr<ModelNode>> entries;
  std::vector<std::string> versions;  // every content that the file has had
  std::optional<std::string> synced;  // the content that a sync made durable; none once it was touched again
};
using ModelRef = std::shared_ptr<ModelNode>;
using Tree = std::map<std::string, ModelRef>;  // by path

void list(const ModelRef& directory, const std::string& path, Tree& out) {
  for (const auto& [name, node] : directory->entries) {
    out[path + "/" + name] = node;
    if (node->type == S_IFDIR) list(node, path + "/" + name, out);
  }
}

struct History {
  std::vector<Tree> trees;  // after each operation
  std::size_t durable = 0;  // the operations before this one are
};

class Script {
 public:
  Script(SimMount& mount, std::uint64_t seed, unsigned steps)
      : mount_(mount), random_(seed), steps_(steps), root_(std::make_shared<ModelNode>()), group_(mount.executor()) {
    root_->type = S_IFDIR;
    record();
  }

  void start() { group_.spawn(run()); }
  bool done() const { return done_; }
  History history;
  std::string trouble;  // the first call that did not do what it should

 private:
  void expect(bool good, const char* what) {
    if (!good && trouble.empty()) trouble = what;
  }

  Task<void> run() {
    const auto started = co_await mount_.start();
    expect(started.has_value(), "start");
    root_->inode = mount_.fs().root();
    for (unsigned i = 0; i < steps_ && trouble.empty(); ++i) {
      co_await step();
      record();
    }
    const auto stopped = co_await mount_.stop();
    expect(stopped.has_value(), "stop");
    history.durable = history.trees.size() - 1;
    for (const auto& [path, node] : history.trees.back()) node->synced = node->content;
    done_ = true;
  }

  void record() {
    Tree tree;
    list(root_, "", tree);
    history.trees.push_back(std::move(tree));
  }
  void all_durable() { history.durable = history.trees.size() - 1; }

  Task<void> step() {
    switch (random_.below(16)) {
      case 0:
      case 1:
      case 2:
        return create();
      case 3:
        return make_directory();
      case 4:
      case 5:
      case 6:
        return write();
      case 7:
        return truncate();
      case 8:
        return remove();
      case 9:
      case 10:
        return rename();
      case 11:
        return link();
      case 12:
        return sync_one();
      case 13:
        return sync_everything();
      case 14:
        return give_up_locks();
      default:
        return make_symlink();
    }
  }

  struct Place {
    ModelRef directory;
    std::string name;
    ModelRef node;  // null where the name is free
  };
  std::vector<ModelRef> directories() {
    std::vector<ModelRef> out{root_};
    Tree tree;
    list(root_, "", tree);
    for (const auto& [path, node] : tree) {
      if (node->type == S_IFDIR) out.push_back(node);
    }
    return out;
  }
  Place free_place() {
    const auto all = directories();
    const ModelRef directory = all[random_.below(all.size())];
    std::string name = "n" + std::to_string(++names_);
    if (random_.one_in(4)) name += std::string(1 + random_.below(200), 'x');
    return {directory, name, nullptr};
  }
  // Something that exists and is wanted, or nothing.
  template <class Want>
  std::optional<Place> some(Want want) {
    std::vector<Place> all;
    for (const ModelRef& directory : directories()) {
      for (const auto& [name, node] : directory->entries) {
        if (want(*node)) all.push_back({directory, name, node});
      }
    }
    if (all.empty()) return std::nullopt;
    return all[random_.below(all.size())];
  }
  std::optional<Place> some_file() {
    return some([](const ModelNode& node) { return node.type == S_IFREG; });
  }

  Task<void> create() {
    const Place at = free_place();
    const NewInode fresh{.mode = S_IFREG | 0644};
    const auto made = co_await mount_.fs().create(at.directory->inode, at.name, fresh, true);
    expect(made.has_value(), "create");
    if (!made) co_return;
    auto node = std::make_shared<ModelNode>();
    node->inode = made->inode;
    at.directory->entries[at.name] = node;
    if (random_.one_in(2)) co_await write_to(node);
  }

  Task<void> make_directory() {
    const Place at = free_place();
    const NewInode fresh{.mode = S_IFDIR | 0755};
    const auto made = co_await mount_.fs().mkdir(at.directory->inode, at.name, fresh);
    expect(made.has_value(), "mkdir");
    if (!made) co_return;
    auto node = std::make_shared<ModelNode>();
    node->type = S_IFDIR;
    node->inode = made->inode;
    at.directory->entries[at.name] = node;
  }

  Task<void> make_symlink() {
    const Place at = free_place();
    const std::string target(1 + random_.below(300), 't');
    const NewInode fresh{.mode = S_IFLNK | 0777};
    const auto made = co_await mount_.fs().symlink(at.directory->inode, at.name, target, fresh);
    expect(made.has_value(), "symlink");
    if (!made) co_return;
    auto node = std::make_shared<ModelNode>();
    node->type = S_IFLNK;
    node->inode = made->inode;
    node->content = target;
    at.directory->entries[at.name] = node;
  }

  Task<void> write() {
    const auto at = some_file();
    if (at) co_await write_to(at->node);
  }

  Task<void> write_to(ModelRef node) {
    const std::uint64_t length = 1 + random_.below(random_.one_in(4) ? 200'000 : 9'000);
    const bool append = random_.one_in(3);
    const bool direct = random_.one_in(5);
    std::uint64_t offset = append ? node->content.size() : random_.below(node->content.size() + 10'000);
    if (direct && !append) offset = offset / kBlockSize * kBlockSize;
    std::string data(length, '\0');
    for (char& c : data) c = static_cast<char>('a' + random_.below(26));
    node->synced.reset();
    std::string next = node->content;
    if (next.size() < offset + length) next.resize(offset + length, '\0');
    next.replace(offset, length, data);
    node->versions.push_back(next);
    const auto wrote = co_await mount_.fs().write(
        node->inode, append ? 0 : offset, std::as_bytes(std::span(data.data(), data.size())), append, direct, false);
    expect(wrote && wrote->offset == offset && wrote->count == data.size(), "write");
    node->content = std::move(next);
    if (random_.one_in(2)) co_await read_back(node);
  }

  Task<void> read_back(ModelRef node) {
    std::vector<std::byte> bytes(node->content.size() + 100);
    const auto read = co_await mount_.fs().read(node->inode, 0, bytes, false);
    expect(read && *read == node->content.size() && std::memcmp(bytes.data(), node->content.data(), *read) == 0,
           "read: not what was written");
  }

  Task<void> truncate() {
    const auto at = some_file();
    if (!at) co_return;
    const std::uint64_t size = random_.below(at->node->content.size() * 2 + 2);
    at->node->synced.reset();
    std::string next = at->node->content;
    next.resize(size, '\0');
    at->node->versions.push_back(next);
    AttributeChange change;
    change.size = size;
    const auto done = co_await mount_.fs().setattr(at->node->inode, change);
    expect(done && done->size == size, "truncate");
    at->node->content = std::move(next);
    co_await read_back(at->node);
  }

  Task<void> remove() {
    const auto at = some([](const ModelNode& node) { return node.type != S_IFDIR || node.entries.empty(); });
    if (!at) co_return;
    Result<> done;
    if (at->node->type == S_IFDIR) {
      done = co_await mount_.fs().rmdir(at->directory->inode, at->name);
    } else {
      done = co_await mount_.fs().unlink(at->directory->inode, at->name);
    }
    expect(done.has_value(), "unlink or rmdir");
    at->directory->entries.erase(at->name);
  }

  bool inside(const ModelRef& directory, const ModelRef& of) {
    if (directory == of) return true;
    return std::ranges::any_of(of->entries, [&](const auto& entry) { return inside(directory, entry.second); });
  }

  Task<void> rename() {
    const auto from = some([](const ModelNode&) { return true; });
    if (!from) co_return;
    const Place to = free_place();
    if (inside(to.directory, from->node)) co_return;
    std::string name = to.name;
    // Over an existing file, now and then.
    const auto victim = some([](const ModelNode& node) { return node.type == S_IFREG; });
    ModelRef directory = to.directory;
    if (victim && from->node->type == S_IFREG && victim->node != from->node && random_.one_in(3)) {
      directory = victim->directory;
      name = victim->name;
    }
    const auto done =
        co_await mount_.fs().rename(from->directory->inode, from->name, directory->inode, name, RenameMode::kReplace);
    expect(done.has_value(), "rename");
    from->directory->entries.erase(from->name);
    directory->entries[name] = from->node;
  }

  Task<void> link() {
    const auto at = some_file();
    if (!at) co_return;
    const Place to = free_place();
    const auto done = co_await mount_.fs().link(at->node->inode, to.directory->inode, to.name);
    expect(done.has_value(), "link");
    to.directory->entries[to.name] = at->node;
  }

  Task<void> sync_one() {
    const auto at = some_file();
    if (!at) co_return;
    const std::string content = at->node->content;
    const auto done = co_await mount_.fs().sync(at->node->inode, random_.one_in(2));
    expect(done.has_value(), "sync");
    at->node->synced = content;
  }

  Task<void> sync_everything() {
    const auto done = co_await mount_.fs().sync_all();
    expect(done.has_value(), "sync_all");
    all_durable();
    for (const auto& [path, node] : history.trees.back()) node->synced = node->content;
  }

  // As if other nodes wanted them.
  Task<void> give_up_locks() {
    const auto held = mount_.locks().held();
    for (unsigned i = 0; i < 3 && !held.empty(); ++i) {
      const auto done = co_await mount_.locks().give_up(held[random_.below(held.size())], LockMode::kNone);
      expect(done.has_value(), "giving up a lock");
    }
  }

  SimMount& mount_;
  SeededRandom random_;
  unsigned steps_;
  ModelRef root_;
  TaskGroup group_;
  std::uint64_t names_ = 0;
  bool done_ = false;
};

// What the file system holds: type, and content of files and symlinks, by path.
struct Found {
  std::uint32_t type = 0;
  std::string content;
};
Task<Result<>> walk(FileSystem& fs, InodeNo directory, std::string path, std::map<std::string, Found>& out) {
  std::uint64_t cookie = 0;
  while (true) {
    const auto entries = co_await fs.readdir(directory, cookie, 10);
    if (!entries) co_return fail(entries.error());
    if (entries->empty()) co_return Result<>{};
    for (const DirectoryEntry& entry : *entries) {
      cookie = entry.cookie;
      const std::string at = path + "/" + entry.name;
      const auto attributes = co_await fs.lookup(directory, entry.name);
      if (!attributes) co_return fail(attributes.error());
      Found& found = out[at];
      found.type = attributes->mode & S_IFMT;
      if (found.type == S_IFDIR) {
        const auto below = co_await walk(fs, attributes->inode, at, out);
        if (!below) co_return below;
      } else if (found.type == S_IFLNK) {
        const auto target = co_await fs.readlink(attributes->inode);
        if (!target) co_return fail(target.error());
        found.content = *target;
      } else {
        std::vector<std::byte> bytes(attributes->size);
        const auto read = co_await fs.read(attributes->inode, 0, bytes, false);
        if (!read) co_return fail(read.error());
        found.content.assign(reinterpret_cast<const char*>(bytes.data()), *read);
      }
      fs.forget(attributes->inode, 1);
    }
  }
}

Task<Result<>> mount_and_walk(SimMount& mount, std::map<std::string, Found>& out) {
  const auto started = co_await mount.start();
  if (!started) co_return started;
  const auto walked = co_await walk(mount.fs(), mount.fs().root(), "", out);
  const auto stopped = co_await mount.stop();
  co_return walked ? stopped : walked;
}

bool same_names(const Tree& tree, const std::map<std::string, Found>& found) {
  return std::ranges::equal(tree, found, [](const auto& a, const auto& b) {
    return a.first == b.first && a.second->type == b.second.type &&
           (a.second->type != S_IFLNK || a.second->content == b.second.content);
  });
}

// Does the file hold only bytes that it has held at that place? Anything else is what another file, or nobody, had left
// in its blocks: data must be in place before the transaction that makes it reachable.
bool holds_only_its_own(const ModelNode& node, const std::string& content) {
  for (std::size_t i = 0; i < content.size(); ++i) {
    const auto fits = [&](const std::string& version) { return i < version.size() && version[i] == content[i]; };
    if (!std::ranges::any_of(node.versions, fits)) return false;
  }
  return true;
}

std::string check_files(const Tree& tree, const std::map<std::string, Found>& found) {
  for (const auto& [path, node] : tree) {
    if (node->type != S_IFREG) continue;
    const std::string& content = found.at(path).content;
    if (node->synced && content != *node->synced) return path + ": not what was synced";
    if (!holds_only_its_own(*node, content)) return path + ": bytes that it never held";
  }
  return "";
}

// Checks what a crash, or a clean end, has left.
void check(World& world, const History& history) {
  recover(world);
  Executor& other = world.loop.add_executor();
  SimMount mount(other, world.connect(other), 5, Incarnation{2});
  std::map<std::string, Found> found;
  const auto walked = world.loop.run(other, mount_and_walk(mount, found));
  ASSERT_TRUE(walked) << describe(walked.error().code) << " " << walked.error().where << " " << walked.error().address;
  check_fsck(world, "after a mount");

  std::string damaged = "no state of the tree fits";
  for (std::size_t i = history.durable; i < history.trees.size(); ++i) {
    if (!same_names(history.trees[i], found)) continue;
    damaged = check_files(history.trees[i], found);
    if (damaged.empty()) break;
  }
  EXPECT_EQ(damaged, "");
}

// The script, cut at its device write or flush number `at` (0: not at all). Returns how many it made.
std::uint64_t run_once(const MadeImage& image, std::uint64_t seed, unsigned steps, std::uint64_t at) {
  World& world = kept(std::make_unique<World>(image, seed * 1'000'003 + at));
  Executor& executor = world.loop.add_executor();
  SimMount& mount = kept(std::make_unique<SimMount>(executor, world.connect(executor), seed, Incarnation{1}));
  Script& script = kept(std::make_unique<Script>(mount, seed, steps));
  const std::uint64_t seen = run_until_cut(world, executor, script, at);
  check(world, script.history);
  return seen;
}

void cut_everywhere(std::uint64_t seed, unsigned steps, std::uint32_t logical_block) {
  const MadeImage image(logical_block);
  const std::uint64_t writes = run_once(image, seed, steps, 0);
  ASSERT_GT(writes, steps / 2);
  for (std::uint64_t at = 1; at <= writes && !::testing::Test::HasFailure(); ++at) {
    SCOPED_TRACE("seed " + std::to_string(seed) + ", cut at write " + std::to_string(at) + " of " +
                 std::to_string(writes));
    run_once(image, seed, steps, at);
  }
}

#if __has_feature(address_sanitizer)
constexpr unsigned kSteps = 60;  // each takes ten times as long there
#else
constexpr unsigned kSteps = 120;
#endif

// `./dev test --full` runs more of them.
std::uint64_t seeds() {
  return std::getenv("CAWFS_TEST_FULL") == nullptr ? 1 : 50;
}

TEST(PowerCut, AtEveryWriteOf4096) {
  for (std::uint64_t seed = 1; seed <= seeds(); ++seed) cut_everywhere(seed, kSteps, 4096);
}

TEST(PowerCut, AtEveryWriteOf512) {
  for (std::uint64_t seed = 1001; seed <= 1000 + seeds(); ++seed) cut_everywhere(seed, kSteps, 512);
}

}  // namespace
}  // namespace cawfs::test
