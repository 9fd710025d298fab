#include "core/fs/dirty_data.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/base/assert.h"

namespace cawfs {

namespace {

std::uint64_t mask_of(std::uint32_t first, std::uint32_t count) {
  const std::uint64_t ones = count == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << count) - 1;
  return ones << first;
}

std::uint32_t in_chunk(std::uint64_t block) {
  return static_cast<std::uint32_t>(block % DirtyData::kChunkBlocks);
}

}  // namespace

std::span<const std::byte> DirtyData::find(std::uint64_t block) const {
  const auto it = chunks_.find(block / kChunkBlocks);
  if (it == chunks_.end() || !(it->second.dirty & mask_of(in_chunk(block), 1))) return {};
  const Chunk& chunk = it->second;
  return chunk.buffer.bytes().subspan(std::size_t{in_chunk(block) - chunk.first} * kBlockSize, kBlockSize);
}

// Makes the chunk's buffer cover [first, first + count). A stream grows it by doubling.
void DirtyData::cover(Chunk& chunk, std::uint32_t first, std::uint32_t count) {
  const std::uint32_t end = first + count;
  const std::uint32_t old_first = chunk.first;
  const std::uint32_t old_end = chunk.first + chunk.blocks();
  if (chunk.blocks() > 0 && old_first <= first && end <= old_end) return;

  std::uint32_t new_first = first;
  std::uint32_t new_end = end;
  if (chunk.blocks() > 0) {
    new_first = std::min(first, old_first);
    new_end = std::max(end, old_end);
    if (first == old_end) new_end = std::max(new_end, std::min<std::uint32_t>(64, old_end + chunk.blocks()));
  }
  IoBuffer larger(std::size_t{new_end - new_first} * kBlockSize);
  if (chunk.blocks() > 0) {
    std::memcpy(larger.data() + std::size_t{old_first - new_first} * kBlockSize, chunk.buffer.data(),
                chunk.buffer.size());
  }
  bytes_ += larger.size() - chunk.buffer.size();
  chunk.buffer = std::move(larger);
  chunk.first = new_first;
}

std::span<std::byte> DirtyData::make_dirty(std::uint64_t first, std::uint64_t count) {
  CAWFS_ASSERT(count > 0 && first / kChunkBlocks == (first + count - 1) / kChunkBlocks);
  Chunk& chunk = chunks_[first / kChunkBlocks];
  const std::uint32_t start = in_chunk(first);
  const auto blocks = static_cast<std::uint32_t>(count);
  cover(chunk, start, blocks);
  for (std::uint32_t i = start; i < start + blocks; ++i) {
    if (chunk.dirty & mask_of(i, 1)) continue;
    std::memset(chunk.buffer.data() + std::size_t{i - chunk.first} * kBlockSize, 0, kBlockSize);
  }
  chunk.dirty |= mask_of(start, blocks);
  return chunk.buffer.bytes().subspan(std::size_t{start - chunk.first} * kBlockSize, count * kBlockSize);
}

std::optional<std::uint64_t> DirtyData::next_dirty(std::uint64_t from) const {
  for (auto it = chunks_.lower_bound(from / kChunkBlocks); it != chunks_.end(); ++it) {
    std::uint64_t dirty = it->second.dirty;
    if (it->first == from / kChunkBlocks) dirty &= ~std::uint64_t{0} << in_chunk(from);
    if (dirty) return it->first * kChunkBlocks + static_cast<std::uint64_t>(std::countr_zero(dirty));
  }
  return std::nullopt;
}

std::optional<DirtyData::Run> DirtyData::next_run(std::uint64_t from, std::uint64_t limit) const {
  const auto first = next_dirty(from);
  if (!first) return std::nullopt;
  const Chunk& chunk = chunks_.at(*first / kChunkBlocks);
  const std::uint32_t start = in_chunk(*first);
  const auto dirty = static_cast<std::uint64_t>(std::countr_one(chunk.dirty >> start));
  const std::uint64_t count = std::min(limit, dirty);
  return Run{*first, count,
             chunk.buffer.bytes().subspan(std::size_t{start - chunk.first} * kBlockSize, count * kBlockSize)};
}

void DirtyData::clean(std::uint64_t first, std::uint64_t count) {
  const std::uint64_t end = count > UINT64_MAX - first ? UINT64_MAX : first + count;
  auto it = chunks_.lower_bound(first / kChunkBlocks);
  while (it != chunks_.end() && it->first * kChunkBlocks < end) {
    const std::uint64_t base = it->first * kChunkBlocks;
    const auto from = static_cast<std::uint32_t>(std::max(first, base) - base);
    const auto to = static_cast<std::uint32_t>(std::min(end - base, kChunkBlocks));
    it->second.dirty &= ~mask_of(from, to - from);
    if (it->second.dirty == 0) {
      bytes_ -= it->second.buffer.size();
      it = chunks_.erase(it);
    } else {
      ++it;
    }
  }
}

void DirtyData::clear() {
  chunks_.clear();
  bytes_ = 0;
}

}  // namespace cawfs
