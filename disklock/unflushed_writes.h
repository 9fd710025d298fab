// Copies of the cached writes that no flush has followed yet, so that they can be written again when the target has
// lost its cache. Ranges do not overlap: a later write takes the place of what it covers. Pure: no I/O.
#pragma once

#include <cstdint>
#include <map>
#include <span>

#include "core/device/io_buffer.h"

namespace cawfs {

class UnflushedWrites {
 public:
  struct Range {
    std::uint64_t sequence = 0;  // of the write's completion
    std::uint64_t length = 0;    // bytes
    IoBuffer data;               // empty: zeroes
  };

  void keep(std::uint64_t offset, std::span<const std::byte> data, std::uint64_t sequence);
  void keep_zeroes(std::uint64_t offset, std::uint64_t length, std::uint64_t sequence);
  // The range was written durably, or its contents are nobody's any more.
  void drop(std::uint64_t offset, std::uint64_t length);
  // A flush that was sent when `sequence` was the next has succeeded.
  void flushed(std::uint64_t sequence);

  // Is anything kept of the range?
  bool keeps(std::uint64_t offset, std::uint64_t length) const;
  std::uint64_t bytes() const { return bytes_; }  // kept in memory
  const std::map<std::uint64_t, Range>& ranges() const { return ranges_; }

 private:
  void insert(std::uint64_t offset, Range range);

  std::map<std::uint64_t, Range> ranges_;  // by offset
  std::uint64_t bytes_ = 0;
};

}  // namespace cawfs
