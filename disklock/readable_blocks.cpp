#include "disklock/readable_blocks.h"

#include <algorithm>

namespace cawfs {

Task<Result<>> read_readable_blocks(BlockDevice& device, std::uint64_t offset, std::span<std::byte> out,
                                    std::size_t stride) {
  const Result<> whole = co_await device.read(offset, out);
  if (whole || whole.error() != Errc::kMedium) co_return whole;
  for (std::size_t at = 0; at < out.size(); at += stride) {
    const auto piece = out.subspan(at, stride);
    const Result<> done = co_await device.read(offset + at, piece);
    if (!done && done.error() != Errc::kMedium) co_return done;
    if (!done) std::ranges::fill(piece, std::byte{0});
  }
  co_return Result<>{};
}

}  // namespace cawfs
