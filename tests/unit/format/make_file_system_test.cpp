#include "core/format/make_file_system.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <map>
#include <set>

#include "core/device/io_buffer.h"
#include "core/device/simulated_device.h"
#include "core/format/cluster_verify.h"
#include "core/format/journal_verify.h"
#include "core/format/layout.h"
#include "core/format/superblock_io.h"
#include "core/format/tree_records.h"
#include "core/format/verify.h"
#include "core/runtime/virtual_loop.h"

namespace cawfs {
namespace {

using namespace format;

struct Lun {
  explicit Lun(SimulatedLunOptions options = {}) : lun(loop.clock(), random, options) {
    device = lun.connect(executor, "mkfs");
  }
  ~Lun() { loop.run(executor, device->close()); }

  Result<Superblock> make(MakeOptions options = {}) {
    return loop.run(executor, make_file_system(*device, random, std::move(options)));
  }
  Result<Superblock> superblock() { return loop.run(executor, read_superblock(*device)); }
  template <class T>
  T at(BlockNo block) {
    static_assert(sizeof(T) == kBlockSize);
    T value;
    lun.peek(block.offset_bytes(), std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }
  std::vector<std::byte> bytes(std::uint64_t offset, std::size_t length) {
    std::vector<std::byte> out(length);
    lun.peek(offset, out);
    return out;
  }
  void corrupt(BlockNo block, std::size_t at) {
    auto data = bytes(block.offset_bytes(), kBlockSize);
    data[at] ^= std::byte{0x40};
    lun.poke(block.offset_bytes(), data);
  }

  SeededRandom random{7};
  VirtualLoop loop;
  Executor& executor = loop.add_executor();
  SimulatedLun lun;
  std::unique_ptr<BlockDevice> device;
};

SimulatedLunOptions lun_of(std::uint64_t size_bytes, std::uint32_t logical_block) {
  SimulatedLunOptions options;
  options.size_bytes = size_bytes;
  options.logical_block = logical_block;
  return options;
}

struct MakeFileSystem : ::testing::TestWithParam<std::tuple<std::uint64_t, std::uint32_t>> {};

void check_cluster_areas(Lun& lun, const Geometry& g) {
  const std::size_t logical = g.logical_block;
  for (std::uint16_t slot = 0; slot < kSlots; ++slot) {
    const auto record = lun.bytes(g.slot_record_offset(SlotNo{slot}), logical);
    ASSERT_TRUE(verify_slot_record(record, g.slot_record_offset(SlotNo{slot}), g.fs_id)) << slot;
    const auto& slot_record = *reinterpret_cast<const SlotRecord*>(record.data());
    EXPECT_EQ(slot_record.state, static_cast<int>(slot < g.slots ? SlotState::kClean : SlotState::kFree));
    const auto heartbeat = lun.bytes(g.heartbeat_offset(SlotNo{slot}), logical);
    EXPECT_TRUE(verify_heartbeat(heartbeat, g.heartbeat_offset(SlotNo{slot}), g.fs_id, SlotNo{slot})) << slot;
    for (std::uint16_t from = 0; from < kSlots; ++from) {
      const std::uint64_t offset = g.mailbox_offset(SlotNo{slot}, SlotNo{from});
      EXPECT_TRUE(verify_mailbox(lun.bytes(offset, logical), offset, g.fs_id, SlotNo{slot}, SlotNo{from}));
    }
    if (slot >= g.slots) continue;
    const auto extents = journal_extents(slot_record, g);
    ASSERT_TRUE(extents) << slot;
    for (std::uint32_t copy = 0; copy < kJournalHeaderCopies; ++copy) {
      const BlockNo block = extents->front().start + copy;
      EXPECT_TRUE(verify_journal_header(lun.bytes(block.offset_bytes(), kBlockSize), block, g, SlotNo{slot},
                                        ring_blocks(*extents)));
    }
  }
  const std::uint64_t global = g.global_lock.offset_bytes();
  EXPECT_TRUE(verify_lock_block(lun.bytes(global, logical), global, g.fs_id));
}

// Blocks in use by the bitmaps, all of which verify and agree with their headers.
std::set<std::uint64_t> blocks_in_use(Lun& lun, const Geometry& g) {
  std::set<std::uint64_t> used;
  for (std::uint32_t i = 0; i < g.group_count; ++i) {
    const GroupNo group{i};
    const auto raw = lun.bytes(g.group_header(group).offset_bytes(), kBlockSize);
    EXPECT_TRUE(verify_block(raw, BlockType::kGroupHeader, g.group_header(group), g)) << i;
    const auto& header = *reinterpret_cast<const GroupHeader*>(raw.data());
    EXPECT_TRUE(verify_lock_block(lun.bytes(g.group_lock(group).offset_bytes(), g.logical_block),
                                  g.group_lock(group).offset_bytes(), g.fs_id));
    for (std::uint32_t b = 0; b < header.bitmap_blocks.value(); ++b) {
      if ((header.summary[b].value() & kBitmapUninit) != 0) continue;
      const auto bitmap = lun.bytes(g.group_bitmap(group, b).offset_bytes(), kBlockSize);
      EXPECT_TRUE(verify_block(bitmap, BlockType::kBitmap, g.group_bitmap(group, b), g)) << i;
      const auto& bits = reinterpret_cast<const Bitmap*>(bitmap.data())->bits;
      std::uint64_t free = 0;
      for (std::uint64_t bit = 0; bit < kBitsPerBitmapBlock; ++bit) {
        const std::uint64_t in_group = b * kBitsPerBitmapBlock + bit;
        if ((bits[bit / 8] >> (bit % 8) & 1) == 0)
          ++free;
        else if (in_group < g.blocks_in_group(group))
          used.insert(g.group_start(group).value + in_group);
      }
      EXPECT_EQ(free, header.summary[b].value());
    }
  }
  return used;
}

std::set<std::uint64_t> blocks_expected_in_use(Lun& lun, const Geometry& g) {
  std::set<std::uint64_t> used{first_superblock_copy(g).value, last_superblock_copy(g).value};
  for (std::uint32_t i = 0; i < g.group_count; ++i) {
    for (BlockNo b = g.group_start(GroupNo{i}); b < g.group_data(GroupNo{i}); b = b + 1) used.insert(b.value);
  }
  for (std::uint16_t slot = 0; slot < g.slots; ++slot) {
    const auto raw = lun.bytes(g.slot_record_offset(SlotNo{slot}), kClusterBlockBytes);
    for (const BlockRange& extent : *journal_extents(*reinterpret_cast<const SlotRecord*>(raw.data()), g)) {
      for (std::uint64_t b = 0; b < extent.count; ++b) used.insert(extent.start.value + b);
    }
  }
  const auto header = lun.at<GroupHeader>(g.group_header(GroupNo{0}));
  for (const auto& record : tree_records(header.chunk_index, std::as_bytes(std::span(header.chunk_index_area)))) {
    for (std::uint64_t b = 0; b < kChunkBlocks; ++b) used.insert(record.key + b);
  }
  return used;
}

TEST_P(MakeFileSystem, EverythingVerifiesAndBitmapsAgreeWithUse) {
  const auto [size, logical] = GetParam();
  Lun lun(lun_of(size, logical));
  const auto made = lun.make();
  ASSERT_TRUE(made) << made.error().where;
  const auto superblock = lun.superblock();
  ASSERT_TRUE(superblock);
  EXPECT_EQ(std::memcmp(&*superblock, &*made, sizeof(Superblock)), 0);
  const Geometry g = make_geometry(*superblock);
  check_cluster_areas(lun, g);
  EXPECT_EQ(blocks_in_use(lun, g), blocks_expected_in_use(lun, g));
  EXPECT_GE(g.group_count, g.slots);
}

INSTANTIATE_TEST_SUITE_P(Sizes, MakeFileSystem,
                         ::testing::Combine(::testing::Values(std::uint64_t{64} << 20,
                                                              (std::uint64_t{64} << 20) + 12288,
                                                              std::uint64_t{1200} << 20),
                                            ::testing::Values(512u, 4096u)));

TEST(MakeFileSystemTest, InodesAreWhatTheSuperblockSays) {
  Lun lun;
  const Geometry g = make_geometry(*lun.make());
  const auto root = lun.at<Inode>(g.root.block());
  EXPECT_TRUE(verify_block(std::as_bytes(std::span(&root, 1)), BlockType::kInode, g.root.block(), g));
  EXPECT_TRUE(S_ISDIR(root.mode.value()));
  EXPECT_EQ(root.nlink.value(), 2u);
  EXPECT_EQ(root.parent.value(), g.root.value);
  for (std::uint32_t slot = 0; slot < g.slots; ++slot) {
    const auto orphans = lun.at<Inode>(g.orphan_inodes[slot].block());
    EXPECT_TRUE(
        verify_block(std::as_bytes(std::span(&orphans, 1)), BlockType::kInode, g.orphan_inodes[slot].block(), g));
    EXPECT_EQ(orphans.tree_kind.value(), static_cast<int>(TreeKind::kOrphans));
    EXPECT_EQ(orphans.flags.value(), kInodeSystem);
  }
  // What is not used is free and verifies too.
  const auto header = lun.at<GroupHeader>(g.group_header(GroupNo{0}));
  EXPECT_EQ(header.free_inodes.value(), kChunkBlocks - 1 - 1 - g.slots);
  const BlockNo spare = g.orphan_inodes[g.slots - 1].block() + 1;
  const auto free = lun.at<Inode>(spare);
  EXPECT_TRUE(verify_block(std::as_bytes(std::span(&free, 1)), BlockType::kInode, spare, g));
  EXPECT_EQ(free.mode.value(), 0u);
}

TEST(MakeFileSystemTest, OptionsReachTheDisk) {
  Lun lun;
  MakeOptions options;
  options.label = "archive";
  options.uuid = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
  options.slots = 3;
  options.journal_blocks = 300;
  options.dead_time_ms = 2000;
  options.clustered = false;
  options.created_ns = 1234;
  ASSERT_TRUE(lun.make(options));
  const auto s = *lun.superblock();
  EXPECT_STREQ(s.label.data(), "archive");
  EXPECT_EQ(s.uuid, options.uuid);
  EXPECT_EQ(s.header.fs_id.value(), 0x100f0e0d0c0b0a09u);
  EXPECT_EQ(s.slots.value(), 3u);
  EXPECT_EQ(s.journal_blocks.value(), 300u);
  EXPECT_EQ(s.dead_time_ms.value(), 2000u);
  EXPECT_EQ(s.incompat.value(), 0u);
  EXPECT_EQ(s.created_ns.value(), 1234);
}

TEST(MakeFileSystemTest, RefusesOptionsThatCannotBe) {
  Lun lun;
  MakeOptions slots;
  slots.slots = 65;
  EXPECT_EQ(lun.make(slots).error().code, Errc::kInvalid);
  MakeOptions journal;
  journal.journal_blocks = format::kMinJournalBlocks - 1;
  EXPECT_EQ(lun.make(journal).error().code, Errc::kInvalid);
  MakeOptions dead;
  dead.dead_time_ms = 10;
  EXPECT_EQ(lun.make(dead).error().code, Errc::kInvalid);
  MakeOptions label;
  label.label = std::string(65, 'x');
  EXPECT_EQ(lun.make(label).error().code, Errc::kInvalid);
  MakeOptions large;
  large.journal_blocks = 8192;
  EXPECT_EQ(lun.make(large).error().code, Errc::kNoSpace);
  EXPECT_EQ(lun.superblock().error().code, Errc::kBadMagic);
}

TEST(MakeFileSystemTest, MinimumSizeIsTheSmallestThatWorks) {
  for (const std::uint32_t logical : {512u, 4096u}) {
    const std::uint64_t minimum = minimum_size_bytes(logical, {});
    EXPECT_LE(minimum, std::uint64_t{64} << 20);
    Lun fits(lun_of(minimum, logical));
    EXPECT_TRUE(fits.make()) << minimum;
    Lun small(lun_of(minimum - kBlockSize, logical));
    EXPECT_EQ(small.make().error().code, Errc::kNoSpace);
  }
}

TEST(MakeFileSystemTest, GroupsOfLargeDevices) {
  const auto tebibyte = plan_file_system(std::uint64_t{1} << 40, 512, {});
  ASSERT_TRUE(tebibyte);
  EXPECT_LE(tebibyte->geometry.group_count, 5000u);
  EXPECT_GE(tebibyte->geometry.group_count, 1000u);
  const auto pebibyte = plan_file_system(std::uint64_t{1} << 50, 4096, {});
  ASSERT_TRUE(pebibyte);
  EXPECT_LE(pebibyte->geometry.group_count, 10'000u);
  EXPECT_EQ(pebibyte->journals.size(), 8u);
}

// A superblock that verifies as the one of `block` after its fields were changed.
void restamp(Lun& lun, BlockNo block, const std::function<void(Superblock&)>& change) {
  auto s = lun.at<Superblock>(block);
  change(s);
  auto raw = std::as_writable_bytes(std::span(&s, 1));
  stamp_unverified(raw);
  lun.lun.poke(block.offset_bytes(), raw);
}

TEST(SuperblockIo, CopiesStandInForADamagedSuperblock) {
  const BlockNo primary{kSuperblockBlock};
  for (const bool first_copy_too : {false, true}) {
    Lun lun;
    const Geometry g = make_geometry(*lun.make());
    lun.corrupt(primary, 100);
    if (first_copy_too) lun.corrupt(first_superblock_copy(g), 100);
    const auto s = lun.superblock();
    ASSERT_TRUE(s);
    EXPECT_EQ(s->header.address.value(), (first_copy_too ? last_superblock_copy(g) : first_superblock_copy(g)).value);
    lun.corrupt(first_superblock_copy(g), 200);
    lun.corrupt(last_superblock_copy(g), 100);
    EXPECT_EQ(lun.superblock().error().code, Errc::kBadChecksum);
  }
}

TEST(SuperblockIo, TheNewerCopyCounts) {
  Lun lun;
  const Geometry g = make_geometry(*lun.make());
  lun.corrupt(BlockNo{kSuperblockBlock}, 100);
  restamp(lun, last_superblock_copy(g), [](Superblock& s) { s.sequence = 9; });
  EXPECT_EQ(lun.superblock()->sequence.value(), 9u);
}

TEST(SuperblockIo, NoCopyBringsAnOverwrittenFileSystemBack) {
  Lun lun;
  ASSERT_TRUE(lun.make());
  lun.lun.poke(kSuperblockBlock * kBlockSize, std::vector<std::byte>(kBlockSize));
  EXPECT_EQ(lun.superblock().error().code, Errc::kBadMagic);
}

TEST(SuperblockIo, RefusesWhatDoesNotFitTheDevice) {
  const BlockNo primary{kSuperblockBlock};
  Lun lun;
  ASSERT_TRUE(lun.make());
  const auto good = lun.at<Superblock>(primary);
  Lun small(lun_of(32 << 20, 4096));
  small.lun.poke(primary.offset_bytes(), std::as_bytes(std::span(&good, 1)));
  EXPECT_EQ(small.superblock().error().code, Errc::kBounds);
  Lun other(lun_of(64 << 20, 512));
  other.lun.poke(primary.offset_bytes(), std::as_bytes(std::span(&good, 1)));
  EXPECT_EQ(other.superblock().error().code, Errc::kBadBlockSize);
  restamp(lun, primary, [](Superblock& s) { s.incompat = 1u << 20; });
  EXPECT_EQ(lun.superblock().error().code, Errc::kBadFeature);
}

TEST(SuperblockIo, UnknownReadOnlyFeaturesAllowReading) {
  Lun lun;
  ASSERT_TRUE(lun.make());
  EXPECT_TRUE(writable(*lun.superblock()));
  restamp(lun, BlockNo{kSuperblockBlock}, [](Superblock& s) { s.ro_compat = 2; });
  EXPECT_FALSE(writable(*lun.superblock()));
}

// Cuts the power at write number `cut` of a run over an old file system and looks what there is. Returns whether the
// run was cut at all.
bool check_cut(Lun& lun, const Uuid& old, std::uint64_t cut) {
  const std::uint64_t limit = lun.lun.executed(SimulatedRequest::Kind::kWrite) + cut;
  bool is_cut = false;
  lun.lun.set_hook([&](const SimulatedRequest& request) {
    is_cut |=
        request.kind == SimulatedRequest::Kind::kWrite && lun.lun.executed(SimulatedRequest::Kind::kWrite) >= limit;
    return is_cut ? SimulatedFate::kMediumError : SimulatedFate::kRun;
  });
  EXPECT_NE(lun.make().has_value(), is_cut);
  lun.lun.set_hook({});
  lun.lun.power_cut();
  std::vector<std::byte> block(kBlockSize);
  const Result<> attention = lun.loop.run(lun.executor, lun.device->read(0, block));
  EXPECT_EQ(attention.error().code, Errc::kUnitAttentionReset);
  const auto found = lun.superblock();
  EXPECT_TRUE(found || is_cut);
  if (!found || found->uuid == old) {
    // The old one may be there as long as nothing but its superblock has been touched.
    EXPECT_TRUE(!found || cut <= 1) << "cut at write " << cut;
    return is_cut;
  }
  const Geometry g = make_geometry(*found);
  EXPECT_EQ(blocks_in_use(lun, g), blocks_expected_in_use(lun, g)) << "cut at write " << cut;
  check_cluster_areas(lun, g);
  return is_cut;
}

// A run that is cut anywhere leaves nothing that opens, neither the old file system nor a part of the new one; and
// once a superblock stands everything does.
TEST(MakeFileSystemTest, PowerCut) {
  constexpr std::uint64_t kDense = 8;  // at both ends every write, else each thirteenth
  Lun lun(lun_of(minimum_size_bytes(512, {}), 512));
  ASSERT_TRUE(lun.make());
  const std::uint64_t writes = lun.lun.executed(SimulatedRequest::Kind::kWrite);
  bool is_cut = true;
  for (std::uint64_t cut = 0; is_cut; cut += cut < kDense || cut + kDense + 13 >= writes ? 1 : 13) {
    ASSERT_LE(cut, writes);
    const auto old = lun.make();
    ASSERT_TRUE(old);
    is_cut = check_cut(lun, old->uuid, cut);
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace cawfs
