// On-disk structures of the file system proper: superblock, allocation groups, tree nodes, inodes. docs/format.md.
#pragma once

#include <array>

#include "core/base/types.h"
#include "core/format/block_header.h"

namespace cawfs::format {

// [0, 64 KiB) is left to boot loaders. All fixed areas are named by the superblock.
inline constexpr std::uint64_t kSuperblockBlock = 16;

inline constexpr std::uint64_t kIncompatClustered = 1;  // without it only -o local may mount
inline constexpr std::uint64_t kIncompatKnown = kIncompatClustered;
inline constexpr std::uint64_t kRoCompatKnown = 0;

struct Superblock {
  BlockHeader header;
  le64 compat;
  le64 ro_compat;
  le64 incompat;
  std::array<std::uint8_t, 16> uuid;
  std::array<char, 64> label;  // padded with zeros
  le64 block_count;            // of the file system, in 4096-byte blocks
  le32 logical_block;          // bytes: 512 or 4096
  le32 slots;                  // slots that may be used, 1..64
  le32 dead_time_ms;
  le32 journal_blocks;  // of a journal made at mkfs
  le32 group_count;
  le32 group_blocks;                     // blocks of each group but the last, a multiple of 16
  std::array<std::uint8_t, 16> sip_key;  // of directory hashes
  le64 node_table;                       // block of slot record 0; record i is i blocks on
  le64 heartbeats;                       // block of heartbeat 0; heartbeat i is i blocks on
  le64 mailboxes;    // block of mailbox[0][0]; mailbox[to][from] is (to * 64 + from) logical blocks on
  le64 global_lock;  // block
  le64 scratch;      // block that mkfs and mount prove COMPARE AND WRITE on
  le64 first_group;  // block of group 0, a multiple of 16
  le64 root_inode;
  std::array<le64, kSlots> orphan_inodes;  // system inode of each slot's orphan tree; 0 where the slot is unused
  le64 sequence;                           // grows with each superblock written
  lei64 created_ns;
  std::array<std::uint8_t, 3328> reserved;
};
static_assert(sizeof(Superblock) == kBlockSize);

// A group: [header][lock block][bitmap blocks ...][blocks ...]. The last one may be shorter than group_blocks.
inline constexpr std::uint64_t kBitsPerBitmapBlock = (kBlockSize - sizeof(BlockHeader)) * 8;
inline constexpr std::uint32_t kBitmapUninit =
    0x80000000;                                       // in a summary: the bitmap block was never written; all free
inline constexpr std::size_t kTreeRootInGroup = 480;  // bytes of the chunk index's root area
inline constexpr std::size_t kMaxBitmapBlocks = 880;

// The root of a B+tree, embedded in an inode or a group header: this, then `area` bytes of packed records, as in a
// node.
struct TreeRoot {
  le16 level;  // 0: records; else children
  le16 count;  // records
  le16 used;   // bytes of records
  le16 reserved;
};
static_assert(sizeof(TreeRoot) == 8);

struct GroupHeader {
  BlockHeader header;
  le32 group;
  le32 free_blocks;
  le32 free_inodes;  // in existing chunks
  le32 chunks;
  le32 bitmap_blocks;
  le32 reserved0;
  TreeRoot chunk_index;  // key: chunk's first block; payload: le16, bit i set: inode i (1..15, at bit i-1) is free
  std::array<std::uint8_t, kTreeRootInGroup> chunk_index_area;
  // For each bitmap block its count of free blocks, and kBitmapUninit.
  std::array<le32, kMaxBitmapBlocks> summary;
  std::array<std::uint8_t, 32> reserved1;
};
static_assert(sizeof(GroupHeader) == kBlockSize);

struct Bitmap {
  BlockHeader header;
  // Bit n (byte n / 8, bit n % 8) is block (index * kBitsPerBitmapBlock + n) of the group; 1: in use. Bits past the
  // group's end are 1.
  std::array<std::uint8_t, kBlockSize - sizeof(BlockHeader)> bits;
};
static_assert(sizeof(Bitmap) == kBlockSize);

// A record of a B+tree, in nodes and roots alike, packed from the front, in ascending order of keys: this, then
// `length` bytes of payload. In a node of level > 0 the payload is an le64, the child's block, and the key is not above
// the child's lowest (the first record's key is 0). Bytes after the last record are zero.
struct TreeRecord {
  le64 key;
  le16 length;
};
static_assert(sizeof(TreeRecord) == 10);

enum class TreeKind : std::uint16_t { kExtents = 1, kDirectory = 2, kChunkIndex = 3, kOrphans = 4, kXattrs = 5 };

struct TreeNode {
  BlockHeader header;
  le64 owner;  // the inode's or group header's block
  le16 kind;   // TreeKind
  le16 reserved;
  TreeRoot root;
  std::array<std::uint8_t, 4044> area;
};
static_assert(sizeof(TreeNode) == kBlockSize);

// Payload of an extent tree's record; the key is the first file block. Blocks without a record are a hole.
struct ExtentPayload {
  le64 start;  // block
  le32 count;  // blocks
  le32 flags;  // kExtent*
};
static_assert(sizeof(ExtentPayload) == 16);
inline constexpr std::uint32_t kExtentUnwritten = 1;  // allocated by fallocate, reads as zeros

// Payload of a directory tree's record: this, then the name without a terminator (1..255 bytes, no '/' and no NUL).
// Key: (siphash(name) & (2^47 - 1)) << 16 | disambiguator. "." and ".." are not stored.
struct DirectoryPayload {
  le64 inode;
  le8 type;  // S_IFMT >> 12
};
static_assert(sizeof(DirectoryPayload) == 9);

// Record of an orphan tree: the key is the inode's number, there is no payload.

inline constexpr std::size_t kNameMax = 255;
inline constexpr std::size_t kInodeContent = 3840;

enum class InodeContent : std::uint8_t {
  kNone = 0,    // devices, pipes, sockets
  kInline = 1,  // `size` bytes of file data or symlink target in the content area, then zeros
  kTree = 2,    // TreeRoot, then its records: extents, directory or orphans
};

inline constexpr std::uint32_t kInodeSystem = 1;   // not reachable from the root
inline constexpr std::uint32_t kInodeOrphan = 2;   // in its slot's orphan tree
inline constexpr std::uint32_t kInodeCutting = 4;  // a file that may have blocks beyond its end, to be freed

struct Inode {
  BlockHeader header;
  le32 mode;   // as st_mode; 0: free, and only `generation` means anything
  le32 nlink;  // directories: 2 + sub-directories
  le32 uid;
  le32 gid;
  le64 size;    // bytes; directories: entries
  le64 blocks;  // 4096-byte blocks it uses, without its own
  lei64 atime_ns;
  lei64 mtime_ns;
  lei64 ctime_ns;
  lei64 btime_ns;
  le64 generation;  // of this inode number
  le64 version;     // of the contents: grows with each change of data
  le64 parent;      // directories: the one above (the root's is itself)
  le32 rdev;        // devices: major << 20 | minor
  le32 flags;       // kInode*
  le16 tree_kind;   // TreeKind, where content is kTree
  le8 content;      // InodeContent
  le8 reserved0;
  le16 content_bytes;  // size of the content area: kInodeContent less what xattrs take
  le16 xattr_bytes;    // 0: none
  le16 orphan_slot;    // where kInodeOrphan: whose list
  std::array<std::uint8_t, 118> reserved1;
  std::array<std::uint8_t, kInodeContent> area;
};
static_assert(sizeof(Inode) == kBlockSize);
static_assert(offsetof(Inode, area) == kBlockSize - kInodeContent);

// An inode chunk: 16 blocks, the first a multiple of 16: a lock block, then 15 inodes.
inline constexpr std::uint64_t kChunkBlocks = 16;

}  // namespace cawfs::format
