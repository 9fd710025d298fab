// ScsiDevice over a transport that answers what a test says.
#include "core/device/scsi_device.h"

#include <gtest/gtest.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/device/io_buffer.h"
#include "core/device/scsi_patience.h"
#include "core/device/scsi_transport.h"
#include "core/device/settled_io.h"
#include "core/runtime/virtual_loop.h"

namespace cawfs {
namespace {

using namespace std::chrono_literals;

constexpr std::uint8_t kRead16 = 0x88;
constexpr std::uint8_t kWrite16 = 0x8a;
constexpr std::uint8_t kCompareAndWrite = 0x89;
constexpr std::uint8_t kSynchronizeCache16 = 0x91;
constexpr ScsiStatus kBackendFailure{kScsiCheckCondition, 0x2, 0x0800, 0};
constexpr ScsiStatus kBecomingReady{kScsiCheckCondition, 0x2, 0x0401, 0};
constexpr ScsiStatus kNoSuchUnit{kScsiCheckCondition, 0x5, 0x2500, 0};

// A disk of 1 MiB without contents.
class ScriptedTransport final : public ScsiTransport {
 public:
  explicit ScriptedTransport(Executor& executor) : executor_(executor) {}
  Task<Result<ScsiStatus>> execute(ScsiCommand& command) override {
    co_await executor_.sleep(1ms);
    if (answer) co_return answer(command);
    co_return describe_disk(command);
  }
  Task<Result<>> reset_lun() override { co_return Result<>{}; }
  Task<Result<>> evict(std::string, std::uint64_t) override { co_return Result<>{}; }
  Task<void> close() override { co_return; }
  std::string initiator_name() const override { return "iqn.test"; }
  std::uint64_t isid() const override { return 1; }
  std::uint64_t session() const override { return 1; }
  void set_path_timeout(Duration /*timeout*/) override {}

  std::function<ScsiStatus(const ScsiCommand&)> answer;

 private:
  ScsiStatus describe_disk(const ScsiCommand& command) {
    if (command.direction != ScsiDirection::kIn) return {};
    auto* reply = static_cast<std::uint8_t*>(command.data[0].iov_base);
    if (command.cdb[0] == 0x9e) {  // READ CAPACITY: 256 blocks of 4096 bytes
      reply[7] = 255;
      reply[10] = 0x10;
    }
    if (command.cdb[0] == 0x5a) {  // MODE SENSE: FUA, and a volatile cache
      reply[3] = 0x10;
      reply[8] = 0x08;
      reply[10] = 0x04;
    }
    if (command.cdb[0] == 0x12 && command.cdb[2] == 0xb0) reply[5] = 1;  // COMPARE AND WRITE
    return {};
  }

  Executor& executor_;
};

class KeptMessages final : public Log {
 public:
  bool enabled(LogLevel /*level*/) const override { return true; }
  void write(LogLevel /*level*/, std::string_view message) override { lines.emplace_back(message); }
  std::vector<std::string> lines;
};

struct ScsiDeviceTest : ::testing::Test {
  ScsiDeviceTest() {
    auto made = std::make_unique<ScriptedTransport>(executor);
    transport = made.get();
    device = *loop.run(executor, open_scsi_device(executor, log, std::move(made)));
    io.emplace(executor, *device, stop);
  }
  ~ScsiDeviceTest() override { loop.run(executor, device->close()); }
  void answer_for(Duration time, std::uint8_t operation, ScsiStatus status) {
    transport->answer = [=, this, until = loop.now() + time](const ScsiCommand& command) {
      ++sent;
      return command.cdb[0] == operation && loop.now() < until ? status : ScsiStatus{};
    };
  }
  Result<> write() { return loop.run(executor, io->write(4096, block.bytes(), Durability::kFua)); }

  VirtualLoop loop;
  Executor& executor = loop.add_executor();
  KeptMessages log;
  ScriptedTransport* transport = nullptr;
  std::unique_ptr<BlockDevice> device;
  StopSource stop{executor};
  std::optional<SettledIo> io;  // tries again what may pass
  IoBuffer block{4096};
  int sent = 0;
};

// LIO's answer where its backend fails an I/O, full or broken: tried again for a while, then told.
TEST_F(ScsiDeviceTest, AnIoThatTheBackendKeepsFailingIsAMediumError) {
  answer_for(1h, kWrite16, kBackendFailure);
  const Time begun = loop.now();
  const Result<> done = write();
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error(), Errc::kMedium);
  EXPECT_GE(loop.now() - begun, ScsiPatience::kPatience);
  EXPECT_LT(loop.now() - begun, ScsiPatience::kPatience + 2s);
  std::vector<std::byte> out(4096);
  EXPECT_TRUE(loop.run(executor, io->read(4096, out)));
  EXPECT_EQ(log.lines.size(), 1u);
}

TEST_F(ScsiDeviceTest, EveryKindOfRequestEndsSo) {
  std::vector<std::byte> out(4096);
  answer_for(1h, kRead16, kBackendFailure);
  EXPECT_EQ(loop.run(executor, io->read(0, out)).error(), Errc::kMedium);
  answer_for(1h, kSynchronizeCache16, kBackendFailure);
  EXPECT_EQ(loop.run(executor, io->flush()).error(), Errc::kMedium);
  answer_for(1h, kCompareAndWrite, kBackendFailure);
  const Time begun = loop.now();
  Result<> done = fail(Errc::kTransport, "not sent yet");
  while (done.error() == Errc::kTransport && loop.now() - begun < 1h) {  // as CawEditor settles it
    done = loop.run(executor, device->compare_and_write(0, block.bytes(), block.bytes()));
    ASSERT_FALSE(done);
    loop.run_for(50ms);
  }
  EXPECT_EQ(done.error(), Errc::kMedium);
}

TEST_F(ScsiDeviceTest, ABackendThatRecoversInTimeIsNoError) {
  answer_for(ScsiPatience::kPatience - 1s, kWrite16, kBackendFailure);
  EXPECT_TRUE(write());
  answer_for(ScsiPatience::kPatience - 1s, kWrite16, kBackendFailure);  // counts anew
  EXPECT_TRUE(write());
}

// Nobody has the storage: everybody waits, as long as it takes.
TEST_F(ScsiDeviceTest, AnAbsentUnitIsWaitedFor) {
  for (const ScsiStatus absent : {kBecomingReady, kNoSuchUnit}) {
    const Time begun = loop.now();
    sent = 0;
    log.lines.clear();
    answer_for(10min, kWrite16, absent);
    EXPECT_TRUE(write());
    EXPECT_GE(loop.now() - begun, 10min);
    EXPECT_GT(sent, 10);
    EXPECT_EQ(log.lines.size(), 2u);  // gone, and back
  }
}

// An old failure of a request that nobody tried again says nothing about the next one.
TEST(ScsiPatienceTest, WhatIsTriedMuchLaterCountsAnew) {
  KeptMessages log;
  ScsiPatience patience(log);
  const ScsiCommand command;
  EXPECT_EQ(patience.judge(command, kBackendFailure, Time{1s}).error(), Errc::kTransport);
  EXPECT_EQ(patience.judge(command, kBackendFailure, Time{1h}).error(), Errc::kTransport);
  EXPECT_EQ(patience.judge(command, kBackendFailure, Time{1h + 29s}).error(), Errc::kTransport);
  EXPECT_EQ(patience.judge(command, kBackendFailure, Time{1h + 30s}).error(), Errc::kMedium);
}

}  // namespace
}  // namespace cawfs
