// A few nodes with real lock managers and mailboxes on one simulated LUN and one virtual clock, over a membership that
// lives in memory: slots join, die, are recovered after a while, and come back when the test says so.
//
// Each lock protects a counter in a device block, cached under the lock and written in place when the lock goes. Every
// operation checks that it sees what it must, and that nobody uses the lock who may not.
#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/device/simulated_device.h"
#include "core/runtime/virtual_loop.h"
#include "disklock/guarded_device.h"
#include "disklock/lock_manager.h"

namespace cawfs::test {

using namespace std::chrono_literals;

class QuietLog final : public Log {
 public:
  bool enabled(LogLevel level) const override { return level >= LogLevel::kWarning; }
  void write(LogLevel, std::string_view message) override { lines.emplace_back(message); }
  std::vector<std::string> lines;
};

inline constexpr std::uint32_t kTestSlots = 8;

inline Geometry test_geometry(std::uint32_t logical_block) {
  Geometry geometry;
  geometry.fs_id = 0x1234;
  geometry.logical_block = logical_block;
  geometry.block_count = 4096;
  geometry.slots = kTestSlots;
  geometry.group_count = 1;
  geometry.group_blocks = 3072;
  geometry.node_table = BlockNo{32};
  geometry.heartbeats = BlockNo{96};
  geometry.mailboxes = BlockNo{160};
  geometry.global_lock = BlockNo{1000};
  geometry.scratch = BlockNo{1001};
  geometry.first_group = BlockNo{1024};
  return geometry;
}

// What the slot records say.
struct SharedTable {
  struct Slot {
    format::SlotState state = format::SlotState::kClean;
    Incarnation incarnation;
    std::uint8_t flags = 0;
  };
  std::array<Slot, kSlots> slots;
};

class FakeMembership final : public Membership {
 public:
  FakeMembership(Executor& executor, BlockDevice& device, SharedTable& table, NodeId self)
      : executor_(executor), device_(device), table_(table), self_(self), seen_(table) {}

  Executor& executor() const override { return executor_; }
  NodeId self() const override { return self_; }
  BlockDevice& device() override { return device_; }
  Time lease_end() const override { return lapsed_ ? Time{} : executor_.now() + 10s; }
  Task<Result<>> wait_for_lease() override {
    while (lapsed_ && !withdrawn_) co_await executor_.sleep(1ms);
    if (withdrawn_) co_return fail(Errc::kFenced);
    co_return Result<>{};
  }
  Task<Result<format::SlotRecord>> read_slot(SlotNo slot) override {
    ++record_reads;
    if (corrupt_record == slot && on_corrupt_record) std::exchange(on_corrupt_record, {})();
    co_await executor_.sleep(100us);
    if (corrupt_records || corrupt_record == slot) co_return fail(record_error);
    format::SlotRecord record{};
    record.header.magic = format::kSlotMagic;
    record.state = static_cast<std::uint8_t>(table_.slots[slot.value].state);
    record.incarnation = table_.slots[slot.value].incarnation.value;
    record.flags = table_.slots[slot.value].flags;
    record.recoverer_slot = 0;
    record.recoverer_incarnation = 1;
    co_return record;
  }
  std::uint64_t active_slots() const override {
    std::uint64_t bits = 0;
    for (std::uint16_t slot = 0; slot < kSlots; ++slot) {
      if (in_use(seen_.slots[slot].state)) bits |= slot_bit(SlotNo{slot});
    }
    return bits;
  }
  Incarnation incarnation_of(SlotNo slot) const override {
    const auto& seen = seen_.slots[slot.value];
    return in_use(seen.state) ? seen.incarnation : Incarnation{};
  }
  bool withdrawn() const override { return withdrawn_; }
  void withdraw(Error reason) override {
    if (withdrawn_) return;
    withdrawn_ = true;
    for (auto* observer : std::vector(observers_)) observer->withdrawn(reason);
  }
  void add_observer(MembershipObserver* observer) override { observers_.push_back(observer); }
  void remove_observer(MembershipObserver* observer) override { std::erase(observers_, observer); }

  // The heartbeat's reading of the table.
  void heartbeat() {
    for (std::uint16_t slot = 0; slot < kSlots; ++slot) {
      const auto before = std::exchange(seen_.slots[slot], table_.slots[slot]);
      const auto& now = table_.slots[slot];
      if (before.state == now.state && before.incarnation == now.incarnation) continue;
      for (auto* observer : std::vector(observers_)) {
        observer->slot_changed(SlotNo{slot}, before.state, now.state, now.incarnation);
      }
    }
  }
  void reset() {
    for (auto* observer : std::vector(observers_)) observer->reset_seen();
  }
  void set_lapsed(bool lapsed) { lapsed_ = lapsed; }

  std::uint64_t record_reads = 0;
  bool corrupt_records = false;
  Errc record_error = Errc::kBadChecksum;  // of those
  std::optional<SlotNo> corrupt_record;
  std::function<void()> on_corrupt_record;  // as it is first read

 private:
  static bool in_use(format::SlotState state) {
    return state == format::SlotState::kActive || state == format::SlotState::kRecovering;
  }

  Executor& executor_;
  BlockDevice& device_;
  SharedTable& table_;
  NodeId self_;
  SharedTable seen_;
  bool lapsed_ = false;
  bool withdrawn_ = false;
  std::vector<MembershipObserver*> observers_;
};

// The truth about each lock's counter, and who uses the lock, over all nodes.
struct Truth {
  struct Lock {
    std::uint64_t value = 0;   // as the last completed increment left it
    std::uint64_t unsure = 0;  // increments that a crash has cut
    int exclusive_users = 0;
    int shared_users = 0;
  };
  std::map<LockName, Lock> locks;
};

class CountingClient final : public LockClient {
 public:
  CountingClient(Executor& executor, BlockDevice& device) : executor_(executor), device_(device) {}

  static std::uint64_t place(LockName name) {
    return (BlockNo{2048} + (name.block.value / 16 % 64) * 16 + name.entry).offset_bytes();
  }

  Task<void> invalidate(LockName, LockMode, LockMode) override {
    ++invalidations;
    co_await executor_.sleep(invalidation_time);
    if (blocker) co_await blocker->wait();
  }
  Task<Result<>> settle(LockName name, LockMode, LockMode to) override {
    const auto at = cache_.find(name);
    if (at != cache_.end() && at->second.dirty && !skip_write_back) {
      co_await write(name, at->second.value);
      cache_[name].dirty = false;
    }
    if (fail_settle) co_return fail(Errc::kMedium);
    if (to == LockMode::kNone) cache_.erase(name);
    co_return Result<>{};
  }
  bool is_open(LockName name) override { return open.contains(name); }

  Task<std::uint64_t> read(LockName name) {
    const auto at = cache_.find(name);
    if (at != cache_.end()) co_return at->second.value;
    IoBuffer buffer(kBlockSize);
    Result<> done = co_await device_.read(place(name), buffer.bytes());
    EXPECT_TRUE(done.has_value()) << describe(done.error().code);
    std::uint64_t value = 0;
    std::memcpy(&value, buffer.data(), sizeof(value));
    cache_[name] = {value, false};
    co_return value;
  }
  Task<void> write(LockName name, std::uint64_t value) {
    IoBuffer buffer(kBlockSize);
    std::memcpy(buffer.data(), &value, sizeof(value));
    Result<> done = co_await device_.write(place(name), buffer.bytes(), Durability::kFua);
    EXPECT_TRUE(done.has_value());
  }
  void put(LockName name, std::uint64_t value, bool dirty) { cache_[name] = {value, dirty}; }

  std::map<LockName, int> open;
  std::uint64_t invalidations = 0;
  Duration invalidation_time = 20us;
  Event* blocker = nullptr;  // invalidations wait for it
  bool skip_write_back = false;
  bool fail_settle = false;

 private:
  struct Cached {
    std::uint64_t value;
    bool dirty;
  };
  Executor& executor_;
  BlockDevice& device_;
  std::map<LockName, Cached> cache_;
};

struct TestNode {
  TestNode(VirtualLoop& loop, SimulatedLun& lun, const Geometry& geometry, SharedTable& table, NodeId id,
           std::uint64_t seed, LockTuning tuning)
      : executor(loop.add_executor()),
        id(id),
        random(seed),
        raw(lun.connect(executor, "node" + std::to_string(id.slot.value) + "." + std::to_string(id.incarnation.value))),
        device(*raw, executor),
        membership(executor, device, table, id),
        client(executor, device),
        mailboxes(membership, geometry, log, {}),
        locks(membership, mailboxes, geometry, random, log, tuning),
        tasks(executor) {
    locks.set_client(&client);
    locks.start();
  }

  Executor& executor;
  NodeId id;
  SeededRandom random;
  QuietLog log;
  std::unique_ptr<BlockDevice> raw;
  GuardedDevice device;
  FakeMembership membership;
  CountingClient client;
  Mailboxes mailboxes;
  LockManager locks;
  TaskGroup tasks;
  bool alive = true;
};

class LockCluster : public ::testing::Test {
 protected:
  explicit LockCluster(SimulatedLunOptions options = small()) : options_(options) { make(1); }

  static SimulatedLunOptions small() {
    SimulatedLunOptions options;
    options.size_bytes = 4096 * kBlockSize;
    return options;
  }

  void make(std::uint64_t seed) {
    seed_ = seed;
    random_ = std::make_unique<SeededRandom>(seed);
    loop_ = std::make_unique<VirtualLoop>();
    lun_ = std::make_unique<SimulatedLun>(loop_->clock(), *random_, options_);
    geometry_ = test_geometry(options_.logical_block);
    table_ = {};
    truth_ = {};
    nodes_.clear();
    heartbeats_ = &loop_->add_executor();
    heartbeat_tasks_ = std::make_unique<TaskGroup>(*heartbeats_);
    stop_ = std::make_unique<StopSource>(*heartbeats_);
    heartbeat_tasks_->spawn(heartbeat_all());
    format_lock_block(geometry_.global_lock);
    for (std::uint64_t i = 0; i < 8; ++i) format_lock_block(chunk(i));
  }

  void TearDown() override { end(); }

  // Stops the nodes that are alive; killed ones stay as they are, reachable for ever.
  void end() {
    for (auto& node : nodes_) {
      if (!node->alive) {
        graveyard().push_back(std::move(node));
        continue;
      }
      loop_->run(node->executor, node->tasks.join());
      loop_->run(node->executor, node->locks.stop());
      loop_->run(node->executor, node->device.join());
      loop_->run(node->executor, node->raw->close());
    }
    nodes_.clear();
    if (!heartbeat_tasks_) return;
    stop_->request();
    loop_->run(*heartbeats_, heartbeat_tasks_->join());
    heartbeat_tasks_.reset();
    stop_.reset();
    graves().push_back({std::move(random_), std::move(loop_), std::move(lun_)});
  }

  static BlockNo chunk(std::uint64_t i) { return BlockNo{1040 + i * 16}; }

  void format_lock_block(BlockNo block) {
    IoBuffer image(options_.logical_block);
    auto& made = *reinterpret_cast<format::LockBlock*>(image.data());
    made.header.magic = format::kLockMagic;
    made.header.sequence = 1;
    seal_caw(image.bytes(), block.offset_bytes(), geometry_.fs_id);
    lun_->poke(block.offset_bytes(), image.bytes());
  }

  LockEntry on_disk(LockName name) {
    IoBuffer image(options_.logical_block);
    lun_->peek(name.block.offset_bytes(), image.bytes());
    EXPECT_TRUE(verify_caw(image.bytes(), format::kLockMagic, name.block.offset_bytes(), geometry_.fs_id).has_value());
    return decode(reinterpret_cast<const format::LockBlock*>(image.data())->entries[name.entry]).value();
  }

  TestNode& add_node(std::uint16_t slot) {
    auto& record = table_.slots[slot];
    record.state = format::SlotState::kActive;
    record.incarnation = Incarnation{record.incarnation.value + 1};
    const NodeId id{SlotNo{slot}, record.incarnation};
    nodes_.push_back(std::make_unique<TestNode>(*loop_, *lun_, geometry_, table_, id, random_->next(), tuning_));
    return *nodes_.back();
  }

  void kill(TestNode& node) {
    node.alive = false;
    node.executor.kill();
    for (auto& [name, lock] : uses_[&node]) {
      Truth::Lock& truth = truth_.locks[name];
      truth.exclusive_users -= lock.exclusive_users;
      truth.shared_users -= lock.shared_users;
      truth.unsure += static_cast<std::uint64_t>(lock.exclusive_users);
    }
    uses_.erase(&node);
  }
  void recovering(const TestNode& node) { table_.slots[node.id.slot.value].state = format::SlotState::kRecovering; }
  void recovered(const TestNode& node) { table_.slots[node.id.slot.value].state = format::SlotState::kClean; }

  // Runs a task to its end, which must come within `limit_` of virtual time.
  template <class T>
  T run(TestNode& node, Task<T> task) {
    std::optional<T> result;
    const auto keep = [](Task<T> inner, std::optional<T>& out) -> Task<void> {
      T value = co_await std::move(inner);
      out.emplace(std::move(value));
    };
    run(node, keep(std::move(task), result));
    return std::move(*result);
  }
  void run(TestNode& node, Task<void> task) {
    TaskGroup group(node.executor);
    group.spawn(std::move(task));
    const Time end = loop_->now() + limit_;
    const bool ended = loop_->run_until([&] { return group.running() == 0 || loop_->now() > end; });
    if (ended && group.running() == 0) return;
    std::fprintf(stderr, "stuck for %lld s, seed %llu\n", static_cast<long long>(limit_ / 1s),
                 static_cast<unsigned long long>(seed_));
    for (const auto& other : nodes_) {
      for (const std::string& line : other->log.lines)
        std::fprintf(stderr, "  node %u: %s\n", other->id.slot.value, line.c_str());
    }
    std::abort();
  }

  LockHold take(TestNode& node, LockName name, LockMode mode, LocalUse use = LocalUse::kExclusive) {
    Result<LockHold> hold = run(node, node.locks.acquire(name, mode, use));
    if (hold) return std::move(*hold);
    ADD_FAILURE() << describe(hold.error().code) << ": " << hold.error().where;
    return LockHold();
  }

  // One operation: under EX the counter is raised by one, under S it is read.
  Task<void> operate(TestNode& node, LockName name, LockMode mode, Duration pause, bool write_through) {
    const Time began = node.executor.now();
    const std::uint64_t floor = truth_.locks[name].value;
    Result<LockHold> hold = co_await node.locks.acquire(name, mode, LocalUse::kExclusive);
    if (!hold) {
      ++failed_;
      co_return;
    }
    longest_ = std::max(longest_, node.executor.now() - began);
    ++operations_;
    enter(node, name, mode);
    const std::uint64_t value = co_await node.client.read(name);
    if (pause > 0s) co_await node.executor.sleep(pause);
    Truth::Lock& truth = truth_.locks[name];
    EXPECT_GE(value, floor) << "older than what completed before, seed " << seed_;
    if (mode == LockMode::kExclusive) {
      EXPECT_GE(value, truth.value) << "an update is lost, seed " << seed_;
      EXPECT_LE(value, truth.value + truth.unsure) << "seed " << seed_;
      if (write_through) co_await node.client.write(name, value + 1);
      node.client.put(name, value + 1, !write_through);
      truth.value = value + 1;
      truth.unsure = 0;
    }
    leave(node, name, mode);
    hold->release();
  }

  void enter(TestNode& node, LockName name, LockMode mode) {
    Truth::Lock& truth = truth_.locks[name];
    if (mode == LockMode::kExclusive) {
      EXPECT_EQ(truth.exclusive_users, 0) << "seed " << seed_;
      EXPECT_EQ(truth.shared_users, 0) << "seed " << seed_;
      ++truth.exclusive_users;
      ++uses_[&node][name].exclusive_users;
    } else {
      EXPECT_EQ(truth.exclusive_users, 0) << "seed " << seed_;
      ++truth.shared_users;
      ++uses_[&node][name].shared_users;
    }
  }
  void leave(TestNode& node, LockName name, LockMode mode) {
    const auto count = mode == LockMode::kExclusive ? &Truth::Lock::exclusive_users : &Truth::Lock::shared_users;
    --(truth_.locks[name].*count);
    --(uses_[&node][name].*count);
  }

  // `count` operations, one after the other.
  Task<void> storm(TestNode& node, int count, std::uint64_t locks, std::uint64_t seed, bool write_through) {
    SeededRandom random(seed);
    for (int i = 0; i < count && !testing::Test::HasFailure(); ++i) {
      const std::uint64_t pick = random.below(locks);
      const LockName name{chunk(pick % 3), static_cast<std::uint8_t>(pick / 3)};
      const LockMode mode = random.one_in(3) ? LockMode::kExclusive : LockMode::kShared;
      const Duration pause = random.one_in(4) ? Duration(random.below(2'000'000)) : 0ns;
      co_await operate(node, name, mode, pause, write_through);
      if (random.one_in(5)) co_await node.executor.sleep(Duration(random.below(5'000'000)));
    }
  }

  Task<void> heartbeat_all() {
    while (!stop_->requested()) {
      for (auto& node : nodes_) {
        if (node && node->alive) node->membership.heartbeat();
      }
      co_await stop_->sleep(50ms);
    }
  }

  struct Grave {
    std::unique_ptr<SeededRandom> random;
    std::unique_ptr<VirtualLoop> loop;
    std::unique_ptr<SimulatedLun> lun;
  };
  static std::vector<std::unique_ptr<TestNode>>& graveyard() {
    static auto& all = *new std::vector<std::unique_ptr<TestNode>>;
    return all;
  }
  static std::vector<Grave>& graves() {
    static auto& all = *new std::vector<Grave>;
    return all;
  }

  SimulatedLunOptions options_;
  LockTuning tuning_;
  Duration limit_ = 120s;
  std::uint64_t seed_ = 1;
  std::unique_ptr<SeededRandom> random_;
  std::unique_ptr<VirtualLoop> loop_;
  std::unique_ptr<SimulatedLun> lun_;
  Geometry geometry_;
  SharedTable table_;
  Truth truth_;
  std::map<TestNode*, std::map<LockName, Truth::Lock>> uses_;
  std::vector<std::unique_ptr<TestNode>> nodes_;
  Executor* heartbeats_ = nullptr;
  std::unique_ptr<TaskGroup> heartbeat_tasks_;
  std::unique_ptr<StopSource> stop_;
  Duration longest_{0};
  std::uint64_t operations_ = 0;
  std::uint64_t failed_ = 0;
};

}  // namespace cawfs::test
