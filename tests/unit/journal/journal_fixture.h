// A small simulated disk with a journal of four extents, lock blocks, and metadata blocks that each hold one number.
#pragma once

#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/base/log.h"
#include "core/base/random.h"
#include "core/device/simulated_device.h"
#include "core/format/cluster_format.h"
#include "core/format/cluster_verify.h"
#include "core/format/journal_verify.h"
#include "core/format/verify.h"
#include "core/fs/buffer_cache.h"
#include "core/runtime/virtual_loop.h"
#include "journal/journal_log.h"
#include "journal/replay.h"

namespace cawfs::test {

class QuietLog final : public Log {
 public:
  bool enabled(LogLevel /*level*/) const override { return false; }
  void write(LogLevel /*level*/, std::string_view /*message*/) override {}
};

inline Geometry test_geometry(std::uint32_t logical_block) {
  Geometry g;
  g.fs_id = 0x1122334455667788;
  g.logical_block = logical_block;
  g.block_count = 4096;
  g.slots = 4;
  g.group_count = 1;
  g.group_blocks = 4032;
  g.node_table = BlockNo{17};
  g.global_lock = BlockNo{60};
  g.first_group = BlockNo{64};
  g.clustered = true;
  return g;
}

inline const std::vector<BlockRange> kExtents = {
    {BlockNo{100}, 40}, {BlockNo{200}, 2}, {BlockNo{300}, 33}, {BlockNo{400}, 25}};
inline constexpr NodeId kNode{SlotNo{2}, Incarnation{7}};

// The lock that covers what test number `lock` changes.
inline LockName test_lock(unsigned lock) {
  return {BlockNo{2000 + lock / format::kEntriesPerLockBlock * 16},
          static_cast<std::uint8_t>(lock % format::kEntriesPerLockBlock)};
}
inline LockHold test_hold(LockName lock, std::uint64_t generation) {
  return LockHold(nullptr, lock, LockMode::kExclusive, LocalUse::kExclusive, Generation{generation});
}

// A tree node that says `value`, and is long or short as the value will have it.
inline void put_value(std::span<std::byte> block, std::uint64_t value) {
  format::TreeNode node;
  std::memcpy(&node, block.data(), sizeof(node));
  node.owner = 1001;
  node.kind = static_cast<std::uint16_t>(format::TreeKind::kDirectory);
  node.area.fill(0);
  const std::size_t records = value % 14;
  std::size_t at = 0;
  for (std::size_t i = 0; i <= records; ++i) {
    const std::size_t name = i == 0 ? 1 : 255;
    format::TreeRecord record;
    record.key = value * 16 + i;
    record.length = static_cast<std::uint16_t>(sizeof(format::DirectoryPayload) + name);
    format::DirectoryPayload payload;
    payload.inode = 1001;
    payload.type = 8;
    std::memcpy(node.area.data() + at, &record, sizeof(record));
    std::memcpy(node.area.data() + at + sizeof(record), &payload, sizeof(payload));
    at += sizeof(record) + sizeof(payload);
    std::memset(node.area.data() + at, 'x', name);
    at += name;
  }
  node.root.level = 0;
  node.root.reserved = 0;
  node.root.count = static_cast<std::uint16_t>(records + 1);
  node.root.used = static_cast<std::uint16_t>(at);
  std::memcpy(block.data(), &node, sizeof(node));
}

// 0 if the block does not verify.
inline std::uint64_t value_of(std::span<const std::byte> block, BlockNo address, const Geometry& geometry) {
  if (!format::verify_block(block, format::BlockType::kTreeNode, address, geometry)) return 0;
  format::TreeRecord record;
  std::memcpy(&record, block.data() + offsetof(format::TreeNode, area), sizeof(record));
  return record.key.value() / 16;
}

// The LUN with its journal and lock blocks, made without any I/O.
class TestDisk {
 public:
  TestDisk(VirtualLoop& loop, Random& random, std::uint32_t logical_block)
      : geometry(test_geometry(logical_block)),
        lun(loop.clock(), random, {.size_bytes = 16 << 20, .logical_block = logical_block}) {
    IoBuffer headers(format::kJournalHeaderCopies * kBlockSize);
    format::make_empty_journal(headers.bytes(), geometry.fs_id, kNode.slot, kExtents);
    lun.poke(kExtents[0].start.offset_bytes(), headers.bytes());
  }

  // All entries of the lock's block EX by `node` with `generation`.
  void set_locks(LockName lock, NodeId node, std::uint64_t generation) {
    auto block = read_locks(lock.block);
    for (auto& entry : block.entries) set_entry(entry, node, generation);
    write_locks(lock.block, block);
  }
  void set_lock(LockName lock, NodeId node, std::uint64_t generation) {
    auto block = read_locks(lock.block);
    set_entry(block.entries[lock.entry], node, generation);
    write_locks(lock.block, block);
  }

  void set_value(BlockNo block, std::uint64_t value) {
    IoBuffer bytes(kBlockSize);
    format::start_block(bytes.bytes(), format::BlockType::kTreeNode, block, geometry.fs_id);
    put_value(bytes.bytes(), value);
    format::stamp_block(bytes.bytes());
    lun.poke(block.offset_bytes(), bytes.bytes());
  }
  std::uint64_t value(BlockNo block) const {
    IoBuffer bytes(kBlockSize);
    lun.peek(block.offset_bytes(), bytes.bytes());
    return value_of(bytes.bytes(), block, geometry);
  }

  JournalPlace place(NodeId node = kNode) const { return {.node = node, .local = false, .extents = kExtents}; }

  Geometry geometry;
  SimulatedLun lun;

 private:
  static void set_entry(format::LockEntry& entry, NodeId node, std::uint64_t generation) {
    entry = {};
    entry.mode = static_cast<std::uint8_t>(format::LockModeOnDisk::kExclusive);
    entry.owner_slot = node.slot.value;
    entry.owner_incarnation = node.incarnation.value;
    entry.generation = generation;
  }
  format::LockBlock read_locks(BlockNo block) const {
    IoBuffer bytes(geometry.logical_block);
    lun.peek(block.offset_bytes(), bytes.bytes());
    format::LockBlock locks;
    std::memcpy(&locks, bytes.data(), sizeof(locks));
    return locks;
  }
  void write_locks(BlockNo block, format::LockBlock locks) {
    locks.header.sequence = locks.header.sequence.value() + 1;
    IoBuffer bytes(geometry.logical_block);
    std::memcpy(bytes.data(), &locks, sizeof(locks));
    format::seal_lock_block(bytes.bytes(), block.offset_bytes(), geometry.fs_id);
    lun.poke(block.offset_bytes(), bytes.bytes());
  }
};

// One node: its device, buffers and log.
struct TestNode {
  TestNode(VirtualLoop& loop, TestDisk& disk, std::string name, NodeId id = kNode, JournalOptions options = {})
      : executor(loop.add_executor()),
        device(disk.lun.connect(executor, std::move(name))),
        buffers(executor, *device, disk.geometry, 1 << 20),
        log({executor, *device, disk.geometry, buffers, messages}, disk.place(id), std::move(options)) {}

  Executor& executor;
  QuietLog messages;
  std::unique_ptr<BlockDevice> device;
  BufferCache buffers;
  JournalLog log;
};

// What belongs to a crashed node is kept for ever, reachable for the leak checker.
template <class T>
T& kept(std::unique_ptr<T> object) {
  static auto& graveyard = *new std::vector<std::unique_ptr<T>>;
  graveyard.push_back(std::move(object));
  return *graveyard.back();
}

}  // namespace cawfs::test
