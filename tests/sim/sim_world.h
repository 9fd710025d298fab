// A simulated LUN with a fresh file system, for tests that run one node on it and cut its power.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/format/make_file_system.h"
#include "core/runtime/virtual_loop.h"
#include "tests/sim/sim_mount.h"
#include "utils/fsck/fsck.h"

namespace cawfs::test {

// For ever: what was cut off in the middle has not ended.
template <class T>
T& kept(std::unique_ptr<T> object) {
  static auto& graveyard = *new std::vector<std::unique_ptr<T>>;
  graveyard.push_back(std::move(object));
  return *graveyard.back();
}

// A freshly made file system, as its blocks that are not zero.
class MadeImage {
 public:
  explicit MadeImage(std::uint32_t logical_block) : logical_block_(logical_block) {
    VirtualLoop loop;
    SeededRandom random(1);
    SimulatedLun lun(loop.clock(), random, options());
    Executor& executor = loop.add_executor();
    auto device = lun.connect(executor, "mkfs");
    MakeOptions make;
    make.slots = 1;
    make.journal_blocks = 256;
    make.clustered = false;
    make.discard = false;
    const auto made = loop.run(executor, make_file_system(*device, random, make));
    EXPECT_TRUE(made) << describe(made.error().code) << " " << made.error().where;
    loop.run(executor, device->close());
    std::vector<std::byte> block(kBlockSize);
    for (std::uint64_t offset = 0; offset < options().size_bytes; offset += kBlockSize) {
      lun.peek(offset, block);
      if (std::ranges::any_of(block, [](std::byte b) { return b != std::byte{0}; })) blocks_[offset] = block;
    }
  }
  SimulatedLunOptions options() const { return {.size_bytes = 32 << 20, .logical_block = logical_block_}; }
  void put(SimulatedLun& lun) const {
    for (const auto& [offset, bytes] : blocks_) lun.poke(offset, bytes);
  }

 private:
  std::uint32_t logical_block_;
  std::map<std::uint64_t, std::vector<std::byte>> blocks_;
};

struct World {
  World(const MadeImage& image, std::uint64_t seed) : random(seed), lun(loop.clock(), random, image.options()) {
    image.put(lun);
  }
  std::unique_ptr<BlockDevice> connect(Executor& executor) {
    return lun.connect(executor, "node " + std::to_string(++nodes));
  }
  VirtualLoop loop;
  SeededRandom random;
  SimulatedLun lun;
  unsigned nodes = 0;
  std::uint64_t writes = 0;  // and flushes, of the script
};

inline Task<Result<ReplayReport>> replay(Executor& executor, BlockDevice& device, NodeId dead) {
  const auto superblock = co_await read_superblock(device);
  if (!superblock) co_return fail(superblock.error());
  const Geometry geometry = make_geometry(*superblock);
  auto place = co_await read_place(device, geometry, dead);
  if (!place) co_return fail(place.error());
  QuietLog messages;
  SeededRandom random(1);
  const auto report =
      co_await replay_journal({executor, device, geometry, random, messages}, std::move(*place), ReplayMode::kReplay);
  co_return report;
}

inline void check_fsck(World& world, const char* when) {
  Executor& executor = world.loop.add_executor();
  auto device = world.connect(executor);
  FsckOptions options;
  options.refuse_live = false;
  const auto report = world.loop.run(executor, check_file_system(executor, *device, options));
  ASSERT_TRUE(report) << when << ": " << describe(report.error().code) << " " << report.error().where;
  EXPECT_TRUE(report->clean()) << when << ":\n" << report->text();
  world.loop.run(executor, device->close());
}

// After a cut: replays the journal of incarnation 1; then fsck finds nothing.
inline void recover(World& world) {
  Executor& executor = world.loop.add_executor();
  auto device = world.connect(executor);
  const auto replayed = world.loop.run(executor, replay(executor, *device, {kSimSlot, Incarnation{1}}));
  ASSERT_TRUE(replayed) << describe(replayed.error().code) << " " << replayed.error().where;
  world.loop.run(executor, device->close());
  check_fsck(world, "after replay");
}

// Starts the script, which runs in `executor`, and cuts the power at its device write or flush number `at` (0: not at
// all). Returns how many it made. A script has start(), done() and `trouble`, what went wrong in it.
template <class Script>
std::uint64_t run_until_cut(World& world, Executor& executor, Script& script, std::uint64_t at) {
  bool fell = false;
  world.lun.set_hook([&](const SimulatedRequest& request) {
    const bool counts =
        request.kind == SimulatedRequest::Kind::kWrite || request.kind == SimulatedRequest::Kind::kFlush;
    if (!counts) return SimulatedFate::kRun;
    if (fell) return SimulatedFate::kNeverReturn;
    fell = ++world.writes == at;
    return fell ? SimulatedFate::kNeverReturn : SimulatedFate::kRun;
  });
  script.start();
  const bool ended = world.loop.run_until([&] { return fell || script.done(); });
  EXPECT_TRUE(ended) << "the script hangs";
  EXPECT_EQ(script.trouble, "");
  world.lun.set_hook({});
  if (!script.done()) {
    executor.kill();
    world.lun.power_cut();
  }
  return world.writes;
}

}  // namespace cawfs::test
