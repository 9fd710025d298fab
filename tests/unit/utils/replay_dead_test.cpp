#include "utils/replay/replay_dead.h"

#include <gtest/gtest.h>

#include "core/device/simulated_device.h"
#include "core/format/make_file_system.h"
#include "core/format/superblock_io.h"
#include "core/runtime/virtual_loop.h"
#include "tests/support/whole_node.h"
#include "utils/replay/journals.h"

namespace cawfs {
namespace {

using namespace std::chrono_literals;

struct ReplayDeadTest : ::testing::Test {
  ReplayDeadTest() {
    MakeOptions make;
    make.dead_time_ms = 2'000;
    make.slots = 3;
    make.journal_blocks = 256;
    superblock = *loop.run(executor, make_file_system(*tool, random, make));
    geometry = make_geometry(superblock);
  }

  // A mount of a host of its own, killed.
  NodeId dead_node(const std::string& host, std::uint8_t uuid) {
    Executor& own = loop.add_executor();
    testing::WholeNodeOptions options;
    options.host = host;
    options.uuid = uuid;
    // For ever: what runs in it has not ended.
    auto& node = *new testing::WholeNode(own, lun.connect(own, host), uuid, options);
    EXPECT_TRUE(loop.run(own, node.start()));
    own.kill();
    return {SlotNo{static_cast<std::uint16_t>(uuid - 1)}, Incarnation{1}};
  }
  Result<> replay(std::vector<NodeId> dead) {
    return loop.run(executor, replay_dead({executor, *tool, random, messages, "tool"}, superblock, std::move(dead)));
  }
  std::uint64_t journal_offset(SlotNo slot) {
    IoBuffer block(geometry.logical_block);
    lun.peek(geometry.slot_record_offset(slot), block.bytes());
    const auto& record = *reinterpret_cast<const format::SlotRecord*>(block.data());
    return BlockNo{record.journal[0].start.value()}.offset_bytes();
  }
  // Which slots' nodes are dead still.
  std::vector<SlotNo> to_replay() {
    const auto journals = loop.run(executor, look_at_journals(executor, *tool, random, messages, superblock));
    std::vector<SlotNo> slots;
    for (const JournalState& journal : *journals) {
      if (journal.needs_replay()) slots.push_back(journal.slot);
    }
    return slots;
  }

  VirtualLoop loop;
  SeededRandom random{1};
  SimulatedLun lun{loop.clock(), random, SimulatedLunOptions{.size_bytes = 64 << 20, .sessions = true}};
  Executor& executor = loop.add_executor();
  std::unique_ptr<BlockDevice> tool = lun.connect(executor, "tool");
  testing::LastMessages messages;
  format::Superblock superblock;
  Geometry geometry;
};

TEST_F(ReplayDeadTest, AJournalThatCannotBeReadIsTriedOnceAndHoldsUpNoOther) {
  const NodeId a = dead_node("a", 1);
  const NodeId b = dead_node("b", 2);
  EXPECT_EQ(to_replay(), (std::vector{a.slot, b.slot}));
  const std::uint64_t journal = journal_offset(a.slot);
  lun.set_hook([&](const SimulatedRequest& request) {
    const bool inside = request.offset >= journal && request.offset < journal + 256 * kBlockSize;
    return inside && request.kind == SimulatedRequest::Kind::kRead ? SimulatedFate::kMediumError : SimulatedFate::kRun;
  });
  const Time began = loop.now();
  const Result<> failed = replay({a, b});
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error(), Errc::kMedium);
  EXPECT_LT(loop.now() - began, 20s);
  lun.set_hook({});
  EXPECT_EQ(to_replay(), std::vector{a.slot});
  EXPECT_TRUE(replay({a}));
  EXPECT_TRUE(to_replay().empty());
}

}  // namespace
}  // namespace cawfs
