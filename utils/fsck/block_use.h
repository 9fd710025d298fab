// Which blocks are in use, as found by following everything from its root: one bit each, in segments that are made
// when the first block in them is used.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <unordered_map>

#include "core/base/types.h"

namespace cawfs {

class BlockUse {
 public:
  // Marks the range and returns how many of its blocks were marked before.
  std::uint64_t mark(BlockRange range);
  bool used(BlockNo block) const;
  std::uint64_t count() const { return count_; }

 private:
  static constexpr std::uint64_t kSegmentBlocks = 32768;
  using Segment = std::array<std::uint64_t, kSegmentBlocks / 64>;

  std::unordered_map<std::uint64_t, std::unique_ptr<Segment>> segments_;
  std::uint64_t count_ = 0;
};

}  // namespace cawfs
