#include "core/fs/bitmap.h"

#include <algorithm>
#include <bit>

#include "core/base/assert.h"

namespace cawfs {

namespace {

// Calls f(word's or byte's index, mask of the run's bits in it), for words of kWidth bits.
template <std::uint64_t kWidth, class F>
void for_masks(BitRun run, F f) {
  const std::uint64_t end = run.first + run.count;
  for (std::uint64_t bit = run.first; bit < end;) {
    const std::uint64_t inside = bit % kWidth;
    const std::uint64_t count = std::min(kWidth - inside, end - bit);
    const std::uint64_t ones = count == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << count) - 1;
    f(bit / kWidth, ones << inside);
    bit += count;
  }
}

}  // namespace

bool all_set(std::span<const std::uint8_t> bits, BitRun run) {
  bool all = true;
  for_masks<8>(run, [&](std::size_t i, std::uint64_t mask) { all = all && (bits[i] & mask) == mask; });
  return all;
}

bool none_set(std::span<const std::uint8_t> bits, BitRun run) {
  bool none = true;
  for_masks<8>(run, [&](std::size_t i, std::uint64_t mask) { none = none && (bits[i] & mask) == 0; });
  return none;
}

void flip(std::span<std::uint8_t> bits, BitRun run) {
  for_masks<8>(run, [&](std::size_t i, std::uint64_t mask) { bits[i] ^= static_cast<std::uint8_t>(mask); });
}

BusyMap::BusyMap(std::span<const std::uint8_t> bits) {
  CAWFS_ASSERT(bits.size() * 8 == kBits);
  for (std::size_t i = 0; i < bits.size(); ++i) words_[i / 8] |= std::uint64_t{bits[i]} << (i % 8 * 8);
  for (std::uint64_t bit = kBits; bit < kWords * 64; ++bit) words_[bit / 64] |= std::uint64_t{1} << (bit % 64);
  for (const std::uint64_t word : words_) free_ += static_cast<std::uint64_t>(std::popcount(~word));
}

void BusyMap::set(BitRun run) {
  for_masks<64>(run, [&](std::size_t i, std::uint64_t mask) {
    CAWFS_ASSERT((words_[i] & mask) == 0);
    words_[i] |= mask;
  });
  free_ -= run.count;
}

void BusyMap::clear(BitRun run) {
  for_masks<64>(run, [&](std::size_t i, std::uint64_t mask) {
    CAWFS_ASSERT((words_[i] & mask) == mask);
    words_[i] &= ~mask;
  });
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
