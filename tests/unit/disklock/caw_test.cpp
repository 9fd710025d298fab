#include "disklock/caw.h"

#include <gtest/gtest.h>

#include "core/device/simulated_device.h"
#include "core/format/cluster_verify.h"
#include "core/runtime/task_group.h"
#include "core/runtime/virtual_loop.h"

namespace cawfs {
namespace {

using namespace std::chrono_literals;
using Kind = SimulatedRequest::Kind;

constexpr std::uint64_t kOffset = 8192;
constexpr std::uint64_t kFsId = 77;

struct CawTest : ::testing::Test {
  CawTest() {
    IoBuffer block(4096);
    format::seal_lock_block(block.bytes(), kOffset, kFsId);
    lun.poke(kOffset, block.bytes());
    mine.set_writer({SlotNo{1}, Incarnation{5}});
    others.set_writer({SlotNo{2}, Incarnation{5}});
  }
  ~CawTest() override { lun.set_hook({}); }

  Result<CawImage> read() { return loop.run(executor, mine.read(kOffset, format::kLockMagic)); }
  static CawImage changed(const CawImage& base, std::uint8_t mode) {
    CawImage next = base.clone();
    next.as<format::LockBlock>().entries[3].mode = mode;
    return next;
  }
  Result<CawResult> write(const CawImage& base, std::uint8_t mode) {
    return loop.run(executor, mine.write(base.clone(), changed(base, mode)));
  }
  // The fate of the first CAW; `also` happens after it.
  void lose_first(SimulatedFate fate) {
    lun.set_hook([this, fate](const SimulatedRequest& request) {
      return request.kind == Kind::kCaw && ++caws == 1 ? fate : SimulatedFate::kRun;
    });
  }
  std::uint8_t mode_on_disk() { return read()->as<format::LockBlock>().entries[3].mode; }

  VirtualLoop loop;
  SeededRandom random{1};
  SimulatedLun lun{loop.clock(), random, {}};
  Executor& executor = loop.add_executor();
  std::unique_ptr<BlockDevice> device = lun.connect(executor, "mine");
  CawEditor mine{*device, executor, random, kFsId, 5s};
  CawEditor others{*device, executor, random, kFsId, 5s};
  int caws = 0;
};

TEST_F(CawTest, StampsEachImage) {
  const CawImage base = *read();
  const Result<CawResult> first = write(base, 3);
  ASSERT_TRUE(first);
  EXPECT_EQ(first->outcome, CawOutcome::kRan);
  EXPECT_EQ(first->image.sequence(), base.sequence() + 1);
  EXPECT_EQ(first->image.writer(), (NodeId{SlotNo{1}, Incarnation{5}}));
  EXPECT_NE(first->image.nonce(), base.nonce());
  EXPECT_EQ(mode_on_disk(), 3);
  // The same change of the same image again: the block is another one now.
  const Result<CawResult> late = write(base, 3);
  ASSERT_TRUE(late);
  EXPECT_EQ(late->outcome, CawOutcome::kOthersChanged);
  EXPECT_EQ(late->image.sequence(), first->image.sequence());
}

// What is found by reading may stand in the device's cache alone.
TEST_F(CawTest, RanThoughItsReplyWasLost) {
  lose_first(SimulatedFate::kLoseReply);
  const std::uint64_t flushes = lun.executed(Kind::kFlush);
  const Result<CawResult> done = write(*read(), 3);
  ASSERT_TRUE(done);
  EXPECT_EQ(done->outcome, CawOutcome::kRan);
  EXPECT_EQ(caws, 1);
  EXPECT_EQ(mode_on_disk(), 3);
  EXPECT_EQ(lun.executed(Kind::kFlush), flushes + 1);
}

TEST_F(CawTest, IsSentAgainWhereItWasLost) {
  lose_first(SimulatedFate::kLoseRequest);
  const Result<CawResult> done = write(*read(), 3);
  ASSERT_TRUE(done);
  EXPECT_EQ(done->outcome, CawOutcome::kRan);
  EXPECT_EQ(caws, 2);
  EXPECT_EQ(mode_on_disk(), 3);
}

// Something on the way sent it again: it miscompares with what it has written itself.
TEST_F(CawTest, RanThoughItMiscompared) {
  lose_first(SimulatedFate::kRunTwice);
  const Result<CawResult> done = write(*read(), 3);
  ASSERT_TRUE(done);
  EXPECT_EQ(done->outcome, CawOutcome::kRan);
  EXPECT_EQ(mode_on_disk(), 3);
}

TEST_F(CawTest, IsSentAgainWhereItMiscomparedWithNothing) {
  lose_first(SimulatedFate::kMiscompare);
  const Result<CawResult> done = write(*read(), 3);
  ASSERT_TRUE(done);
  EXPECT_EQ(done->outcome, CawOutcome::kRan);
  EXPECT_EQ(caws, 2);
  EXPECT_EQ(mode_on_disk(), 3);
}

TEST_F(CawTest, OthersChangedTheBlockMeanwhile) {
  const CawImage base = *read();
  ASSERT_TRUE(loop.run(executor, others.write(base.clone(), changed(base, 1))));
  const Result<CawResult> done = write(base, 3);
  ASSERT_TRUE(done);
  EXPECT_EQ(done->outcome, CawOutcome::kOthersChanged);
  EXPECT_EQ(done->image.writer().slot, SlotNo{2});
  EXPECT_EQ(mode_on_disk(), 1);
}

TEST_F(CawTest, GivesUpAfterItsPatience) {
  const CawImage base = *read();
  lun.cut_path("mine");
  const Time started = loop.now();
  const Result<CawResult> done = write(base, 3);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error(), Errc::kTransport);
  EXPECT_GE(loop.now() - started, 5s);
  EXPECT_LT(loop.now() - started, 7s);
}

TEST_F(CawTest, WrongChecksumIsReadAgainForASecond) {
  IoBuffer good(4096);
  lun.peek(kOffset, good.bytes());
  IoBuffer bad(4096);
  lun.peek(kOffset, bad.bytes());
  bad.data()[100] = std::byte{1};
  lun.poke(kOffset, bad.bytes());
  const Time started = loop.now();
  const Result<CawImage> corrupt = read();
  ASSERT_FALSE(corrupt);
  EXPECT_EQ(corrupt.error(), Errc::kBadChecksum);
  EXPECT_GE(loop.now() - started, 1s);

  int reads = 0;
  lun.set_hook([&](const SimulatedRequest& request) {
    if (request.kind == Kind::kRead && ++reads == 5) lun.poke(kOffset, good.bytes());
    return SimulatedFate::kRun;
  });
  EXPECT_TRUE(read());
  EXPECT_EQ(reads, 5);
}

TEST_F(CawTest, EditPlansAgainOnEachFreshImage) {
  int plans = 0;
  Result<CawResult> done =
      loop.run(executor, mine.edit(kOffset, format::kLockMagic, [&](CawImage& image) -> Result<CawEditor::Plan> {
        auto& entries = image.as<format::LockBlock>().entries;
        // Somebody else changes the block between the first plan and its CAW.
        if (++plans == 1) {
          CawImage other = image.clone();
          other.header().sequence = image.sequence() + 1;
          other.as<format::LockBlock>().entries[7].mode = 1;
          format::seal_lock_block(other.bytes(), kOffset, kFsId);
          lun.poke(kOffset, other.bytes());
        } else {
          EXPECT_EQ(entries[7].mode, 1);
        }
        entries[3].mode = 3;
        return CawEditor::Plan::kWrite;
      }));
  ASSERT_TRUE(done);
  EXPECT_EQ(done->outcome, CawOutcome::kRan);
  EXPECT_EQ(plans, 2);
  EXPECT_EQ(mode_on_disk(), 3);
}

}  // namespace
}  // namespace cawfs
