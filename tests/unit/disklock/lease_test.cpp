#include "disklock/lease.h"

#include <gtest/gtest.h>

#include "disklock/suspicion.h"

namespace cawfs {
namespace {

using namespace std::chrono_literals;

Time at(Duration d) {
  return Time{d};
}

struct LeaseTest : ::testing::Test {
  Lease lease{5s};
};

TEST_F(LeaseTest, CountsFromTheIssueOfTheHeartbeat) {
  EXPECT_FALSE(lease.valid(at(10s)));
  lease.heartbeat(at(10s), at(12s));
  EXPECT_FALSE(lease.valid(at(12s)));  // not before the slot record has been read
  lease.look();
  lease.slot_seen(at(13s));
  EXPECT_TRUE(lease.valid(at(13s)));
  EXPECT_EQ(lease.end(), at(15s));
  lease.heartbeat(at(13s), at(14s));
  EXPECT_EQ(lease.end(), at(18s));
  lease.heartbeat(at(12s), at(14s));  // an older one, answered late
  EXPECT_EQ(lease.end(), at(18s));
}

TEST_F(LeaseTest, ReturnsAfterHeartbeatAndSlotRecord) {
  lease.heartbeat(at(1s), at(1s));
  lease.look();
  lease.slot_seen(at(2s));
  EXPECT_TRUE(lease.valid(at(5s)));
  lease.heartbeat(at(5s), at(7s));
  EXPECT_FALSE(lease.valid(at(7s)));
  lease.look();
  lease.slot_seen(at(11s));  // too late: that heartbeat's lease is over as well
  EXPECT_FALSE(lease.valid(at(11s)));
  lease.heartbeat(at(11s), at(11s));
  lease.look();
  lease.slot_seen(at(11s));
  EXPECT_TRUE(lease.valid(at(11s)));
  lease.suspend();
  EXPECT_FALSE(lease.valid(at(11s)));
}

// The recoverer may have looked at the heartbeat again between the read and that heartbeat (docs/spec/membership.pml).
TEST_F(LeaseTest, AHeartbeatCountsForReadsIssuedAfterIt) {
  lease.look();
  lease.heartbeat(at(10s), at(11s));
  lease.slot_seen(at(12s));
  EXPECT_FALSE(lease.valid(at(12s)));

  lease.heartbeat(at(1s), at(12s));  // one from long ago, answered only now
  lease.look();
  EXPECT_FALSE(lease.valid(at(12s)));
  lease.heartbeat(at(13s), at(14s));
  lease.slot_seen(at(14500ms));
  EXPECT_EQ(lease.end(), at(15s));  // by that of 10 s, not by that of 13 s
  EXPECT_FALSE(lease.valid(at(15s)));
  lease.heartbeat(at(15s), at(15s));
  lease.look();
  lease.slot_seen(at(16s));
  EXPECT_EQ(lease.end(), at(20s));
}

TEST_F(LeaseTest, WhatWasReadBeforeASuspensionDoesNotCount) {
  lease.heartbeat(at(1s), at(1s));
  lease.look();
  lease.suspend();
  lease.heartbeat(at(2s), at(2s));
  lease.slot_seen(at(3s));
  EXPECT_FALSE(lease.valid(at(3s)));
}

struct SuspicionTest : ::testing::Test {
  SuspicionTest() { subjects.nodes[3] = Incarnation{7}; }
  void read(Duration issued, Duration completed, std::uint64_t counter, std::uint32_t incarnation = 7) {
    values[3].counter = counter;
    values[3].incarnation = incarnation;
    watch.observe(at(issued), at(completed), subjects, values);
  }
  Duration silence() const { return watch.silence(SlotNo{3}); }
  Duration joiner_silence() const { return watch.silence(SlotNo{3}, SilenceWatch::Heart::kJoiner); }

  SilenceWatch watch{1s};
  SilenceWatch::Subjects subjects;
  SilenceWatch::Values values{};
};

TEST_F(SuspicionTest, FromCompletionToIssue) {
  read(10s, 10500ms, 1);
  EXPECT_EQ(silence(), 0s);
  read(11s, 12500ms, 1);
  EXPECT_EQ(silence(), 500ms);
  read(13s, 13s, 1);
  EXPECT_EQ(silence(), 2500ms);
  EXPECT_FALSE(watch.moved(SlotNo{3}));
  read(14s, 14s, 2);
  EXPECT_EQ(silence(), 0s);
  EXPECT_TRUE(watch.moved(SlotNo{3}));
}

TEST_F(SuspicionTest, AnewAfterAGapBetweenReads) {
  read(10s, 10s, 1);
  read(12s, 12s, 1);
  EXPECT_EQ(silence(), 2s);
  read(14001ms, 14001ms, 1);
  EXPECT_EQ(silence(), 0s);
  read(15s, 15s, 1);
  EXPECT_EQ(silence(), 999ms);
  // The read itself hung while the storage was gone.
  read(16s, 30s, 1);
  EXPECT_EQ(silence(), 0s);
  read(30s, 30s, 1);
  EXPECT_EQ(silence(), 0s);
}

TEST_F(SuspicionTest, AnewAfterAResetAndForANewIncarnation) {
  read(10s, 10s, 1);
  read(11s, 11s, 1);
  watch.restart();
  read(12s, 12s, 1);
  EXPECT_EQ(silence(), 0s);
  read(13s, 13s, 1);
  EXPECT_EQ(silence(), 1s);
  subjects.nodes[3] = Incarnation{8};
  read(14s, 14s, 1);
  EXPECT_EQ(silence(), 0s);
  subjects.nodes[3].reset();
  read(15s, 15s, 1);
  EXPECT_EQ(silence(), 0s);
}

// Both beat in the same block. The joiner counts by its own beats, and the node is silent while the block stands still.
TEST_F(SuspicionTest, AJoinerThatRecoversFromWithinAndItsNode) {
  const auto joiner_moved = [&] { return watch.moved(SlotNo{3}, SilenceWatch::Heart::kJoiner); };
  read(10s, 10s, 50);
  subjects.joiners[3] = Incarnation{8};
  read(11s, 11s, 50);
  EXPECT_EQ(silence(), 1s);
  EXPECT_EQ(joiner_silence(), 0s);
  read(12s, 12s, 1, 8);
  EXPECT_TRUE(joiner_moved());
  EXPECT_FALSE(watch.moved(SlotNo{3}));
  EXPECT_EQ(silence(), 0s);
  read(13s, 13s, 51);
  EXPECT_TRUE(watch.moved(SlotNo{3}));
  EXPECT_EQ(joiner_silence(), 1s);
  read(14s, 14s, 2, 8);
  EXPECT_EQ(joiner_silence(), 0s);
  // The joiner ends, and the node goes on.
  for (std::uint64_t i = 0; i < 10; ++i) read(15s + i * 1s, 15s + i * 1s, 52 + i);
  EXPECT_EQ(joiner_silence(), 10s);
  EXPECT_EQ(silence(), 0s);
  watch.restart();
  read(25s, 25s, 61);
  EXPECT_EQ(joiner_silence(), 0s);
  EXPECT_FALSE(watch.moved(SlotNo{3}));
}

}  // namespace
}  // namespace cawfs
