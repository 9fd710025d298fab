// A few cluster members on one simulated LUN and one virtual clock. Each node writes to a block of its own all the
// time; a replay notes what stands there, and nothing of the dead node may land from then on (design §10, invariant 2).
// Where the target has sessions, no COMPARE AND WRITE may ever have been refused: LIO would not be atomic after it.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/device/simulated_device.h"
#include "core/format/cluster_verify.h"
#include "core/runtime/virtual_loop.h"
#include "disklock/cluster_member.h"

namespace cawfs::test {

using namespace std::chrono_literals;

inline constexpr Duration kDeadTime = 10s;

class MemberLog final : public Log {
 public:
  MemberLog(const VirtualLoop& loop, std::string name) : loop_(loop), name_(std::move(name)) {}
  bool enabled(LogLevel level) const override { return level >= LogLevel::kInfo; }
  void write(LogLevel, std::string_view message) override {
    const double now = std::chrono::duration<double>(loop_.now().since_boot).count();
    lines.push_back(fmt::format("{:9.3f} {}: {}", now, name_, message));
  }
  bool has(std::string_view text) const {
    return std::ranges::any_of(lines, [&](const std::string& line) { return line.find(text) != std::string::npos; });
  }
  std::vector<std::string> lines;

 private:
  const VirtualLoop& loop_;
  std::string name_;
};

struct NodeSettings {
  std::string name;
  std::uint8_t uuid = 0;  // of the host; 0: from the name
  std::uint8_t boot = 1;
  bool host_lock = false;
  bool local = false;
  bool no_aptpl = false;
};

class MemberCluster;

// One daemon.
struct MemberNode final : RecoveryClient, MembershipObserver {
  MemberNode(MemberCluster& c, const NodeSettings& s);
  Task<Result<>> replay(const format::SlotRecord& dead, NodeId dead_node) override;
  void reset_seen() override { ++resets; }
  void lease_lapsed() override { ++lapses; }
  void withdrawn(Error) override { ++withdrawals; }
  Task<void> write_all_the_time();
  static Task<void> leave_by_itself(MemberNode& node) { node.left = co_await node.member.leave(); }
  static Task<void> join_by_itself(MemberNode& node) { node.joined = co_await node.member.join(); }

  MemberCluster& cluster;
  NodeSettings settings;
  Executor& executor;
  std::unique_ptr<BlockDevice> raw;
  SeededRandom random;
  MemberLog log;
  ClusterMember member;
  TaskGroup writers;
  std::optional<Result<>> joined;  // by begin_join()
  std::optional<Result<>> left;    // by begin_stop()
  bool stop_writing = false;
  bool killed = false;
  int resets = 0;
  int lapses = 0;
  int withdrawals = 0;
  std::uint64_t writes = 0;
};

class MemberCluster {
 public:
  explicit MemberCluster(std::uint64_t seed, SimulatedLunOptions options = {.sessions = true}, std::uint16_t slots = 4)
      : random(seed), lun(loop.clock(), random, sized(options)), sessions(options.sessions) {
    geometry.fs_id = 0x1234;
    geometry.logical_block = options.logical_block;
    geometry.block_count = 4096;
    geometry.slots = slots;
    geometry.node_table = BlockNo{32};
    geometry.heartbeats = BlockNo{96};
    geometry.mailboxes = BlockNo{160};
    geometry.global_lock = BlockNo{1000};
    geometry.first_group = BlockNo{1024};
    for (std::uint16_t i = 0; i < slots; ++i) put(SlotNo{i}, format::SlotState::kClean, Incarnation{});
  }
  ~MemberCluster() {
    lun.set_hook({});
    for (auto& node : nodes) {
      if (!node || node->killed) continue;
      loop.resume(node->executor);
      stop(*node);
    }
    if (::testing::Test::HasFailure()) print_logs();
    // A dead node's frames may still name its objects: they are kept.
    for (auto& node : nodes) {
      if (node && node->killed) graveyard().push_back(std::move(node));
    }
    check_landed();
    if (sessions) EXPECT_EQ(lun.refused_caws(), 0u);
    on_replay = {};
  }

  MemberNode& start(NodeSettings settings) {
    nodes.push_back(std::make_unique<MemberNode>(*this, settings));
    return *nodes.back();
  }
  MemberNode& start(const std::string& name) { return start(NodeSettings{.name = name}); }
  // Joins on its own; the outcome is in `node.joined`.
  void begin_join(MemberNode& node) { node.writers.spawn(MemberNode::join_by_itself(node)); }
  Result<> try_join(MemberNode& node) { return loop.run(node.executor, node.member.join()); }
  MemberNode& joined(NodeSettings settings) {
    MemberNode& node = start(std::move(settings));
    const Result<> done = try_join(node);
    EXPECT_TRUE(done) << node.settings.name << ": " << describe(done ? Errc::kAgain : done.error().code);
    node.writers.spawn(node.write_all_the_time());
    node.writers.spawn(node.write_all_the_time());
    return node;
  }
  MemberNode& joined(const std::string& name) { return joined(NodeSettings{.name = name}); }
  // Leaves on its own; the outcome is in `node.left`.
  void begin_stop(MemberNode& node) {
    node.stop_writing = true;
    loop.run(node.executor, node.writers.join());
    node.writers.spawn(MemberNode::leave_by_itself(node));
  }
  Result<> stop(MemberNode& node) {
    node.stop_writing = true;
    // A withdrawn node's writers end by themselves.
    loop.run(node.executor, node.writers.join());
    Result<> left = loop.run(node.executor, node.member.leave());
    loop.run(node.executor, node.raw->close());
    return left;
  }
  void destroy(MemberNode& node) {
    std::erase_if(nodes, [&](const auto& n) { return n.get() == &node; });
  }
  void kill(MemberNode& node) {
    node.killed = true;
    node.executor.kill();
  }
  // False if `limit` passed before `done`.
  template <class Done>
  bool wait(Duration limit, Done done) {
    const Time end = loop.now() + limit;
    loop.run_until([&] { return done() || loop.now() >= end; });
    return done();
  }

  format::SlotRecord record(SlotNo slot) {
    IoBuffer block(geometry.logical_block);
    lun.peek(geometry.slot_record_offset(slot), block.bytes());
    return *reinterpret_cast<const format::SlotRecord*>(block.data());
  }
  // A record in which nothing else stands.
  void put(SlotNo slot, format::SlotState state, Incarnation incarnation) {
    IoBuffer block(geometry.logical_block);
    auto& record = *reinterpret_cast<format::SlotRecord*>(block.data());
    record.state = static_cast<std::uint8_t>(state);
    record.incarnation = incarnation.value;
    const std::uint64_t offset = geometry.slot_record_offset(slot);
    format::seal_slot_record(block.bytes(), offset, geometry.fs_id);
    lun.poke(offset, block.bytes());
  }
  format::SlotState state(SlotNo slot) { return static_cast<format::SlotState>(record(slot).state); }
  PrKey key_of(SlotNo slot) { return PrKey{record(slot).pr_key.value()}; }
  bool is_registered(PrKey key) { return contains(lun.registered_keys(), key); }
  bool is_clean(SlotNo slot) { return state(slot) == format::SlotState::kClean; }
  std::size_t keys() {
    Executor& executor = loop.add_executor();
    auto device = lun.connect(executor, "looker");
    Result<RegisteredKeys> found = loop.run(executor, look(*device));
    return found->keys.size();
  }
  // Anybody registered or not could write without the reservation.
  bool is_reserved() {
    Executor& executor = loop.add_executor();
    auto device = lun.connect(executor, "looker");
    return loop.run(executor, look_at_reservation(*device))->type == kReservationType;
  }
  static Task<Result<ReservationState>> look_at_reservation(BlockDevice& device) {
    while (true) {
      Result<ReservationState> found = co_await device.pr_read_reservation();
      if (found) co_return found;
    }
  }
  static Task<Result<RegisteredKeys>> look(BlockDevice& device) {
    while (true) {
      Result<RegisteredKeys> found = co_await device.pr_read_keys();
      if (found) co_return found;
    }
  }

  std::uint64_t data_offset(SlotNo slot) const { return BlockNo{2048 + std::uint64_t{slot.value}}.offset_bytes(); }
  std::vector<std::byte> data_of(SlotNo slot) {
    std::vector<std::byte> bytes(kBlockSize);
    lun.peek(data_offset(slot), bytes);
    return bytes;
  }
  // What stood in a dead node's block when its replay began, until another node takes the slot.
  void note_replay(NodeId dead) {
    ++replays[dead];
    EXPECT_FALSE(is_registered(key_of(dead.slot))) << "the dead node could still write, slot " << dead.slot.value;
    EXPECT_TRUE(is_reserved());
    if (on_replay) on_replay(dead);
    frozen[dead.slot] = data_of(dead.slot);
  }
  void check_landed() {
    for (const auto& [slot, bytes] : frozen) {
      EXPECT_EQ(bytes, data_of(slot)) << "a fenced node's write has landed, slot " << slot.value;
    }
  }
  void print_logs() {
    std::vector<std::string> all;
    for (auto& node : nodes) {
      if (node) all.insert(all.end(), node->log.lines.begin(), node->log.lines.end());
    }
    std::ranges::sort(all);
    for (const std::string& line : all) fmt::print("{}\n", line);
  }

  VirtualLoop loop;
  SeededRandom random;
  SimulatedLun lun;
  bool sessions;
  Geometry geometry;
  std::vector<std::unique_ptr<MemberNode>> nodes;
  std::map<NodeId, int> replays;
  std::map<SlotNo, std::vector<std::byte>> frozen;
  std::function<void(NodeId)> on_replay;  // as it begins
  std::map<SlotNo, Errc> broken;          // whose journals cannot be replayed, and why

 private:
  static SimulatedLunOptions sized(SimulatedLunOptions options) {
    options.size_bytes = 16 << 20;
    return options;
  }
  static std::vector<std::unique_ptr<MemberNode>>& graveyard() {
    static auto* dead = new std::vector<std::unique_ptr<MemberNode>>;
    return *dead;
  }
};

inline MemberOptions member_options(const NodeSettings& s) {
  MemberOptions options;
  options.host_name = s.name;
  options.node_uuid[0] = s.uuid != 0 ? s.uuid : static_cast<std::uint8_t>(s.name[0]);
  options.boot_id[0] = s.boot;
  options.host_lock = s.host_lock;
  options.local = s.local;
  options.no_aptpl = s.no_aptpl;
  options.dead_time = kDeadTime;
  return options;
}

inline MemberNode::MemberNode(MemberCluster& c, const NodeSettings& s)
    : cluster(c),
      settings(s),
      executor(c.loop.add_executor()),
      raw(c.lun.connect(executor, s.name)),
      random(c.random.next()),
      log(c.loop, s.name),
      member(*raw, executor, random, log, c.geometry, member_options(s)),
      writers(executor) {
  member.set_recovery_client(this);
  member.add_observer(this);
}

inline Task<Result<>> MemberNode::replay(const format::SlotRecord& dead, NodeId dead_node) {
  EXPECT_EQ(static_cast<format::SlotState>(dead.state), format::SlotState::kRecovering);
  EXPECT_NE(dead.flags & format::kSlotFenced, 0);
  cluster.note_replay(dead_node);
  co_await executor.sleep(20ms);
  const auto broken = cluster.broken.find(dead_node.slot);
  if (broken != cluster.broken.end()) co_return fail(broken->second, "journal", dead_node.slot.value);
  IoBuffer block(kBlockSize);
  Result<> done = co_await member.device().write(BlockNo{3000}.offset_bytes(), block.bytes(), Durability::kFua);
  co_return done;
}

// Ends when the device fails it.
inline Task<void> MemberNode::write_all_the_time() {
  const SlotNo slot = member.self().slot;
  cluster.frozen.erase(slot);
  IoBuffer block(kBlockSize);
  while (!stop_writing) {
    std::uint64_t number = ++writes;
    std::memcpy(block.data(), &number, sizeof number);
    Result<> done = co_await member.device().write(cluster.data_offset(slot), block.bytes(), Durability::kCached);
    if (!done) co_return;
    co_await executor.sleep(20ms);
  }
}

}  // namespace cawfs::test
