// read and readlink: what is dirty comes from memory, all else straight from the device into the caller's memory.
#include <algorithm>
#include <cstring>

#include "core/fs/chores.h"
#include "core/fs/file_data.h"
#include "core/fs/fs_context.h"
#include "core/fs/operations.h"

namespace cawfs {

namespace {

struct ByteRange {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::uint64_t first_block() const { return begin >> kBlockShift; }
  std::uint64_t block_count() const { return blocks_for(end) - first_block(); }
};

// Bytes [range) of the file, which lie on the device from `start` (the block of range.begin) on. `memory` begins at
// range.begin and may be longer than the range: what lies behind it may be overwritten.
Task<Result<>> read_device(FsContext& fs, BlockNo start, ByteRange range, std::span<std::byte> memory) {
  const std::uint64_t unit = fs.geometry.logical_block;
  const std::uint64_t length = range.end - range.begin;
  const std::uint64_t padded = (length + unit - 1) / unit * unit;
  const std::uint64_t offset = start.offset_bytes() + range.begin % kBlockSize;
  if (offset % unit == 0 && padded <= memory.size()) {
    auto done = co_await fs.io.read(offset, memory.first(padded));
    co_return done;
  }
  IoBuffer whole(range.block_count() * kBlockSize);
  auto done = co_await fs.io.read(start.offset_bytes(), whole.bytes());
  if (!done) co_return done;
  std::memcpy(memory.data(), whole.data() + range.begin % kBlockSize, length);
  co_return Result<>{};
}

// What is not dirty, of a file with extents or of one that has no data on the disk.
Task<Result<>> read_clean(FsContext& fs, Inode inode, ByteRange range, std::span<std::byte> memory) {
  FileMap map(fs.buffers, inode);
  auto runs = co_await map.map(range.first_block(), range.block_count());
  if (!runs) co_return fail(runs.error());
  for (const MappedRun& run : *runs) {
    const ByteRange part{std::max(range.begin, run.first << kBlockShift),
                         std::min(range.end, (run.first + run.count) << kBlockShift)};
    auto out = memory.subspan(part.begin - range.begin);
    if (!run.readable()) {
      std::memset(out.data(), 0, part.end - part.begin);
      continue;
    }
    // Only the last part may run over its end: behind the others lies what is read already or will be.
    if (part.end != range.end) out = out.first(part.end - part.begin);
    auto read = co_await read_device(fs, run.start + (part.first_block() - run.first), part, out);
    if (!read) co_return read;
  }
  co_return Result<>{};
}

void read_inline(const Inode& inode, ByteRange range, std::span<std::byte> memory) {
  const std::uint64_t stored = std::min(range.end, inode.disk_size());
  const std::uint64_t copied = stored > range.begin ? stored - range.begin : 0;
  if (copied > 0) std::memcpy(memory.data(), inode.raw().area.data() + range.begin, copied);
  std::memset(memory.data() + copied, 0, range.end - range.begin - copied);
}

Task<Result<>> read_range(FsContext& fs, Inode inode, ByteRange range, std::span<std::byte> memory) {
  const DirtyData& data = inode.state().data;
  if (!has_extents(inode) && data.empty()) {
    read_inline(inode, range, memory);
    co_return Result<>{};
  }
  std::uint64_t at = range.begin;
  while (at < range.end) {
    const std::uint64_t block = at >> kBlockShift;
    const auto dirty = data.find(block);
    auto out = memory.subspan(at - range.begin);
    if (!dirty.empty()) {
      const std::uint64_t end = std::min(range.end, (block + 1) << kBlockShift);
      std::memcpy(out.data(), dirty.data() + at % kBlockSize, end - at);
      at = end;
      continue;
    }
    const auto next = data.next_dirty(block);
    const std::uint64_t end = next ? std::min(range.end, *next << kBlockShift) : range.end;
    if (end != range.end) out = out.first(end - at);
    auto read = co_await read_clean(fs, inode, {at, end}, out);
    if (!read) co_return read;
    at = end;
  }
  co_return Result<>{};
}

Result<> check_readable(const Inode& inode) {
  if (inode.directory()) return fail(Errc::kIsDirectory);
  if (!inode.regular()) return fail(Errc::kInvalid);
  return {};
}

}  // namespace

Task<Result<std::size_t>> read_file(FsContext& fs, InodeNo number, std::uint64_t offset, std::span<std::byte> out) {
  auto known = co_await check_number(fs, number);
  if (!known) co_return fail(known.error());
  LockSet locks = fs.lock_set();
  locks.want_read(number);
  auto taken = co_await locks.take();
  if (!taken) co_return fail(taken.error());
  auto inode = co_await read_inode(fs, number);
  if (!inode) co_return fail(inode.error());
  if (auto good = check_readable(*inode); !good) co_return fail(good.error());
  if (out.empty()) co_return std::size_t{0};
  note_access(fs, *inode);
  const std::uint64_t size = inode->size();
  if (offset >= size) co_return std::size_t{0};
  const ByteRange range{offset, offset + std::min<std::uint64_t>(out.size(), size - offset)};
  auto read = co_await read_range(fs, *inode, range, out);
  if (!read) co_return fail(read.error());
  co_return static_cast<std::size_t>(range.end - range.begin);
}

Task<Result<std::string>> readlink(FsContext& fs, InodeNo number) {
  auto known = co_await check_number(fs, number);
  if (!known) co_return fail(known.error());
  LockSet locks = fs.lock_set();
  locks.want_read(number);
  auto taken = co_await locks.take();
  if (!taken) co_return fail(taken.error());
  auto inode = co_await read_inode(fs, number);
  if (!inode) co_return fail(inode.error());
  if (!inode->symlink()) co_return fail(Errc::kInvalid);
  const std::uint64_t size = inode->size();
  if (size == 0 || size > kSymlinkMax) co_return fail(Errc::kBadValue, "symlink", number.value);
  note_access(fs, *inode);
  IoBuffer target(kBlockSize);
  auto read = co_await read_range(fs, *inode, {0, size}, target.bytes());
  if (!read) co_return fail(read.error());
  co_return std::string(reinterpret_cast<const char*>(target.data()), size);
}

}  // namespace cawfs
