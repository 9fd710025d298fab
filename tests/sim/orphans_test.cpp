// The space of a file without a link comes back when the node that had it open has died, whoever has its slot then.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <memory>
#include <string>

#include "core/device/simulated_device.h"
#include "core/format/make_file_system.h"
#include "core/runtime/virtual_loop.h"
#include "tests/support/whole_node.h"

namespace cawfs::testing {
namespace {

using namespace std::chrono_literals;

constexpr Duration kDeadTime = 2s;
constexpr Duration kSweeps = 70s;  // two of them, after a recovery

struct OrphansTest : ::testing::Test {
  OrphansTest() {
    Executor& maker = loop.add_executor();
    auto device = lun.connect(maker, "mkfs");
    MakeOptions make;
    make.slots = 2;
    make.journal_blocks = 256;
    make.dead_time_ms = std::chrono::duration_cast<std::chrono::milliseconds>(kDeadTime).count();
    EXPECT_TRUE(loop.run(maker, make_file_system(*device, random, make)));
    loop.run(maker, device->close());
  }

  std::unique_ptr<WholeNode> mount(const std::string& host, std::uint8_t uuid) {
    Executor& executor = loop.add_executor();
    auto node = std::make_unique<WholeNode>(executor, lun.connect(executor, host + std::to_string(++runs)), runs,
                                            WholeNodeOptions{.host = host, .uuid = uuid});
    EXPECT_TRUE(run(*node, node->start())) << node->messages.text();
    return node;
  }
  template <class T>
  T run(WholeNode& node, Task<T> task) {
    return loop.run(node.executor(), std::move(task));
  }
  void crash(std::unique_ptr<WholeNode> node) {
    node->executor().kill();
    [[maybe_unused]] static auto& kept = *new std::vector<std::unique_ptr<WholeNode>>;
    kept.push_back(std::move(node));  // what was cut off in the middle has not ended
  }

  // A file that `opener` has open, with its lock at `owner`: who takes that from another finds out who has ended.
  InodeNo make_file(WholeNode& owner, WholeNode& opener) {
    FileSystem& fs = owner.fs();
    const NewInode fresh{.mode = S_IFREG | 0644};
    const auto made = run(owner, fs.create(fs.root(), "file", fresh, true));
    EXPECT_TRUE(made);
    const auto found = run(opener, opener.fs().lookup(fs.root(), "file"));
    EXPECT_TRUE(found);
    EXPECT_TRUE(run(opener, opener.fs().open(found->inode)));
    AttributeChange change;
    change.mode = 0600;
    EXPECT_TRUE(run(owner, fs.setattr(made->inode, change)));
    fs.forget(made->inode, 1);
    return made->inode;
  }
  void unlink(WholeNode& node) {
    EXPECT_TRUE(run(node, node.fs().unlink(node.fs().root(), "file")));
    loop.run_for(kSweeps);
  }
  bool exists(WholeNode& node, InodeNo inode) {
    const auto got = run(node, node.fs().getattr(inode));
    EXPECT_TRUE(got || got.error() == Errc::kStale);
    return got.has_value();
  }

  VirtualLoop loop;
  SeededRandom random{1};
  SimulatedLun lun{loop.clock(), random, {.size_bytes = 64 << 20, .logical_block = 512, .sessions = true}};
  unsigned runs = 0;
};

TEST_F(OrphansTest, OfANodeWhoseSlotNobodyHas) {
  auto a = mount("a", 1);
  auto b = mount("b", 2);
  const InodeNo file = make_file(*a, *b);
  unlink(*a);
  EXPECT_TRUE(exists(*a, file)) << "b has it open";
  crash(std::move(b));
  loop.run_for(kDeadTime + kSweeps);
  EXPECT_FALSE(exists(*a, file));
  EXPECT_TRUE(run(*a, a->stop()));
}

// There is no moment at which its slot is nobody's.
TEST_F(OrphansTest, OfANodeWhoseHostMountsAgainAtOnce) {
  auto a = mount("a", 1);
  auto b = mount("b", 2);
  const InodeNo file = make_file(*a, *b);
  crash(std::move(b));
  b = mount("b", 2);
  loop.run_for(kSweeps);
  unlink(*a);
  EXPECT_FALSE(exists(*a, file));
  EXPECT_TRUE(run(*b, b->stop()));
  EXPECT_TRUE(run(*a, a->stop()));
}

}  // namespace
}  // namespace cawfs::testing
