// A fuzzer's bytes, taken from the front. Once they are used up there are zeroes, so that every input means something,
// and a block that ends with zeroes is a short one.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "core/base/checksum.h"

namespace cawfs::fuzz {

class FuzzInput {
 public:
  FuzzInput(const std::uint8_t* data, std::size_t size) : all_(std::as_bytes(std::span(data, size))), left_(all_) {}

  bool empty() const { return left_.empty(); }
  std::size_t size() const { return left_.size(); }

  std::span<const std::byte> take_bytes(std::size_t most) {
    const auto taken = left_.first(std::min(most, left_.size()));
    left_ = left_.subspan(taken.size());
    return taken;
  }
  void fill(std::span<std::byte> out) {
    const auto taken = take_bytes(out.size());
    std::ranges::copy(taken, out.begin());
    std::ranges::fill(out.subspan(taken.size()), std::byte{0});
  }
  template <class T>
  T take() {
    T value{};
    fill(std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }
  std::uint8_t byte() { return take<std::uint8_t>(); }
  // Below `bound`, which is not 0.
  std::uint32_t below(std::uint32_t bound) { return take<std::uint16_t>() % bound; }
  // True for one input in n, whatever the fuzzer likes best: for what takes long.
  bool one_in(std::uint32_t n) const { return crc32c(all_) % n == 0; }

 private:
  std::span<const std::byte> all_;
  std::span<const std::byte> left_;
};

}  // namespace cawfs::fuzz
