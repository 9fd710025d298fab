#include "core/fs/btree_node.h"

#include <algorithm>

#include "core/base/assert.h"

namespace cawfs::btree {
namespace {

format::TreeRecord header_at(std::span<const std::byte> records, std::size_t offset) {
  format::TreeRecord header;
  std::memcpy(&header, records.subspan(offset, sizeof(header)).data(), sizeof(header));
  return header;
}

}  // namespace

std::uint64_t Record::child() const {
  format::le64 block;
  CAWFS_ASSERT(payload.size() == sizeof(block));
  std::memcpy(&block, payload.data(), sizeof(block));
  return block.value();
}

void Cursor::load() {
  valid_ = record_.offset < records_.size();
  if (!valid_) return;
  const auto header = header_at(records_, record_.offset);
  record_.key = header.key.value();
  record_.payload = records_.subspan(record_.payload_offset(), header.length.value());
}

std::optional<Record> at_or_before(std::span<const std::byte> records, std::uint64_t key) {
  std::optional<Record> best;
  for (Cursor at(records); at && at->key <= key; ++at) best = *at;
  return best;
}

std::optional<Record> at_or_after(std::span<const std::byte> records, std::uint64_t key) {
  for (Cursor at(records); at; ++at) {
    if (at->key >= key) return *at;
  }
  return std::nullopt;
}

std::optional<Record> exact(std::span<const std::byte> records, std::uint64_t key) {
  const auto found = at_or_after(records, key);
  return found && found->key == key ? found : std::nullopt;
}

std::size_t NodeCopy::count() const {
  std::size_t n = 0;
  for (Cursor at(records); at; ++at) ++n;
  return n;
}

bool NodeCopy::insert(std::uint64_t key, std::span<const std::byte> payload) {
  const auto next = at_or_after(records, key);
  CAWFS_ASSERT(!next || next->key != key);
  format::TreeRecord header;
  header.key = key;
  header.length = static_cast<std::uint16_t>(payload.size());
  const std::size_t offset = next ? next->offset : records.size();
  std::vector<std::byte> bytes(sizeof(header) + payload.size());
  std::memcpy(bytes.data(), &header, sizeof(header));
  std::ranges::copy(payload, bytes.begin() + sizeof(header));
  records.insert(records.begin() + static_cast<std::ptrdiff_t>(offset), bytes.begin(), bytes.end());
  changed = true;
  return !next;
}

bool NodeCopy::insert_child(std::uint64_t key, std::uint64_t child) {
  format::le64 block;
  block = child;
  return insert(key, std::as_bytes(std::span(&block, 1)));
}

void NodeCopy::erase(const Record& record) {
  const auto from = records.begin() + static_cast<std::ptrdiff_t>(record.offset);
  records.erase(from, records.begin() + static_cast<std::ptrdiff_t>(record.end()));
  changed = true;
}

void NodeCopy::set_first_key(std::uint64_t key) {
  CAWFS_ASSERT(!records.empty());
  format::le64 stored;
  stored = key;
  std::memcpy(records.data() + offsetof(format::TreeRecord, key), &stored, sizeof(stored));
  changed = true;
}

std::uint64_t NodeCopy::split(NodeCopy& right, bool at_end) {
  CAWFS_ASSERT(right.records.empty());
  std::size_t cut = 0;
  std::uint64_t key = 0;
  for (Cursor at(records); at; ++at) {
    if (at->index > 0 && !at_end && at->offset > capacity) break;
    // The cut before this record, as long as it comes no later than the first one past the middle.
    if (at->index > 0) {
      cut = at->offset;
      key = at->key;
      if (!at_end && cut >= records.size() / 2) break;
    }
  }
  CAWFS_ASSERT(cut > 0);
  right.records.assign(records.begin() + static_cast<std::ptrdiff_t>(cut), records.end());
  records.resize(cut);
  changed = true;
  right.changed = true;
  CAWFS_ASSERT(!overfull() && !right.overfull());
  return key;
}

}  // namespace cawfs::btree
