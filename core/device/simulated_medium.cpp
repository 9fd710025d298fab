#include "core/device/simulated_medium.h"

#include <algorithm>
#include <cstring>

#include "core/base/assert.h"

namespace cawfs {
namespace {

constexpr std::uint64_t kPageSize = 64 << 10;
// Older images of a block than these are forgotten: a power cut then cannot bring them back, which loses no kind of
// fault.
constexpr std::size_t kImages = 8;

}  // namespace

SimulatedMedium::SimulatedMedium(Random& random, std::uint32_t logical_block, bool volatile_cache)
    : random_(random), logical_block_(logical_block), volatile_cache_(volatile_cache) {
  CAWFS_ASSERT(logical_block == 512 || logical_block == 4096);
}

void SimulatedMedium::read(std::uint64_t offset, std::span<std::byte> out) const {
  for (std::uint64_t done = 0; done < out.size();) {
    const std::uint64_t at = offset + done;
    const std::uint64_t n = std::min(kPageSize - at % kPageSize, out.size() - done);
    auto page = pages_.find(at / kPageSize);
    if (page == pages_.end()) {
      std::memset(out.data() + done, 0, n);
    } else {
      std::memcpy(out.data() + done, page->second.get() + at % kPageSize, n);
    }
    done += n;
  }
  const std::uint64_t first = offset / logical_block_;
  const std::uint64_t end = first + out.size() / logical_block_;
  for (auto it = unflushed_.lower_bound(first); it != unflushed_.end() && it->first < end; ++it) {
    std::memcpy(out.data() + (it->first - first) * logical_block_, it->second.back().data(), logical_block_);
  }
}

void SimulatedMedium::store(std::uint64_t block, std::span<const std::byte> data) {
  const std::uint64_t at = block * logical_block_;
  Page& page = pages_[at / kPageSize];
  if (!page) page = std::make_unique<std::byte[]>(kPageSize);
  std::memcpy(page.get() + at % kPageSize, data.data(), logical_block_);
}

void SimulatedMedium::write_block(std::uint64_t block, std::span<const std::byte> data, bool durable) {
  if (durable || !volatile_cache_) {
    unflushed_.erase(block);
    store(block, data);
    return;
  }
  auto& images = unflushed_[block];
  images.emplace_back(data.begin(), data.end());
  if (images.size() > kImages) images.pop_front();
}

void SimulatedMedium::write(std::uint64_t offset, std::span<const std::byte> data, bool durable) {
  for (std::uint64_t done = 0; done < data.size(); done += logical_block_) {
    write_block((offset + done) / logical_block_, data.subspan(done, logical_block_), durable);
  }
}

void SimulatedMedium::write_torn(std::uint64_t offset, std::span<const std::byte> data) {
  for (std::uint64_t done = 0; done < data.size(); done += logical_block_) {
    if (random_.one_in(2)) write(offset + done, data.subspan(done, logical_block_), false);
  }
}

std::vector<std::uint64_t> SimulatedMedium::written_blocks(std::uint64_t offset, std::uint64_t length) const {
  std::vector<std::uint64_t> blocks;
  const std::uint64_t first = offset / logical_block_;
  const std::uint64_t end = (offset + length) / logical_block_;
  const std::uint64_t per_page = kPageSize / logical_block_;
  for (auto page = pages_.lower_bound(first / per_page); page != pages_.end() && page->first * per_page < end; ++page) {
    const std::uint64_t page_end = std::min(end, (page->first + 1) * per_page);
    for (std::uint64_t b = std::max(first, page->first * per_page); b < page_end; ++b) blocks.push_back(b);
  }
  for (auto it = unflushed_.lower_bound(first); it != unflushed_.end() && it->first < end; ++it) {
    if (!pages_.contains(it->first / per_page)) blocks.push_back(it->first);
  }
  std::ranges::sort(blocks);
  return blocks;
}

void SimulatedMedium::write_zeroes(std::uint64_t offset, std::uint64_t length) {
  const Image zeroes(logical_block_);
  for (std::uint64_t block : written_blocks(offset, length)) write_block(block, zeroes, false);
}

void SimulatedMedium::unmap(std::uint64_t offset, std::uint64_t length) {
  Image image(logical_block_);
  for (std::uint64_t block : written_blocks(offset, length)) {
    const std::uint64_t garbage = random_.one_in(2) ? random_.next() : 0;
    for (std::size_t at = 0; at < image.size(); at += sizeof garbage) {
      std::memcpy(image.data() + at, &garbage, sizeof garbage);
    }
    write_block(block, image, false);
  }
}

void SimulatedMedium::flush() {
  for (const auto& [block, images] : unflushed_) store(block, images.back());
  unflushed_.clear();
}

void SimulatedMedium::power_cut() {
  for (const auto& [block, images] : unflushed_) {
    const std::uint64_t choice = random_.below(images.size() + 1);
    if (choice > 0) store(block, images[choice - 1]);
  }
  unflushed_.clear();
}

}  // namespace cawfs
