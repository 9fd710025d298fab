// What a simulated LUN remembers: sparse pages that survive a power cut and, above them, a volatile cache of every
// image that each logical block has had since the last flush. A power cut leaves each such block, by itself, at any one
// of its images or at what was on the medium before them; so unflushed writes may be lost, torn and reordered.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "core/base/random.h"

namespace cawfs {

class SimulatedMedium {
 public:
  SimulatedMedium(Random& random, std::uint32_t logical_block, bool volatile_cache);

  // Offsets and lengths are the caller's to check: whole logical blocks inside the medium.
  void read(std::uint64_t offset, std::span<std::byte> out) const;
  void write(std::uint64_t offset, std::span<const std::byte> data, bool durable);
  // Each block at random, or not at all: what a power cut makes of a write that has not been answered.
  void write_torn(std::uint64_t offset, std::span<const std::byte> data);
  void write_zeroes(std::uint64_t offset, std::uint64_t length);
  // Blocks that have been written become zeroes or garbage, at random; the others stay zero.
  void unmap(std::uint64_t offset, std::uint64_t length);
  void flush();
  void power_cut();

 private:
  using Image = std::vector<std::byte>;  // of one logical block
  using Page = std::unique_ptr<std::byte[]>;

  void write_block(std::uint64_t block, std::span<const std::byte> data, bool durable);
  void store(std::uint64_t block, std::span<const std::byte> data);
  // The blocks of [offset, offset + length) that have been written.
  std::vector<std::uint64_t> written_blocks(std::uint64_t offset, std::uint64_t length) const;

  Random& random_;
  std::uint32_t logical_block_;
  bool volatile_cache_;
  std::map<std::uint64_t, Page> pages_;                   // by page number
  std::map<std::uint64_t, std::deque<Image>> unflushed_;  // by logical block; oldest first, never empty
};

}  // namespace cawfs
