// Bitmaps and their summaries against what is in use.
#include <algorithm>
#include <bit>

#include "core/format/verify.h"
#include "utils/fsck/check.h"

namespace cawfs {
namespace {

using namespace format;

bool bit_of(const Bitmap& bitmap, std::uint64_t bit) {
  return (bitmap.bits[bit / 8] >> (bit % 8) & 1) != 0;
}

// Reports runs of blocks that are in use and free, or the other way round.
void compare(Check& check, const Bitmap& bitmap, BlockNo first, std::uint64_t count) {
  std::uint64_t run = 0;
  bool run_taken = false;
  const auto end_run = [&](std::uint64_t at) {
    if (run == 0) return;
    check.found(run_taken ? Problem::kBlockUnusedButTaken : Problem::kBlockUsedButFree, first.value + at - run,
                "{} blocks from here", run);
    run = 0;
  };
  for (std::uint64_t i = 0; i < count; ++i) {
    const bool taken = bit_of(bitmap, i);
    if (taken == check.blocks.used(first + i)) {
      end_run(i);
      continue;
    }
    if (run != 0 && taken != run_taken) end_run(i);
    run_taken = taken;
    ++run;
  }
  end_run(count);
}

std::uint64_t count_free(const Bitmap& bitmap) {
  std::uint64_t free = 0;
  for (const std::uint8_t byte : bitmap.bits) free += 8 - static_cast<std::uint64_t>(std::popcount(byte));
  return free;
}

}  // namespace

Task<Result<>> Check::check_group_bitmaps(GroupNo group, const GroupHeader& header) {
  IoBuffer block(kBlockSize);
  for (std::uint32_t i = 0; i < geometry.bitmap_blocks(group); ++i) {
    const BlockNo first = geometry.group_start(group) + i * kBitsPerBitmapBlock;
    const std::uint64_t count =
        std::min(kBitsPerBitmapBlock, geometry.blocks_in_group(group) - i * kBitsPerBitmapBlock);
    const std::uint32_t summary = header.summary[i].value();
    if ((summary & kBitmapUninit) != 0) {
      compare(*this, Bitmap{}, first, count);
      continue;
    }
    const BlockNo place = geometry.group_bitmap(group, i);
    const Result<bool> loaded = co_await load(place, BlockType::kBitmap, block.bytes(), Problem::kBitmapDamaged);
    if (!loaded) co_return fail(loaded.error());
    if (!*loaded) continue;
    const auto& bitmap = *reinterpret_cast<const Bitmap*>(block.data());
    compare(*this, bitmap, first, count);
    if (count_free(bitmap) != summary) {
      found(Problem::kGroupFreeCountWrong, group.value, "bitmap {} has {} free blocks, the summary says {}", i,
            count_free(bitmap), summary);
    }
  }
  co_return Result<>{};
}

Task<Result<>> Check::check_bitmaps() {
  report.used_blocks = blocks.count();
  IoBuffer block(kBlockSize);
  for (std::uint32_t i = 0; i < geometry.group_count; ++i) {
    const GroupNo group{i};
    const BlockNo place = geometry.group_header(group);
    const Result<> read_done = co_await device.read(place.offset_bytes(), block.bytes());
    if (!read_done && read_done.error().code != Errc::kMedium) co_return read_done;
    // A damaged header has been reported already.
    if (!read_done || !verify_block(block.bytes(), BlockType::kGroupHeader, place, geometry)) continue;
    const Result<> done = co_await check_group_bitmaps(group, *reinterpret_cast<const GroupHeader*>(block.data()));
    if (!done) co_return done;
  }
  co_return Result<>{};
}

}  // namespace cawfs
