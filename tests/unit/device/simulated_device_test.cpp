#include "core/device/simulated_device.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "core/device/io_buffer.h"
#include "core/runtime/task_group.h"
#include "core/runtime/virtual_loop.h"

namespace cawfs {
namespace {

using namespace std::chrono_literals;
using Kind = SimulatedRequest::Kind;

constexpr std::uint64_t kBlock = 4096;
constexpr auto kType7 = ReservationType::kWriteExclusiveAllRegistrants;

// Keeps for ever what belongs to a crashed node, where a leak checker finds it.
template <class T>
T* kept(T* object) {
  static auto& graveyard = *new std::vector<T*>;
  graveyard.push_back(object);
  return object;
}

struct SimulatedDeviceTest : ::testing::Test {
  // Never destroyed, because the executors of killed nodes keep their frames.
  VirtualLoop& loop = *kept(new VirtualLoop);
  SeededRandom random{42};
  Executor& executor = loop.add_executor();

  template <class T>
  T run(Task<T> task) {
    return loop.run(executor, std::move(task));
  }
  static IoBuffer filled(char c, std::uint64_t size = kBlock) {
    IoBuffer buffer(size);
    std::ranges::fill(buffer.bytes(), static_cast<std::byte>(c));
    return buffer;
  }
  static char at(const SimulatedLun& lun, std::uint64_t offset) {
    std::byte b[kBlock];
    lun.peek(offset / kBlock * kBlock, b);
    return static_cast<char>(b[offset % kBlock]);
  }
};

// A task whose result is looked at later.
Task<void> into(Task<Result<>> task, std::optional<Result<>>& out) {
  auto done = co_await std::move(task);
  out = done;
}

TEST_F(SimulatedDeviceTest, ReadsWhatWasWrittenAndZeroesElsewhere) {
  SimulatedLun lun(loop.clock(), random, {});
  auto device = lun.connect(executor, "a");
  const IoBuffer data = filled('x', 3 * kBlock);
  ASSERT_TRUE(run(device->write(63 << 10 << 10, data.bytes(), Durability::kCached)));
  IoBuffer back = filled('?', 5 * kBlock);
  const std::uint64_t from = (63 << 20) - kBlock;
  ASSERT_TRUE(run(device->read(from, back.bytes())));
  EXPECT_EQ(back.bytes()[0], std::byte{0});
  EXPECT_TRUE(std::ranges::equal(back.bytes().subspan(kBlock, 3 * kBlock), data.bytes()));
  EXPECT_EQ(back.bytes()[4 * kBlock], std::byte{0});
  EXPECT_EQ(lun.executed(Kind::kWrite), 1u);
  EXPECT_EQ(lun.executed(Kind::kRead), 1u);
  run(device->close());
}

TEST_F(SimulatedDeviceTest, RefusesWhatIsOutsideOrUnaligned) {
  SimulatedLun lun(loop.clock(), random, {});
  auto device = lun.connect(executor, "a");
  IoBuffer buffer(kBlock);
  const std::uint64_t size = device->facts().size_bytes;
  EXPECT_EQ(run(device->read(size, buffer.bytes())).error(), Errc::kBounds);
  EXPECT_EQ(run(device->read(size - 512, buffer.bytes())).error(), Errc::kBounds);
  EXPECT_EQ(run(device->read(~std::uint64_t{0} - 4095, buffer.bytes())).error(), Errc::kBounds);
  EXPECT_EQ(run(device->write(512, buffer.bytes(), Durability::kFua)).error(), Errc::kBounds);
  EXPECT_EQ(run(device->write(0, buffer.bytes().first(512), Durability::kFua)).error(), Errc::kBounds);
  EXPECT_EQ(run(device->unmap(kBlock, size)).error(), Errc::kBounds);
  EXPECT_EQ(run(device->compare_and_write(0, buffer.bytes(), buffer.bytes().first(512))).error(), Errc::kBounds);
}

TEST_F(SimulatedDeviceTest, TakesLatencyOfVirtualTime) {
  SimulatedLun lun(loop.clock(), random, {.latency_min = 1ms, .latency_max = 3ms});
  auto device = lun.connect(executor, "a");
  IoBuffer buffer(kBlock);
  for (int i = 0; i < 20; ++i) {
    const Time before = loop.now();
    ASSERT_TRUE(run(device->read(0, buffer.bytes())));
    EXPECT_GE(loop.now() - before, 1ms);
    EXPECT_LE(loop.now() - before, 3ms);
  }
}

TEST_F(SimulatedDeviceTest, PowerCutKeepsFlushedAndFuaAndAnyImageOfTheRest) {
  std::set<char> seen;
  bool torn = false;
  for (int round = 0; round < 60; ++round) {
    SimulatedLun lun(loop.clock(), random, {});
    auto device = lun.connect(executor, "a");
    ASSERT_TRUE(run(device->write(0, filled('a', 8 * kBlock).bytes(), Durability::kCached)));
    ASSERT_TRUE(run(device->flush()));
    ASSERT_TRUE(run(device->write(8 * kBlock, filled('f').bytes(), Durability::kFua)));
    ASSERT_TRUE(run(device->write(0, filled('b', 8 * kBlock).bytes(), Durability::kCached)));
    ASSERT_TRUE(run(device->write(0, filled('c', 8 * kBlock).bytes(), Durability::kCached)));
    ASSERT_EQ(at(lun, 0), 'c');
    lun.power_cut();
    std::set<char> now;
    for (std::uint64_t block = 0; block < 8; ++block) now.insert(at(lun, block * kBlock));
    torn |= now.size() > 1;
    seen.insert(now.begin(), now.end());
    EXPECT_EQ(at(lun, 8 * kBlock), 'f');
  }
  EXPECT_TRUE(torn);
  EXPECT_EQ(seen, (std::set{'a', 'b', 'c'}));
}

TEST_F(SimulatedDeviceTest, PowerCutKeepsEverythingWithoutAVolatileCache) {
  SimulatedLun lun(loop.clock(), random, {.volatile_cache = false});
  auto device = lun.connect(executor, "a");
  ASSERT_TRUE(run(device->write(0, filled('a', 64 * kBlock).bytes(), Durability::kCached)));
  lun.power_cut();
  for (std::uint64_t block = 0; block < 64; ++block) EXPECT_EQ(at(lun, block * kBlock), 'a');
}

TEST_F(SimulatedDeviceTest, PowerCutTearsWhatIsInFlightAndEveryNexusSeesAReset) {
  SimulatedLun lun(loop.clock(), random, {.volatile_cache = false, .latency_min = 1ms, .latency_max = 1ms});
  auto device = lun.connect(executor, "a");
  auto other = lun.connect(executor, "b");
  const IoBuffer data = filled('x', 64 * kBlock);
  std::optional<Result<>> outcome;
  TaskGroup group(executor);
  group.spawn(into(device->write(0, data.bytes(), Durability::kFua), outcome));
  executor.run_ready();
  lun.power_cut();
  run(group.join());
  EXPECT_EQ(outcome->error(), Errc::kTransport);
  int written = 0;
  for (std::uint64_t block = 0; block < 64; ++block) written += at(lun, block * kBlock) == 'x';
  EXPECT_GT(written, 0);
  EXPECT_LT(written, 64);
  EXPECT_EQ(run(device->flush()).error(), Errc::kUnitAttentionReset);
  EXPECT_EQ(run(other->flush()).error(), Errc::kUnitAttentionReset);
  EXPECT_TRUE(run(device->flush()));
}

TEST_F(SimulatedDeviceTest, CompareAndWriteIsAtomicAndDurable) {
  SimulatedLun lun(loop.clock(), random, {});
  auto a = lun.connect(executor, "a");
  auto b = lun.connect(executor, "b");
  for (char round = 1; round < 100; ++round) {
    const IoBuffer old = filled(static_cast<char>(round - 1));
    const IoBuffer by_a = filled(round);
    const IoBuffer by_b = filled(round);
    std::optional<Result<>> first;
    std::optional<Result<>> second;
    TaskGroup group(executor);
    group.spawn(into(a->compare_and_write(0, old.bytes(), by_a.bytes()), first));
    group.spawn(into(b->compare_and_write(0, old.bytes(), by_b.bytes()), second));
    run(group.join());
    ASSERT_NE(first->has_value(), second->has_value());
    EXPECT_EQ((*first ? *second : *first).error(), Errc::kMiscompare);
    lun.power_cut();
    ASSERT_EQ(at(lun, 0), round);
    EXPECT_EQ(run(a->flush()).error(), Errc::kUnitAttentionReset);
    EXPECT_EQ(run(b->flush()).error(), Errc::kUnitAttentionReset);
  }
}

TEST_F(SimulatedDeviceTest, UnmappedBlocksAreZeroOrGarbageAndZeroedOnesZero) {
  SimulatedLun lun(loop.clock(), random, {});
  auto device = lun.connect(executor, "a");
  ASSERT_TRUE(run(device->write(0, filled('x', 64 * kBlock).bytes(), Durability::kCached)));
  ASSERT_TRUE(run(device->unmap(kBlock, 62 * kBlock)));
  int zero = 0;
  for (std::uint64_t block = 1; block < 63; ++block) zero += at(lun, block * kBlock) == 0;
  EXPECT_GT(zero, 10);
  EXPECT_LT(zero, 52);
  EXPECT_EQ(at(lun, 0), 'x');
  EXPECT_EQ(at(lun, 63 * kBlock), 'x');
  ASSERT_TRUE(run(device->write_zeroes(0, 64 * kBlock)));
  for (std::uint64_t block = 0; block < 64; ++block) EXPECT_EQ(at(lun, block * kBlock), 0);
}

TEST_F(SimulatedDeviceTest, FencedNexusReadsButDoesNotWrite) {
  SimulatedLun lun(loop.clock(), random, {});
  auto a = lun.connect(executor, "a");
  auto b = lun.connect(executor, "b");
  ASSERT_TRUE(run(a->pr_register(PrKey{}, PrKey{1}, Aptpl::kYes)));
  ASSERT_TRUE(run(b->pr_register(PrKey{}, PrKey{2}, Aptpl::kYes)));
  ASSERT_TRUE(run(a->pr_reserve(PrKey{1}, kType7)));
  IoBuffer data = filled('x');
  ASSERT_TRUE(run(b->write(0, data.bytes(), Durability::kFua)));
  ASSERT_TRUE(run(a->pr_preempt_and_abort(PrKey{1}, PrKey{2}, kType7)));

  EXPECT_EQ(run(b->write(0, data.bytes(), Durability::kFua)).error(), Errc::kUnitAttentionReservations);
  EXPECT_EQ(run(b->write(0, data.bytes(), Durability::kFua)).error(), Errc::kReservationConflict);
  EXPECT_EQ(run(b->compare_and_write(0, data.bytes(), data.bytes())).error(), Errc::kReservationConflict);
  EXPECT_EQ(run(b->flush()).error(), Errc::kReservationConflict);
  EXPECT_EQ(run(b->unmap(0, kBlock)).error(), Errc::kReservationConflict);
  EXPECT_EQ(run(b->write_zeroes(0, kBlock)).error(), Errc::kReservationConflict);
  EXPECT_TRUE(run(b->read(0, data.bytes())));
  EXPECT_EQ(run(b->pr_read_keys())->keys, std::vector{PrKey{1}});
  EXPECT_EQ(run(b->pr_read_reservation())->type, kType7);

  lun.power_cut();  // registrations with APTPL stay
  EXPECT_EQ(run(a->pr_read_keys()).error(), Errc::kUnitAttentionReset);
  EXPECT_EQ(run(a->pr_read_keys())->keys, std::vector{PrKey{1}});
}

// A write that is in the backend when its node is fenced may land after PREEMPT AND ABORT, never after a LUN reset.
TEST_F(SimulatedDeviceTest, StragglersLandAfterPreemptButNotAfterReset) {
  int landed_before_reset = 0;
  int landed_late = 0;
  int ended_without_landing = 0;
  for (int round = 0; round < 200; ++round) {
    SimulatedLun lun(loop.clock(), random, {.latency_min = 1ms, .latency_max = 1ms});
    Executor& victim = loop.add_executor();
    BlockDevice* b = kept(lun.connect(victim, "b").release());
    auto a = lun.connect(executor, "a");
    ASSERT_TRUE(run(a->pr_register(PrKey{}, PrKey{1}, Aptpl::kYes)));
    ASSERT_TRUE(loop.run(victim, b->pr_register(PrKey{}, PrKey{2}, Aptpl::kYes)));
    ASSERT_TRUE(run(a->pr_reserve(PrKey{1}, kType7)));

    static const IoBuffer data = filled('x');
    auto* group = kept(new TaskGroup(victim));
    auto* outcome = kept(new std::optional<Result<>>);
    group->spawn(into(b->write(0, data.bytes(), Durability::kFua), *outcome));
    auto preempt = a->pr_preempt_and_abort(PrKey{1}, PrKey{2}, kType7);
    victim.run_ready();
    victim.kill();
    ASSERT_TRUE(run(std::move(preempt)));
    const bool before = at(lun, 0) == 'x';

    ASSERT_TRUE(run(a->reset_lun()));
    const bool at_reset = at(lun, 0) == 'x';
    EXPECT_EQ(run(a->flush()).error(), Errc::kUnitAttentionReset);
    loop.run_for(10s);
    EXPECT_EQ(at(lun, 0) == 'x', at_reset);
    landed_before_reset += before;
    landed_late += !before && at_reset;
    ended_without_landing += !at_reset;
  }
  EXPECT_GT(landed_before_reset, 0);
  EXPECT_GT(landed_late, 0);
  EXPECT_GT(ended_without_landing, 0);
}

TEST_F(SimulatedDeviceTest, AcceptedWriteOfAKilledNodeLands) {
  SimulatedLun lun(loop.clock(), random, {});
  Executor& victim = loop.add_executor();
  BlockDevice* device = kept(lun.connect(victim, "b").release());
  auto* group = kept(new TaskGroup(victim));
  auto* outcome = kept(new std::optional<Result<>>);
  static const IoBuffer data = filled('x');
  group->spawn(into(device->write(0, data.bytes(), Durability::kCached), *outcome));
  victim.run_ready();
  victim.kill();
  EXPECT_EQ(at(lun, 0), 0);
  loop.run_for(1ms);
  EXPECT_EQ(at(lun, 0), 'x');
  EXPECT_FALSE(outcome->has_value());
}

TEST_F(SimulatedDeviceTest, CutPathLeavesTheOutcomeUnknown) {
  int landed = 0;
  for (int round = 0; round < 40; ++round) {
    SimulatedLun lun(loop.clock(), random, {});
    auto device = lun.connect(executor, "a");
    const IoBuffer data = filled('x');
    std::optional<Result<>> outcome;
    TaskGroup group(executor);
    group.spawn(into(device->write(0, data.bytes(), Durability::kCached), outcome));
    executor.run_ready();
    lun.cut_path("a");
    run(group.join());
    EXPECT_EQ(outcome->error(), Errc::kTransport);
    landed += at(lun, 0) == 'x';
    EXPECT_EQ(run(device->write(kBlock, data.bytes(), Durability::kCached)).error(), Errc::kTransport);
    EXPECT_EQ(at(lun, kBlock), 0);
    lun.heal_path("a");
    EXPECT_TRUE(run(device->write(kBlock, data.bytes(), Durability::kCached)));
  }
  EXPECT_GT(landed, 0);
  EXPECT_LT(landed, 40);
}

TEST_F(SimulatedDeviceTest, HookDecidesTheFate) {
  SimulatedLun lun(loop.clock(), random, {});
  auto device = lun.connect(executor, "a");
  SimulatedFate fate = SimulatedFate::kRun;
  lun.set_hook([&](const SimulatedRequest& request) {
    EXPECT_EQ(request.node, "a");
    return request.kind == Kind::kCaw ? fate : SimulatedFate::kRun;
  });
  const IoBuffer zero(kBlock);
  const IoBuffer one = filled(1);
  fate = SimulatedFate::kLoseRequest;
  EXPECT_EQ(run(device->compare_and_write(0, zero.bytes(), one.bytes())).error(), Errc::kTransport);
  EXPECT_EQ(at(lun, 0), 0);
  fate = SimulatedFate::kLoseReply;
  EXPECT_EQ(run(device->compare_and_write(0, zero.bytes(), one.bytes())).error(), Errc::kTransport);
  EXPECT_EQ(at(lun, 0), 1);
  fate = SimulatedFate::kMediumError;
  EXPECT_EQ(run(device->compare_and_write(0, one.bytes(), zero.bytes())).error(), Errc::kMedium);
  fate = SimulatedFate::kThinFull;
  EXPECT_EQ(run(device->compare_and_write(0, one.bytes(), zero.bytes())).error(), Errc::kThinFull);
  EXPECT_EQ(at(lun, 0), 1);
  EXPECT_EQ(lun.executed(Kind::kCaw), 1u);
}

TEST_F(SimulatedDeviceTest, HookMayCutThePower) {
  SimulatedLun lun(loop.clock(), random, {});
  auto device = lun.connect(executor, "a");
  lun.set_hook([&](const SimulatedRequest&) {
    lun.power_cut();
    return SimulatedFate::kRun;
  });
  const IoBuffer data = filled('x');
  EXPECT_EQ(run(device->write(0, data.bytes(), Durability::kFua)).error(), Errc::kTransport);
  lun.set_hook({});
  EXPECT_EQ(run(device->flush()).error(), Errc::kUnitAttentionReset);
}

TEST_F(SimulatedDeviceTest, EvictionWaitsForTheVictimsCommandsOnly) {
  int landed = 0;
  for (int round = 0; round < 40; ++round) {
    SimulatedLun lun(loop.clock(), random, {.sessions = true, .stall_one_in = 1, .stall_max = 2s});
    auto a = lun.connect(executor, "a");
    auto b = lun.connect(executor, "b");
    const IoBuffer data = filled('x');
    std::optional<Result<>> outcome;
    TaskGroup group(executor);
    group.spawn(into(b->write(0, data.bytes(), Durability::kCached), outcome));
    executor.run_ready();
    ASSERT_TRUE(run(a->evict("b", 0)));
    const char after = at(lun, 0);
    landed += after == 'x';
    run(group.join());
    EXPECT_FALSE(outcome->has_value());
    EXPECT_EQ(at(lun, 0), after);
    EXPECT_TRUE(run(a->flush()));
    EXPECT_EQ(run(b->flush()).error(), Errc::kUnitAttentionReset);
  }
  EXPECT_GT(landed, 0);
  EXPECT_LT(landed, 40);
}

TEST_F(SimulatedDeviceTest, TargetsThatLackSomethingSaySo) {
  SimulatedLun plain(loop.clock(), random, {.compare_and_write = false, .reservations = false});
  auto device = plain.connect(executor, "a");
  const IoBuffer data(kBlock);
  EXPECT_EQ(run(device->compare_and_write(0, data.bytes(), data.bytes())).error(), Errc::kUnsupported);
  EXPECT_EQ(run(device->pr_read_keys()).error(), Errc::kUnsupported);
  EXPECT_EQ(run(device->evict("b", 0)).error(), Errc::kUnsupported);

  SimulatedLun old(loop.clock(), random, {.persist_reservations = false, .all_registrants = false});
  auto second = old.connect(executor, "a");
  EXPECT_EQ(run(second->pr_register(PrKey{}, PrKey{1}, Aptpl::kYes)).error(), Errc::kUnsupported);
  EXPECT_TRUE(run(second->pr_register(PrKey{}, PrKey{1}, Aptpl::kNo)));
  EXPECT_EQ(run(second->pr_reserve(PrKey{1}, kType7)).error(), Errc::kUnsupported);
  EXPECT_TRUE(run(second->pr_reserve(PrKey{1}, ReservationType::kWriteExclusiveRegistrants)));
  old.power_cut();
  EXPECT_FALSE(run(second->flush()));
  EXPECT_TRUE(run(second->pr_read_keys())->keys.empty());

  SimulatedLun fixed(loop.clock(), random, {.write_protected = true});
  EXPECT_EQ(run(fixed.connect(executor, "a")->write(0, data.bytes(), Durability::kFua)).error(), Errc::kReadOnly);
}

}  // namespace
}  // namespace cawfs
