// Where mkfs puts everything: a pure computation from the device's size and the options.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/base/types.h"
#include "core/format/checksums.h"
#include "core/format/disk_format.h"
#include "core/format/geometry.h"

namespace cawfs {

inline constexpr std::uint32_t kDefaultDeadTimeMs = 30'000;

struct MakeOptions {
  std::string label;                 // at most 64 bytes
  format::Uuid uuid{};               // zero: a random one
  std::uint32_t slots = 0;           // 0: 4 below 1 GiB, else 8
  std::uint32_t journal_blocks = 0;  // of each slot; 0: 1/16 of the device for all, 1 MiB to 64 MiB each
  std::uint32_t group_blocks = 0;    // 0: by size
  std::uint32_t dead_time_ms = kDefaultDeadTimeMs;
  bool clustered = true;
  bool discard = true;          // unmap the whole device first, where it can
  std::int64_t created_ns = 0;  // since 1970
};

struct GroupPlan {
  std::vector<BlockRange> used;  // ascending, without overlap; starts with the group's own blocks
};

struct FileSystemPlan {
  Geometry geometry;  // without fs_id and sip_key
  std::uint32_t journal_blocks = 0;
  std::vector<GroupPlan> groups;
  std::vector<BlockNo> chunks;                    // inode chunks, in group 0: the root, then the orphan lists
  std::vector<std::vector<BlockRange>> journals;  // of each slot, up to four extents
};

// Groups: as many as slots where they can have 8 MiB each; one bitmap block each where that makes no more than 4096 of
// them, else larger ones. Journals: slot i's in group i where it fits.
//
// kInvalid: an option that cannot be, named by `where`. kNoSpace: the device is too small for them.
Result<FileSystemPlan> plan_file_system(std::uint64_t size_bytes, std::uint32_t logical_block,
                                        const MakeOptions& options);

// The smallest device that the options, which are possible ones, fit on.
std::uint64_t minimum_size_bytes(std::uint32_t logical_block, const MakeOptions& options);

}  // namespace cawfs
