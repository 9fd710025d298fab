// One file's data that has been written but not yet reached the device: whole blocks in memory, kept in runs that can
// be written with one request each. Pure memory: who uses it holds the inode's lock EX.
//
// A chunk is 64 blocks of the file, aligned. Its buffer covers the hull of what is dirty in it and grows as needed, so
// that random small writes cost little memory and streams are written in large requests without another copy.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>

#include "core/base/types.h"
#include "core/device/io_buffer.h"

namespace cawfs {

class DirtyData {
 public:
  static constexpr std::uint64_t kChunkBlocks = 64;

  // Blocks [first, first + count) of the file, dirty and contiguous in memory.
  struct Run {
    std::uint64_t first = 0;
    std::uint64_t count = 0;
    std::span<const std::byte> bytes;
  };

  bool empty() const { return chunks_.empty(); }
  // What the buffers take, at least the size of the dirty data.
  std::uint64_t bytes() const { return bytes_; }

  // The block's contents, or nothing if it is not dirty.
  std::span<const std::byte> find(std::uint64_t block) const;
  bool contains(std::uint64_t block) const { return !find(block).empty(); }

  // Memory of the blocks [first, first + count), which must lie in one chunk; they become dirty. A block that was not
  // dirty before holds zeros. Valid until the next call that changes anything.
  std::span<std::byte> make_dirty(std::uint64_t first, std::uint64_t count);

  // The first run that starts at `from` or after it and is at most `limit` blocks long.
  std::optional<Run> next_run(std::uint64_t from, std::uint64_t limit) const;
  // The first block at or after `from` that is dirty.
  std::optional<std::uint64_t> next_dirty(std::uint64_t from) const;

  // The blocks are clean (written, or cut off).
  void clean(std::uint64_t first, std::uint64_t count);
  void clear();

 private:
  struct Chunk {
    std::uint32_t first = 0;  // the buffer's first block within the chunk
    IoBuffer buffer;
    std::uint64_t dirty = 0;  // bit i: block i of the chunk
    std::uint32_t blocks() const { return static_cast<std::uint32_t>(buffer.size() / kBlockSize); }
  };

  void cover(Chunk& chunk, std::uint32_t first, std::uint32_t count);

  std::map<std::uint64_t, Chunk> chunks_;  // by file block / kChunkBlocks
  std::uint64_t bytes_ = 0;
};

}  // namespace cawfs
