#include "tests/support/structure_map.h"

#include <sys/stat.h>

#include <array>

#include "core/base/assert.h"
#include "core/format/cluster_format.h"
#include "core/format/journal_verify.h"
#include "core/format/superblock_io.h"
#include "core/format/tree_records.h"

namespace cawfs::testing {
namespace {

using namespace format;

constexpr std::uint32_t kCrcEnd = 8;  // magic and crc are damaged by what damages the block

class Mapper {
 public:
  Mapper(const DiskImage& image, const Geometry& geometry) : image_(image), geometry_(geometry) {}

  std::vector<Structure> run() {
    block(StructureKind::kSuperblock, BlockNo{kSuperblockBlock}, kCrcEnd, 768);
    block(StructureKind::kSuperblockCopy, first_superblock_copy(geometry_), kCrcEnd, 768);
    block(StructureKind::kSuperblockCopy, last_superblock_copy(geometry_), kCrcEnd, 768);
    cluster(StructureKind::kGlobalLock, geometry_.global_lock.offset_bytes());
    for (std::uint16_t i = 0; i < geometry_.slots; ++i) slot(SlotNo{i});
    for (std::uint32_t i = 0; i < geometry_.group_count; ++i) group(GroupNo{i});
    return std::move(found_);
  }

 private:
  Structure& add(StructureKind kind, Sealing sealing, std::uint64_t offset, std::uint32_t length, std::uint32_t from,
                 std::uint32_t to) {
    found_.push_back({.kind = kind,
                      .sealing = sealing,
                      .offset = offset,
                      .length = length,
                      .from = from,
                      .to = to,
                      .fields = {},
                      .inode = inode_});
    return found_.back();
  }
  // Numbers stand at multiples of their width, except in records of trees.
  static void add_fields(Structure& structure, std::uint32_t from, std::uint32_t to) {
    for (const std::uint32_t width : {1u, 2u, 4u, 8u}) {
      for (std::uint32_t at = (from + width - 1) / width * width; at + width <= to; at += width) {
        structure.fields.push_back({at, width});
      }
    }
  }
  void block(StructureKind kind, BlockNo number, std::uint32_t from, std::uint32_t to) {
    add_fields(add(kind, Sealing::kBlock, number.offset_bytes(), kBlockSize, from, to), from, to);
  }
  void cluster(StructureKind kind, std::uint64_t offset) {
    constexpr auto kLength = static_cast<std::uint32_t>(kClusterBlockBytes);
    add_fields(add(kind, Sealing::kCluster, offset, kLength, kCrcEnd, kLength), kCrcEnd, kLength);
  }
  // A root or node: `root_at` in its block, with its records behind it.
  template <class Each>
  void tree(StructureKind kind, BlockNo number, std::uint32_t root_at, std::uint32_t records_at, Each each) {
    const auto root = image_.load<TreeRoot>(number.offset_bytes() + root_at);
    const std::uint32_t used = root.used.value();
    Structure& structure =
        add(kind, Sealing::kBlock, number.offset_bytes(), kBlockSize, root_at, records_at + used + (used == 0 ? 8 : 0));
    add_fields(structure, root_at, root_at + static_cast<std::uint32_t>(sizeof(TreeRoot)));
    std::vector<std::byte> area(used);
    image_.read(number.offset_bytes() + records_at, area);
    const auto records = tree_records(root, area);
    for (const TreeRecordView& record : records) {
      const auto payload = records_at + static_cast<std::uint32_t>(record.payload.data() - area.data());
      structure.fields.push_back({payload - 10, 8});
      structure.fields.push_back({payload - 2, 2});
      for (std::uint32_t i = 0; i + 4 <= record.payload.size() && i < 16; i += 4) {
        structure.fields.push_back({payload + i, 4});
        if (i + 8 <= record.payload.size()) structure.fields.push_back({payload + i, 8});
      }
    }
    for (const TreeRecordView& record : records) each(root.level.value(), record);
  }
  template <class Each>
  void walk(StructureKind root_kind, StructureKind node_kind, BlockNo number, std::uint32_t root_at,
            std::uint32_t records_at, Each each) {
    tree(root_kind, number, root_at, records_at, [&](std::uint32_t level, const TreeRecordView& record) {
      if (level == 0) return each(record);
      const BlockNo child{load_at<le64>(record.payload, 0).value()};
      block(node_kind, child, kCrcEnd, offsetof(TreeNode, root));
      walk(node_kind, node_kind, child, offsetof(TreeNode, root), offsetof(TreeNode, area), each);
    });
  }

  void slot(SlotNo number) {
    const std::uint64_t offset = geometry_.slot_record_offset(number);
    cluster(StructureKind::kSlotRecord, offset);
    const auto record = image_.load<SlotRecord>(offset);
    if (image_.load<Heartbeat>(geometry_.heartbeat_offset(number)).magic.value() == kHeartbeatMagic) {
      cluster(StructureKind::kHeartbeat, geometry_.heartbeat_offset(number));
    }
    for (std::uint16_t from = 0; from < geometry_.slots; ++from) {
      const std::uint64_t mail = geometry_.mailbox_offset(number, SlotNo{from});
      if (image_.load<Mailbox>(mail).magic.value() == kMailboxMagic) cluster(StructureKind::kMailbox, mail);
    }
    if (const auto extents = journal_extents(record, geometry_); extents) journal(number, *extents);
  }

  // Of a journal with records only: damage to an empty one of nobody's shows nothing.
  void journal(SlotNo slot, const std::vector<BlockRange>& extents) {
    const BlockNo start = extents[0].start;
    JournalHeader newest{};
    for (std::uint32_t i = 0; i < kJournalHeaderCopies; ++i) {
      const auto header = image_.load<JournalHeader>((start + i).offset_bytes());
      if (header.writes.value() >= newest.writes.value()) newest = header;
      block(StructureKind::kJournalHeader, start + i, kCrcEnd, offsetof(JournalHeader, reserved1) + 8);
    }
    if (newest.incarnation.value() == 0) return;
    CAWFS_ASSERT(newest.slot.value() == slot.value && extents.size() == 1);
    std::uint64_t sequence = newest.tail_sequence.value();
    for (std::uint32_t at = newest.tail.value(); at < newest.ring_blocks.value();) {
      const BlockNo number = start + kJournalHeaderCopies + at;
      const auto record = image_.load<JournalRecord>(number.offset_bytes());
      if (record.header.magic.value() != kBlockMagic || record.sequence.value() != sequence) break;
      journal_record(number, record);
      at += record.blocks.value();
      ++sequence;
    }
  }
  void journal_record(BlockNo number, const JournalRecord& record) {
    const std::uint32_t length = record.blocks.value() * kBlockSize;
    const auto start = static_cast<std::uint32_t>(sizeof(JournalRecord));
    const std::uint32_t entries = record.entry_count.value() * static_cast<std::uint32_t>(sizeof(JournalEntry)) +
                                  record.revoke_count.value() * static_cast<std::uint32_t>(sizeof(JournalRevoke));
    Structure& head =
        add(StructureKind::kJournalRecord, Sealing::kJournalRecord, number.offset_bytes(), length, kCrcEnd, start);
    add_fields(head, kCrcEnd, start);
    Structure& contents = add(StructureKind::kJournalContents, Sealing::kJournalRecord, number.offset_bytes(), length,
                              start, record.length_bytes.value());
    add_fields(contents, start, start + entries);
  }

  void group(GroupNo number) {
    const BlockNo header = geometry_.group_header(number);
    block(StructureKind::kGroupHeader, header, kCrcEnd, offsetof(GroupHeader, chunk_index));
    block(StructureKind::kGroupSummary, header, offsetof(GroupHeader, summary), offsetof(GroupHeader, summary) + 16);
    cluster(StructureKind::kGroupLock, geometry_.group_lock(number).offset_bytes());
    for (std::uint32_t i = 0; i < geometry_.bitmap_blocks(number); ++i) {
      const BlockNo bitmap = geometry_.group_bitmap(number, i);
      if (image_.load<BlockHeader>(bitmap.offset_bytes()).magic.value() != kBlockMagic) continue;
      block(StructureKind::kBitmap, bitmap, kCrcEnd, kBlockSize);
    }
    walk(StructureKind::kChunkIndexRoot, StructureKind::kChunkIndexNode, header, offsetof(GroupHeader, chunk_index),
         offsetof(GroupHeader, chunk_index_area),
         [&](const TreeRecordView& record) { chunk(BlockNo{record.key}, load_at<le16>(record.payload, 0).value()); });
  }
  void chunk(BlockNo first, unsigned free) {
    cluster(StructureKind::kChunkLock, first.offset_bytes());
    for (std::uint32_t i = 0; i + 1 < kChunkBlocks; ++i) {
      const BlockNo number = first + i + 1;
      if ((free >> i & 1) != 0) {
        block(StructureKind::kFreeInode, number, kCrcEnd, offsetof(Inode, reserved1));
      } else {
        inode_ = number.value;
        inode(number);
        inode_ = 0;
      }
    }
  }
  void inode(BlockNo number) {
    const auto inode = image_.load<Inode>(number.offset_bytes());
    constexpr auto kArea = static_cast<std::uint32_t>(offsetof(Inode, area));
    block(StructureKind::kInode, number, kCrcEnd, offsetof(Inode, reserved1) + 8);
    const std::uint32_t type = inode.mode.value() & S_IFMT;
    if (inode.content == static_cast<std::uint8_t>(InodeContent::kInline)) {
      const auto kind = type == S_IFLNK ? StructureKind::kInlineSymlink : StructureKind::kInlineData;
      const auto size = static_cast<std::uint32_t>(inode.size.value());
      if (size > 0) block(kind, number, kArea, kArea + size);
    }
    if (inode.content != static_cast<std::uint8_t>(InodeContent::kTree)) return;
    const auto nothing = [](const TreeRecordView&) {};
    auto root = StructureKind::kInlineExtents;
    auto node = StructureKind::kExtentNode;
    if (inode.tree_kind.value() == static_cast<std::uint16_t>(TreeKind::kDirectory)) {
      root = StructureKind::kInlineDirectory;
      node = StructureKind::kDirectoryNode;
    } else if (inode.tree_kind.value() == static_cast<std::uint16_t>(TreeKind::kOrphans)) {
      root = node = StructureKind::kOrphanList;
    }
    walk(root, node, number, kArea, kArea + static_cast<std::uint32_t>(sizeof(TreeRoot)), nothing);
  }

  const DiskImage& image_;
  const Geometry& geometry_;
  std::uint64_t inode_ = 0;
  std::vector<Structure> found_;
};

}  // namespace

std::string_view name_of(StructureKind kind) {
  constexpr std::array<std::string_view, kStructureKinds> kNames{
      "superblock",       "superblock copy", "slot record",    "heartbeat",   "mailbox",        "global lock",
      "group header",     "group summary",   "group lock",     "bitmap",      "chunk index",    "chunk node",
      "chunk lock",       "inode",           "free inode",     "inline data", "inline symlink", "inline extents",
      "inline directory", "extent node",     "directory node", "orphan list", "journal header", "journal record",
      "journal contents"};
  return kNames[static_cast<std::size_t>(kind)];
}

std::vector<Structure> map_structures(const DiskImage& image, const Geometry& geometry) {
  return Mapper(image, geometry).run();
}

}  // namespace cawfs::testing
