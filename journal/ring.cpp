#include "journal/ring.h"

#include <algorithm>
#include <utility>

#include "core/base/assert.h"

namespace cawfs {

JournalRing::JournalRing(std::vector<BlockRange> extents)
    : extents_(std::move(extents)), data_(extents_), blocks_(format::ring_blocks(extents_)) {
  data_[0].start = data_[0].start + format::kJournalHeaderCopies;
  data_[0].count -= format::kJournalHeaderCopies;
}

std::vector<BlockRange> JournalRing::pieces(std::uint32_t at, std::uint32_t count) const {
  CAWFS_ASSERT(at < blocks_ && count <= blocks_);
  std::vector<BlockRange> out;
  std::uint64_t skip = at;
  std::uint64_t left = count;
  for (std::size_t i = 0; left > 0; i = (i + 1) % data_.size()) {
    if (skip >= data_[i].count) {
      skip -= data_[i].count;
      continue;
    }
    const std::uint64_t n = std::min(left, data_[i].count - skip);
    out.push_back({data_[i].start + skip, n});
    left -= n;
    skip = 0;
  }
  return out;
}

bool JournalRing::contains(BlockNo block) const {
  return std::ranges::any_of(extents_, [block](const BlockRange& extent) {
    return block >= extent.start && block.value - extent.start.value < extent.count;
  });
}

}  // namespace cawfs
