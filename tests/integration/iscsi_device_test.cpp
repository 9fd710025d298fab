// The iSCSI device against a real target: data, COMPARE AND WRITE, reservations, eviction, reset, and a connection
// lost.

#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "core/base/random.h"
#include "core/device/io_buffer.h"
#include "core/device/iscsi_transport.h"
#include "core/device/scsi_device.h"
#include "tests/integration/lio_lab.h"

namespace cawfs {
namespace {

using namespace std::chrono_literals;

constexpr auto kType7 = ReservationType::kWriteExclusiveAllRegistrants;

Task<bool> shut(std::unique_ptr<BlockDevice> device) {
  co_await device->close();
  co_return true;
}

class OnATarget : public ::testing::Test {
 protected:
  void use(test::LioLab& lab) {
    lab_ = &lab;
    lab_->enter_host(1);
    reactor_ = std::move(*Reactor::make());
  }

  std::unique_ptr<BlockDevice> connect(const std::string& node, Duration timeout = 10s) {
    IscsiOptions options{lab_->url(), "iqn.2026-11.cawfs.test:" + node, timeout, 90s};
    auto transport = reactor_->run(open_iscsi_transport(*reactor_, *log_, options));
    if (!transport) ADD_FAILURE() << describe(transport.error().code);
    auto device = reactor_->run(open_scsi_device(reactor_->executor(), *log_, std::move(*transport)));
    if (!device) ADD_FAILURE() << describe(device.error().code) << " " << device.error().where;
    return std::move(*device);
  }
  void close(std::unique_ptr<BlockDevice> device) { reactor_->run(shut(std::move(device))); }
  template <class T>
  T run(Task<T> task) {
    return reactor_->run(std::move(task));
  }
  // Unit attentions that wait are taken note of.
  void clear_attentions(BlockDevice& device) {
    IoBuffer block(kBlockSize);
    while (!run(device.read(0, block.bytes()))) {
    }
  }

  test::LioLab* lab_ = nullptr;
  std::unique_ptr<Log> log_ = stderr_log("iscsi_device_test", LogLevel::kInfo);
  std::unique_ptr<Reactor> reactor_;
};

// One target for each logical block size, for all tests; each test leaves it without registrations.
class IscsiDeviceTest : public OnATarget, public ::testing::WithParamInterface<std::uint32_t> {
 protected:
  static void TearDownTestSuite() { labs_.clear(); }
  void SetUp() override {
    auto& lab = labs_[GetParam()];
    if (!lab) {
      lab = std::make_unique<test::LioLab>(
          std::vector<std::string>{"--size 256M", "--block " + std::to_string(GetParam()), "--hosts 1"});
    }
    use(*lab);
  }

  inline static std::map<std::uint32_t, std::unique_ptr<test::LioLab>> labs_;
};

IoBuffer filled(std::size_t size, std::uint64_t seed) {
  IoBuffer buffer(size);
  SeededRandom random(seed);
  for (auto& byte : buffer.bytes()) byte = static_cast<std::byte>(random.next());
  return buffer;
}

TEST_P(IscsiDeviceTest, FactsDataAndCompareAndWrite) {
  auto device = connect("a");
  const DeviceFacts& facts = device->facts();
  EXPECT_EQ(facts.size_bytes, 256u << 20);
  EXPECT_EQ(facts.logical_block, GetParam());
  EXPECT_TRUE(facts.compare_and_write);
  EXPECT_TRUE(facts.reservations);
  EXPECT_FALSE(facts.write_protected);

  const IoBuffer data = filled(4 << 20, 1);
  ASSERT_TRUE(run(device->write(1 << 20, data.bytes(), Durability::kFua)));
  IoBuffer back(data.size());
  ASSERT_TRUE(run(device->read(1 << 20, back.bytes())));
  EXPECT_EQ(std::memcmp(data.data(), back.data(), data.size()), 0);
  EXPECT_TRUE(run(device->flush()));
  EXPECT_EQ(run(device->read(facts.size_bytes, back.bytes())).error(), Errc::kBounds);

  ASSERT_TRUE(run(device->write_zeroes(2 << 20, 1 << 20)));
  ASSERT_TRUE(run(device->read(1 << 20, back.bytes())));
  const IoBuffer zeroes(1 << 20);
  EXPECT_EQ(std::memcmp(back.data() + (1 << 20), zeroes.data(), zeroes.size()), 0);
  EXPECT_EQ(std::memcmp(back.data(), data.data(), 1 << 20), 0);

  const std::size_t block = facts.logical_block;
  const IoBuffer one = filled(block, 2);
  const IoBuffer two = filled(block, 3);
  ASSERT_TRUE(run(device->write(0, one.bytes(), Durability::kFua)));
  EXPECT_EQ(run(device->compare_and_write(0, two.bytes(), one.bytes())).error(), Errc::kMiscompare);
  EXPECT_TRUE(run(device->compare_and_write(0, one.bytes(), two.bytes())));
  ASSERT_TRUE(run(device->read(0, back.bytes().first(block))));
  EXPECT_EQ(std::memcmp(back.data(), two.data(), block), 0);
  close(std::move(device));
}

TEST_P(IscsiDeviceTest, PreemptedNodeCannotWriteAndEvictionAndResetAreAnswered) {
  auto a = connect("a");
  auto b = connect("b");
  const PrKey key_a{0xa};
  const PrKey key_b{0xb};
  ASSERT_TRUE(run(a->pr_register_ignore(key_a, Aptpl::kYes)));
  ASSERT_TRUE(run(b->pr_register_ignore(key_b, Aptpl::kYes)));
  ASSERT_TRUE(run(a->pr_reserve(key_a, kType7)));
  auto reservation = run(b->pr_read_reservation());
  ASSERT_TRUE(reservation);
  EXPECT_EQ(reservation->type, kType7);
  EXPECT_EQ(run(b->pr_read_keys())->keys.size(), 2u);

  const IoBuffer data = filled(kBlockSize, 4);
  ASSERT_TRUE(run(a->write(0, data.bytes(), Durability::kFua)));
  ASSERT_TRUE(run(b->pr_preempt_and_abort(key_b, key_a, kType7)));
  EXPECT_EQ(run(b->pr_preempt_and_abort(key_b, key_a, kType7)).error(), Errc::kReservationConflict);
  ASSERT_TRUE(run(b->evict(a->facts().initiator_name, a->facts().isid)));
  ASSERT_TRUE(run(b->reset_lun()));
  clear_attentions(*a);
  clear_attentions(*b);
  EXPECT_EQ(run(b->pr_read_keys())->keys, std::vector{key_b});
  EXPECT_EQ(run(a->write(0, data.bytes(), Durability::kFua)).error(), Errc::kReservationConflict);
  EXPECT_TRUE(run(b->write(0, data.bytes(), Durability::kFua)));
  EXPECT_TRUE(run(b->pr_clear(key_b)));
  close(std::move(a));
  close(std::move(b));
}

TEST_P(IscsiDeviceTest, ALostPathEndsCommandsAndComesBackWithTheSameRegistration) {
  auto device = connect("a", 1s);
  const PrKey key{0xa};
  ASSERT_TRUE(run(device->pr_register_ignore(key, Aptpl::kYes)));
  ASSERT_TRUE(run(device->pr_reserve(key, kType7)));
  const IoBuffer data = filled(kBlockSize, 5);
  ASSERT_TRUE(run(device->write(0, data.bytes(), Durability::kFua)));

  lab_->run("cut", "1");
  EXPECT_EQ(run(device->write(0, data.bytes(), Durability::kFua)).error(), Errc::kTransport);
  lab_->run("heal", "1");

  Result<> result;
  do {
    result = run(device->write(0, data.bytes(), Durability::kFua));
  } while (!result && result.error() != Errc::kReservationConflict);
  EXPECT_TRUE(result) << "the registration is gone";
  EXPECT_TRUE(run(device->pr_clear(key)));
  close(std::move(device));
}

Task<bool> pass_time(Executor& executor, Duration duration) {
  co_await executor.sleep(duration);
  co_return true;
}

class SlowTarget : public OnATarget {
 protected:
  void SetUp() override { use(lab); }
  test::LioLab lab{{"--size 64M", "--block 4096", "--hosts 1", "--write-delay 1500"}};
};

TEST_F(SlowTarget, KeepsItsSessionUntilThePathIsQuiet) {
  constexpr Duration kCommandTimeout = 60s;
  constexpr Duration kPathTimeout = 3s;
  auto device = connect("a", kCommandTimeout);
  device->set_path_timeout(kPathTimeout);
  const std::uint64_t session = device->session();
  const IoBuffer data = filled(kBlockSize, 6);
  EXPECT_TRUE(run(device->write(0, data.bytes(), Durability::kFua)));
  run(pass_time(reactor_->executor(), kPathTimeout + 500ms));  // nobody asks for anything
  EXPECT_EQ(device->session(), session);

  lab.run("cut", "1");
  const Time cut = reactor_->executor().now();
  EXPECT_EQ(run(device->write(0, data.bytes(), Durability::kFua)).error(), Errc::kTransport);
  EXPECT_LT(reactor_->executor().now() - cut, kCommandTimeout / 2);
  lab.run("heal", "1");
  while (!run(device->write(0, data.bytes(), Durability::kFua))) {
  }
  EXPECT_GT(device->session(), session);
  close(std::move(device));
}

INSTANTIATE_TEST_SUITE_P(LogicalBlock, IscsiDeviceTest, ::testing::Values(512u, 4096u));

}  // namespace
}  // namespace cawfs
