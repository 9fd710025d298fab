#include "core/fs/group.h"

#include <algorithm>

#include "core/base/assert.h"

namespace cawfs {

Group::Group(Executor& executor, const Geometry& geometry, GroupNo number, BufferRef header, const LockHold& hold,
             std::uint64_t tenure)
    : index(executor),
      number_(number),
      lock_(hold.name()),
      generation_(hold.generation()),
      tenure_(tenure),
      start_(geometry.group_start(number)),
      data_(geometry.group_data(number)),
      blocks_(geometry.blocks_in_group(number)),
      header_(std::move(header)),
      bitmaps_(geometry.bitmap_blocks(number)),
      available_(Group::header().free_blocks.value()) {}

bool Group::uninitialised(std::uint32_t bitmap) const {
  return (header().summary[bitmap].value() & format::kBitmapUninit) != 0;
}

std::uint32_t Group::free_in_summary(std::uint32_t bitmap) const {
  return header().summary[bitmap].value() & ~format::kBitmapUninit;
}

Result<> Group::add_bitmap(std::uint32_t bitmap, BufferRef buffer) {
  CAWFS_ASSERT(!bitmaps_[bitmap]);
  BusyMap busy(buffer->as<format::Bitmap>().bits);
  if (busy.free() != free_in_summary(bitmap)) return fail(Errc::kBadValue, "bitmap", buffer->block().value);
  if (bitmap == 0) {
    // The group's own blocks come first; nobody else may think them free.
    for (std::uint64_t bit = 0; bit < bit_of(data_); ++bit) {
      if (!busy.busy(bit)) return fail(Errc::kBadValue, "bitmap", buffer->block().value);
    }
  }
  bitmaps_[bitmap] = std::make_unique<Loaded>(std::move(buffer), busy);
  return {};
}

std::uint64_t Group::ready() const {
  std::uint64_t ready = 0;
  for (const auto& bitmap : bitmaps_) {
    if (bitmap) ready += bitmap->busy.free();
  }
  return ready;
}

bool Group::holds(BlockRange blocks) const {
  return blocks.count > 0 && blocks.start >= data_ && blocks.start.value < start_.value + blocks_ &&
         blocks.count <= start_.value + blocks_ - blocks.start.value;
}

std::uint32_t Group::first_bitmap(BlockRange blocks) const {
  return static_cast<std::uint32_t>(bit_of(blocks.start) / BusyMap::kBits);
}

std::uint32_t Group::last_bitmap(BlockRange blocks) const {
  return static_cast<std::uint32_t>((bit_of(blocks.start) + blocks.count - 1) / BusyMap::kBits);
}

template <class F>
void Group::for_parts(BlockRange blocks, F f) const {
  std::uint64_t bit = bit_of(blocks.start);
  const std::uint64_t end = bit + blocks.count;
  while (bit < end) {
    const std::uint64_t inside = bit % BusyMap::kBits;
    const std::uint64_t count = std::min(end - bit, BusyMap::kBits - inside);
    f(static_cast<std::uint32_t>(bit / BusyMap::kBits), BitRun{inside, count});
    bit += count;
  }
}

bool Group::loaded(BlockRange blocks) const {
  for (std::uint32_t bitmap = first_bitmap(blocks); bitmap <= last_bitmap(blocks); ++bitmap) {
    if (!bitmaps_[bitmap]) return false;
  }
  return true;
}

bool Group::in_use(BlockRange blocks) const {
  bool all = true;
  for_parts(blocks, [&](std::uint32_t bitmap, BitRun run) {
    all = all && all_set(bitmaps_[bitmap]->buffer->as<format::Bitmap>().bits, run);
  });
  return all;
}

BlockRange Group::blocks_of(std::uint32_t bitmap, BitRun run) const {
  return {start_ + (bitmap * BusyMap::kBits + run.first), run.count};
}

BlockRange Group::claim(std::uint32_t bitmap, BitRun run) {
  bitmaps_[bitmap]->busy.set(run);
  available_ -= run.count;
  return blocks_of(bitmap, run);
}

std::optional<BlockRange> Group::reserve(BlockNo goal, std::uint64_t most) {
  const std::uint64_t goal_bit = holds({goal, 1}) ? bit_of(goal) : 0;
  const auto goal_bitmap = static_cast<std::uint32_t>(goal_bit / BusyMap::kBits);
  std::optional<std::pair<std::uint32_t, BitRun>> best;
  // The goal's bitmap comes twice: from the goal on, and as the last one from its start.
  for (std::uint32_t i = 0; i <= bitmap_count(); ++i) {
    const std::uint32_t bitmap = (goal_bitmap + i) % bitmap_count();
    if (!bitmaps_[bitmap] || bitmaps_[bitmap]->busy.free() == 0) continue;
    std::uint64_t from = i == 0 ? goal_bit % BusyMap::kBits : 0;
    while (const auto run = bitmaps_[bitmap]->busy.next_free(from, most)) {
      const bool at_goal = i == 0 && run->first == goal_bit % BusyMap::kBits && goal_bit != 0;
      if (at_goal || run->count == most) return claim(bitmap, *run);
      if (!best || run->count > best->second.count) best = {bitmap, *run};
      from = run->first + run->count;
    }
  }
  if (!best) return std::nullopt;
  return claim(best->first, best->second);
}

std::optional<BlockRange> Group::reserve_aligned(BlockNo goal, std::uint64_t count, std::uint64_t alignment) {
  const std::uint64_t goal_bit = holds({goal, 1}) ? bit_of(goal) : 0;
  const auto goal_bitmap = static_cast<std::uint32_t>(goal_bit / BusyMap::kBits);
  for (std::uint32_t i = 0; i <= bitmap_count(); ++i) {
    const std::uint32_t bitmap = (goal_bitmap + i) % bitmap_count();
    if (!bitmaps_[bitmap] || bitmaps_[bitmap]->busy.free() < count) continue;
    const std::uint64_t base = start_.value + bitmap * BusyMap::kBits;
    std::uint64_t from = i == 0 ? goal_bit % BusyMap::kBits : 0;
    while (const auto run = bitmaps_[bitmap]->busy.next_free(from, BusyMap::kBits)) {
      const std::uint64_t first = (base + run->first + alignment - 1) / alignment * alignment - base;
      const std::uint64_t end = run->first + run->count;
      if (first + count <= end) return claim(bitmap, {first, count});
      from = end;
    }
  }
  return std::nullopt;
}

void Group::unreserve(BlockRange blocks) {
  for_parts(blocks, [&](std::uint32_t bitmap, BitRun run) { bitmaps_[bitmap]->busy.clear(run); });
  available_ += blocks.count;
}

void Group::change(TxHandle& tx, const LockHold& hold, BlockRange blocks, bool used) {
  CAWFS_ASSERT(holds(blocks) && loaded(blocks));
  tx.change(*header_, hold);
  auto& header = header_->as<format::GroupHeader>();
  for_parts(blocks, [&](std::uint32_t bitmap, BitRun run) {
    Buffer& buffer = *bitmaps_[bitmap]->buffer;
    tx.change(buffer, hold);
    auto& bits = buffer.as<format::Bitmap>().bits;
    CAWFS_ASSERT(used ? none_set(bits, run) : all_set(bits, run));
    flip(bits, run);
    const auto count = static_cast<std::uint32_t>(run.count);
    const std::uint32_t free = free_in_summary(bitmap);
    header.summary[bitmap] = used ? free - count : free + count;
  });
  const auto count = static_cast<std::uint32_t>(blocks.count);
  const std::uint32_t free = header.free_blocks.value();
  header.free_blocks = used ? free - count : free + count;
}

void Group::take(TxHandle& tx, const LockHold& hold, BlockRange blocks) {
  change(tx, hold, blocks, true);
}

void Group::free(TxHandle& tx, const LockHold& hold, BlockRange blocks) {
  change(tx, hold, blocks, false);
  uncommitted_ += blocks.count;
}

void Group::freed(BlockRange blocks) {
  CAWFS_ASSERT(uncommitted_ >= blocks.count);
  uncommitted_ -= blocks.count;
  unreserve(blocks);
}

}  // namespace cawfs
