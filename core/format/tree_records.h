// Reads the records of a B+tree's node or embedded root that verify_tree() has accepted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "core/format/disk_format.h"

namespace cawfs::format {

template <class T>
T load_at(std::span<const std::byte> bytes, std::size_t offset) {
  T value;
  std::memcpy(&value, bytes.subspan(offset, sizeof(T)).data(), sizeof(T));
  return value;
}

struct TreeRecordView {
  std::uint64_t key = 0;
  std::span<const std::byte> payload;  // in the block
};

inline std::vector<TreeRecordView> tree_records(const TreeRoot& root, std::span<const std::byte> area) {
  std::vector<TreeRecordView> records;
  records.reserve(root.count.value());
  std::size_t at = 0;
  for (std::size_t i = 0; i < root.count.value(); ++i) {
    const auto record = load_at<TreeRecord>(area, at);
    at += sizeof(TreeRecord);
    records.push_back({record.key.value(), area.subspan(at, record.length.value())});
    at += record.length.value();
  }
  return records;
}

}  // namespace cawfs::format
