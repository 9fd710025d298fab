#include "journal/ring_space.h"

#include "core/base/assert.h"

namespace cawfs {

RingSpace::Place RingSpace::append(TxId id, std::uint32_t blocks) {
  CAWFS_ASSERT(blocks > 0 && blocks <= free());
  CAWFS_ASSERT(records_.empty() || records_.rbegin()->first < id);
  const Place place = head_;
  records_.emplace(id, Record{.place = place, .committed = false, .holds = {}});
  head_ = {place.position + blocks, place.sequence + 1};
  return place;
}

void RingSpace::committed(TxId id) {
  const auto it = records_.find(id);
  CAWFS_ASSERT(it != records_.end());
  it->second.committed = true;
  drop_unneeded();
}

void RingSpace::hold(TxId id, BlockNo block) {
  const auto it = records_.find(id);
  CAWFS_ASSERT(it != records_.end());
  it->second.holds.insert(block);
}

void RingSpace::release(TxId id, BlockNo block) {
  const auto it = records_.find(id);
  CAWFS_ASSERT(it != records_.end());
  const auto erased = it->second.holds.erase(block);
  CAWFS_ASSERT(erased == 1);
  drop_unneeded();
}

void RingSpace::drop_unneeded() {
  while (!records_.empty()) {
    const Record& oldest = records_.begin()->second;
    if (!oldest.committed || !oldest.holds.empty()) return;
    records_.erase(records_.begin());
  }
}

std::vector<BlockNo> RingSpace::held(std::uint32_t target, std::size_t limit) const {
  std::vector<BlockNo> out;
  for (const auto& [id, record] : records_) {
    if (!record.committed || head_.position - record.place.position <= target) return out;
    for (const BlockNo block : record.holds) {
      if (out.size() == limit) return out;
      out.push_back(block);
    }
  }
  return out;
}

}  // namespace cawfs
