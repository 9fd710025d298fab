// Mailboxes: what is packed and refused, what reaches whom, and how much I/O it costs.
#include "disklock/mailbox.h"

#include "tests/unit/disklock/lock_cluster.h"

namespace cawfs::test {
namespace {

constexpr LockMode kS = LockMode::kShared;
constexpr LockMode kEx = LockMode::kExclusive;

class Listener final : public MailSink {
 public:
  void mail_came(SlotNo from) override { came.push_back(from); }
  void rung(SlotNo from) override { rings.push_back(from); }
  std::vector<SlotNo> came;
  std::vector<SlotNo> rings;
};

// A node with mailboxes only.
struct Post {
  Post(VirtualLoop& loop, SimulatedLun& lun, const Geometry& geometry, SharedTable& table, NodeId node)
      : executor(loop.add_executor()),
        raw(lun.connect(executor, "post" + std::to_string(node.slot.value))),
        device(*raw, executor),
        membership(executor, device, table, node),
        boxes(membership, geometry, log, {}),
        id(node) {
    boxes.start(&listener);
  }
  Executor& executor;
  QuietLog log;
  std::unique_ptr<BlockDevice> raw;
  GuardedDevice device;
  FakeMembership membership;
  Listener listener;
  Mailboxes boxes;
  NodeId id;
};

class MailboxTest : public ::testing::Test {
 protected:
  MailboxTest() : lun_(loop_.clock(), random_, options()), geometry_(test_geometry(512)) {
    for (std::uint16_t slot = 0; slot < 3; ++slot) {
      table_.slots[slot] = {format::SlotState::kActive, Incarnation{1}};
    }
    for (std::uint16_t slot = 0; slot < 3; ++slot) {
      posts_.push_back(std::make_unique<Post>(loop_, lun_, geometry_, table_, NodeId{SlotNo{slot}, Incarnation{1}}));
    }
  }
  ~MailboxTest() override {
    for (auto& post : posts_) {
      loop_.run(post->executor, post->boxes.stop());
      loop_.run(post->executor, post->device.join());
      loop_.run(post->executor, post->raw->close());
    }
  }
  static SimulatedLunOptions options() {
    SimulatedLunOptions options;
    options.size_bytes = 4096 * kBlockSize;
    options.logical_block = 512;
    return options;
  }
  static LockName name(std::uint64_t block, std::uint8_t entry) { return {BlockNo{1040 + block * 16}, entry}; }
  Mailboxes& boxes(std::size_t i) { return posts_[i]->boxes; }
  void settle() { loop_.run_for(100ms); }

  SeededRandom random_{3};
  VirtualLoop loop_;
  SimulatedLun lun_;
  Geometry geometry_;
  SharedTable table_;
  std::vector<std::unique_ptr<Post>> posts_;
};

TEST_F(MailboxTest, AWantReachesItsNodeAndGoesWhenTakenOut) {
  boxes(0).want(posts_[1]->id, name(0, 3), kEx);
  boxes(0).want(posts_[1]->id, name(0, 4), kEx);
  boxes(2).want(posts_[1]->id, name(0, 3), kS);
  settle();
  const std::vector<Waiting> waiting = boxes(1).waiting(name(0, 3));
  ASSERT_EQ(waiting.size(), 2u);
  EXPECT_EQ(waiting[0].node, posts_[0]->id);
  EXPECT_EQ(waiting[0].mode, kEx);
  EXPECT_EQ(waiting[1].mode, kS);
  EXPECT_EQ(boxes(1).wants_of(SlotNo{0}).size(), 1u) << "one want for the entries of a block";
  EXPECT_TRUE(boxes(2).waiting(name(0, 3)).empty());
  boxes(0).unwant(SlotNo{1}, name(0, 3));
  settle();
  EXPECT_EQ(boxes(1).waiting(name(0, 3)).size(), 1u);
  EXPECT_EQ(boxes(1).waiting(name(0, 4)).size(), 1u);
}

TEST_F(MailboxTest, BoxesAreWrittenOnlyWhenChangedAndOnceASecondWhileWanted) {
  settle();
  EXPECT_EQ(boxes(0).boxes_written(), 0u);
  for (int i = 0; i < 100; ++i) boxes(0).want(posts_[1]->id, name(0, 3), kEx);
  settle();
  EXPECT_EQ(boxes(0).boxes_written(), 1u);
  loop_.run_for(5s);
  EXPECT_LE(boxes(0).boxes_written(), 6u);
  EXPECT_GE(boxes(0).boxes_written(), 5u);
  boxes(0).unwant(SlotNo{1}, name(0, 3));
  settle();
  const auto written = boxes(0).boxes_written();
  loop_.run_for(5s);
  EXPECT_EQ(boxes(0).boxes_written(), written);
}

TEST_F(MailboxTest, PollingIsSlowWhenIdle) {
  loop_.run_for(2s);
  const auto before = boxes(1).polls();
  loop_.run_for(1s);
  EXPECT_LE(boxes(1).polls() - before, 55u);
  boxes(0).want(posts_[1]->id, name(0, 3), kEx);
  loop_.run_for(25ms);
  EXPECT_EQ(boxes(1).waiting(name(0, 3)).size(), 1u);
}

TEST_F(MailboxTest, WhatDoesNotFitTakesTurns) {
  for (std::uint64_t i = 0; i < 60; ++i) boxes(0).want(posts_[1]->id, name(i, 1), kEx);
  std::map<BlockNo, int> seen;
  for (int i = 0; i < 40; ++i) {
    loop_.run_for(20ms);
    for (const MailWant& want : boxes(1).wants_of(SlotNo{0})) ++seen[want.block];
    EXPECT_LE(boxes(1).wants_of(SlotNo{0}).size(), format::kWantsPerMailbox);
  }
  EXPECT_EQ(seen.size(), 60u);
}

TEST_F(MailboxTest, ARingIsHeardOnce) {
  boxes(0).ring(SlotNo{1});
  settle();
  EXPECT_EQ(posts_[1]->listener.rings, std::vector{SlotNo{0}});
  boxes(0).want(posts_[1]->id, name(0, 3), kEx);
  settle();
  EXPECT_EQ(posts_[1]->listener.rings.size(), 1u);
}

TEST_F(MailboxTest, MailOfAndToOtherIncarnationsIsEmpty) {
  boxes(0).want(posts_[1]->id, name(0, 3), kEx);
  settle();
  EXPECT_EQ(boxes(1).waiting(name(0, 3)).size(), 1u);
  // The writer dies: its wants are nobody's.
  table_.slots[0].state = format::SlotState::kRecovering;
  posts_[1]->membership.heartbeat();
  EXPECT_EQ(boxes(1).waiting(name(0, 3)).size(), 0u);
  // The recoverer was wrong.
  table_.slots[0].state = format::SlotState::kActive;
  posts_[1]->membership.heartbeat();
  EXPECT_EQ(boxes(1).waiting(name(0, 3)).size(), 1u);
  table_.slots[0] = {format::SlotState::kActive, Incarnation{2}};
  posts_[1]->membership.heartbeat();
  settle();
  EXPECT_EQ(boxes(1).waiting(name(0, 3)).size(), 0u);

  // A box that was written to the reader's forerunner.
  boxes(2).want(posts_[1]->id, name(0, 5), kEx);
  settle();
  table_.slots[1] = {format::SlotState::kActive, Incarnation{2}};
  posts_.push_back(std::make_unique<Post>(loop_, lun_, geometry_, table_, NodeId{SlotNo{1}, Incarnation{2}}));
  settle();
  EXPECT_TRUE(boxes(3).waiting(name(0, 5)).empty());
  // The writer learns of it at its next heartbeat.
  posts_[2]->membership.heartbeat();
  settle();
  EXPECT_EQ(boxes(3).waiting(name(0, 5)).size(), 1u);
}

TEST_F(MailboxTest, ABoxThatDoesNotVerifyKeepsItsStateForASecondAndHarmsNobody) {
  boxes(0).want(posts_[1]->id, name(0, 3), kEx);
  settle();
  IoBuffer box(512);
  const std::uint64_t offset = geometry_.mailbox_offset(SlotNo{1}, SlotNo{0});
  lun_.peek(offset, box.bytes());
  box.data()[200] ^= std::byte{1};
  lun_.poke(offset, box.bytes());
  loop_.run_for(300ms);
  EXPECT_EQ(boxes(1).waiting(name(0, 3)).size(), 1u);
  loop_.run_for(3s);  // written again by its writer meanwhile
  EXPECT_EQ(boxes(1).waiting(name(0, 3)).size(), 1u);
  EXPECT_TRUE(boxes(1).wants_of(SlotNo{2}).empty());
}

TEST_F(MailboxTest, ABoxThatCannotBeReadHarmsNobody) {
  const std::uint64_t unreadable = geometry_.mailbox_offset(SlotNo{1}, SlotNo{2});
  lun_.set_hook([&](const SimulatedRequest& request) {
    const bool covers = request.offset <= unreadable && unreadable < request.offset + request.length;
    return covers && request.kind == SimulatedRequest::Kind::kRead ? SimulatedFate::kMediumError : SimulatedFate::kRun;
  });
  boxes(2).want(posts_[1]->id, name(0, 2), kEx);
  boxes(0).want(posts_[1]->id, name(0, 3), kEx);
  loop_.run_for(3s);
  EXPECT_EQ(boxes(1).waiting(name(0, 3)).size(), 1u);
  EXPECT_TRUE(boxes(1).waiting(name(0, 2)).empty());
  lun_.set_hook({});
  loop_.run_for(3s);
  EXPECT_EQ(boxes(1).waiting(name(0, 2)).size(), 1u);
}

TEST_F(MailboxTest, ImpossibleMailIsRefused) {
  const Mail mail{
      .from = Incarnation{1}, .to = Incarnation{1}, .sequence = 1, .ring = 0, .wants = {{BlockNo{1040}, kEx, 0x7fff}}};
  IoBuffer block(512);
  const auto parse = [&](auto change) {
    seal_mail(mail, SlotNo{1}, SlotNo{0}, geometry_, block.bytes());
    change(*reinterpret_cast<format::Mailbox*>(block.data()));
    seal_caw(block.bytes(), geometry_.mailbox_offset(SlotNo{1}, SlotNo{0}), geometry_.fs_id);
    return parse_mail(block.bytes(), SlotNo{1}, SlotNo{0}, geometry_);
  };
  EXPECT_EQ(parse([](format::Mailbox&) {})->wants, mail.wants);
  EXPECT_EQ(parse([](format::Mailbox& box) { box.count = 29; }).error(), Errc::kBadValue);
  EXPECT_EQ(parse([](format::Mailbox& box) { box.from = 2; }).error(), Errc::kBadIdentity);
  EXPECT_EQ(parse([](format::Mailbox& box) { box.wants[0].mode = 4; }).error(), Errc::kBadValue);
  EXPECT_EQ(parse([](format::Mailbox& box) { box.wants[0].entries = 0x8000; }).error(), Errc::kBadValue);
  EXPECT_EQ(parse([](format::Mailbox& box) { box.wants[0].lock_block = 17; }).error(), Errc::kBadValue);
  EXPECT_EQ(parse([](format::Mailbox& box) { box.magic = 5; }).error(), Errc::kBadMagic);
  EXPECT_TRUE(parse_mail(IoBuffer(512).bytes(), SlotNo{1}, SlotNo{0}, geometry_)->wants.empty());
}

}  // namespace
}  // namespace cawfs::test
