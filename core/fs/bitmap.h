// Which blocks of one bitmap block's range can be handed out now: those that are free on disk, not reserved by an
// operation, and not freed by a transaction that has not committed. In memory only.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "core/format/disk_format.h"

namespace cawfs {

struct BitRun {
  std::uint64_t first = 0;
  std::uint64_t count = 0;
};

// Of a format::Bitmap's bits. By bytes: a run may be a whole group's, tens of millions of bits.
bool all_set(std::span<const std::uint8_t> bits, BitRun run);
bool none_set(std::span<const std::uint8_t> bits, BitRun run);
void flip(std::span<std::uint8_t> bits, BitRun run);

class BusyMap {
 public:
  static constexpr std::uint64_t kBits = format::kBitsPerBitmapBlock;

  // All bits that are set in `bits`, a format::Bitmap's, are busy.
  explicit BusyMap(std::span<const std::uint8_t> bits);

  std::uint64_t free() const { return free_; }
  bool busy(std::uint64_t bit) const { return (words_[bit / 64] >> (bit % 64) & 1) != 0; }
  // Asserts that none of them is busy; that all of them are.
  void set(BitRun run);
  void clear(BitRun run);

  // The first run of free bits at or after `from`, cut to `most`.
  std::optional<BitRun> next_free(std::uint64_t from, std::uint64_t most) const;

 private:
  static constexpr std::size_t kWords = (kBits + 63) / 64;
  // The first bit at or after `from` that is busy (or free); kBits if there is none.
  std::uint64_t find(std::uint64_t from, bool wanted_busy) const;

  std::array<std::uint64_t, kWords> words_{};  // bits past kBits are busy
  std::uint64_t free_ = 0;
};

}  // namespace cawfs
