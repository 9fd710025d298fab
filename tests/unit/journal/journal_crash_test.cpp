// Power cut at every device write of a random script: after replay the disk holds exactly a prefix of the transactions,
// at least as long as what commit() had promised.
//
// The script's workers change metadata, write ordered data and name it in a transaction, free blocks and reuse them as
// data, give locks up to "another node" that writes under them, and take them back with a higher generation.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>

#include "tests/unit/journal/journal_fixture.h"

namespace cawfs::test {
namespace {

using namespace std::chrono_literals;
using Kind = SimulatedRequest::Kind;

constexpr unsigned kWorkers = 3;
constexpr unsigned kLocksPerWorker = 2;
constexpr unsigned kBlocksPerLock = 5;
constexpr unsigned kLocks = kWorkers * kLocksPerWorker;

BlockNo block_of(unsigned lock, unsigned index) {
  return BlockNo{1000 + lock * 16 + index};
}

// What is known of a block as of a transaction.
struct State {
  enum class Kind : std::uint8_t { kMetadata, kData, kUnknown };
  Kind kind = Kind::kUnknown;
  std::uint64_t value = 0;
};

// The states of all blocks after each transaction, and what has been promised.
struct History {
  std::map<std::uint64_t, std::map<BlockNo, State>> changes;  // by transaction
  std::uint64_t promised = 0;

  void record(TxId id, BlockNo block, State state) { changes[id.value][block] = state; }
  // Data is written in place, outside of any transaction: what was there is gone, whichever of them survive.
  void overwritten(BlockNo block) {
    for (auto& [id, blocks] : changes) {
      const auto it = blocks.find(block);
      if (it != blocks.end() && it->second.kind == State::Kind::kData) it->second.kind = State::Kind::kUnknown;
    }
  }
};

class Script {
 public:
  Script(VirtualLoop& loop, TestDisk& disk, std::uint64_t seed, NodeId id, unsigned steps)
      : disk_(disk),
        random_(seed),
        id_(id),
        node_(loop, disk, "node " + std::to_string(id.incarnation.value), id),
        steps_(steps),
        group_(node_.executor) {
    for (unsigned lock = 0; lock < kLocks; ++lock) {
      generations_[lock] = 1;
      disk.set_locks(test_lock(lock), id, 1);
      for (unsigned i = 0; i < kBlocksPerLock; ++i) {
        const std::uint64_t value = next_value();
        disk.set_value(block_of(lock, i), value);
        history.record(TxId{0}, block_of(lock, i), {State::Kind::kMetadata, value});
      }
    }
  }

  void start() { group_.spawn(run()); }
  bool done() const { return done_; }
  Executor& executor() { return node_.executor; }
  History history;
  bool failed = false;

 private:
  struct Block {
    bool metadata = true;
    bool reusable = false;  // freed, and that has committed
  };

  std::uint64_t next_value() { return ++value_ * 64 + random_.below(64); }

  Task<void> run() {
    const auto started = co_await node_.log.start();
    failed |= !started;
    TaskGroup workers(node_.executor);
    for (unsigned i = 0; i < kWorkers; ++i) workers.spawn(work(i));
    co_await workers.join();
    const auto stopped = co_await node_.log.stop();
    failed |= !stopped;
    done_ = true;
  }

  Task<void> work(unsigned worker) {
    for (unsigned step = 0; step < steps_; ++step) {
      const unsigned lock = worker * kLocksPerWorker + static_cast<unsigned>(random_.below(kLocksPerWorker));
      switch (random_.below(8)) {
        case 0:
          co_await promise();
          break;
        case 1:
          co_await lose_lock(lock);
          break;
        case 2:
          co_await write_data(lock);
          break;
        case 3:
          co_await free_block(lock);
          break;
        default:
          co_await change_some(lock);
      }
    }
  }

  Task<void> promise() {
    const TxId id = node_.log.last();
    const auto done = co_await node_.log.commit(id);
    failed |= !done;
    history.promised = std::max(history.promised, id.value);
  }

  Task<void> change_one(unsigned lock, BlockNo block, TxHandle& handle) {
    BufferRef buffer = node_.buffers.find(block);
    if (!buffer) {
      const auto read = co_await node_.buffers.read(block, format::BlockType::kTreeNode, test_lock(lock));
      failed |= !read;
      if (!read) co_return;
      buffer = *read;
    }
    const LockHold hold = test_hold(test_lock(lock), generations_[lock]);
    handle.change(*buffer, hold);
    const std::uint64_t value = next_value();
    put_value(buffer->bytes(), value);
    history.record(handle.id(), block, {State::Kind::kMetadata, value});
  }

  Task<void> change_some(unsigned lock) {
    const unsigned count = 1 + static_cast<unsigned>(random_.below(kBlocksPerLock));
    auto handle = co_await node_.log.begin(count);
    failed |= !handle;
    if (!handle) co_return;
    for (unsigned i = 0; i < count; ++i) {
      const BlockNo block = block_of(lock, static_cast<unsigned>(random_.below(kBlocksPerLock)));
      if (!blocks_[block].metadata) continue;
      co_await change_one(lock, block, *handle);
    }
  }

  // Ordered data: written first, then named by a transaction. A freed block is reused for it, and later becomes
  // metadata again.
  Task<void> write_data(unsigned lock) {
    for (unsigned i = 1; i < kBlocksPerLock; ++i) {
      const BlockNo block = block_of(lock, i);
      if (blocks_[block].metadata || !blocks_[block].reusable) continue;
      if (random_.one_in(2)) {
        co_await make_metadata(lock, block);
      } else {
        co_await write_block(lock, block);
      }
      co_return;
    }
  }

  Task<void> write_block(unsigned lock, BlockNo block) {
    const std::uint64_t value = next_value();
    IoBuffer bytes(kBlockSize);
    for (std::size_t at = 0; at < kBlockSize; at += sizeof(value))
      std::memcpy(bytes.data() + at, &value, sizeof(value));
    history.overwritten(block);
    const auto written = co_await node_.device->write(block.offset_bytes(), bytes.bytes(), Durability::kCached);
    failed |= !written;
    node_.log.data_written();
    auto handle = co_await node_.log.begin(1);
    failed |= !handle;
    if (!handle) co_return;
    co_await change_one(lock, block_of(lock, 0), *handle);
    history.record(handle->id(), block, {State::Kind::kData, value});
  }

  Task<void> make_metadata(unsigned lock, BlockNo block) {
    auto handle = co_await node_.log.begin(1);
    failed |= !handle;
    if (!handle) co_return;
    const BufferRef buffer = node_.buffers.make(block, format::BlockType::kTreeNode, test_lock(lock));
    const LockHold hold = test_hold(test_lock(lock), generations_[lock]);
    handle->change(*buffer, hold);
    const std::uint64_t value = next_value();
    put_value(buffer->bytes(), value);
    history.record(handle->id(), block, {State::Kind::kMetadata, value});
    blocks_[block] = {};
  }

  Task<void> free_block(unsigned lock) {
    const BlockNo block = block_of(lock, 1 + static_cast<unsigned>(random_.below(kBlocksPerLock - 1)));
    if (!blocks_[block].metadata) co_return;
    auto handle = co_await node_.log.begin(2);
    failed |= !handle;
    if (!handle) co_return;
    co_await change_one(lock, block_of(lock, 0), *handle);
    if (random_.one_in(2)) co_await change_one(lock, block, *handle);
    blocks_[block] = {.metadata = false, .reusable = false};
    handle->revoke({block, 1});
    handle->on_commit([this, block] { blocks_[block].reusable = true; });
    history.record(handle->id(), block, {State::Kind::kUnknown, 0});
  }

  // Another node takes the lock, writes under it, and gives it back.
  Task<void> lose_lock(unsigned lock) {
    const LockName name = test_lock(lock);
    const auto done = co_await node_.log.write_back(name);
    failed |= !done;
    if (!done) co_return;
    node_.buffers.forget(name);
    // All that was changed under the lock has committed; what others wrote since belongs to no transaction.
    for (unsigned i = 0; i < kBlocksPerLock; ++i) {
      const BlockNo block = block_of(lock, i);
      if (!blocks_[block].metadata) continue;
      const std::uint64_t value = next_value();
      disk_.set_value(block, value);
      TxId last_change{};
      for (const auto& [id, changes] : history.changes) {
        if (changes.contains(block)) last_change = TxId{id};
      }
      if (!node_.log.committed(last_change)) failed = true;
      history.promised = std::max(history.promised, last_change.value);
      history.record(last_change, block, {State::Kind::kMetadata, value});
    }
    generations_[lock] += 1 + random_.below(2);
    disk_.set_lock(name, id_, generations_[lock]);
  }

  TestDisk& disk_;
  SeededRandom random_;
  NodeId id_;
  TestNode node_;
  unsigned steps_;
  TaskGroup group_;
  std::uint64_t value_ = 0;
  std::map<unsigned, std::uint64_t> generations_;
  std::map<BlockNo, Block> blocks_;
  bool done_ = false;
};

bool matches(const TestDisk& disk, BlockNo block, State state) {
  switch (state.kind) {
    case State::Kind::kUnknown:
      return true;
    case State::Kind::kMetadata:
      return disk.value(block) == state.value;
    case State::Kind::kData: {
      IoBuffer bytes(kBlockSize);
      disk.lun.peek(block.offset_bytes(), bytes.bytes());
      for (std::size_t at = 0; at < kBlockSize; at += sizeof(state.value)) {
        if (std::memcmp(bytes.data() + at, &state.value, sizeof(state.value)) != 0) return false;
      }
      return true;
    }
  }
  return false;
}

// The first transaction, from the promised one on, after which the disk would look as it does; none: broken.
std::optional<std::uint64_t> find_prefix(const TestDisk& disk, const History& history) {
  std::map<BlockNo, State> now;
  const std::uint64_t last = history.changes.rbegin()->first;
  for (std::uint64_t id = 0; id <= last; ++id) {
    if (const auto it = history.changes.find(id); it != history.changes.end()) {
      for (const auto& [block, state] : it->second) now[block] = state;
    }
    if (id < history.promised) continue;
    const bool all = std::ranges::all_of(now, [&](const auto& s) { return matches(disk, s.first, s.second); });
    if (all) return id;
  }
  return std::nullopt;
}

// For the message of a failure: what differs from the state after transaction `id`.
std::string differences(const TestDisk& disk, const History& history, std::uint64_t id) {
  std::map<BlockNo, State> now;
  for (const auto& [at, changes] : history.changes) {
    if (at > id) break;
    for (const auto& [block, state] : changes) now[block] = state;
  }
  std::string out;
  for (const auto& [block, state] : now) {
    if (matches(disk, block, state)) continue;
    out += fmt::format(" block {}: {} {} is {};", block.value, state.kind == State::Kind::kData ? "data" : "metadata",
                       state.value, disk.value(block));
  }
  return out;
}

struct Cut {
  std::uint64_t at = 0;  // the write or flush that is not executed any more; 0: none
  std::uint64_t seen = 0;
  bool fell = false;
};

void set_cut(TestDisk& disk, Cut& cut) {
  disk.lun.set_hook([&cut](const SimulatedRequest& request) {
    if (request.kind != Kind::kWrite && request.kind != Kind::kFlush) return SimulatedFate::kRun;
    if (cut.fell) return SimulatedFate::kNeverReturn;
    if (++cut.seen != cut.at) return SimulatedFate::kRun;
    cut.fell = true;
    return SimulatedFate::kNeverReturn;
  });
}

struct Replayer {
  Replayer(VirtualLoop& loop, TestDisk& disk, std::string name)
      : executor(loop.add_executor()), device(disk.lun.connect(executor, std::move(name))), group(executor) {}
  Executor& executor;
  std::unique_ptr<BlockDevice> device;
  QuietLog messages;
  SeededRandom random{1};
  TaskGroup group;
  std::optional<Result<ReplayReport>> report;
};

Task<void> replay_into(Replayer& replayer, const TestDisk& disk, NodeId dead) {
  replayer.report =
      co_await replay_journal({replayer.executor, *replayer.device, disk.geometry, replayer.random, replayer.messages},
                              disk.place(dead), ReplayMode::kReplay);
}

struct Totals {
  std::uint64_t records = 0, applied = 0, stale = 0, revoked = 0, unpromised = 0;
};

// Replays, cut at write `replay_cut`, until it has run to its end.
Result<ReplayReport> replay(VirtualLoop& loop, TestDisk& disk, NodeId dead, std::uint64_t replay_cut) {
  for (unsigned run = 0;; ++run) {
    Cut cut{.at = run == 0 ? replay_cut : 0};
    set_cut(disk, cut);
    Replayer& replayer = kept(std::make_unique<Replayer>(loop, disk, "replayer" + std::to_string(run)));
    replayer.group.spawn(replay_into(replayer, disk, dead));
    loop.run_until([&] { return cut.fell || replayer.report; });
    disk.lun.set_hook({});
    if (replayer.report) return *replayer.report;
    replayer.executor.kill();
    disk.lun.power_cut();
  }
}

struct World {
  World(std::uint64_t seed, std::uint32_t logical_block) : random(seed), disk(loop, random, logical_block) {}
  VirtualLoop loop;
  SeededRandom random;
  TestDisk disk;
};

// One life of a node: the script, cut at write `at` (0: not at all), then replay, cut at its write `replay_cut` and run
// again. Returns how many writes the script made.
std::uint64_t live(World& world, std::uint64_t seed, NodeId id, unsigned steps, std::uint64_t at,
                   std::uint64_t replay_cut, Totals& totals) {
  TestDisk& disk = world.disk;
  Script& script = kept(std::make_unique<Script>(world.loop, disk, seed, id, steps));
  Cut cut{.at = at};
  set_cut(disk, cut);
  script.start();
  const bool ended = world.loop.run_until([&] { return cut.fell || script.done(); });
  EXPECT_TRUE(ended) << "the script hangs";
  EXPECT_FALSE(script.failed);
  const std::uint64_t writes = cut.seen;
  if (script.done()) {
    script.history.promised = script.history.changes.rbegin()->first;
  } else {
    script.executor().kill();
    disk.lun.power_cut();
  }

  const auto report = replay(world.loop, disk, id, replay_cut);
  EXPECT_TRUE(report) << describe(report.error().code) << " " << report.error().where;
  if (!report) return writes;
  const auto prefix = find_prefix(disk, script.history);
  EXPECT_TRUE(prefix) << "no prefix from transaction " << script.history.promised << " on is what the disk holds;"
                      << differences(disk, script.history, script.history.promised);
  if (script.done()) EXPECT_TRUE(report->empty);
  totals.records += report->records;
  totals.applied += report->applied;
  totals.stale += report->stale;
  totals.revoked += report->revoked;
  if (prefix && *prefix > script.history.promised) ++totals.unpromised;
  return writes;
}

std::uint64_t run_once(std::uint64_t seed, unsigned steps, std::uint32_t logical_block, std::uint64_t at,
                       std::uint64_t replay_cut, Totals& totals) {
  World& world = kept(std::make_unique<World>(seed + at * 1000, logical_block));
  return live(world, seed, kNode, steps, at, replay_cut, totals);
}

void cut_everywhere(std::uint64_t seed, unsigned steps, std::uint32_t logical_block) {
  Totals totals;
  const std::uint64_t writes = run_once(seed, steps, logical_block, 0, 0, totals);
  for (std::uint64_t at = 1; at <= writes; ++at) {
    SCOPED_TRACE("seed " + std::to_string(seed) + ", cut at write " + std::to_string(at));
    run_once(seed, steps, logical_block, at, at % 23, totals);
    if (::testing::Test::HasFailure()) return;
  }
  ::testing::Test::RecordProperty("writes", std::to_string(writes));
  // The script must reach what it is for.
  EXPECT_GT(totals.records, writes);
  EXPECT_GT(totals.applied, writes);
  EXPECT_GT(totals.stale, 0u);
  EXPECT_GT(totals.revoked, 0u);
  EXPECT_GT(totals.unpromised, 0u);
}

TEST(JournalCrash, PowerCutAtEveryWrite4096) {
  for (std::uint64_t seed = 1; seed <= 4; ++seed) cut_everywhere(seed, 60, 4096);
}

TEST(JournalCrash, PowerCutAtEveryWrite512) {
  for (std::uint64_t seed = 11; seed <= 12; ++seed) cut_everywhere(seed, 60, 512);
}

// One incarnation after the other on the same ring, each killed somewhere: what an older one left in the ring, such as
// a record whose predecessor was lost, counts no more.
TEST(JournalCrash, ManyLives) {
  for (std::uint64_t seed = 100; seed < 130; ++seed) {
    World& world = kept(std::make_unique<World>(seed, 512));
    SeededRandom random(seed);
    Totals totals;
    for (std::uint32_t incarnation = 1; incarnation <= 12; ++incarnation) {
      SCOPED_TRACE("seed " + std::to_string(seed) + ", incarnation " + std::to_string(incarnation));
      live(world, random.next(), {kNode.slot, Incarnation{incarnation}}, 120, 1 + random.below(300), random.below(20),
           totals);
      if (::testing::Test::HasFailure()) return;
    }
  }
}

TEST(JournalCrash, ReplayCutAtEveryWrite) {
  Totals totals;
  for (std::uint64_t at = 20; at <= 260; at += 40) {
    for (std::uint64_t replay_cut = 1; replay_cut <= 30; ++replay_cut) {
      SCOPED_TRACE("cut at write " + std::to_string(at) + ", replay at " + std::to_string(replay_cut));
      run_once(77, 60, 512, at, replay_cut, totals);
      if (::testing::Test::HasFailure()) return;
    }
  }
}

}  // namespace
}  // namespace cawfs::test
