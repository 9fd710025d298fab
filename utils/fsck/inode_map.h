// What is known of each inode while checking.
#pragma once

#include <array>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "core/base/types.h"
#include "core/format/disk_format.h"

namespace cawfs {

struct InodeFacts {
  enum State : std::uint8_t { kFree, kInUse, kDamaged };

  std::uint32_t nlink = 0;  // as it says
  std::uint32_t names = 0;  // directory entries found
  std::uint8_t state = kFree;
  std::uint8_t type = 0;  // S_IFMT >> 12
  bool system = false;
  bool orphan = false;          // says that it is in an orphan list
  bool in_orphan_list = false;  // is in one
  bool sound = true;            // its tree can be walked again
  std::uint16_t orphan_slot = 0;
};

struct DirectoryFacts {
  InodeNo parent;    // as it says
  InodeNo named_by;  // 0: not yet
  std::uint32_t subdirectories = 0;
};

class InodeMap {
 public:
  using Chunk = std::array<InodeFacts, format::kChunkBlocks - 1>;

  // False if it is there already.
  bool add_chunk(BlockNo chunk) { return chunks_.try_emplace(chunk.value).second; }
  // Null where no chunk has this number.
  InodeFacts* find(InodeNo inode) {
    const std::uint64_t index = inode.value % format::kChunkBlocks;
    if (index == 0) return nullptr;
    const auto chunk = chunks_.find(inode.value - index);
    return chunk == chunks_.end() ? nullptr : &chunk->second[index - 1];
  }
  std::unordered_map<std::uint64_t, Chunk>& chunks() { return chunks_; }
  std::unordered_map<InodeNo, DirectoryFacts>& directories() { return directories_; }

 private:
  std::unordered_map<std::uint64_t, Chunk> chunks_;
  std::unordered_map<InodeNo, DirectoryFacts> directories_;
};

}  // namespace cawfs
