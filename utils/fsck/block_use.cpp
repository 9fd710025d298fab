#include "utils/fsck/block_use.h"

#include <algorithm>
#include <bit>

namespace cawfs {

std::uint64_t BlockUse::mark(BlockRange range) {
  std::uint64_t twice = 0;
  std::uint64_t block = range.start.value;
  const std::uint64_t end = block + range.count;
  while (block < end) {
    auto& segment = segments_[block / kSegmentBlocks];
    if (!segment) segment = std::make_unique<Segment>();
    std::uint64_t& word = (*segment)[block % kSegmentBlocks / 64];
    const std::uint64_t bits = std::min(64 - block % 64, end - block);
    const std::uint64_t mask = (bits == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << bits) - 1) << (block % 64);
    twice += static_cast<std::uint64_t>(std::popcount(word & mask));
    word |= mask;
    block += bits;
  }
  count_ += range.count - twice;
  return twice;
}

bool BlockUse::used(BlockNo block) const {
  const auto segment = segments_.find(block.value / kSegmentBlocks);
  if (segment == segments_.end()) return false;
  return ((*segment->second)[block.value % kSegmentBlocks / 64] >> (block.value % 64) & 1) != 0;
}

}  // namespace cawfs
