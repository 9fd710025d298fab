#include "utils/mkfs/mkfs.h"

#include <gtest/gtest.h>

#include <cstring>

#include "core/device/simulated_device.h"
#include "core/format/cluster_verify.h"
#include "core/format/superblock_io.h"
#include "core/runtime/task_group.h"
#include "core/runtime/virtual_loop.h"
#include "utils/common/messages.h"
#include "utils/mkfs/arguments.h"

namespace cawfs {
namespace {

constexpr auto kType = ReservationType::kWriteExclusiveAllRegistrants;

class MemoryLog final : public Log {
 public:
  bool enabled(LogLevel /*level*/) const override { return true; }
  void write(LogLevel /*level*/, std::string_view message) override { text += std::string(message) + "\n"; }
  std::string text;
};

struct Mkfs : ::testing::Test {
  explicit Mkfs(SimulatedLunOptions options = {}) : lun(loop.clock(), random, options) {
    device = lun.connect(executor, "mkfs");
    second = lun.connect(executor, "probe");
    node = lun.connect(executor, "node");
  }
  ~Mkfs() override {
    for (auto* one : {device.get(), second.get(), node.get()}) loop.run(executor, one->close());
  }
  Result<format::Superblock> make(bool force = false, MakeOptions options = {}) {
    const MkfsParts parts{executor, *device, second.get(), random, log};
    MkfsOptions all;
    all.make = std::move(options);
    all.force = force;
    return loop.run(executor, run_mkfs(parts, std::move(all)));
  }
  // As a node that is not registered; past unit attentions.
  Result<> write_as_node() {
    std::vector<std::byte> block(kBlockSize);
    Result<> written;
    do {
      written = loop.run(executor, node->write(0, block, Durability::kCached));
    } while (!written && error_class(written.error().code) == ErrorClass::kRetry);
    return written;
  }
  Result<format::Superblock> superblock() { return loop.run(executor, read_superblock(*device)); }
  void put(std::uint64_t offset, std::string_view text) {
    std::vector<std::byte> block(kBlockSize);
    lun.peek(offset / kBlockSize * kBlockSize, block);
    std::memcpy(block.data() + offset % kBlockSize, text.data(), text.size());
    lun.poke(offset / kBlockSize * kBlockSize, block);
  }

  SeededRandom random{3};
  VirtualLoop loop;
  Executor& executor = loop.add_executor();
  SimulatedLun lun;
  std::unique_ptr<BlockDevice> device;
  std::unique_ptr<BlockDevice> second;
  std::unique_ptr<BlockDevice> node;
  MemoryLog log;
};

TEST_F(Mkfs, LeavesAFileSystemUnderAReservationThatShutsOthersOut) {
  ASSERT_TRUE(make()) << log.text;
  EXPECT_TRUE(superblock());
  EXPECT_EQ(loop.run(executor, device->pr_read_keys())->keys.size(), 1u);
  EXPECT_EQ(loop.run(executor, device->pr_read_reservation())->type, kType);
  EXPECT_EQ(write_as_node().error(), Errc::kReservationConflict);
}

TEST_F(Mkfs, RefusesAnOldFileSystemUnlessForced) {
  const auto first = make();
  ASSERT_TRUE(first);
  EXPECT_EQ(make().error().code, Errc::kExists);
  EXPECT_EQ(superblock()->uuid, first->uuid);
  EXPECT_TRUE(make(true));
  EXPECT_NE(superblock()->uuid, first->uuid);
}

TEST_F(Mkfs, RefusesADamagedOldFileSystem) {
  ASSERT_TRUE(make());
  put(format::kSuperblockBlock * kBlockSize + 200, "damage");
  EXPECT_EQ(make().error().code, Errc::kExists);
}

TEST_F(Mkfs, RefusesWhatLibblkidKnows) {
  put(510, "\x55\xaa");  // a DOS partition table with one entry
  put(446, std::string_view("\x80\x01\x01\x00\x83\xfe\xff\xff\x3f\x00\x00\x00\x00\x10\x00\x00", 16));
  EXPECT_EQ(make().error().code, Errc::kExists);
  EXPECT_NE(log.text.find("partition table"), std::string::npos) << log.text;
  EXPECT_TRUE(make(true));
}

Task<void> beat(Mkfs& test, Geometry geometry, StopSource& stop) {
  for (std::uint64_t counter = 1; !stop.requested(); ++counter) {
    format::Heartbeat heartbeat{};
    heartbeat.counter = counter;
    std::vector<std::byte> block(geometry.logical_block);
    std::memcpy(block.data(), &heartbeat, sizeof(heartbeat));
    const std::uint64_t offset = geometry.heartbeat_offset(SlotNo{0});
    format::seal_heartbeat_block(block, offset, geometry.fs_id);
    test.lun.poke(offset, block);
    co_await stop.sleep(std::chrono::seconds(1));
  }
}

TEST_F(Mkfs, RefusesALiveFileSystem) {
  const Geometry geometry = make_geometry(*make());
  std::vector<std::byte> block(geometry.logical_block);
  const std::uint64_t offset = geometry.slot_record_offset(SlotNo{0});
  lun.peek(offset, block);
  auto& record = *reinterpret_cast<format::SlotRecord*>(block.data());
  record.state = static_cast<std::uint8_t>(format::SlotState::kActive);
  record.incarnation = 4;
  std::memcpy(record.host_name.data(), "alpha", 5);
  format::seal_slot_record(block, offset, geometry.fs_id);
  lun.poke(offset, block);
  StopSource stop(executor);
  TaskGroup group(executor);
  group.spawn(beat(*this, geometry, stop));
  const auto refused = make();
  stop.request();
  loop.run(executor, group.join());
  EXPECT_EQ(refused.error().code, Errc::kLive);
  EXPECT_NE(log.text.find("alpha"), std::string::npos) << log.text;
}

TEST_F(Mkfs, PreemptsTheKeysOfAnOldCluster) {
  ASSERT_TRUE(loop.run(executor, node->pr_register_ignore(PrKey{0x77}, Aptpl::kYes)));
  ASSERT_TRUE(loop.run(executor, node->pr_reserve(PrKey{0x77}, kType)));
  EXPECT_EQ(make().error().code, Errc::kForeignReservation);
  ASSERT_TRUE(make(true)) << log.text;
  const auto keys = loop.run(executor, device->pr_read_keys())->keys;
  ASSERT_EQ(keys.size(), 1u);
  EXPECT_NE(keys[0], PrKey{0x77});
  EXPECT_EQ(write_as_node().error(), Errc::kReservationConflict);
}

TEST_F(Mkfs, ThatFailsLeavesNoReservationThatWasNotThere) {
  lun.set_hook([](const SimulatedRequest& request) {
    return request.kind == SimulatedRequest::Kind::kWrite ? SimulatedFate::kMediumError : SimulatedFate::kRun;
  });
  EXPECT_FALSE(make());
  EXPECT_EQ(loop.run(executor, device->pr_read_reservation())->type, ReservationType::kNone);

  ASSERT_TRUE(loop.run(executor, node->pr_register_ignore(PrKey{0x77}, Aptpl::kYes)));
  ASSERT_TRUE(loop.run(executor, node->pr_reserve(PrKey{0x77}, kType)));
  EXPECT_FALSE(make(true));
  EXPECT_EQ(loop.run(executor, device->pr_read_reservation())->type, kType);
}

TEST_F(Mkfs, TellsTheMinimumSize) {
  MakeOptions options;
  options.slots = 64;
  options.journal_blocks = 4096;
  EXPECT_EQ(make(false, options).error().code, Errc::kNoSpace);
  EXPECT_NE(log.text.find("at least"), std::string::npos) << log.text;
}

template <int Which>
struct Lacking : Mkfs {
  static SimulatedLunOptions options() {
    SimulatedLunOptions options;
    if (Which == 0) options.compare_and_write = false;
    if (Which == 1) options.reservations = false;
    if (Which == 2) options.all_registrants = false;
    if (Which == 3) options.write_protected = true;
    if (Which == 4) options.persist_reservations = false;
    return options;
  }
  Lacking() : Mkfs(options()) {}
};

using NoCaw = Lacking<0>;
using NoReservations = Lacking<1>;
using NoAllRegistrants = Lacking<2>;
using WriteProtected = Lacking<3>;
using NoAptpl = Lacking<4>;

TEST_F(NoCaw, IsRefusedButForLocalUse) {
  EXPECT_EQ(make().error().code, Errc::kUnsupported);
  MakeOptions options;
  options.clustered = false;
  ASSERT_TRUE(make(false, options));
  EXPECT_EQ(superblock()->incompat.value(), 0u);
}

TEST_F(NoReservations, IsRefused) {
  EXPECT_EQ(make().error().code, Errc::kUnsupported);
  EXPECT_EQ(superblock().error().code, Errc::kBadMagic);
}

TEST_F(NoAllRegistrants, IsRefused) {
  EXPECT_EQ(make().error().code, Errc::kUnsupported);
}

TEST_F(WriteProtected, IsRefused) {
  EXPECT_EQ(make().error().code, Errc::kReadOnly);
}

TEST_F(NoAptpl, WarnsOnly) {
  EXPECT_TRUE(make()) << log.text;
  EXPECT_NE(log.text.find("APTPL"), std::string::npos);
}

TEST(MkfsArguments, Sizes) {
  EXPECT_EQ(parse_size("4096"), 4096u);
  EXPECT_EQ(parse_size("3k"), 3072u);
  EXPECT_EQ(parse_size("2T"), std::uint64_t{2} << 40);
  for (const char* wrong : {"", "K", "1KB", "1.5G", "-1", "99999999999999T", "1X"}) EXPECT_FALSE(parse_size(wrong));
}

ParsedMkfs parse(std::vector<const char*> words) {
  words.insert(words.begin(), "mkfs.cawfs");
  return parse_mkfs(static_cast<int>(words.size()), words.data());
}

TEST(MkfsArguments, AreTaken) {
  const auto parsed = parse({"-L", "x", "--slots", "16", "--journal-size", "8M", "--dead-time", "2.5", "--no-discard",
                             "-U", "00112233-4455-6677-8899-aabbccddeeff", "lun"});
  ASSERT_TRUE(parsed.arguments);
  EXPECT_EQ(parsed.arguments->source, "lun");
  EXPECT_EQ(parsed.arguments->make.slots, 16u);
  EXPECT_EQ(parsed.arguments->make.journal_blocks, 2048u);
  EXPECT_EQ(parsed.arguments->make.dead_time_ms, 2500u);
  EXPECT_FALSE(parsed.arguments->make.discard);
  EXPECT_EQ(parsed.arguments->make.uuid[15], 0xff);
}

TEST(MkfsArguments, AreRefused) {
  const std::vector<std::vector<const char*>> wrong = {
      {},
      {"--slots", "65", "lun"},
      {"--slots", "0", "lun"},
      {"--journal-size", "1K", "lun"},
      {"--dead-time", "1", "lun"},
      {"--dead-time", "nan", "lun"},
      {"-U", "1234", "lun"},
      {"--size", "0", "lun"},
      {"--size", "1G", "iscsi://host/iqn.x/0"},
      {"--logical-block", "1024", "lun"},
      {"--bogus", "lun"},
  };
  for (const auto& words : wrong) {
    const auto parsed = parse(words);
    EXPECT_FALSE(parsed.arguments);
    EXPECT_EQ(parsed.exit_status, 2);
  }
}

TEST(MkfsArguments, HelpIsNoError) {
  EXPECT_EQ(parse({"--help"}).exit_status, 0);
}

}  // namespace
}  // namespace cawfs
