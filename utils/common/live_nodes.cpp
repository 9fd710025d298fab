#include "utils/common/live_nodes.h"

#include <algorithm>
#include <cstring>

#include "core/device/io_buffer.h"
#include "core/format/cluster_verify.h"
#include "core/format/superblock_io.h"

namespace cawfs {
namespace {

using namespace format;

constexpr std::uint32_t kLooksPerDeadTime = 20;

constexpr std::size_t kTableBytes = std::size_t{kSlots} * kBlockSize;

struct Table {
  IoBuffer records{kTableBytes};
  IoBuffer heartbeats{kTableBytes};
};

Task<Result<>> read_table(BlockDevice& device, const Geometry& geometry, Table& table) {
  const Result<> records = co_await device.read(geometry.node_table.offset_bytes(), table.records.bytes());
  if (!records) co_return records;
  const Result<> heartbeats = co_await device.read(geometry.heartbeats.offset_bytes(), table.heartbeats.bytes());
  co_return heartbeats;
}

std::span<const std::byte> slot_bytes(const IoBuffer& buffer, std::uint16_t slot, const Geometry& geometry) {
  return buffer.bytes().subspan(std::size_t{slot} * kBlockSize, geometry.logical_block);
}

SlotStates states_of(const Table& table, const Geometry& geometry) {
  SlotStates states;
  for (std::uint16_t slot = 0; slot < kSlots; ++slot) {
    const auto bytes = slot_bytes(table.records, slot, geometry);
    if (!verify_slot_record(bytes, geometry.slot_record_offset(SlotNo{slot}), geometry.fs_id)) continue;
    const auto& record = *reinterpret_cast<const SlotRecord*>(bytes.data());
    states.slots[slot] = {record.state, record.incarnation.value()};
  }
  return states;
}

bool in_use(const SlotStates::One& slot) {
  return slot.state == static_cast<std::uint8_t>(SlotState::kActive) ||
         slot.state == static_cast<std::uint8_t>(SlotState::kRecovering);
}

// Slots in use, or that were, whose record or heartbeat has changed.
LiveNodes moving(const Table& before, const Table& now, const Geometry& geometry) {
  LiveNodes live;
  const SlotStates old_states = states_of(before, geometry);
  const SlotStates states = states_of(now, geometry);
  for (std::uint16_t slot = 0; slot < kSlots; ++slot) {
    if (!in_use(states.slots[slot]) && !in_use(old_states.slots[slot])) continue;
    const auto same = [&](const IoBuffer& a, const IoBuffer& b) {
      return std::ranges::equal(slot_bytes(a, slot, geometry), slot_bytes(b, slot, geometry));
    };
    if (same(before.records, now.records) && same(before.heartbeats, now.heartbeats)) continue;
    const auto& record = *reinterpret_cast<const SlotRecord*>(slot_bytes(now.records, slot, geometry).data());
    live.slots.push_back(SlotNo{slot});
    live.hosts.emplace_back(record.host_name.data(), strnlen(record.host_name.data(), record.host_name.size()));
  }
  return live;
}

bool answered(LookFor look_for, const LiveNodes& live, const SlotStates& now) {
  if (look_for == LookFor::kAny) return live.any();
  for (std::uint16_t slot = 0; slot < kSlots; ++slot) {
    if (in_use(now.slots[slot]) && std::ranges::count(live.slots, SlotNo{slot}) == 0) return false;
  }
  return true;
}

}  // namespace

Task<Result<SlotStates>> read_slot_states(BlockDevice& device, const Geometry& geometry) {
  Table table;
  const Result<> done = co_await read_table(device, geometry, table);
  if (!done) co_return fail(done.error());
  co_return states_of(table, geometry);
}

Task<Result<LiveNodes>> find_live_nodes(Executor& executor, BlockDevice& device, const Superblock& superblock,
                                        LookFor look_for) {
  const Geometry geometry = make_geometry(superblock);
  const Duration dead_time = std::chrono::milliseconds(superblock.dead_time_ms.value());
  Table first;
  const Result<> looked = co_await read_table(device, geometry, first);
  if (!looked) co_return fail(looked.error());
  if (std::ranges::none_of(states_of(first, geometry).slots, in_use)) co_return LiveNodes{};
  const Time end = executor.now() + dead_time;
  Table table;
  LiveNodes live;
  while (executor.now() < end) {
    co_await executor.sleep(dead_time / kLooksPerDeadTime);
    const Result<> again = co_await read_table(device, geometry, table);
    if (!again) co_return fail(again.error());
    live = moving(first, table, geometry);
    if (answered(look_for, live, states_of(table, geometry))) break;
  }
  co_return live;
}

}  // namespace cawfs
