// Two names that a directory tells apart by the last bits of their keys only: their hashes are equal.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/base/checksum.h"

namespace cawfs::test {

// By trying 2^22 names: one key in sixteen has such a pair among them, and eight times as many names would take eight
// times as long. Names that agree in the lowest 28 bits are found first, with a bit for each value, and only these are
// sorted.
inline std::optional<std::pair<std::string, std::string>> find_names_of_equal_hash(const SipKey& key) {
  constexpr std::uint64_t kNames = 1 << 22;
  constexpr std::uint64_t kHashMask = (std::uint64_t{1} << 47) - 1;
  constexpr std::uint64_t kLowMask = (1 << 28) - 1;
  const auto name = [](std::uint64_t i) {
    std::array<char, 7> text{};
    for (char& c : text) {
      c = static_cast<char>('a' + i % 16);
      i /= 16;
    }
    return text;
  };
  const auto hash = [&](std::uint64_t i) {
    const auto text = name(i);
    return siphash(std::as_bytes(std::span(text)), key) & kHashMask;
  };
  std::vector<bool> once(kLowMask + 1);
  std::vector<bool> twice(kLowMask + 1);
  for (std::uint64_t i = 0; i < kNames; ++i) {
    const std::uint64_t low = hash(i) & kLowMask;
    if (once[low]) twice[low] = true;
    once[low] = true;
  }
  std::vector<std::pair<std::uint64_t, std::uint64_t>> some;
  for (std::uint64_t i = 0; i < kNames; ++i) {
    const std::uint64_t value = hash(i);
    if (twice[value & kLowMask]) some.emplace_back(value, i);
  }
  std::ranges::sort(some);
  const auto found = std::ranges::adjacent_find(some, {}, [](const auto& pair) { return pair.first; });
  if (found == some.end()) return std::nullopt;
  const auto one = name(found->second);
  const auto other = name(std::next(found)->second);
  return std::pair(std::string(one.begin(), one.end()), std::string(other.begin(), other.end()));
}

}  // namespace cawfs::test
