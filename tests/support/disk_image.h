// What stands on a LUN, as its blocks that are not zero: taken once, put onto any number of LUNs.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <span>

#include "core/base/types.h"
#include "core/device/simulated_device.h"

namespace cawfs::testing {

class DiskImage {
  using Block = std::array<std::byte, kBlockSize>;

 public:
  DiskImage() = default;
  DiskImage(const SimulatedLun& lun, std::uint64_t size_bytes) {
    static constexpr Block kZeroes{};
    Block block;
    for (std::uint64_t offset = 0; offset < size_bytes; offset += kBlockSize) {
      lun.peek(offset, block);
      if (std::memcmp(block.data(), kZeroes.data(), block.size()) != 0) blocks_[offset] = block;
    }
  }

  void put(SimulatedLun& lun) const {
    for (const auto& [offset, bytes] : blocks_) lun.poke(offset, bytes);
  }
  void read(std::uint64_t offset, std::span<std::byte> out) const {
    while (!out.empty()) {
      const std::uint64_t inside = offset % kBlockSize;
      const std::size_t length = std::min<std::size_t>(out.size(), kBlockSize - inside);
      const auto found = blocks_.find(offset - inside);
      if (found == blocks_.end()) {
        std::ranges::fill(out.first(length), std::byte{0});
      } else {
        std::memcpy(out.data(), found->second.data() + inside, length);
      }
      out = out.subspan(length);
      offset += length;
    }
  }
  template <class T>
  T load(std::uint64_t offset) const {
    T value;
    read(offset, std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }

 private:
  std::map<std::uint64_t, Block> blocks_;
};

}  // namespace cawfs::testing
