#include "core/device/probe.h"

#include <gtest/gtest.h>

#include "core/device/forwarding_device.h"
#include "core/device/io_buffer.h"
#include "core/device/simulated_device.h"
#include "core/runtime/task_group.h"
#include "core/runtime/virtual_loop.h"

namespace cawfs {
namespace {

constexpr std::uint64_t kScratch = 1 << 20;
constexpr PrKey kKey{0x11};
constexpr PrKey kSecondKey{0x22};

// COMPARE AND WRITE as a read, a comparison and a write: what some targets make of it.
class NotAtomic final : public ForwardingDevice {
 public:
  using ForwardingDevice::ForwardingDevice;
  Task<Result<>> compare_and_write(std::uint64_t offset, std::span<const std::byte> expected,
                                   std::span<const std::byte> data) override {
    IoBuffer present(facts().logical_block);
    const Result<> done = co_await device().read(offset, present.bytes());
    if (!done) co_return done;
    if (!std::ranges::equal(present.bytes(), expected)) co_return fail(Errc::kMiscompare);
    const Result<> written = co_await device().write(offset, data, Durability::kFua);
    co_return written;
  }
};

class NotComparing final : public ForwardingDevice {
 public:
  using ForwardingDevice::ForwardingDevice;
  Task<Result<>> compare_and_write(std::uint64_t offset, std::span<const std::byte> /*expected*/,
                                   std::span<const std::byte> data) override {
    return device().write(offset, data, Durability::kFua);
  }
};

class NotPreempting final : public ForwardingDevice {
 public:
  using ForwardingDevice::ForwardingDevice;
  Task<Result<>> pr_preempt_and_abort(PrKey, PrKey, ReservationType) override { co_return Result<>{}; }
};

struct Probe : ::testing::Test {
  explicit Probe(SimulatedLunOptions options = {}) : lun(loop.clock(), random, options) {
    first = lun.connect(executor, "first");
    second = lun.connect(executor, "second");
  }
  ~Probe() override {
    EXPECT_EQ(lun.refused_caws(), 0u);
    loop.run(executor, first->close());
    loop.run(executor, second->close());
  }
  Result<> caw(BlockDevice& one, BlockDevice& two) {
    return loop.run(executor, probe_compare_and_write(executor, random, one, two, kScratch));
  }
  void reserve() {
    ASSERT_TRUE(loop.run(executor, first->pr_register_ignore(kKey, Aptpl::kYes)));
    ASSERT_TRUE(loop.run(executor, first->pr_reserve(kKey, ReservationType::kWriteExclusiveAllRegistrants)));
  }
  Result<> reservations(BlockDevice& one) {
    ReservationProbe probe;
    probe.key = kKey;
    probe.second_key = kSecondKey;
    probe.scratch = kScratch;
    probe.plain_scratch = kScratch + kBlockSize;
    return loop.run(executor, probe_reservations(one, *second, probe));
  }

  SeededRandom random{5};
  VirtualLoop loop;
  Executor& executor = loop.add_executor();
  SimulatedLun lun;
  std::unique_ptr<BlockDevice> first;
  std::unique_ptr<BlockDevice> second;
};

TEST_F(Probe, AcceptsAGoodDevice) {
  EXPECT_TRUE(caw(*first, *second));
  EXPECT_TRUE(caw(*first, *first));
  reserve();
  EXPECT_TRUE(reservations(*first));
  const auto keys = loop.run(executor, first->pr_read_keys());
  EXPECT_EQ(keys->keys, std::vector{kKey});
}

Task<void> probe_in_group(Executor& executor, Random& random, BlockDevice& one, BlockDevice& two, Result<>& out) {
  out = co_await probe_compare_and_write(executor, random, one, two, kScratch);
}

TEST_F(Probe, SeveralNodesMayProbeAtOnce) {
  const auto third = lun.connect(executor, "third");
  const auto fourth = lun.connect(executor, "fourth");
  std::array<Result<>, 2> results;
  TaskGroup group(executor);
  group.spawn(probe_in_group(executor, random, *first, *second, results[0]));
  group.spawn(probe_in_group(executor, random, *third, *fourth, results[1]));
  loop.run(executor, group.join());
  EXPECT_TRUE(results[0]);
  EXPECT_TRUE(results[1]);
  loop.run(executor, third->close());
  loop.run(executor, fourth->close());
}

TEST_F(Probe, BesideOthersItOnlyRaces) {
  const auto third = lun.connect(executor, "third");
  ReservationProbe probe;
  probe.key = kKey;
  probe.second_key = kSecondKey;
  probe.scratch = kScratch;
  probe.plain_scratch = kScratch + kBlockSize;
  reserve();
  for (const bool alone : {true, false}) {
    if (!alone) ASSERT_TRUE(loop.run(executor, third->pr_register_ignore(PrKey{0x33}, Aptpl::kYes)));
    const std::uint64_t writes = lun.executed(SimulatedRequest::Kind::kWrite);
    const auto proved = loop.run(executor, probe_beside_others(executor, random, *first, *second, probe));
    ASSERT_TRUE(proved) << describe(proved.error().code);
    EXPECT_EQ(lun.executed(SimulatedRequest::Kind::kWrite) > writes, alone);
    EXPECT_EQ(lun.registered_keys().keys.size(), alone ? 1u : 2u);
    // Registrations outlive a power loss as before.
    lun.power_cut();
    EXPECT_EQ(lun.registered_keys().keys.size(), alone ? 1u : 2u);
    IoBuffer block(kBlockSize);
    for (BlockDevice* device : {first.get(), third.get()})
      static_cast<void>(loop.run(executor, device->read(0, block.bytes())));
  }
  loop.run(executor, third->close());
}

// A target that is atomic within a session only: one session alone cannot tell.
TEST_F(Probe, BesideOthersFindsWhatIsNotAtomic) {
  reserve();
  NotAtomic one(*first);
  NotAtomic two(*second);
  ReservationProbe probe;
  probe.key = kKey;
  probe.second_key = kSecondKey;
  probe.scratch = kScratch;
  probe.plain_scratch = kScratch + kBlockSize;
  const auto result = loop.run(executor, probe_beside_others(executor, random, one, two, probe));
  ASSERT_FALSE(result);
  EXPECT_STREQ(result.error().where, "COMPARE AND WRITE is not atomic between two sessions");
  EXPECT_EQ(lun.registered_keys().keys, std::vector{kKey});
}

TEST_F(Probe, FindsACompareAndWriteThatIsNotAtomic) {
  NotAtomic one(*first);
  NotAtomic two(*second);
  const auto result = caw(one, two);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, Errc::kUnsupported);
}

TEST_F(Probe, FindsACompareAndWriteThatDoesNotCompare) {
  NotComparing one(*first);
  const auto result = caw(one, one);
  ASSERT_FALSE(result);
  EXPECT_STREQ(result.error().where, "COMPARE AND WRITE does not compare");
}

TEST_F(Probe, FindsReservationsThatRefuseNobody) {
  const auto result = reservations(*first);  // none was made
  ASSERT_FALSE(result);
  EXPECT_STREQ(result.error().where, "the device takes writes of a session that is not registered");
}

TEST_F(Probe, FindsAPreemptThatDoesNothing) {
  reserve();
  NotPreempting one(*first);
  const auto result = reservations(one);
  ASSERT_FALSE(result);
  EXPECT_STREQ(result.error().where, "the device takes writes of a session that was preempted");
}

struct NoCaw : Probe {
  static SimulatedLunOptions options() {
    SimulatedLunOptions options;
    options.compare_and_write = false;
    return options;
  }
  NoCaw() : Probe(options()) {}
};

TEST_F(NoCaw, IsRefused) {
  EXPECT_EQ(caw(*first, *second).error().code, Errc::kUnsupported);
}

}  // namespace
}  // namespace cawfs
