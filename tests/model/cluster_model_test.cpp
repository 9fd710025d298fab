// Several nodes at once against the model: every answer must be explained by some order of the calls (see Linearizer).
// CAWFS_SEED chooses another run.
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "core/format/make_file_system.h"
#include "core/runtime/task_group.h"
#include "tests/model/concurrent_client.h"
#include "tests/model/linearizer.h"
#include "tests/sim/sim_node.h"
#include "utils/fsck/fsck.h"

namespace cawfs::test {
namespace {

#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
constexpr std::uint64_t kRuns = 5;
#else
constexpr std::uint64_t kRuns = 40;
#endif
constexpr unsigned kBursts = 60;
constexpr unsigned kCalls = 4;  // of each node in a burst

// Nodes that mount one LUN, on which now and then a COMPARE AND WRITE loses its reply.
class ClusterOfClients {
 public:
  ClusterOfClients(std::uint64_t seed, unsigned nodes)
      : random_(seed), lun_(loop_.clock(), random_, {.size_bytes = 64 << 20}), outside_(loop_.add_executor()) {
    make(nodes);
    lun_.set_hook([this](const SimulatedRequest& request) {
      const bool lost = request.kind == SimulatedRequest::Kind::kCaw && random_.one_in(50);
      return lost ? SimulatedFate::kLoseReply : SimulatedFate::kRun;
    });
    for (unsigned i = 0; i < nodes; ++i) {
      nodes_.push_back(std::make_unique<sim::SimNode>(loop_, lun_, "node" + std::to_string(i), 1, 100, random_.next()));
      sim::SimNode& node = *nodes_.back();
      EXPECT_TRUE(loop_.run(node.executor(), node.start()));
    }
    FileSystem& fs = nodes_.front()->fs();
    const auto root = loop_.run(nodes_.front()->executor(), fs.getattr(fs.root()));
    EXPECT_TRUE(root);
    for (unsigned i = 0; i < nodes; ++i) {
      sim::SimNode& node = *nodes_[i];
      clients_.push_back(
          std::make_unique<ConcurrentClient>(i, node.fs(), node.executor(), random_.next(), *root, recorder_));
    }
    linearizer_ = std::make_unique<Linearizer>(*root);
  }

  bool burst() {
    std::vector<std::unique_ptr<TaskGroup>> groups;
    for (unsigned i = 0; i < nodes_.size(); ++i) {
      groups.push_back(std::make_unique<TaskGroup>(nodes_[i]->executor()));
      groups.back()->spawn(clients_[i]->burst(kCalls));
    }
    for (auto& group : groups) loop_.run(group->executor(), group->join());
    return explained();
  }

  void end() {
    for (unsigned i = 0; i < nodes_.size(); ++i) loop_.run(nodes_[i]->executor(), clients_[i]->let_go());
    EXPECT_TRUE(explained());
    for (auto& node : nodes_) EXPECT_TRUE(loop_.run(node->executor(), node->stop()));
    auto device = lun_.connect(outside_, "fsck");
    const auto report = loop_.run(outside_, check_file_system(outside_, *device, {}));
    ASSERT_TRUE(report);
    EXPECT_TRUE(report->clean()) << report->text();
    loop_.run(outside_, device->close());
  }

  // Of each kind: how many were refused, and how many not.
  struct Count {
    std::uint64_t done = 0;
    std::uint64_t refused = 0;
  };
  using Counts = std::array<Count, kCallKinds>;
  const Counts& counts() const { return counts_; }
  std::size_t most_states() const { return most_states_; }

 private:
  void make(unsigned nodes) {
    auto device = lun_.connect(outside_, "mkfs");
    MakeOptions options;
    options.slots = static_cast<std::uint16_t>(nodes);
    options.journal_blocks = 256;
    options.discard = false;
    EXPECT_TRUE(loop_.run(outside_, make_file_system(*device, random_, options)));
    loop_.run(outside_, device->close());
  }

  bool explained() {
    const std::vector<Call> calls = std::exchange(recorder_.calls, {});
    for (const Call& call : calls) {
      Count& count = counts_.at(static_cast<std::size_t>(call.kind));
      ++(call.error ? count.refused : count.done);
    }
    const bool good = linearizer_->explains(calls);
    most_states_ = std::max(most_states_, linearizer_->states());
    if (good) return true;
    std::string text;
    for (const Call& call : calls) text += "  " + describe(call) + "\n";
    ADD_FAILURE() << "no order explains\n" << text << linearizer_->obstacle();
    return false;
  }

  VirtualLoop loop_;
  SeededRandom random_;
  SimulatedLun lun_;
  Executor& outside_;
  CallRecorder recorder_;
  std::vector<std::unique_ptr<sim::SimNode>> nodes_;
  std::vector<std::unique_ptr<ConcurrentClient>> clients_;
  std::unique_ptr<Linearizer> linearizer_;
  Counts counts_{};
  std::size_t most_states_ = 0;
};

TEST(ClusterModel, EveryAnswerIsExplainedBySomeOrder) {
  const char* chosen = std::getenv("CAWFS_SEED");
  const std::uint64_t first = chosen ? std::strtoull(chosen, nullptr, 10) : 1;
  ClusterOfClients::Counts counts{};
  for (std::uint64_t seed = first; seed < first + (chosen ? 1 : kRuns); ++seed) {
    SCOPED_TRACE(testing::Message() << "CAWFS_SEED=" << seed);
    ClusterOfClients cluster(seed, 2 + seed % 3);
    bool good = true;
    for (unsigned i = 0; i < kBursts && good; ++i) good = cluster.burst();
    ASSERT_TRUE(good);
    cluster.end();
    for (std::size_t kind = 0; kind < kCallKinds; ++kind) {
      counts.at(kind).done += cluster.counts().at(kind).done;
      counts.at(kind).refused += cluster.counts().at(kind).refused;
    }
    if (chosen) std::printf("%zu states at once\n", cluster.most_states());
  }
  if (chosen) return;
  for (std::size_t kind = 0; kind < kCallKinds; ++kind) {
    std::printf("kind %zu: %llu, and %llu refused\n", kind, static_cast<unsigned long long>(counts.at(kind).done),
                static_cast<unsigned long long>(counts.at(kind).refused));
    EXPECT_GT(counts.at(kind).done, 0u) << kind;
    const bool never_refused = static_cast<CallKind>(kind) >= CallKind::kReaddir;  // most of them
    EXPECT_TRUE(never_refused || counts.at(kind).refused > 0) << kind;
  }
}

}  // namespace
}  // namespace cawfs::test
