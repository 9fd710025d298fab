#include "core/fs/bitmap.h"

#include <algorithm>
#include <bit>

#include "core/base/assert.h"

namespace cawfs {

BusyMap::BusyMap(std::span<const std::uint8_t> bits) {
  CAWFS_ASSERT(bits.size() * 8 == kBits);
  for (std::size_t i = 0; i < bits.size(); ++i) words_[i / 8] |= std::uint64_t{bits[i]} << (i % 8 * 8);
  for (std::uint64_t bit = kBits; bit < kWords * 64; ++bit) words_[bit / 64] |= std::uint64_t{1} << (bit % 64);
  for (const std::uint64_t word : words_) free_ += static_cast<std::uint64_t>(std::popcount(~word));
}

void BusyMap::set(BitRun run) {
  for (std::uint64_t bit = run.first; bit < run.first + run.count; ++bit) {
    CAWFS_ASSERT(!busy(bit));
    words_[bit / 64] |= std::uint64_t{1} << (bit % 64);
  }
  free_ -= run.count;
}

void BusyMap::clear(BitRun run) {
  for (std::uint64_t bit = run.first; bit < run.first + run.count; ++bit) {
    CAWFS_ASSERT(busy(bit));
    words_[bit / 64] &= ~(std::uint64_t{1} << (bit % 64));
  }
  free_ += run.count;
}

std::uint64_t BusyMap::find(std::uint64_t from, bool wanted_busy) const {
  if (from >= kBits) return kBits;
  std::size_t i = from / 64;
  std::uint64_t word = (wanted_busy ? words_[i] : ~words_[i]) & (~std::uint64_t{0} << (from % 64));
  while (word == 0) {
    if (++i == kWords) return kBits;
    word = wanted_busy ? words_[i] : ~words_[i];
  }
  return std::min<std::uint64_t>(kBits, i * 64 + static_cast<std::uint64_t>(std::countr_zero(word)));
}

std::optional<BitRun> BusyMap::next_free(std::uint64_t from, std::uint64_t most) const {
  const std::uint64_t first = find(from, false);
  if (first == kBits) return std::nullopt;
  return BitRun{first, std::min(find(first, true) - first, most)};
}

}  // namespace cawfs
