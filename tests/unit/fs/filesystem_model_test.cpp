// The file system against the simple model, at random: every answer is compared, locks are given up in between, the
// file system is unmounted and mounted again, and fsck finds nothing at the end. Several scripts, each in a directory
// of its own, run at the same time. CAWFS_SEED and CAWFS_STEPS choose another run.
#include <sys/stat.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <set>

#include "core/runtime/task_group.h"
#include "tests/model/simple_model.h"
#include "tests/support/fs_fixture.h"

namespace cawfs::testing {
namespace {

using test::SimpleModel;
using Id = SimpleModel::Id;

std::uint64_t setting(const char* name, std::uint64_t otherwise) {
  const char* value = std::getenv(name);
  return value ? std::strtoull(value, nullptr, 10) : otherwise;
}

std::string outcome(const Error& error) {
  return std::string(describe(error.code));
}

class Script {
 public:
  Script(std::uint64_t seed, std::uint32_t root_mode) : random_(seed), model_(root_mode) {}

  void set_root(InodeNo root) { numbers_[SimpleModel::kRoot] = root; }
  Task<void> run(FileSystem& fs, std::uint64_t steps) {
    fs_ = &fs;
    for (std::uint64_t i = 0; i < steps && !::testing::Test::HasFailure(); ++i) co_await step();
    co_await compare_tree();
  }
  // Nothing is open or known to the kernel afterwards.
  Task<void> let_go(FileSystem& fs) {
    fs_ = &fs;
    while (!open_.empty()) co_await close_one();
    for (const auto& [id, count] : references_) fs_->forget(numbers_.at(id), count);
    references_.clear();
  }

 private:
  std::string name() {
    std::string name = "n" + std::to_string(random_.below(24));
    if (random_.one_in(8)) name += std::string(200, 'x');
    if (random_.one_in(100)) name = std::string(256, 'y');
    return name;
  }
  Id any() {
    const auto ids = model_.all();
    return ids[random_.below(ids.size())];
  }
  Id directory() {
    for (int i = 0; i < 4; ++i) {
      const Id id = any();
      if (model_.node(id).directory()) return id;
    }
    return random_.one_in(50) ? any() : SimpleModel::kRoot;
  }
  Id file() {
    for (int i = 0; i < 8; ++i) {
      const Id id = any();
      if (model_.node(id).regular()) return id;
    }
    return any();
  }
  InodeNo number(Id id) const { return numbers_.at(id); }
  NewInode new_inode(std::uint32_t type = 0) {
    NewInode inode;
    inode.mode = type | static_cast<std::uint32_t>(random_.below(07777 + 1));
    inode.uid = static_cast<std::uint32_t>(random_.below(5));
    inode.gid = static_cast<std::uint32_t>(random_.below(5));
    inode.rdev = 0x12345;
    return inode;
  }
  std::string bytes(std::size_t size) {
    std::string data(size, '\0');
    const std::uint64_t pattern = random_.next();
    for (std::size_t i = 0; i < size; ++i)
      data[i] = static_cast<char>('a' + (pattern + i / 7 + i * (pattern % 5)) % 26);
    return data;
  }
  std::size_t length() {
    switch (random_.below(5)) {
      case 0:
        return random_.below(100);
      case 1:
        return random_.below(5000);
      case 2:
        return random_.below(5) * 4096;
      case 3:
        return random_.below(70000);
      default:
        return 1 + random_.below(3000);
    }
  }
  std::uint64_t offset(Id id) {
    const std::uint64_t size = model_.node(id).data.size();
    switch (random_.below(5)) {
      case 0:
        return 0;
      case 1:
        return size;
      case 2:
        return random_.below(size + 1);
      case 3:
        return random_.below(40) * 4096;
      default:
        return random_.below(400000);
    }
  }

  template <class A, class B>
  bool same_outcome(const char* what, const A& real, const B& model) {
    if (real.has_value() != model.has_value() || (!real && real.error().code != model.error().code)) {
      ADD_FAILURE() << what << ": " << (real ? "success" : outcome(real.error()) + " at " + real.error().where)
                    << ", the model says " << (model ? "success" : outcome(model.error()));
      return false;
    }
    return real.has_value();
  }
  void compare(Id id, const Attributes& real) {
    const auto& node = model_.node(id);
    EXPECT_EQ(real.inode, number(id));
    EXPECT_EQ(real.mode, node.mode);
    EXPECT_EQ(real.nlink, node.nlink);
    EXPECT_EQ(real.uid, node.uid);
    EXPECT_EQ(real.gid, node.gid);
    EXPECT_EQ(real.size, node.size());
    EXPECT_EQ(real.rdev, node.rdev);
  }
  // A name has been answered with attributes, and the kernel remembers the inode.
  void learn(const char* what, const Result<Attributes>& real, const Result<Id>& model) {
    if (!same_outcome(what, real, model)) return;
    numbers_.emplace(*model, real->inode);
    compare(*model, *real);
    if (random_.one_in(2)) {
      fs_->forget(real->inode, 1);
    } else {
      ++references_[*model];
    }
  }
  // The model's node may have gone with the last operation: then the kernel forgets it.
  void forget_dead() {
    for (auto it = references_.begin(); it != references_.end();) {
      if (!model_.alive(it->first) || random_.one_in(16)) {
        fs_->forget(number(it->first), it->second);
        it = references_.erase(it);
      } else {
        ++it;
      }
    }
    std::erase_if(numbers_, [&](const auto& pair) { return !model_.alive(pair.first); });
  }

  Task<void> step() {
    switch (random_.below(20)) {
      case 0:
      case 1:
        co_await create();
        break;
      case 2:
        co_await make_directory();
        break;
      case 3:
        co_await make_other();
        break;
      case 4:
        co_await lookup();
        break;
      case 5:
        co_await link();
        break;
      case 6:
        co_await unlink();
        break;
      case 7:
        co_await rmdir();
        break;
      case 8:
      case 9:
        co_await rename();
        break;
      case 10:
      case 11:
      case 12:
        co_await write();
        break;
      case 13:
      case 14:
        co_await read();
        break;
      case 15:
        co_await setattr();
        break;
      case 16:
        co_await getattr();
        break;
      case 17:
        co_await open_one();
        break;
      case 18:
        co_await close_one();
        break;
      default:
        co_await sync();
        break;
    }
    forget_dead();
  }

  Task<void> create() {
    const Id where = directory();
    const std::string as = name();
    const NewInode inode = new_inode();
    const bool exclusive = random_.one_in(2);
    auto real = co_await fs_->create(number(where), as, inode, exclusive);
    learn("create", real, model_.create(where, as, inode, exclusive));
  }
  Task<void> make_directory() {
    const Id where = directory();
    const std::string as = name();
    const NewInode inode = new_inode();
    auto real = co_await fs_->mkdir(number(where), as, inode);
    learn("mkdir", real, model_.mkdir(where, as, inode));
  }
  Task<void> make_other() {
    const Id where = directory();
    const std::string as = name();
    if (random_.one_in(2)) {
      const std::uint32_t types[] = {S_IFIFO, S_IFCHR, S_IFSOCK, S_IFBLK, S_IFREG, S_IFDIR};
      const NewInode inode = new_inode(types[random_.below(6)]);
      auto real = co_await fs_->mknod(number(where), as, inode);
      learn("mknod", real, model_.mknod(where, as, inode));
    } else {
      const NewInode inode = new_inode();
      const std::string target = bytes(random_.one_in(3) ? random_.below(4200) : random_.below(100));
      auto real = co_await fs_->symlink(number(where), as, target, inode);
      learn("symlink", real, model_.symlink(where, as, target, inode));
    }
  }
  Task<void> lookup() {
    const Id where = directory();
    const std::string as = name();
    auto real = co_await fs_->lookup(number(where), as);
    learn("lookup", real, model_.lookup(where, as));
  }
  Task<void> link() {
    const Id where = directory();
    const Id what = any();
    const std::string as = name();
    auto real = co_await fs_->link(number(what), number(where), as);
    learn("link", real, model_.link(what, where, as));
  }
  Task<void> unlink() {
    const Id where = directory();
    const std::string as = name();
    auto real = co_await fs_->unlink(number(where), as);
    same_outcome("unlink", real, model_.unlink(where, as));
  }
  Task<void> rmdir() {
    const Id where = directory();
    const std::string as = name();
    auto real = co_await fs_->rmdir(number(where), as);
    same_outcome("rmdir", real, model_.rmdir(where, as));
  }
  Task<void> rename() {
    const Id from = directory();
    const Id to = random_.one_in(3) ? from : directory();
    const std::string from_name = name();
    const std::string to_name = name();
    const auto mode = static_cast<RenameMode>(random_.below(3));
    auto real = co_await fs_->rename(number(from), from_name, number(to), to_name, mode);
    same_outcome("rename", real, model_.rename(from, from_name, to, to_name, mode));
  }
  Task<void> write() {
    const Id id = file();
    const std::uint64_t at = offset(id);
    const bool append = random_.one_in(4);
    const bool direct = random_.one_in(6);
    const bool kill = random_.one_in(3);
    std::string data = bytes(length());
    if (direct && random_.one_in(2)) data.resize(data.size() / 4096 * 4096);
    const std::uint64_t where = direct && random_.one_in(2) ? at / 4096 * 4096 : at;
    auto real = co_await fs_->write(number(id), where, std::as_bytes(std::span(data)), append, direct, kill);
    auto model = model_.write(id, where, data, append, kill);
    if (same_outcome("write", real, model)) EXPECT_EQ(real->offset, *model);
  }
  Task<void> read() {
    const Id id = file();
    const std::uint64_t at = offset(id);
    const std::size_t size = length();
    std::string got(size, '?');
    auto real = co_await fs_->read(number(id), at, std::as_writable_bytes(std::span(got)), false);
    auto model = model_.read(id, at, size);
    if (!same_outcome("read", real, model)) co_return;
    got.resize(*real);
    EXPECT_TRUE(got == *model) << "read of " << size << " at " << at << " got " << got.size() << " bytes, not these "
                               << model->size();
  }
  Task<void> setattr() {
    const Id id = random_.one_in(3) ? any() : file();
    AttributeChange change;
    if (random_.one_in(2)) change.size = random_.one_in(3) ? random_.below(400000) : random_.below(9000);
    if (random_.one_in(3)) change.mode = static_cast<std::uint32_t>(random_.below(010000));
    if (random_.one_in(4)) change.uid = static_cast<std::uint32_t>(random_.below(9));
    if (random_.one_in(4)) change.gid = static_cast<std::uint32_t>(random_.below(9));
    change.kill_suid_sgid = random_.one_in(4);
    if (random_.one_in(3)) change.mtime_ns = static_cast<std::int64_t>(random_.below(1'000'000'000'000));
    auto real = co_await fs_->setattr(number(id), change);
    if (!same_outcome("setattr", real, model_.setattr(id, change))) co_return;
    compare(id, *real);
    if (change.mtime_ns) EXPECT_EQ(real->mtime_ns, *change.mtime_ns);
  }
  Task<void> getattr() {
    const Id id = any();
    auto real = co_await fs_->getattr(number(id));
    if (!real) {
      ADD_FAILURE() << "getattr: " << outcome(real.error());
      co_return;
    }
    compare(id, *real);
    if (!model_.node(id).symlink()) co_return;
    auto target = co_await fs_->readlink(number(id));
    if (same_outcome("readlink", target, model_.readlink(id))) EXPECT_EQ(*target, *model_.readlink(id));
  }
  Task<void> open_one() {
    const Id id = any();
    auto real = co_await fs_->open(number(id));
    if (same_outcome("open", real, model_.open(id))) open_.push_back(id);
  }
  Task<void> close_one() {
    if (open_.empty()) co_return;
    const std::size_t i = random_.below(open_.size());
    const Id id = open_[i];
    open_.erase(open_.begin() + static_cast<std::ptrdiff_t>(i));
    co_await fs_->close(number(id));
    model_.close(id);
  }
  Task<void> sync() {
    if (random_.one_in(8)) {
      auto real = co_await fs_->sync_all();
      EXPECT_TRUE(real.has_value());
    } else {
      auto real = co_await fs_->sync(number(any()), random_.one_in(2));
      EXPECT_TRUE(real.has_value());
    }
  }

  // Everything that can be reached, with contents, and what is open besides.
  Task<void> compare_tree() {
    for (const Id id : model_.all()) {
      const auto& node = model_.node(id);
      auto attributes = co_await fs_->getattr(number(id));
      if (!attributes) {
        ADD_FAILURE() << "getattr: " << outcome(attributes.error());
        co_return;
      }
      compare(id, *attributes);
      if (node.directory()) co_await compare_directory(id);
      if (node.regular()) co_await compare_file(id);
    }
  }
  Task<void> compare_file(Id id) {
    const std::string& want = model_.node(id).data;
    std::string got(want.size() + 1, '?');
    auto read = co_await fs_->read(number(id), 0, std::as_writable_bytes(std::span(got)), false);
    if (!read) {
      ADD_FAILURE() << "read: " << outcome(read.error());
      co_return;
    }
    got.resize(*read);
    EXPECT_TRUE(got == want);
  }
  Task<void> compare_directory(Id id) {
    std::map<std::string, InodeNo> got;
    std::uint64_t cookie = 0;
    for (;;) {
      auto some = co_await fs_->readdir(number(id), cookie, 1 + random_.below(7));
      if (!some) {
        ADD_FAILURE() << "readdir: " << outcome(some.error());
        co_return;
      }
      if (some->empty()) break;
      for (const auto& entry : *some) {
        EXPECT_GT(entry.cookie, cookie);
        cookie = entry.cookie;
        EXPECT_TRUE(got.emplace(entry.name, entry.inode).second) << entry.name << " twice";
      }
    }
    std::map<std::string, InodeNo> want;
    for (const auto& [entry, child] : model_.node(id).entries) want.emplace(entry, number(child));
    EXPECT_EQ(got, want);
  }

  SeededRandom random_;
  SimpleModel model_;
  FileSystem* fs_ = nullptr;
  std::map<Id, InodeNo> numbers_;
  std::map<Id, std::uint64_t> references_;
  std::vector<Id> open_;
};

// Gives up locks at random until told to end.
Task<void> disturb(MountedFileSystem& mounted, std::uint64_t seed, const bool& end) {
  SeededRandom random(seed);
  while (!end) {
    co_await mounted.small.executor.sleep(std::chrono::microseconds(random.below(3000)));
    const auto held = mounted.small.locks->held();
    if (held.empty()) continue;
    const LockMode to = random.one_in(3) ? LockMode::kShared : LockMode::kNone;
    auto given = co_await mounted.small.locks->give_up(held[random.below(held.size())], to);
    EXPECT_TRUE(given.has_value()) << outcome(given.error());
  }
}

Task<void> run_all(MountedFileSystem& mounted, std::vector<std::unique_ptr<Script>>& scripts, std::uint64_t steps,
                   std::uint64_t seed) {
  TaskGroup group(mounted.small.executor);
  TaskGroup trouble(mounted.small.executor);
  bool end = false;
  trouble.spawn(disturb(mounted, seed, end));
  for (auto& script : scripts) group.spawn(script->run(mounted.fs(), steps));
  co_await group.join();
  end = true;
  co_await trouble.join();
  for (auto& script : scripts) co_await script->let_go(mounted.fs());
}

void compare_with_model(std::uint64_t seed, std::size_t count, std::uint64_t rounds, std::uint64_t steps,
                        SmallOptions options, FileSystemOptions fs_options) {
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  MountedFileSystem mounted(options, fs_options);
  const InodeNo root = mounted.fs().root();
  std::vector<std::unique_ptr<Script>> scripts;
  for (std::size_t i = 0; i < count; ++i) {
    auto top = mounted.run(mounted.fs().mkdir(root, "script" + std::to_string(i), {0755, 0, 0, 0}));
    ASSERT_TRUE(top.has_value());
    scripts.push_back(std::make_unique<Script>(seed * 100 + i, top->mode));
    scripts.back()->set_root(top->inode);
  }
  for (std::uint64_t round = 0; round < rounds && !::testing::Test::HasFailure(); ++round) {
    mounted.run(run_all(mounted, scripts, steps, seed + round));
    mounted.remount();
    mounted.check();
  }
}

TEST(FileSystemModel, OneScript) {
  compare_with_model(setting("CAWFS_SEED", 1), 1, 4, setting("CAWFS_STEPS", 2500), {.size_bytes = 256 << 20}, {});
}

TEST(FileSystemModel, ManyScriptsAtOnce) {
  compare_with_model(setting("CAWFS_SEED", 2), 5, 3, setting("CAWFS_STEPS", 800), {}, {});
}

TEST(FileSystemModel, LittleMemory) {
  compare_with_model(setting("CAWFS_SEED", 3), 3, 2, setting("CAWFS_STEPS", 800), {.cache_bytes = 1 << 18},
                     {.read_only = false, .metadata_cache_bytes = 1 << 18, .dirty_data_bytes = 1 << 18});
}

}  // namespace
}  // namespace cawfs::testing
