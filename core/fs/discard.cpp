// Freed blocks are given back to a thin device (UNMAP, SBC-4 5.35) once the transaction that freed them has committed,
// and are handed out again when that has ended. Their groups are used until then, so that no lock goes before (design
// §8).
#include <algorithm>

#include "core/fs/allocator_impl.h"

namespace cawfs {
namespace {

constexpr std::size_t kDiscardsAtOnce = 8;

// What adjoins becomes one: a file's extents, or files that were made one after another.
std::vector<BlockRange> merged(std::vector<BlockRange> ranges) {
  std::ranges::sort(ranges, {}, &BlockRange::start);
  std::vector<BlockRange> all;
  for (const BlockRange& range : ranges) {
    if (!all.empty() && all.back().start + all.back().count == range.start) {
      all.back().count += range.count;
    } else {
      all.push_back(range);
    }
  }
  return all;
}

}  // namespace

void Allocator::Impl::discard_later(Group& group, BlockRange blocks) {
  LockHold own(nullptr, group.lock(), LockMode::kExclusive, LocalUse::kShared, group.generation());
  to_discard_.push_back({GroupUse(group, std::move(own), idle_), blocks});
  if (discards_.running() == 0) discards_.spawn(discard_all());
}

Task<void> Allocator::Impl::discard_all() {
  while (!to_discard_.empty()) {
    const std::vector<Discard> batch = std::exchange(to_discard_, {});
    std::vector<BlockRange> ranges;
    ranges.reserve(batch.size());
    for (const Discard& one : batch) ranges.push_back(one.blocks);
    ranges = merged(std::move(ranges));
    TaskGroup workers(executor);
    std::size_t next = 0;
    for (std::size_t i = 0; i < std::min(kDiscardsAtOnce, ranges.size()); ++i) {
      workers.spawn(discard_some(ranges, next));
    }
    co_await workers.join();
    for (const Discard& one : batch) one.use.group().freed(one.blocks);
    discarded_.notify_all();
  }
}

// A hint, which the device may fail to take: the blocks are free all the same.
Task<void> Allocator::Impl::discard_some(const std::vector<BlockRange>& ranges, std::size_t& next) {
  while (next < ranges.size()) {
    const BlockRange range = ranges[next++];
    [[maybe_unused]] const Result<> done = co_await device.unmap(range.start.offset_bytes(), range.count * kBlockSize);
  }
}

}  // namespace cawfs
