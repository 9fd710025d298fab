// A file's bytes: what was never written, or was cut off since, reads as zeros and takes no memory.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace cawfs::test {

class SparseBytes {
 public:
  static constexpr std::uint64_t kPiece = 4096;

  std::uint64_t size() const { return size_; }
  // The first byte of each piece that something was written to.
  const std::map<std::uint64_t, std::string>& pieces() const { return pieces_; }

  void resize(std::uint64_t size) {
    if (size < size_) {
      const std::uint64_t last = size / kPiece * kPiece;
      pieces_.erase(pieces_.lower_bound(size % kPiece == 0 ? last : last + 1), pieces_.end());
      if (const auto it = pieces_.find(last); it != pieces_.end()) {
        std::fill(it->second.begin() + static_cast<std::ptrdiff_t>(size - last), it->second.end(), '\0');
      }
    }
    size_ = size;
  }

  void write(std::uint64_t offset, std::string_view data) {
    size_ = std::max(size_, offset + data.size());
    while (!data.empty()) {
      const std::uint64_t first = offset / kPiece * kPiece;
      const std::uint64_t count = std::min<std::uint64_t>(data.size(), first + kPiece - offset);
      std::string& piece = pieces_.try_emplace(first, kPiece, '\0').first->second;
      piece.replace(offset - first, count, data.substr(0, count));
      data.remove_prefix(count);
      offset += count;
    }
  }

  std::string read(std::uint64_t offset, std::uint64_t length) const {
    if (offset >= size_) return {};
    const std::uint64_t end = offset + std::min(length, size_ - offset);
    std::string out(end - offset, '\0');
    for (auto it = pieces_.lower_bound(offset / kPiece * kPiece); it != pieces_.end() && it->first < end; ++it) {
      const std::uint64_t from = std::max(it->first, offset);
      const std::uint64_t count = std::min(it->first + kPiece, end) - from;
      out.replace(from - offset, count, it->second, from - it->first, count);
    }
    return out;
  }

 private:
  std::uint64_t size_ = 0;
  std::map<std::uint64_t, std::string> pieces_;
};

}  // namespace cawfs::test
