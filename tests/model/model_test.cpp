// The file system against the model, at random: every answer is compared, locks are given up in between, the file
// system is unmounted and mounted again, and fsck finds nothing. CAWFS_SEED and CAWFS_STEPS choose another run.
#include <array>
#include <cstdlib>

#include "core/runtime/task_group.h"
#include "tests/model/equal_names.h"
#include "tests/model/model_script.h"
#include "tests/support/fs_fixture.h"

namespace cawfs::testing {
namespace {

using test::ModelScript;
using test::ScriptOptions;

#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

std::uint64_t setting(const char* name, std::uint64_t otherwise) {
  const char* value = std::getenv(name);
  return value ? std::strtoull(value, nullptr, 10) : otherwise;
}

// Gives up locks at random until told to end.
Task<void> disturb(MountedFileSystem& mounted, std::uint64_t seed, const bool& end) {
  SeededRandom random(seed);
  while (!end) {
    co_await mounted.small.executor.sleep(std::chrono::microseconds(random.below(3000)));
    const auto held = mounted.small.locks->held();
    if (held.empty()) continue;
    const LockMode to = random.one_in(3) ? LockMode::kShared : LockMode::kNone;
    auto given = co_await mounted.small.locks->give_up(held[random.below(held.size())], to);
    EXPECT_TRUE(given.has_value()) << describe(given.error().code);
  }
}

using Scripts = std::vector<std::unique_ptr<ModelScript>>;

Task<void> run_all(MountedFileSystem& mounted, Scripts& scripts, std::uint64_t steps, std::uint64_t seed) {
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

Task<void> wait(Executor& executor) {
  co_await executor.sleep(std::chrono::seconds(1));
}

struct Run {
  std::uint64_t seed = 1;
  std::size_t scripts = 1;
  std::uint64_t rounds = 1;  // the file system is mounted anew for each
  std::uint64_t steps = 1;   // of each script, in each round
  ScriptOptions script;
  bool equal_hashes = false;  // of the names given most often
  SmallOptions lun;
  FileSystemOptions fs;
};

// Returns how often there was no space.
std::uint64_t compare_with_model(Run run) {
  run.seed = setting("CAWFS_SEED", run.seed);
  run.steps = setting("CAWFS_STEPS", run.steps);
  std::printf("seed %llu, %llu operations\n", static_cast<unsigned long long>(run.seed),
              static_cast<unsigned long long>(run.scripts * run.rounds * run.steps));
  if (!run.equal_hashes) run.lun.seed = run.seed;
  MountedFileSystem mounted(run.lun, run.fs);
  const InodeNo root = mounted.fs().root();
  if (run.equal_hashes) {
    const auto names = test::find_names_of_equal_hash(mounted.small.geometry.sip_key);
    EXPECT_TRUE(names) << "this key has none, try other seeds";
    if (names) run.script.often = {names->first, names->second};
  }
  Scripts scripts;
  for (std::size_t i = 0; i < run.scripts; ++i) {
    auto top = mounted.run(mounted.fs().mkdir(root, "script" + std::to_string(i), {0755, 0, 0, 0}));
    if (!top) {
      ADD_FAILURE() << describe(top.error().code);
      return 0;
    }
    scripts.push_back(std::make_unique<ModelScript>(mounted.small.executor, run.seed * 100 + i, run.script, *top));
  }
  for (std::uint64_t round = 0; round < run.rounds && !::testing::Test::HasFailure(); ++round) {
    mounted.run(run_all(mounted, scripts, run.steps, run.seed + round));
    mounted.remount();
    mounted.check();
  }
  std::uint64_t refused = 0;
  for (const auto& script : scripts) refused += script->refused();
  return refused;
}

// The scripts accept an access time that is not stored yet. It is, when there is nothing else to do.
TEST(FileSystemModel, AccessTimesAreStored) {
  MountedFileSystem mounted;
  FileSystem& fs = mounted.fs();
  const auto file = mounted.run(fs.create(fs.root(), "file", {}, true));
  const auto link = mounted.run(fs.symlink(fs.root(), "link", "file", {}));
  ASSERT_TRUE(file && link);
  const auto later = [&] { mounted.run(wait(mounted.small.executor)); };
  const auto atime = [&](InodeNo inode) { return mounted.run(fs.getattr(inode))->atime_ns; };
  std::array<std::byte, 1> memory{};
  later();
  EXPECT_TRUE(mounted.run(fs.read(file->inode, 0, std::span(memory).first(0), false)));
  later();
  EXPECT_EQ(atime(file->inode), file->atime_ns);
  EXPECT_TRUE(mounted.run(fs.read(file->inode, 0, memory, false)));
  EXPECT_TRUE(mounted.run(fs.readlink(link->inode)));
  EXPECT_TRUE(mounted.run(fs.readdir(fs.root(), 0, 1)));
  later();
  for (const InodeNo inode : {file->inode, link->inode, fs.root()}) EXPECT_GT(atime(inode), link->ctime_ns);
  for (const Attributes& made : {*file, *link}) fs.forget(made.inode, 1);
}

Task<void> read_one(FileSystem& fs, InodeNo file) {
  std::array<std::byte, 1> memory{};
  const auto read = co_await fs.read(file, 0, memory, false);
  EXPECT_TRUE(read);
}
Task<void> set_access_time(FileSystem& fs, InodeNo file, std::int64_t atime_ns) {
  AttributeChange change;
  change.atime_ns = atime_ns;
  const auto set = co_await fs.setattr(file, change);
  EXPECT_TRUE(set);
}
Task<void> read_and_set(Executor& executor, FileSystem& fs, InodeNo file, std::int64_t atime_ns) {
  TaskGroup group(executor);
  group.spawn(read_one(fs, file));
  group.spawn(set_access_time(fs, file, atime_ns));
  co_await group.join();
}

// As backups do. The read's own update is still waiting then.
TEST(FileSystemModel, AnAccessTimeThatWasSetStays) {
  MountedFileSystem mounted;
  FileSystem& fs = mounted.fs();
  const auto file = mounted.run(fs.create(fs.root(), "file", {}, true));
  ASSERT_TRUE(file);
  const std::vector<std::byte> data(100'000);
  EXPECT_TRUE(mounted.run(fs.write(file->inode, 0, data, false, false, false)));
  EXPECT_TRUE(mounted.run(fs.sync(file->inode, false)));
  mounted.run(read_and_set(mounted.small.executor, fs, file->inode, 12345));
  mounted.run(wait(mounted.small.executor));
  EXPECT_EQ(mounted.run(fs.getattr(file->inode))->atime_ns, 12345);
  fs.forget(file->inode, 1);
}

TEST(FileSystemModel, OneScript) {
  compare_with_model({.seed = 1,
                      .rounds = 10,
                      .steps = kSanitized ? 3'000 : 100'000,
                      .script = {.compare_every = 20'000},
                      .lun = {.size_bytes = 512 << 20},
                      .fs = {}});
}

TEST(FileSystemModel, ManyScriptsAtOnce) {
  compare_with_model(
      {.seed = 2, .scripts = 5, .rounds = 3, .steps = 800, .script = {.most_nodes = 200}, .lun = {}, .fs = {}});
}

// Names whose directory has a tree of several nodes.
TEST(FileSystemModel, LargeDirectory) {
  compare_with_model({.seed = 4,
                      .rounds = 3,
                      .steps = kSanitized ? 1'000 : 10'000,
                      .script = {.names = 20'000, .most_nodes = 6'000, .flat = true, .compare_every = 10'000},
                      .lun = {.size_bytes = 1 << 30},
                      .fs = {}});
}

// The LUN's seed, which its hash key comes from, is one with such a pair (few have one, see there).
TEST(FileSystemModel, NamesOfEqualHash) {
  compare_with_model({.seed = 12,
                      .rounds = 3,
                      .steps = kSanitized ? 500 : 5'000,
                      .script = {.most_nodes = 100},
                      .equal_hashes = true,
                      .lun = {.seed = 12},
                      .fs = {}});
}

TEST(FileSystemModel, FarHoles) {
  compare_with_model({.seed = 5,
                      .rounds = 3,
                      .steps = kSanitized ? 500 : 5'000,
                      .script = {.most_nodes = 200, .far = true},
                      .lun = {},
                      .fs = {}});
}

TEST(FileSystemModel, NoSpace) {
  const std::uint64_t refused = compare_with_model({.seed = 6,
                                                    .rounds = 4,
                                                    .steps = 5'000,
                                                    .script = {.most_nodes = 4'000, .scarce = true},
                                                    .lun = {.size_bytes = 32 << 20},
                                                    .fs = {}});
  std::printf("no space %llu times\n", static_cast<unsigned long long>(refused));
  EXPECT_GT(refused, 0);
}

TEST(FileSystemModel, LittleMemory) {
  compare_with_model({.seed = 3,
                      .scripts = 3,
                      .rounds = 2,
                      .steps = 800,
                      .script = {.most_nodes = 300},
                      .lun = {.cache_bytes = 1 << 18},
                      .fs = {.read_only = false, .metadata_cache_bytes = 1 << 18, .dirty_data_bytes = 1 << 18}});
}

}  // namespace
}  // namespace cawfs::testing
