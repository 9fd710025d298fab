#include "utils/status/cluster_status.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "core/base/random.h"
#include "core/device/io_buffer.h"
#include "core/format/superblock_io.h"
#include "core/format/verify.h"
#include "disklock/caw.h"
#include "disklock/cluster_member.h"
#include "disklock/slot_table.h"

namespace cawfs {

namespace {

using namespace std::chrono_literals;
using format::SlotState;

class Reader {
 public:
  Reader(Executor& executor, BlockDevice& device, const format::Superblock& superblock)
      : executor_(executor),
        device_(device),
        geometry_(make_geometry(superblock)),
        random_(1),
        editor_(device, executor, random_, geometry_.fs_id, 1s),
        table_(device, editor_, geometry_),
        heartbeats_(device, geometry_) {
    interval_ = heartbeat_interval(std::chrono::milliseconds(superblock.dead_time_ms.value()));
    status_.superblock = superblock;
    status_.total_bytes = geometry_.block_count * kBlockSize;
  }

  Task<Result<ClusterStatus>> read() {
    Result<> done = co_await table_.read();
    if (!done) co_return fail(done.error());
    read_slots();
    done = co_await watch_heartbeats();
    if (!done) co_return fail(done.error());
    co_await read_reservation();
    co_await read_space();
    co_return std::move(status_);
  }

 private:
  void read_slots() {
    for (std::uint16_t i = 0; i < geometry_.slots; ++i) {
      const SlotView* view = table_.view(SlotNo{i});
      if (view && view->state == SlotState::kFree) continue;
      NodeStatus node;
      node.slot = SlotNo{i};
      node.damaged = !view;
      if (view) {
        node.state = view->state;
        node.flags = view->flags;
        node.incarnation = view->incarnation;
        node.host = view->host_name;
        node.initiator = view->initiator_name;
        node.key = view->key;
        if (view->state == SlotState::kRecovering) node.recoverer = recoverer_name(*view);
      }
      status_.nodes.push_back(std::move(node));
    }
  }

  static std::string recoverer_name(const SlotView& view) {
    if (view.recoverer.slot == kNoSlotOfItsOwn) return "nobody yet";
    return fmt::format("slot {}, incarnation {}", view.recoverer.slot.value, view.recoverer.incarnation.value);
  }

  // Ends as soon as every node has shown life.
  Task<Result<>> watch_heartbeats() {
    Result<> done = co_await heartbeats_.read();
    if (!done) co_return done;
    const Time started = executor_.now();
    std::array<HeartbeatValue, kSlots> first;
    for (std::uint16_t i = 0; i < geometry_.slots; ++i) first[i] = heartbeats_.value(SlotNo{i});
    bool waiting = true;
    while (waiting && executor_.now() < started + 2 * interval_ + 100ms) {
      co_await executor_.sleep(interval_ / 4);
      done = co_await heartbeats_.read();
      if (!done) co_return done;
      waiting = false;
      for (NodeStatus& node : status_.nodes) {
        if (node.state != SlotState::kActive) continue;
        node.heartbeat_moves = node.heartbeat_moves || heartbeats_.value(node.slot) != first[node.slot.value];
        waiting = waiting || !node.heartbeat_moves;
      }
    }
    const double watched = std::chrono::duration<double>(executor_.now() - started).count();
    for (NodeStatus& node : status_.nodes) {
      if (node.state != SlotState::kActive) continue;
      if (!node.heartbeat_moves) node.silent_seconds = watched;
      const Result<format::Heartbeat> beat = heartbeats_.heartbeat(node.slot);
      if (!beat || beat->incarnation.value() != node.incarnation.value) continue;
      node.locks_held = beat->locks_held.value();
      node.dirty_bytes = beat->dirty_bytes.value();
      node.operations = beat->operations.value();
      node.journal_blocks = beat->journal_blocks.value();
      node.journal_used = beat->journal_used.value();
    }
    co_return Result<>{};
  }

  // A device without reservations, such as a write-protected copy, still has a status.
  Task<void> read_reservation() {
    Result<RegisteredKeys> keys = co_await device_.pr_read_keys();
    if (!keys) keys = co_await device_.pr_read_keys();  // the first may have met a unit attention
    if (!keys) {
      status_.reservation = fmt::format("unknown: {}", describe(keys.error().code));
      co_return;
    }
    status_.keys = keys->keys;
    for (NodeStatus& node : status_.nodes) node.key_registered = contains(*keys, node.key);
    for (const PrKey key : keys->keys) {
      bool known = false;
      for (std::uint16_t i = 0; i < geometry_.slots; ++i) {
        const SlotView* view = table_.view(SlotNo{i});
        known = known || (view && (view->key == key || view->recoverer_key == key));
      }
      if (!known) status_.stray_keys.push_back(key);
    }
    Result<ReservationState> state = co_await device_.pr_read_reservation();
    if (!state) {
      status_.reservation = fmt::format("unknown: {}", describe(state.error().code));
    } else if (state->type == ReservationType::kNone) {
      status_.reservation = "none";
    } else {
      status_.reservation = fmt::format("type {}", state->raw_type);
    }
  }

  Task<void> read_space() {
    IoBuffer block(kBlockSize);
    std::uint64_t free_blocks = 0;
    for (std::uint32_t i = 0; i < geometry_.group_count; ++i) {
      const BlockNo address = geometry_.group_header(GroupNo{i});
      Result<> done = co_await device_.read(address.offset_bytes(), block.bytes());
      if (!done) co_return;
      if (!format::verify_block(block.bytes(), format::BlockType::kGroupHeader, address, geometry_.fs_id)) co_return;
      free_blocks += reinterpret_cast<const format::GroupHeader*>(block.data())->free_blocks.value();
    }
    status_.free_bytes = free_blocks * kBlockSize;
  }

  Executor& executor_;
  BlockDevice& device_;
  Geometry geometry_;
  SeededRandom random_;  // for an editor that only reads
  CawEditor editor_;
  SlotTable table_;
  HeartbeatTable heartbeats_;
  Duration interval_{};
  ClusterStatus status_;
};

}  // namespace

Task<Result<ClusterStatus>> read_cluster_status(Executor& executor, BlockDevice& device) {
  Result<format::Superblock> superblock = co_await read_superblock(device);
  if (!superblock) co_return fail(superblock.error());
  Reader reader(executor, device, *superblock);
  Result<ClusterStatus> status = co_await reader.read();
  co_return status;
}

}  // namespace cawfs
