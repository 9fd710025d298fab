#include "disklock/unflushed_writes.h"

#include <cstring>
#include <iterator>
#include <utility>

namespace cawfs {

namespace {

// Bytes [from, from + length) of the range.
UnflushedWrites::Range piece(const UnflushedWrites::Range& range, std::uint64_t from, std::uint64_t length) {
  UnflushedWrites::Range part{range.sequence, length, {}};
  if (range.data.size() == 0) return part;
  part.data = IoBuffer(length);
  std::memcpy(part.data.data(), range.data.data() + from, length);
  return part;
}

}  // namespace

void UnflushedWrites::insert(std::uint64_t offset, Range range) {
  bytes_ += range.data.size();
  ranges_[offset] = std::move(range);
}

void UnflushedWrites::keep(std::uint64_t offset, std::span<const std::byte> data, std::uint64_t sequence) {
  if (data.empty()) return;
  drop(offset, data.size());
  Range range{sequence, data.size(), IoBuffer(data.size())};
  std::memcpy(range.data.data(), data.data(), data.size());
  insert(offset, std::move(range));
}

void UnflushedWrites::keep_zeroes(std::uint64_t offset, std::uint64_t length, std::uint64_t sequence) {
  if (length == 0) return;
  drop(offset, length);
  insert(offset, Range{sequence, length, {}});
}

void UnflushedWrites::drop(std::uint64_t offset, std::uint64_t length) {
  const std::uint64_t end = offset + length;
  auto at = ranges_.upper_bound(offset);
  if (at != ranges_.begin()) --at;
  while (at != ranges_.end() && at->first < end) {
    const std::uint64_t start = at->first;
    const std::uint64_t stop = start + at->second.length;
    if (stop <= offset) {
      ++at;
      continue;
    }
    const Range old = std::move(at->second);
    bytes_ -= old.data.size();
    at = ranges_.erase(at);
    if (start < offset) insert(start, piece(old, 0, offset - start));
    if (stop > end) insert(end, piece(old, end - start, stop - end));
  }
}

bool UnflushedWrites::keeps(std::uint64_t offset, std::uint64_t length) const {
  const auto after = ranges_.lower_bound(offset + length);
  if (after == ranges_.begin()) return false;
  const auto last = std::prev(after);
  return last->first + last->second.length > offset;
}

void UnflushedWrites::flushed(std::uint64_t sequence) {
  std::erase_if(ranges_, [&](const auto& entry) {
    if (entry.second.sequence >= sequence) return false;
    bytes_ -= entry.second.data.size();
    return true;
  });
}

}  // namespace cawfs
