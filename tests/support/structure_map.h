// Where every structure of a good file system stands: walks an image from its superblock on.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "core/format/geometry.h"
#include "tests/support/disk_image.h"

namespace cawfs::testing {

enum class StructureKind : std::uint8_t {
  kSuperblock,
  kSuperblockCopy,
  kSlotRecord,
  kHeartbeat,
  kMailbox,
  kGlobalLock,
  kGroupHeader,
  kGroupSummary,
  kGroupLock,
  kBitmap,
  kChunkIndexRoot,
  kChunkIndexNode,
  kChunkLock,
  kInode,
  kFreeInode,
  kInlineData,
  kInlineSymlink,
  kInlineExtents,
  kInlineDirectory,
  kExtentNode,
  kDirectoryNode,
  kOrphanList,
  kJournalHeader,
  kJournalRecord,
  kJournalContents,
};
inline constexpr std::size_t kStructureKinds = 25;
std::string_view name_of(StructureKind kind);

// How its checksum is made.
enum class Sealing : std::uint8_t { kBlock, kCluster, kJournalRecord };

struct Field {
  std::uint32_t at = 0;  // in the structure's bytes
  std::uint32_t width = 0;
};

struct Structure {
  StructureKind kind;
  Sealing sealing;
  std::uint64_t offset = 0;  // on the device
  std::uint32_t length = 0;  // what the checksum covers
  std::uint32_t from = 0;    // of these, the bytes that are this structure's own
  std::uint32_t to = 0;
  std::vector<Field> fields;  // numbers in [from, to)
  std::uint64_t inode = 0;    // that it is of, or of whose tree; 0: none
};

// Asserts that the image is a good file system.
std::vector<Structure> map_structures(const DiskImage& image, const Geometry& geometry);

}  // namespace cawfs::testing
