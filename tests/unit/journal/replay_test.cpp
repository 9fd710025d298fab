#include "journal/replay.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "tests/unit/journal/record_writer.h"

namespace cawfs::test {
namespace {

using Kind = SimulatedRequest::Kind;

constexpr BlockNo kA{1000};
constexpr BlockNo kB{1001};
constexpr BlockNo kC{1002};

struct ReplayWorld {
  VirtualLoop loop;
  SeededRandom random{7};
  TestDisk disk{loop, random, 4096};
};

struct ReplayTest : ::testing::Test, ReplayWorld, RecordWriter {
  ReplayTest() : RecordWriter(disk), device(disk.lun.connect(executor, "replayer")) {
    disk.set_locks(test_lock(0), kNode, 5);
    write_header(kNode.incarnation, 1, 0);
    disk.lun.set_hook([this](const SimulatedRequest& request) {
      if (request.kind == Kind::kWrite || request.kind == Kind::kFlush) ++writes;
      return SimulatedFate::kRun;
    });
  }
  ~ReplayTest() override { loop.run(executor, device->close()); }

  void damage(BlockNo block, std::size_t offset) {
    IoBuffer bytes(kBlockSize);
    disk.lun.peek(block.offset_bytes(), bytes.bytes());
    bytes.data()[offset] ^= std::byte{0x10};
    disk.lun.poke(block.offset_bytes(), bytes.bytes());
  }

  Result<ReplayReport> replay(ReplayMode mode = ReplayMode::kReplay, bool local = false, NodeId node = kNode) {
    auto place = disk.place(node);
    place.local = local;
    writes = 0;
    return loop.run(executor, replay_journal({executor, *device, disk.geometry, random, messages}, place, mode));
  }

  Executor& executor = loop.add_executor();
  std::unique_ptr<BlockDevice> device;
  QuietLog messages;
  std::uint64_t writes = 0;
};

TEST_F(ReplayTest, AnEmptyJournalNeedsNothing) {
  write_header(Incarnation{}, 9, 3);
  const auto report = replay();
  ASSERT_TRUE(report);
  EXPECT_TRUE(report->empty);
  EXPECT_EQ(writes, 0u);
}

TEST_F(ReplayTest, TheNewestImageGoesInPlaceAndTheJournalIsEmptied) {
  append({{kA, 1}, {kB, 2}});
  append({{kA, 3}});
  const auto report = replay();
  ASSERT_TRUE(report);
  EXPECT_EQ(report->records, 2u);
  EXPECT_EQ(report->images, 3u);
  EXPECT_EQ(report->applied, 2u);
  EXPECT_EQ(disk.value(kA), 3u);
  EXPECT_EQ(disk.value(kB), 2u);
  const auto again = replay();
  ASSERT_TRUE(again);
  EXPECT_TRUE(again->empty);
  EXPECT_EQ(writes, 0u);
}

TEST_F(ReplayTest, ADryRunWritesNothing) {
  append({{kA, 1}});
  const auto report = replay(ReplayMode::kDryRun);
  ASSERT_TRUE(report);
  EXPECT_EQ(report->applied, 1u);
  EXPECT_EQ(writes, 0u);
  EXPECT_EQ(disk.value(kA), 0u);
}

TEST_F(ReplayTest, WhatIsUnderALockThatWasLetGoIsSkipped) {
  append({{kA, 1, 5, test_lock(0)}, {kB, 2, 5, test_lock(1)}, {kC, 3, 4, test_lock(2)}});
  // Another node's, and an older tenure.
  disk.set_lock(test_lock(1), {SlotNo{1}, kNode.incarnation}, 5);
  const auto report = replay();
  ASSERT_TRUE(report);
  EXPECT_EQ(report->applied, 1u);
  EXPECT_EQ(report->stale, 2u);
  EXPECT_EQ(disk.value(kA), 1u);
  EXPECT_EQ(disk.value(kB), 0u);
  EXPECT_EQ(disk.value(kC), 0u);
}

TEST_F(ReplayTest, ALockOfAnotherIncarnationDoesNotCount) {
  append({{kA, 1}});
  disk.set_lock(test_lock(0), {kNode.slot, Incarnation{kNode.incarnation.value + 1}}, 5);
  const auto report = replay();
  ASSERT_TRUE(report);
  EXPECT_EQ(report->stale, 1u);
  EXPECT_EQ(disk.value(kA), 0u);
}

TEST_F(ReplayTest, ALocalJournalNeedsNoLocks) {
  append({{kA, 1, 99}}, {}, true);
  const auto report = replay(ReplayMode::kReplay, true);
  ASSERT_TRUE(report);
  EXPECT_EQ(disk.value(kA), 1u);
}

TEST_F(ReplayTest, ALocalRecordInAClusteredJournalIsAnError) {
  append({{kA, 1}}, {}, true);
  EXPECT_EQ(replay().error(), Errc::kBadValue);
  EXPECT_EQ(writes, 0u);
}

TEST_F(ReplayTest, ARevokeCoversItsOwnAndOlderRecordsOnly) {
  append({{kA, 1}, {kB, 2}, {kC, 3}});
  append({{kA, 4}}, {{kA, 2}});
  append({{kB, 5}});
  const auto report = replay();
  ASSERT_TRUE(report);
  EXPECT_EQ(disk.value(kA), 0u);
  EXPECT_EQ(disk.value(kB), 5u);
  EXPECT_EQ(disk.value(kC), 3u);
}

TEST_F(ReplayTest, ATornLastRecordNeverWas) {
  append({{kA, 1}});
  const std::uint32_t at = append({{kA, 14 * 9 + 13}, {kB, 2}});
  damage(ring.block(ring.advance(at, 1)), 17);
  const auto report = replay();
  ASSERT_TRUE(report);
  EXPECT_EQ(report->records, 1u);
  EXPECT_EQ(disk.value(kA), 1u);
}

TEST_F(ReplayTest, ADamagedCommittedRecordIsAnErrorAndNothingIsWritten) {
  append({{kA, 1}});
  const std::uint32_t at = append({{kB, 2}});
  append({{kC, 3}});
  damage(ring.block(at), 200);
  const auto report = replay();
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error(), Errc::kBadChecksum);
  EXPECT_EQ(writes, 0u);
}

TEST_F(ReplayTest, OneHeaderCopyIsEnough) {
  append({{kA, 1}});
  write_header(kNode.incarnation, 1, 0);
  damage(ring.header_copy(header_writes), 50);
  ASSERT_TRUE(replay());
  EXPECT_EQ(disk.value(kA), 1u);
}

TEST_F(ReplayTest, NoHeaderCopyIsAnError) {
  damage(ring.header_copy(0), 50);
  damage(ring.header_copy(1), 50);
  EXPECT_EQ(replay().error(), Errc::kBadChecksum);
  EXPECT_EQ(writes, 0u);
}

TEST_F(ReplayTest, TheOlderHeaderCopyDoesNotHideCommittedRecords) {
  // The newest header is damaged, and the ring blocks at the older one's tail have been used again.
  append({{kA, 1}});
  write_header(kNode.incarnation, 90, 0);
  next_sequence = 90;
  next_ring_block = 0;
  append({{kA, 2}});
  append({{kA, 3}});
  damage(ring.header_copy(header_writes), 50);
  EXPECT_EQ(replay().error(), Errc::kBadChecksum);
}

TEST_F(ReplayTest, RecordsOfAnotherIncarnationAreAnError) {
  append({{kA, 1}});
  EXPECT_EQ(replay(ReplayMode::kReplay, false, {kNode.slot, Incarnation{8}}).error(), Errc::kBadIdentity);
  EXPECT_EQ(writes, 0u);
}

TEST_F(ReplayTest, WhatAnOlderIncarnationLeftInTheRingDoesNotCount) {
  append({{kA, 1}});
  append({{kA, 2}}, {}, false, {kNode.slot, Incarnation{kNode.incarnation.value - 1}});
  const auto report = replay();
  ASSERT_TRUE(report);
  EXPECT_EQ(report->records, 1u);
  EXPECT_EQ(disk.value(kA), 1u);
}

TEST_F(ReplayTest, AWrongLockBlockIsAnErrorAndNothingIsWritten) {
  append({{kA, 1}});
  damage(test_lock(0).block, 40);
  EXPECT_EQ(replay().error(), Errc::kBadChecksum);
  EXPECT_EQ(writes, 0u);
}

TEST_F(ReplayTest, BlocksThatAJournalMayNotTouchAreRefused) {
  for (const BlockNo block : {BlockNo{17}, BlockNo{60}, disk.geometry.group_header(GroupNo{0}), kExtents[2].start,
                              BlockNo{4096}, BlockNo{~std::uint64_t{0} >> 1}}) {
    write_header(kNode.incarnation, next_sequence, next_ring_block);
    append({{block, 1}});
    const auto report = replay();
    EXPECT_FALSE(report) << "block " << block.value;
    EXPECT_EQ(writes, 0u);
  }
}

TEST_F(ReplayTest, ExtentsAreChecked) {
  const Geometry& g = disk.geometry;
  const auto ok = [&](std::vector<BlockRange> extents) {
    return format::check_journal_extents(extents, g).has_value();
  };
  EXPECT_TRUE(ok({{BlockNo{100}, 160}, {BlockNo{400}, 2}, {BlockNo{500}, 94}}));
  EXPECT_FALSE(ok({}));
  EXPECT_FALSE(ok({{BlockNo{100}, format::kMinJournalBlocks - 1}}));
  EXPECT_FALSE(ok({{BlockNo{100}, 1}, {BlockNo{200}, 299}}));  // no room for the header copies
  EXPECT_FALSE(ok({{BlockNo{10}, 300}}));                      // outside the groups
  EXPECT_FALSE(ok({{BlockNo{4090}, 300}}));
  EXPECT_FALSE(ok({{BlockNo{~std::uint64_t{0}}, 300}}));
  EXPECT_FALSE(ok({{BlockNo{100}, 300}, {BlockNo{150}, 10}}));  // overlap
  EXPECT_FALSE(ok({{BlockNo{100}, 0}, {BlockNo{150}, 300}}));
}

TEST(JournalRing, EveryBlockStandsWhereTheExtentsSay) {
  const JournalRing ring(kExtents);
  EXPECT_EQ(ring.blocks(), 98u);
  std::vector<BlockNo> all;
  for (std::size_t i = 0; i < kExtents.size(); ++i) {
    for (std::uint64_t j = i == 0 ? 2 : 0; j < kExtents[i].count; ++j) all.push_back(kExtents[i].start + j);
  }
  for (std::uint32_t at = 0; at < ring.blocks(); ++at) {
    for (const std::uint32_t count : {1u, 5u, 60u, 98u}) {
      std::vector<BlockNo> seen;
      for (const BlockRange& piece : ring.pieces(at, count)) {
        for (std::uint64_t j = 0; j < piece.count; ++j) seen.push_back(piece.start + j);
      }
      ASSERT_EQ(seen.size(), count);
      for (std::uint32_t j = 0; j < count; ++j) ASSERT_EQ(seen[j], all[(at + j) % 98]);
    }
  }
}

// Whatever the journal's bytes, replay ends with a result; with an error it has written nothing, and what it does write
// are blocks that verify.
TEST_F(ReplayTest, RandomDamageIsAnErrorOrHarmless) {
  SeededRandom chance(2024);
  for (unsigned i = 0; i < 12; ++i) {
    append({{kA, 1000 + i}, {kB, 2000 + i}, {kC, 14 * i + 13}},
           i % 3 == 0 ? std::vector<BlockRange>{{kC, 1}} : std::vector<BlockRange>{});
  }
  std::map<BlockNo, IoBuffer> good;
  for (const BlockRange& extent : kExtents) {
    for (std::uint64_t i = 0; i < extent.count; ++i) {
      const BlockNo block = extent.start + i;
      IoBuffer& bytes = good.emplace(block, IoBuffer(kBlockSize)).first->second;
      disk.lun.peek(block.offset_bytes(), bytes.bytes());
    }
  }
  std::map<Errc, unsigned> seen;
  unsigned fine = 0;
  for (unsigned round = 0; round < 4000; ++round) {
    for (const auto& [block, bytes] : good) disk.lun.poke(block.offset_bytes(), bytes.bytes());
    const std::uint32_t at = 2 * static_cast<std::uint32_t>(chance.below(16));
    const bool header = chance.one_in(4);
    const BlockNo victim = header ? ring.header_copy(header_writes) : ring.block(at);
    IoBuffer bytes(kBlockSize);
    disk.lun.peek(victim.offset_bytes(), bytes.bytes());
    const std::size_t span = chance.one_in(3) ? kBlockSize : 256;
    for (std::uint64_t n = 1 + chance.below(4); n > 0; --n) {
      // Past the header's identity in most rounds, so that the fields behind it are reached.
      const std::size_t offset = chance.one_in(5) ? chance.below(span) : 32 + chance.below(span - 32);
      bytes.data()[offset] = static_cast<std::byte>(chance.one_in(2) ? 0xff : chance.below(256));
    }
    if (chance.one_in(2)) {
      // The checksum made right again: of a record's whole length, where it is one.
      const auto info =
          format::verify_journal_record_start(bytes.bytes(), victim, disk.geometry, kNode.slot, ring.blocks());
      if (!header && info && info->blocks <= ring.blocks() - at) {
        IoBuffer record(std::size_t{info->blocks} * kBlockSize);
        for (std::uint32_t i = 0; i < info->blocks; ++i) {
          disk.lun.peek(ring.block(at + i).offset_bytes(), record.bytes().subspan(i * kBlockSize, kBlockSize));
        }
        std::ranges::copy(bytes.bytes(), record.data());
        format::stamp_journal_record(record.bytes());
        poke_record(at, record);
      } else {
        format::stamp_journal_record(bytes.bytes());
        disk.lun.poke(victim.offset_bytes(), bytes.bytes());
      }
    } else {
      disk.lun.poke(victim.offset_bytes(), bytes.bytes());
    }
    const auto report = replay();
    if (report) {
      ++fine;
    } else {
      ++seen[report.error().code];
      ASSERT_EQ(writes, 0u) << "round " << round;
    }
  }
  EXPECT_GT(fine, 100u);
  EXPECT_GT(seen[Errc::kBadChecksum], 20u);
  EXPECT_GT(seen[Errc::kBadValue], 20u);
}

}  // namespace
}  // namespace cawfs::test
