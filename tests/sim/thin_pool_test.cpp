// A thin LUN whose pool is used up (27/07): of one node's operations those fail that need new blocks, and nothing else
// does: no checkpoint, no replay, since every block of metadata was there before a transaction used it (design §4
// rule 11).
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "tests/sim/sim_mount.h"
#include "tests/sim/sim_world.h"

namespace cawfs::test {
namespace {

constexpr std::uint64_t kSeeds = 40;
constexpr std::uint64_t kOperations = 400;
constexpr std::uint64_t kNames = 300;
constexpr std::size_t kNameLength = 200;     // so that the directory needs many blocks
constexpr std::uint64_t kBlocksAtMost = 12;  // of a file
constexpr std::uint64_t kRoomAtMost = 800;   // in blocks, of the pool
constexpr std::uint64_t kLongestRun = 60;    // in simulated milliseconds, before the power goes
constexpr std::uint64_t kNoLimit = ~std::uint64_t{0};

// What the pool has given to which block of the LUN.
class ThinPool {
 public:
  explicit ThinPool(SimulatedLun& lun) {
    lun.set_hook([this](const SimulatedRequest& request) { return fate_of(request); });
    lun.set_observer([this](const SimulatedRequest& request, const Result<>& done) { ran(request, done); });
  }

  std::uint64_t used() const { return blocks_.size(); }
  std::uint64_t refused() const { return refused_; }
  // To give in all, at least what is given.
  void set_blocks(std::uint64_t count) { limit_ = count; }
  void freeze() { limit_ = used(); }
  // What no flush has covered may never have been given.
  void power_cut() {
    for (const std::uint64_t block : unflushed_) blocks_.erase(block);
    unflushed_.clear();
    freeze();
  }

 private:
  using Kind = SimulatedRequest::Kind;

  static std::uint64_t first(const SimulatedRequest& request) { return request.offset / kBlockSize; }
  static std::uint64_t end(const SimulatedRequest& request) {
    return (request.offset + request.length + kBlockSize - 1) / kBlockSize;
  }
  static bool gives(const SimulatedRequest& request) {
    return request.kind == Kind::kWrite || request.kind == Kind::kCaw || request.kind == Kind::kZero;
  }

  SimulatedFate fate_of(const SimulatedRequest& request) {
    if (!gives(request)) return SimulatedFate::kRun;
    std::uint64_t fresh = 0;
    for (std::uint64_t block = first(request); block < end(request); ++block) fresh += blocks_.contains(block) ? 0 : 1;
    if (fresh == 0 || used() + fresh <= limit_) return SimulatedFate::kRun;
    ++refused_;
    return SimulatedFate::kThinFull;
  }

  void ran(const SimulatedRequest& request, const Result<>& done) {
    if (!done) return;
    if (request.kind == Kind::kFlush) unflushed_.clear();
    for (std::uint64_t block = first(request); block < end(request); ++block) {
      if (gives(request) && blocks_.insert(block).second) unflushed_.insert(block);
      if (request.kind != Kind::kUnmap) continue;
      blocks_.erase(block);
      unflushed_.erase(block);
    }
  }

  std::set<std::uint64_t> blocks_;
  std::set<std::uint64_t> unflushed_;  // of these
  std::uint64_t limit_ = kNoLimit;
  std::uint64_t refused_ = 0;
};

struct ThinWorld {
  explicit ThinWorld(std::uint64_t seed)
      : random(seed), lun(loop.clock(), random, {.size_bytes = 32 << 20, .logical_block = 4096}), pool(lun) {
    Executor& executor = loop.add_executor();
    auto device = connect(executor);
    MakeOptions make;
    make.slots = 1;
    make.journal_blocks = 256;
    make.clustered = false;
    const auto made = loop.run(executor, make_file_system(*device, random, make));
    EXPECT_TRUE(made);
    loop.run(executor, device->close());
  }
  std::unique_ptr<BlockDevice> connect(Executor& executor) {
    return lun.connect(executor, "node " + std::to_string(++nodes));
  }
  VirtualLoop loop;
  SeededRandom random;
  SimulatedLun lun;
  ThinPool pool;
  unsigned nodes = 0;
};

// Makes, syncs, cuts and removes files.
class Worker {
 public:
  Worker(SimMount& mount, std::uint64_t seed) : mount_(mount), random_(seed) {}

  Task<void> run() {
    const auto started = co_await mount_.start();
    expect(started, "start");
    for (std::uint64_t i = 0; i < kOperations && trouble.empty(); ++i) co_await step();
    done = true;
  }

  bool done = false;
  std::string trouble;
  std::uint64_t no_space = 0;            // operations that ended so
  std::map<std::string, char> contents;  // of files that are durable: what each of their bytes is

 private:
  // That there is no space is an answer; anything else is not.
  bool expect(const Result<>& result, const std::string& what) {
    if (result) return true;
    if (result.error() == Errc::kThinFull || result.error() == Errc::kNoSpace) {
      ++no_space;
    } else if (trouble.empty()) {
      trouble = what + ": " + std::string(cawfs::describe(result.error().code)) + " " + result.error().where;
    }
    return false;
  }

  Task<void> step() {
    std::string name = "file " + std::to_string(random_.below(kNames));
    name.resize(kNameLength, '.');
    switch (random_.below(5)) {
      case 0:
      case 1:
      case 2:
        co_await replace(name);
        break;
      case 3:
        co_await cut(name);
        break;
      default:
        co_await remove(name);
        break;
    }
  }

  Task<void> replace(const std::string& name) {
    FileSystem& fs = mount_.fs();
    contents.erase(name);
    const NewInode fresh{.mode = S_IFREG | 0644};
    const auto file = co_await fs.create(fs.root(), name, fresh, false);
    if (!file) {
      expect(fail(file.error()), "create");
      co_return;
    }
    const char what = static_cast<char>('a' + random_.below(26));
    const std::string text((1 + random_.below(kBlocksAtMost)) * kBlockSize, what);
    AttributeChange nothing;
    nothing.size = 0;
    const auto emptied = co_await fs.setattr(file->inode, nothing);
    if (!emptied) expect(fail(emptied.error()), "truncate");
    const bool direct = random_.one_in(2);
    const auto written = co_await fs.write(file->inode, 0, std::as_bytes(std::span(text)), false, direct, false);
    if (!written) expect(fail(written.error()), "write");
    if (random_.one_in(2)) {
      const auto synced = co_await fs.sync(file->inode, false);
      if (expect(synced, "sync") && emptied && written && written->count > 0) contents[name] = what;
    }
    fs.forget(file->inode, 1);
  }

  Task<void> cut(const std::string& name) {
    FileSystem& fs = mount_.fs();
    const auto file = co_await fs.lookup(fs.root(), name);
    if (!file) co_return;
    AttributeChange change;
    change.size = random_.below(kBlocksAtMost * kBlockSize);
    contents.erase(name);
    const auto changed = co_await fs.setattr(file->inode, change);
    if (!changed) expect(fail(changed.error()), "truncate");
    fs.forget(file->inode, 1);
  }

  Task<void> remove(const std::string& name) {
    contents.erase(name);
    const auto removed = co_await mount_.fs().unlink(mount_.fs().root(), name);
    if (!removed && removed.error() == Errc::kNotFound) co_return;
    expect(removed, "unlink");
  }

  SimMount& mount_;
  SeededRandom random_;
};

Task<Result<>> read_whole(FileSystem& fs, std::string name, char what) {
  const auto file = co_await fs.lookup(fs.root(), name);
  if (!file) co_return fail(file.error());
  std::vector<std::byte> bytes(file->size);
  const auto read = co_await fs.read(file->inode, 0, bytes, false);
  fs.forget(file->inode, 1);
  if (!read) co_return fail(read.error());
  EXPECT_GT(file->size, 0U) << name;
  EXPECT_TRUE(std::ranges::all_of(bytes, [&](std::byte b) { return b == static_cast<std::byte>(what); })) << name;
  co_return Result<>{};
}

// A file can be made, written and synced.
Task<Result<>> write_one(FileSystem& fs) {
  const NewInode fresh{.mode = S_IFREG | 0644};
  const auto file = co_await fs.create(fs.root(), "with room", fresh, true);
  if (!file) co_return fail(file.error());
  const std::string text(kBlocksAtMost * kBlockSize, 'x');
  const auto written = co_await fs.write(file->inode, 0, std::as_bytes(std::span(text)), false, false, false);
  Result<> done = co_await fs.sync(file->inode, false);
  if (!written) done = fail(written.error());
  fs.forget(file->inode, 1);
  co_return done;
}

Task<Result<>> look(SimMount& mount, const std::map<std::string, char>& contents, ThinPool& pool) {
  for (const auto& [name, what] : contents) {
    const auto read = co_await read_whole(mount.fs(), name, what);
    if (!read) co_return read;
  }
  pool.set_blocks(kNoLimit);
  const auto written = co_await write_one(mount.fs());
  if (!written) co_return written;
  const auto stopped = co_await mount.stop();
  co_return stopped;
}

Task<Result<>> start_and_look(SimMount& mount, const std::map<std::string, char>& contents, ThinPool& pool) {
  const auto started = co_await mount.start();
  if (!started) co_return started;
  const auto looked = co_await look(mount, contents, pool);
  co_return looked;
}

std::string text_of(const Result<>& result) {
  return result ? "" : std::string(cawfs::describe(result.error().code)) + " " + result.error().where;
}

void check_fsck(ThinWorld& world) {
  Executor& executor = world.loop.add_executor();
  auto device = world.connect(executor);
  FsckOptions options;
  options.refuse_live = false;
  const auto report = world.loop.run(executor, check_file_system(executor, *device, options));
  ASSERT_TRUE(report);
  EXPECT_TRUE(report->clean()) << report->text();
  world.loop.run(executor, device->close());
}

// Some seeds work on until they have done everything, the others lose their power before; returns what was refused.
std::uint64_t run_seed(std::uint64_t seed) {
  ThinWorld& world = kept(std::make_unique<ThinWorld>(seed));
  world.pool.set_blocks(world.pool.used() + 20 + world.random.below(kRoomAtMost));
  Executor& executor = world.loop.add_executor();
  SimMount& mount = kept(std::make_unique<SimMount>(executor, world.connect(executor), seed, Incarnation{1}));
  Worker& worker = kept(std::make_unique<Worker>(mount, seed));
  TaskGroup& group = kept(std::make_unique<TaskGroup>(executor));
  group.spawn(worker.run());
  const bool cut = seed % 2 == 0;
  const Time end = world.loop.now() + std::chrono::milliseconds(1 + world.random.below(kLongestRun));
  EXPECT_TRUE(world.loop.run_until([&] { return worker.done || (cut && world.loop.now() >= end); }));
  EXPECT_EQ(worker.trouble, "");
  if (worker.done) {
    const auto looked = world.loop.run(executor, look(mount, worker.contents, world.pool));
    EXPECT_TRUE(looked) << text_of(looked);
  } else {
    executor.kill();
    world.lun.power_cut();
    world.pool.power_cut();
    Executor& survivor = world.loop.add_executor();
    auto device = world.connect(survivor);
    const auto replayed = world.loop.run(survivor, replay(survivor, *device, {kSimSlot, Incarnation{1}}));
    EXPECT_TRUE(replayed) << describe(replayed.error().code) << " " << replayed.error().where;
    world.loop.run(survivor, device->close());
    check_fsck(world);
    SimMount next(survivor, world.connect(survivor), seed, Incarnation{2});
    const auto looked = world.loop.run(survivor, start_and_look(next, worker.contents, world.pool));
    EXPECT_TRUE(looked) << text_of(looked);
  }
  check_fsck(world);
  return world.pool.refused();
}

TEST(ThinPool, UsedUpFailsWhatNeedsNewBlocksAndNothingElse) {
  std::uint64_t seeds_refused = 0;
  for (std::uint64_t seed = 1; seed <= kSeeds && !HasFailure(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    if (run_seed(seed) > 0) ++seeds_refused;
  }
  EXPECT_GT(seeds_refused, kSeeds / 2);
}

}  // namespace
}  // namespace cawfs::test
