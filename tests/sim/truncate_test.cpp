// A file in many extents is cut to nothing, which takes several transactions, and the power fails at every device
// write.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <vector>

#include "core/format/verify.h"
#include "tests/sim/sim_mount.h"
#include "tests/sim/sim_world.h"

namespace cawfs::test {
namespace {

constexpr std::uint64_t kExtents = 100;
constexpr std::uint64_t kFileBytes = 2 * kExtents * kBlockSize;

class Script {
 public:
  Script(World& world, SimMount& mount) : world_(world), mount_(mount), group_(mount.executor()) {}

  void start() { group_.spawn(run()); }
  bool done() const { return done_; }
  std::string trouble;
  std::uint64_t writes_before = 0;  // until the whole file was durable
  bool cutting = false;             // truncate was called
  bool cut = false;                 // and synced

 private:
  void expect(const Result<>& done, const char* what) {
    if (!done && trouble.empty()) trouble = what;
  }

  Task<void> run() {
    const auto started = co_await mount_.start();
    expect(started, "start");
    FileSystem& fs = mount_.fs();
    const NewInode fresh{.mode = S_IFREG | 0644};
    const auto file = co_await fs.create(fs.root(), "file", fresh, true);
    if (!file) co_return expect(fail(file.error()), "create");
    const std::vector<std::byte> block(kBlockSize, std::byte{0x5a});
    for (std::uint64_t i = 0; i < kExtents; ++i) {
      const auto written = co_await fs.write(file->inode, (2 * i + 1) * kBlockSize, block, false, false, false);
      if (!written) co_return expect(fail(written.error()), "write");
    }
    const auto whole = co_await fs.sync(file->inode, false);
    expect(whole, "sync");
    writes_before = world_.writes;

    cutting = true;
    AttributeChange change;
    change.size = 0;
    const auto changed = co_await fs.setattr(file->inode, change);
    if (!changed) co_return expect(fail(changed.error()), "truncate");
    const auto synced = co_await fs.sync(file->inode, false);
    expect(synced, "sync");
    cut = true;
    fs.forget(file->inode, 1);
    const auto stopped = co_await mount_.stop();
    expect(stopped, "stop");
    done_ = true;
  }

  World& world_;
  SimMount& mount_;
  bool done_ = false;
  TaskGroup group_;
};

struct Seen {
  InodeNo inode;
  std::uint64_t size = 0;
  std::uint64_t blocks_when_grown = 0;
};

// What the next mount finds, and what becomes of it when block `first` of the file is written.
Task<Result<Seen>> look(SimMount& mount, std::uint64_t first) {
  const auto started = co_await mount.start();
  if (!started) co_return fail(started.error());
  FileSystem& fs = mount.fs();
  Seen seen;
  const auto file = co_await fs.lookup(fs.root(), "file");
  if (!file) co_return fail(file.error());
  seen.inode = file->inode;
  seen.size = file->size;
  const std::vector<std::byte> block(kBlockSize, std::byte{0x5a});
  const auto written = co_await fs.write(file->inode, first * kBlockSize, block, false, false, false);
  if (!written) co_return fail(written.error());
  const auto synced = co_await fs.sync(file->inode, false);
  if (!synced) co_return fail(synced.error());
  const auto grown = co_await fs.getattr(file->inode);
  if (!grown) co_return fail(grown.error());
  seen.blocks_when_grown = grown->blocks_512 / (kBlockSize / 512);
  fs.forget(file->inode, 1);
  const auto stopped = co_await mount.stop();
  if (!stopped) co_return fail(stopped.error());
  co_return seen;
}

Seen look_at(World& world, Incarnation incarnation, std::uint64_t first) {
  Executor& executor = world.loop.add_executor();
  SimMount next(executor, world.connect(executor), 5, incarnation);
  const auto seen = world.loop.run(executor, look(next, first));
  EXPECT_TRUE(seen);
  check_fsck(world, "after a mount");
  return seen.value_or(Seen{});
}

struct Cut {
  World& world;
  Script& script;
  std::uint64_t writes;
};

Cut cut_at(const MadeImage& image, std::uint64_t at) {
  World& world = kept(std::make_unique<World>(image, at));
  Executor& executor = world.loop.add_executor();
  SimMount& mount = kept(std::make_unique<SimMount>(executor, world.connect(executor), 1, Incarnation{1}));
  Script& script = kept(std::make_unique<Script>(world, mount));
  const std::uint64_t writes = run_until_cut(world, executor, script, at);
  recover(world);
  return {world, script, writes};
}

TEST(Truncate, IsWholeOrNothingAfterAPowerCut) {
  const MadeImage image(4096);
  const Cut whole = cut_at(image, 0);
  ASSERT_GT(whole.writes, whole.script.writes_before + 2);
  for (std::uint64_t at = whole.script.writes_before + 1; at <= whole.writes && !HasFailure(); ++at) {
    SCOPED_TRACE("cut at write " + std::to_string(at) + " of " + std::to_string(whole.writes));
    const Cut cut = cut_at(image, at);
    const Seen seen = look_at(cut.world, Incarnation{2}, 0);
    EXPECT_TRUE(cut.script.cutting);
    EXPECT_TRUE(seen.size == 0 || (seen.size == kFileBytes && !cut.script.cut)) << seen.size;
    if (seen.size == 0) EXPECT_EQ(seen.blocks_when_grown, 1U);
  }
}

// As a crash leaves it between two of the transactions that cutting took.
TEST(Truncate, WhatIsLeftBeyondTheEndGoesWhenTheFileGrows) {
  const MadeImage image(4096);
  const Cut whole = cut_at(image, 0);
  World& world = whole.world;
  const Seen grown = look_at(world, Incarnation{2}, 5);
  EXPECT_EQ(grown.blocks_when_grown, 1U);

  IoBuffer block(kBlockSize);
  world.lun.peek(grown.inode.block().offset_bytes(), block.bytes());
  auto& inode = *reinterpret_cast<format::Inode*>(block.data());
  inode.size = 0;
  inode.flags = format::kInodeCutting;
  format::stamp_block(block.bytes());
  world.lun.poke(grown.inode.block().offset_bytes(), block.bytes());
  check_fsck(world, "with a block beyond the end");
  EXPECT_EQ(look_at(world, Incarnation{3}, 0).blocks_when_grown, 1U);
}

}  // namespace
}  // namespace cawfs::test
