// One node of a B+tree in memory: a view of the packed records in a buffer, and a copy of them that a plan changes.
// What is read here has been verified (core/format/verify.h), so the walks below stay inside.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

#include "core/base/types.h"
#include "core/format/disk_format.h"
#include "core/fs/buffer_cache.h"

namespace cawfs::btree {

// Keys are below this; as an upper bound it means none.
inline constexpr std::uint64_t kNoBound = UINT64_MAX;
inline constexpr std::size_t kNodeArea = sizeof(format::TreeNode::area);
inline constexpr std::size_t kChildRecord = sizeof(format::TreeRecord) + sizeof(format::le64);

// A record inside packed records.
struct Record {
  std::size_t index = 0;
  std::size_t offset = 0;  // of the record
  std::uint64_t key = 0;
  std::span<const std::byte> payload;

  std::size_t payload_offset() const { return offset + sizeof(format::TreeRecord); }
  std::size_t end() const { return payload_offset() + payload.size(); }
  // Of a record in a node above the leaves.
  std::uint64_t child() const;
};

// Walks packed records: `for (Cursor at(records); at; ++at)`.
class Cursor {
 public:
  explicit Cursor(std::span<const std::byte> records) : records_(records) { load(); }
  explicit operator bool() const { return valid_; }
  const Record& operator*() const { return record_; }
  const Record* operator->() const { return &record_; }
  Cursor& operator++() {
    const std::size_t index = record_.index + 1;
    record_.offset = record_.end();
    record_.index = index;
    load();
    return *this;
  }

 private:
  void load();

  std::span<const std::byte> records_;
  Record record_;
  bool valid_ = false;
};

// The last record with a key not above `key`; the first one with a key not below it; the one with that key.
std::optional<Record> at_or_before(std::span<const std::byte> records, std::uint64_t key);
std::optional<Record> at_or_after(std::span<const std::byte> records, std::uint64_t key);
std::optional<Record> exact(std::span<const std::byte> records, std::uint64_t key);

// A copy of a node (or of the root), to be changed. It may grow past its capacity until it is split.
struct NodeCopy {
  std::uint64_t id = 0;  // its block, or a number that stands for one until apply()
  BufferRef buffer;      // null for a planned node
  unsigned level = 0;
  std::size_t capacity = 0;
  bool changed = false;
  std::vector<std::byte> records;

  std::size_t count() const;
  bool overfull() const { return records.size() > capacity; }

  // In its place by key, which is not there yet. Returns whether it became the last record.
  bool insert(std::uint64_t key, std::span<const std::byte> payload);
  bool insert_child(std::uint64_t key, std::uint64_t child);
  void erase(const Record& record);
  // As the lowest key of a node above the leaves stands 0, whatever its child's.
  void set_first_key(std::uint64_t key);
  // Moves the upper part to `right`, which is empty, and returns its lowest key. `at_end`: only the last record goes,
  // as suits keys that come in ascending order; else about half the bytes.
  std::uint64_t split(NodeCopy& right, bool at_end);
};

}  // namespace cawfs::btree
