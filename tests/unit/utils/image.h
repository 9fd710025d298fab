// A file system on a simulated LUN that a test writes into by hand, block by block, with checksums made right again:
// to build what fsck shall accept, and to plant what it shall find.
#pragma once

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/base/assert.h"
#include "core/base/checksum.h"
#include "core/device/simulated_device.h"
#include "core/format/cluster_verify.h"
#include "core/format/make_file_system.h"
#include "core/format/superblock_io.h"
#include "core/format/tree_records.h"
#include "core/format/verify.h"
#include "core/runtime/virtual_loop.h"
#include "utils/fsck/fsck.h"

namespace cawfs::testing {

struct Record {
  std::uint64_t key = 0;
  std::vector<std::byte> payload;
};

template <class T>
std::vector<std::byte> bytes_of(const T& value) {
  const auto bytes = std::as_bytes(std::span(&value, 1));
  return {bytes.begin(), bytes.end()};
}

inline std::vector<std::byte> extent_payload(BlockNo start, std::uint32_t count, std::uint32_t flags = 0) {
  format::ExtentPayload extent;
  extent.start = start.value;
  extent.count = count;
  extent.flags = flags;
  return bytes_of(extent);
}

class Image {
 public:
  explicit Image(MakeOptions options = {}, std::uint32_t logical_block = 512)
      : lun(loop.clock(), random, lun_options(logical_block)), device(lun.connect(executor, "tool")) {
    const auto made = loop.run(executor, make_file_system(*device, random, std::move(options)));
    CAWFS_ASSERT(made);
    geometry = make_geometry(*made);
  }
  ~Image() { loop.run(executor, device->close()); }

  Result<FsckReport> fsck(FsckOptions options = {}) {
    write();
    return loop.run(executor, check_file_system(executor, *device, std::move(options)));
  }

  // The block, to be changed; write() stamps it.
  template <class T>
  T& edit(BlockNo block) {
    static_assert(sizeof(T) == kBlockSize);
    auto [entry, is_new] = edited_.try_emplace(block.value);
    if (is_new) lun.peek(block.offset_bytes(), entry->second);
    return *reinterpret_cast<T*>(entry->second.data());
  }
  void write() {
    for (auto& [block, bytes] : edited_) {
      const auto magic = format::load_at<format::le32>(bytes, 0).value();
      if (magic == format::kBlockMagic) format::stamp_unverified(bytes);
      lun.poke(block * kBlockSize, bytes);
    }
    edited_.clear();
  }

  format::GroupHeader& header(std::uint32_t group = 0) {
    return edit<format::GroupHeader>(geometry.group_header(GroupNo{group}));
  }
  format::Inode& inode(InodeNo number) { return edit<format::Inode>(number.block()); }

  void set_bit(BlockNo block, bool used) {
    const GroupNo group = geometry.group_of(block);
    const std::uint64_t index = block.value - geometry.group_start(group).value;
    CAWFS_ASSERT(index < format::kBitsPerBitmapBlock);
    std::uint8_t& byte = edit<format::Bitmap>(geometry.group_bitmap(group, 0)).bits[index / 8];
    const auto bit = static_cast<std::uint8_t>(1u << (index % 8));
    byte = static_cast<std::uint8_t>(used ? byte | bit : byte & ~bit);
  }
  // Marks `count` blocks of group 0 used that have not been handed out before.
  BlockNo allocate(std::uint32_t count = 1) {
    const BlockNo start = next_block_.value != 0 ? next_block_ : geometry.group_data(GroupNo{0});
    for (std::uint32_t i = 0; i < count; ++i) set_bit(start + i, true);
    header().summary[0] = header().summary[0].value() - count;
    header().free_blocks = header().free_blocks.value() - count;
    next_block_ = start + count;
    return start;
  }

  // A new inode, by the chunk index too, with one name if `directory` is given.
  InodeNo add(std::uint32_t mode, InodeNo directory = {}, const std::string& name = "") {
    const InodeNo number = take_inode();
    format::Inode& made = inode(number);
    made.mode = mode;
    made.nlink = S_ISDIR(mode) ? 2 : 1;
    made.generation = 1;
    made.content_bytes = static_cast<std::uint16_t>(format::kInodeContent);
    if (S_ISDIR(mode)) {
      made.parent = directory.value;
      set_tree(made, format::TreeKind::kDirectory, 0, {});
      if (directory.value != 0) inode(directory).nlink = inode(directory).nlink.value() + 1;
    } else if (S_ISREG(mode) || S_ISLNK(mode)) {
      made.content = static_cast<std::uint8_t>(format::InodeContent::kInline);
      if (S_ISLNK(mode)) {
        made.size = 6;
        std::memcpy(made.area.data(), "target", 6);
      }
    }
    if (directory.value != 0) add_entry(directory, name, number, mode);
    return number;
  }
  // A file with `blocks` blocks in one extent.
  InodeNo add_file(InodeNo directory, const std::string& name, std::uint32_t blocks) {
    const InodeNo number = add(S_IFREG | 0644, directory, name);
    set_extents(number, {{0, extent_payload(allocate(blocks), blocks)}});
    inode(number).blocks = blocks;
    inode(number).size = std::uint64_t{blocks} * kBlockSize;
    return number;
  }
  void set_extents(InodeNo number, const std::vector<Record>& records) {
    set_tree(inode(number), format::TreeKind::kExtents, 0, records);
  }

  std::uint64_t key_of(const std::string& name) const {
    const auto hash = siphash(std::as_bytes(std::span(name)), geometry.sip_key);
    return (hash & ((std::uint64_t{1} << 47) - 1)) << 16;
  }
  static std::vector<std::byte> entry_payload(const std::string& name, InodeNo target, std::uint32_t mode) {
    format::DirectoryPayload entry;
    entry.inode = target.value;
    entry.type = static_cast<std::uint8_t>((mode & S_IFMT) >> 12);
    auto payload = bytes_of(entry);
    const auto text = std::as_bytes(std::span(name));
    payload.insert(payload.end(), text.begin(), text.end());
    return payload;
  }
  void add_entry(InodeNo directory, const std::string& name, InodeNo target, std::uint32_t mode) {
    add_record(directory, {key_of(name), entry_payload(name, target, mode)});
  }
  // In a directory whose tree is its root; keeps the order and the size.
  void add_record(InodeNo directory, Record record) {
    auto records = records_of(directory);
    records.push_back(std::move(record));
    std::ranges::sort(records, {}, &Record::key);
    set_records(directory, records);
    inode(directory).size = records.size();
  }

  std::vector<Record> records_of(InodeNo number) {
    std::vector<Record> records;
    for (const auto& view : format::tree_records(root_of(number), area_of(number))) {
      records.push_back({view.key, {view.payload.begin(), view.payload.end()}});
    }
    return records;
  }
  void set_records(InodeNo number, const std::vector<Record>& records) {
    format::Inode& target = inode(number);
    set_tree(target, static_cast<format::TreeKind>(target.tree_kind.value()), root_of(number).level.value(), records);
  }

  static void set_tree(format::Inode& target, format::TreeKind kind, std::uint16_t level,
                       const std::vector<Record>& records) {
    target.content = static_cast<std::uint8_t>(format::InodeContent::kTree);
    target.tree_kind = static_cast<std::uint16_t>(kind);
    auto area = std::as_writable_bytes(std::span(target.area));
    auto& root = *reinterpret_cast<format::TreeRoot*>(area.data());
    pack(root, area.subspan(sizeof(format::TreeRoot)), level, records);
  }
  static void pack(format::TreeRoot& root, std::span<std::byte> area, std::uint16_t level,
                   const std::vector<Record>& records) {
    std::ranges::fill(area, std::byte{0});
    std::size_t at = 0;
    for (const Record& record : records) {
      format::TreeRecord head;
      head.key = record.key;
      head.length = static_cast<std::uint16_t>(record.payload.size());
      std::memcpy(area.data() + at, &head, sizeof(head));
      std::ranges::copy(record.payload, area.begin() + static_cast<std::ptrdiff_t>(at + sizeof(head)));
      at += sizeof(head) + record.payload.size();
    }
    root.level = level;
    root.count = static_cast<std::uint16_t>(records.size());
    root.used = static_cast<std::uint16_t>(at);
    root.reserved = 0;
  }
  // A new leaf in `block`.
  format::TreeNode& add_node(BlockNo block, BlockNo owner, format::TreeKind kind, const std::vector<Record>& records) {
    auto& node = edit<format::TreeNode>(block);
    node = format::TreeNode{};
    format::start_block(std::as_writable_bytes(std::span(&node, 1)), format::BlockType::kTreeNode, block,
                        geometry.fs_id);
    node.owner = owner.value;
    node.kind = static_cast<std::uint16_t>(kind);
    pack(node.root, std::as_writable_bytes(std::span(node.area)), 0, records);
    return node;
  }

  format::SlotRecord slot(std::uint16_t number) {
    std::vector<std::byte> bytes(sizeof(format::SlotRecord));
    lun.peek(geometry.slot_record_offset(SlotNo{number}), bytes);
    return format::load_at<format::SlotRecord>(bytes, 0);
  }
  void set_slot(std::uint16_t number, const format::SlotRecord& record) {
    std::vector<std::byte> block(geometry.logical_block);
    std::memcpy(block.data(), &record, sizeof(record));
    const std::uint64_t offset = geometry.slot_record_offset(SlotNo{number});
    format::seal_slot_record(block, offset, geometry.fs_id);
    lun.poke(offset, block);
  }
  void set_lock(BlockNo number, std::size_t entry, const format::LockEntry& value) {
    std::vector<std::byte> block(geometry.logical_block);
    lun.peek(number.offset_bytes(), block);
    reinterpret_cast<format::LockBlock*>(block.data())->entries[entry] = value;
    format::seal_lock_block(block, number.offset_bytes(), geometry.fs_id);
    lun.poke(number.offset_bytes(), block);
  }
  void flip(std::uint64_t offset) {
    std::vector<std::byte> block(geometry.logical_block);
    const std::uint64_t start = offset / geometry.logical_block * geometry.logical_block;
    lun.peek(start, block);
    block[offset - start] ^= std::byte{1};
    lun.poke(start, block);
  }
  // The mask of the only chunk, in the group's header; bit i is inode i + 1.
  std::uint16_t free_mask() {
    const auto area = std::as_bytes(std::span(header().chunk_index_area));
    return format::load_at<format::le16>(area, sizeof(format::TreeRecord)).value();
  }
  void set_free_mask(std::uint16_t mask) {
    format::le16 value;
    value = mask;
    std::memcpy(header().chunk_index_area.data() + sizeof(format::TreeRecord), &value, sizeof(value));
  }
  BlockNo chunk() const { return BlockNo{geometry.root.value / format::kChunkBlocks * format::kChunkBlocks}; }

  SeededRandom random{11};
  VirtualLoop loop;
  Executor& executor = loop.add_executor();
  SimulatedLun lun;
  std::unique_ptr<BlockDevice> device;
  Geometry geometry;

 private:
  static SimulatedLunOptions lun_options(std::uint32_t logical_block) {
    SimulatedLunOptions options;
    options.logical_block = logical_block;
    return options;
  }
  std::span<std::byte> area_of(InodeNo number) {
    return std::as_writable_bytes(std::span(inode(number).area)).subspan(sizeof(format::TreeRoot));
  }
  format::TreeRoot& root_of(InodeNo number) { return *reinterpret_cast<format::TreeRoot*>(inode(number).area.data()); }

  InodeNo take_inode() {
    const std::uint16_t mask = free_mask();
    CAWFS_ASSERT(mask != 0);
    const int bit = std::countr_zero(mask);
    set_free_mask(static_cast<std::uint16_t>(mask & (mask - 1)));
    header().free_inodes = header().free_inodes.value() - 1;
    return InodeNo{chunk().value + 1 + static_cast<std::uint64_t>(bit)};
  }

  std::map<std::uint64_t, std::array<std::byte, kBlockSize>> edited_;
  BlockNo next_block_;
};

}  // namespace cawfs::testing
