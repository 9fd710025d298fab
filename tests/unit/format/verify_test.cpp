// Each verifier against what it must refuse: a fault in each field that has rules, with a right checksum, and random
// damage, which must never crash it.
#include "core/format/verify.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <functional>
#include <map>

#include "core/base/random.h"
#include "core/device/simulated_device.h"
#include "core/format/checksums.h"
#include "core/format/cluster_verify.h"
#include "core/format/journal_verify.h"
#include "core/format/make_file_system.h"
#include "core/format/superblock_io.h"
#include "core/format/tree_records.h"
#include "core/runtime/virtual_loop.h"

namespace cawfs::format {
namespace {

using Bytes = std::vector<std::byte>;

// A new file system's blocks; and a tree node and a file, which a new one lacks.
class Blocks {
 public:
  Blocks() : lun_(loop_.clock(), random_, {}) {
    auto device = lun_.connect(executor_, "mkfs");
    geometry = make_geometry(*loop_.run(executor_, make_file_system(*device, random_, {})));
    loop_.run(executor_, device->close());
  }

  Bytes block(BlockNo number) const { return bytes(number.offset_bytes(), kBlockSize); }
  Bytes bytes(std::uint64_t offset, std::size_t length) const {
    Bytes out(length);
    lun_.peek(offset, out);
    return out;
  }

  Geometry geometry;

 private:
  SeededRandom random_{1};
  VirtualLoop loop_;
  Executor& executor_ = loop_.add_executor();
  SimulatedLun lun_;
};

const Blocks& blocks() {
  static const Blocks made;
  return made;
}
const Geometry& geometry() {
  return blocks().geometry;
}

template <class T>
T& as(Bytes& bytes) {
  return *reinterpret_cast<T*>(bytes.data());
}

void put_record(std::span<std::byte> area, std::size_t& at, std::uint64_t key, std::span<const std::byte> payload) {
  TreeRecord record;
  record.key = key;
  record.length = static_cast<std::uint16_t>(payload.size());
  std::memcpy(area.data() + at, &record, sizeof(record));
  std::memcpy(area.data() + at + sizeof(record), payload.data(), payload.size());
  at += sizeof(record) + payload.size();
}

BlockNo data_block() {
  return BlockNo{geometry().root.value + 64};
}

Bytes extent(std::uint64_t start, std::uint32_t count, std::uint32_t flags = 0) {
  ExtentPayload payload;
  payload.start = start;
  payload.count = count;
  payload.flags = flags;
  const auto raw = std::as_bytes(std::span(&payload, 1));
  return {raw.begin(), raw.end()};
}

// A leaf with two extents.
Bytes tree_node() {
  Bytes block(kBlockSize);
  start_block(block, BlockType::kTreeNode, data_block(), geometry().fs_id);
  auto& node = as<TreeNode>(block);
  node.owner = geometry().root.value;
  node.kind = static_cast<std::uint16_t>(TreeKind::kExtents);
  std::size_t at = 0;
  const auto area = std::as_writable_bytes(std::span(node.area));
  put_record(area, at, 0, extent(data_block().value + 1, 4));
  put_record(area, at, 10, extent(data_block().value + 9, 2, kExtentUnwritten));
  node.root.count = 2;
  node.root.used = static_cast<std::uint16_t>(at);
  stamp_block(block);
  return block;
}

Bytes file_inode() {
  Bytes block(kBlockSize);
  start_block(block, BlockType::kInode, geometry().root.block(), geometry().fs_id);
  auto& inode = as<Inode>(block);
  inode.mode = S_IFREG | 0644;
  inode.nlink = 1;
  inode.size = 5;
  inode.content = static_cast<std::uint8_t>(InodeContent::kInline);
  inode.content_bytes = static_cast<std::uint16_t>(kInodeContent);
  std::memcpy(inode.area.data(), "hello", 5);
  stamp_block(block);
  return block;
}

struct Sample {
  BlockType type;
  BlockNo address;
  std::function<Bytes()> make;
};

const std::map<std::string, Sample>& samples() {
  static const std::map<std::string, Sample> all = [] {
    const auto on_disk = [](BlockType type, BlockNo number) {
      return Sample{type, number, [number] { return blocks().block(number); }};
    };
    return std::map<std::string, Sample>{
        {"superblock", on_disk(BlockType::kSuperblock, BlockNo{kSuperblockBlock})},
        {"group", on_disk(BlockType::kGroupHeader, geometry().group_header(GroupNo{0}))},
        {"bitmap", on_disk(BlockType::kBitmap, geometry().group_bitmap(GroupNo{1}, 0))},
        {"root", on_disk(BlockType::kInode, geometry().root.block())},
        {"file", {BlockType::kInode, geometry().root.block(), file_inode}},
        {"node", {BlockType::kTreeNode, data_block(), tree_node}},
    };
  }();
  return all;
}

Result<> verify(const Sample& sample, const Bytes& block) {
  return verify_block(block, sample.type, sample.address, geometry());
}

TEST(Verify, AcceptsGoodBlocks) {
  for (const auto& [name, sample] : samples()) {
    EXPECT_TRUE(verify(sample, sample.make())) << name;
    EXPECT_TRUE(verify_block(sample.make(), sample.type, sample.address, geometry().fs_id)) << name;
  }
}

TEST(Verify, RefusesEverySingleFlippedBit) {
  for (const auto& [name, sample] : samples()) {
    const Bytes good = sample.make();
    for (std::size_t at = 0; at < kBlockSize; ++at) {
      Bytes bad = good;
      bad[at] ^= std::byte{1} << static_cast<int>(at % 8);
      const Result<> result = verify(sample, bad);
      ASSERT_FALSE(result) << name << " byte " << at;
      ASSERT_EQ(result.error().code, at < 4 ? Errc::kBadMagic : Errc::kBadChecksum) << name << " byte " << at;
    }
  }
}

TEST(Verify, RefusesBlocksOfAnotherPlaceFileSystemTypeOrVersion) {
  for (const auto& [name, sample] : samples()) {
    const Bytes good = sample.make();
    EXPECT_EQ(verify_block(good, sample.type, sample.address + 1, geometry()).error().code, Errc::kBadIdentity);
    EXPECT_EQ(verify_block(good, sample.type, sample.address, geometry().fs_id + 1).error().code, Errc::kBadIdentity);
    const BlockType other = sample.type == BlockType::kInode ? BlockType::kBitmap : BlockType::kInode;
    EXPECT_EQ(verify_block(good, other, sample.address, geometry()).error().code, Errc::kBadIdentity);
    Bytes newer = good;
    as<BlockHeader>(newer).version = 2;
    stamp_unverified(newer);
    EXPECT_EQ(verify(sample, newer).error().code, Errc::kBadVersion);
    Bytes reserved = good;
    as<BlockHeader>(reserved).reserved = 1;
    stamp_unverified(reserved);
    EXPECT_EQ(verify(sample, reserved).error().code, Errc::kBadValue);
  }
}

struct Fault {
  const char* sample;
  const char* what;
  std::function<void(Bytes&)> plant;
};

template <class T>
std::function<void(Bytes&)> change(void (*plant)(T&)) {
  return [plant](Bytes& block) { plant(as<T>(block)); };
}

// clang-format off
const std::vector<Fault>& faults() {
  static const std::vector<Fault> all = {
      {"superblock", "uuid", change<Superblock>([](Superblock& s) { s.uuid[9] ^= 1; })},
      {"superblock", "label", change<Superblock>([](Superblock& s) { s.label[5] = 'x'; })},
      {"superblock", "block_count too large", change<Superblock>([](Superblock& s) { s.block_count = UINT64_MAX; })},
      {"superblock", "block_count small", change<Superblock>([](Superblock& s) { s.block_count = 100; })},
      {"superblock", "logical_block", change<Superblock>([](Superblock& s) { s.logical_block = 1024; })},
      {"superblock", "no slots", change<Superblock>([](Superblock& s) { s.slots = 0; })},
      {"superblock", "many slots", change<Superblock>([](Superblock& s) { s.slots = 65; })},
      {"superblock", "fewer slots than lists", change<Superblock>([](Superblock& s) { s.slots = s.slots.value() - 1; })},
      {"superblock", "dead_time", change<Superblock>([](Superblock& s) { s.dead_time_ms = 1; })},
      {"superblock", "journal_blocks", change<Superblock>([](Superblock& s) { s.journal_blocks = kMinJournalBlocks - 1; })},
      {"superblock", "group_count", change<Superblock>([](Superblock& s) { s.group_count = s.group_count.value() + 1; })},
      {"superblock", "group_count 0", change<Superblock>([](Superblock& s) { s.group_count = 0; })},
      {"superblock", "group_blocks 0", change<Superblock>([](Superblock& s) { s.group_blocks = 0; })},
      {"superblock", "group_blocks odd", change<Superblock>([](Superblock& s) { s.group_blocks = s.group_blocks.value() + 1; })},
      {"superblock", "node_table", change<Superblock>([](Superblock& s) { s.node_table = 3; })},
      {"superblock", "heartbeats", change<Superblock>([](Superblock& s) { s.heartbeats = s.node_table.value(); })},
      {"superblock", "mailboxes", change<Superblock>([](Superblock& s) { s.mailboxes = s.first_group.value() - 8; })},
      {"superblock", "global_lock", change<Superblock>([](Superblock& s) { s.global_lock = UINT64_MAX; })},
      {"superblock", "scratch", change<Superblock>([](Superblock& s) { s.scratch = s.global_lock.value(); })},
      {"superblock", "first_group", change<Superblock>([](Superblock& s) { s.first_group = s.first_group.value() + 1; })},
      {"superblock", "root_inode 0", change<Superblock>([](Superblock& s) { s.root_inode = 0; })},
      {"superblock", "root_inode a lock block", change<Superblock>([](Superblock& s) { s.root_inode = s.root_inode.value() / 16 * 16; })},
      {"superblock", "orphan list twice", change<Superblock>([](Superblock& s) { s.orphan_inodes[1] = s.orphan_inodes[0]; })},
      {"superblock", "orphan list missing", change<Superblock>([](Superblock& s) { s.orphan_inodes[0] = 0; })},
      {"superblock", "orphan list beyond", change<Superblock>([](Superblock& s) { s.orphan_inodes[60] = s.root_inode.value() + 9; })},
      {"superblock", "reserved", change<Superblock>([](Superblock& s) { s.reserved.back() = 1; })},

      {"group", "number", change<GroupHeader>([](GroupHeader& g) { g.group = 1; })},
      {"group", "number beyond", change<GroupHeader>([](GroupHeader& g) { g.group = 70000; })},
      {"group", "free_blocks", change<GroupHeader>([](GroupHeader& g) { g.free_blocks = g.free_blocks.value() - 1; })},
      {"group", "free_inodes", change<GroupHeader>([](GroupHeader& g) { g.free_inodes = 16; })},
      {"group", "chunks", change<GroupHeader>([](GroupHeader& g) { g.chunks = 2; })},
      {"group", "bitmap_blocks 0", change<GroupHeader>([](GroupHeader& g) { g.bitmap_blocks = 0; })},
      {"group", "bitmap_blocks", change<GroupHeader>([](GroupHeader& g) { g.bitmap_blocks = 2; })},
      {"group", "bitmap_blocks beyond", change<GroupHeader>([](GroupHeader& g) { g.bitmap_blocks = UINT32_MAX; })},
      {"group", "summary too large", change<GroupHeader>([](GroupHeader& g) { g.summary[0] = 40000; g.free_blocks = 40000; })},
      {"group", "summary never written but used", change<GroupHeader>([](GroupHeader& g) { g.summary[0] = g.summary[0].value() | kBitmapUninit; })},
      {"group", "summary past the last", change<GroupHeader>([](GroupHeader& g) { g.summary[5] = 1; g.free_blocks = g.free_blocks.value() + 1; })},
      {"group", "reserved0", change<GroupHeader>([](GroupHeader& g) { g.reserved0 = 1; })},
      {"group", "reserved1", change<GroupHeader>([](GroupHeader& g) { g.reserved1[0] = 1; })},
      {"group", "chunk key not aligned", change<GroupHeader>([](GroupHeader& g) { g.chunk_index_area[0] ^= 1; })},
      {"group", "chunk mask", change<GroupHeader>([](GroupHeader& g) { g.chunk_index_area[11] = 0x80; })},
      {"group", "chunk index used", change<GroupHeader>([](GroupHeader& g) { g.chunk_index.used = 480; })},
      {"group", "chunk index level", change<GroupHeader>([](GroupHeader& g) { g.chunk_index.level = 1; })},

      {"bitmap", "past the end", change<Bitmap>([](Bitmap& b) { b.bits.back() = 0; })},

      {"node", "owner 0", change<TreeNode>([](TreeNode& n) { n.owner = 0; })},
      {"node", "owner outside", change<TreeNode>([](TreeNode& n) { n.owner = 3; })},
      {"node", "kind 0", change<TreeNode>([](TreeNode& n) { n.kind = 0; })},
      {"node", "kind", change<TreeNode>([](TreeNode& n) { n.kind = 2; })},
      {"node", "reserved", change<TreeNode>([](TreeNode& n) { n.reserved = 1; })},
      {"node", "root reserved", change<TreeNode>([](TreeNode& n) { n.root.reserved = 1; })},
      {"node", "level", change<TreeNode>([](TreeNode& n) { n.root.level = 3; })},
      {"node", "level beyond", change<TreeNode>([](TreeNode& n) { n.root.level = 17; })},
      {"node", "count", change<TreeNode>([](TreeNode& n) { n.root.count = 3; })},
      {"node", "count beyond", change<TreeNode>([](TreeNode& n) { n.root.count = 65535; })},
      {"node", "used", change<TreeNode>([](TreeNode& n) { n.root.used = n.root.used.value() + 1; })},
      {"node", "used beyond", change<TreeNode>([](TreeNode& n) { n.root.used = 65535; })},
      {"node", "length", change<TreeNode>([](TreeNode& n) { n.area[8] = 17; })},
      {"node", "length beyond", change<TreeNode>([](TreeNode& n) { n.area[9] = 0xff; })},
      {"node", "bytes behind", change<TreeNode>([](TreeNode& n) { n.area[200] = 1; })},
      {"node", "order", change<TreeNode>([](TreeNode& n) { n.area[26] = 0; })},
      {"node", "overlap", change<TreeNode>([](TreeNode& n) { n.area[26] = 3; })},
      {"node", "extent empty", change<TreeNode>([](TreeNode& n) { n.area[18] = 0; })},
      {"node", "extent too long", change<TreeNode>([](TreeNode& n) { n.area[20] = 1; })},
      {"node", "extent at 0", change<TreeNode>([](TreeNode& n) { std::fill_n(n.area.begin() + 10, 8, std::uint8_t{0}); })},
      {"node", "extent flags", change<TreeNode>([](TreeNode& n) { n.area[22] = 2; })},

      {"file", "mode", change<Inode>([](Inode& i) { i.mode = 0030644; })},
      {"file", "mode bits", change<Inode>([](Inode& i) { i.mode = 0200000 | S_IFREG; })},
      {"file", "size beyond inline", change<Inode>([](Inode& i) { i.size = 4000; })},
      {"file", "size negative", change<Inode>([](Inode& i) { i.size = UINT64_MAX; })},
      {"file", "bytes behind", change<Inode>([](Inode& i) { i.area[5] = 1; })},
      {"file", "flags", change<Inode>([](Inode& i) { i.flags = 8; })},
      {"file", "orphan_slot", change<Inode>([](Inode& i) { i.orphan_slot = 64; })},
      {"file", "content", change<Inode>([](Inode& i) { i.content = 3; })},
      {"file", "content none", change<Inode>([](Inode& i) { i.content = 0; })},
      {"file", "tree_kind", change<Inode>([](Inode& i) { i.tree_kind = 1; })},
      {"file", "content_bytes", change<Inode>([](Inode& i) { i.content_bytes = 4000; })},
      {"file", "xattr_bytes", change<Inode>([](Inode& i) { i.xattr_bytes = 1; })},
      {"file", "reserved0", change<Inode>([](Inode& i) { i.reserved0 = 1; })},
      {"file", "reserved1", change<Inode>([](Inode& i) { i.reserved1[100] = 1; })},
      {"root", "inline directory", change<Inode>([](Inode& i) { i.content = 1; i.tree_kind = 0; })},
      {"root", "tree_kind", change<Inode>([](Inode& i) { i.tree_kind = 1; })},
      {"root", "parent outside", change<Inode>([](Inode& i) { i.parent = 1; })},
      {"root", "record of no kind", change<Inode>([](Inode& i) { i.area[2] = 1; i.area[4] = 10; })},
  };
  return all;
}
// clang-format on

TEST(Verify, RefusesImpossibleValues) {
  for (const Fault& fault : faults()) {
    const Sample& sample = samples().at(fault.sample);
    Bytes block = sample.make();
    fault.plant(block);
    stamp_unverified(block);
    const Result<> result = verify(sample, block);
    ASSERT_FALSE(result) << fault.sample << ": " << fault.what;
    EXPECT_EQ(result.error().code, Errc::kBadValue) << fault.sample << ": " << fault.what;
    EXPECT_EQ(result.error().address, sample.address.value);
  }
}

TEST(Verify, RefusesUnknownIncompatibleFeaturesBeforeValues) {
  const Sample& sample = samples().at("superblock");
  Bytes block = sample.make();
  as<Superblock>(block).incompat = 1u << 5;
  as<Superblock>(block).slots = 1000;
  stamp_unverified(block);
  EXPECT_EQ(verify(sample, block).error().code, Errc::kBadFeature);
}

// A directory of one entry, in the root's inode.
Bytes directory_with(std::string_view name, std::uint64_t inode, std::uint8_t type, std::uint64_t key) {
  Bytes block = blocks().block(geometry().root.block());
  auto& directory = as<Inode>(block);
  DirectoryPayload entry;
  entry.inode = inode;
  entry.type = type;
  Bytes payload(sizeof(entry) + name.size());
  std::memcpy(payload.data(), &entry, sizeof(entry));
  std::memcpy(payload.data() + sizeof(entry), name.data(), name.size());
  const auto area = std::as_writable_bytes(std::span(directory.area));
  std::size_t at = sizeof(TreeRoot);
  put_record(area, at, key, payload);
  auto& root = *reinterpret_cast<TreeRoot*>(area.data());
  root.count = 1;
  root.used = static_cast<std::uint16_t>(at - sizeof(TreeRoot));
  stamp_unverified(block);
  return block;
}

TEST(Verify, DirectoryEntries) {
  const Sample& sample = samples().at("root");
  const std::uint64_t inode = geometry().root.value + 1;
  EXPECT_TRUE(verify(sample, directory_with("name", inode, 8, 5)));
  EXPECT_TRUE(verify(sample, directory_with(std::string(255, 'x'), inode, 4, 5)));
  EXPECT_FALSE(verify(sample, directory_with("", inode, 8, 5)));
  EXPECT_FALSE(verify(sample, directory_with(std::string(256, 'x'), inode, 8, 5)));
  EXPECT_FALSE(verify(sample, directory_with("a/b", inode, 8, 5)));
  EXPECT_FALSE(verify(sample, directory_with(std::string_view("a\0b", 3), inode, 8, 5)));
  EXPECT_FALSE(verify(sample, directory_with(".", inode, 4, 5)));
  EXPECT_FALSE(verify(sample, directory_with("..", inode, 4, 5)));
  EXPECT_FALSE(verify(sample, directory_with("name", inode, 3, 5)));
  EXPECT_FALSE(verify(sample, directory_with("name", inode / 16 * 16, 8, 5)));
  EXPECT_FALSE(verify(sample, directory_with("name", 17, 8, 5)));
  EXPECT_FALSE(verify(sample, directory_with("name", inode, 8, std::uint64_t{1} << 63)));
}

TEST(VerifyDeathTest, TheStampStopsABlockThatDoesNotVerify) {
  Bytes block = file_inode();
  as<Inode>(block).content = 9;
  EXPECT_DEATH(stamp_block(block), "verify_block");
}

// Half of the damage has its checksum made right again; each verifier is reached by it, and says yes or no.
TEST(Verify, RandomDamageNeverCrashes) {
  std::map<std::string, int> reached;
  for (std::uint64_t seed = 1; seed <= 20'000; ++seed) {
    SeededRandom random(seed);
    auto it = samples().begin();
    std::advance(it, static_cast<std::ptrdiff_t>(random.below(samples().size())));
    Bytes block = it->second.make();
    for (std::uint64_t i = 0, n = 1 + random.below(6); i < n; ++i) {
      const std::size_t at = random.one_in(2) ? 32 + random.below(300) : random.below(kBlockSize);
      block[at] = static_cast<std::byte>(random.next());
    }
    if (random.one_in(2)) stamp_unverified(block);
    const Result<> result = verify(it->second, block);
    if (!result && result.error().code == Errc::kBadValue) ++reached[it->first];
  }
  for (const auto& [name, sample] : samples()) EXPECT_GT(reached[name], 20) << name;
}

struct ClusterSample {
  std::uint64_t offset;
  std::function<Result<>(std::span<const std::byte>, std::uint64_t offset, std::uint64_t fs_id)> verify;
};

std::map<std::string, ClusterSample> cluster_samples() {
  const Geometry& g = geometry();
  return {
      {"lock block", {g.global_lock.offset_bytes(), verify_lock_block}},
      {"slot record", {g.slot_record_offset(SlotNo{1}), verify_slot_record}},
      {"heartbeat",
       {g.heartbeat_offset(SlotNo{1}),
        [](auto bytes, auto offset, auto id) { return verify_heartbeat(bytes, offset, id, SlotNo{1}); }}},
      {"mailbox",
       {g.mailbox_offset(SlotNo{1}, SlotNo{2}),
        [](auto bytes, auto offset, auto id) { return verify_mailbox(bytes, offset, id, SlotNo{1}, SlotNo{2}); }}},
  };
}

void reseal(Bytes& block, std::uint64_t offset) {
  le32 crc;
  crc = cluster_crc(block, offset, geometry().fs_id);
  std::memcpy(block.data() + offsetof(CawHeader, crc), &crc, sizeof(crc));
}

TEST(ClusterVerify, AcceptsGoodBlocksAndRefusesFlippedBitsAndOtherPlaces) {
  for (const auto& [name, sample] : cluster_samples()) {
    const Bytes good = blocks().bytes(sample.offset, geometry().logical_block);
    EXPECT_TRUE(sample.verify(good, sample.offset, geometry().fs_id)) << name;
    EXPECT_EQ(sample.verify(good, sample.offset + 4096, geometry().fs_id).error().code, Errc::kBadChecksum) << name;
    EXPECT_EQ(sample.verify(good, sample.offset, geometry().fs_id + 1).error().code, Errc::kBadChecksum) << name;
    for (std::size_t at = 0; at < good.size(); ++at) {
      Bytes bad = good;
      bad[at] ^= std::byte{0x10};
      ASSERT_FALSE(sample.verify(bad, sample.offset, geometry().fs_id)) << name << " byte " << at;
    }
  }
}

struct ClusterFault {
  const char* sample;
  std::function<void(Bytes&)> plant;
};

TEST(ClusterVerify, RefusesImpossibleValues) {
  const std::vector<ClusterFault> all = {
      {"lock block", change<LockBlock>([](LockBlock& b) { b.header.reserved = 1; })},
      {"lock block", change<LockBlock>([](LockBlock& b) { b.entries[3].mode = 4; })},
      {"lock block", change<LockBlock>([](LockBlock& b) { b.entries[14].flags = 4; })},
      {"lock block", change<LockBlock>([](LockBlock& b) {
         b.entries[0].owner_slot = 64;
         b.entries[0].owner_incarnation = 1;
       })},
      {"slot record", change<SlotRecord>([](SlotRecord& r) { r.state = 5; })},
      {"slot record", change<SlotRecord>([](SlotRecord& r) { r.flags = 64; })},
      {"slot record", change<SlotRecord>([](SlotRecord& r) { r.reserved0 = 1; })},
      {"slot record", change<SlotRecord>([](SlotRecord& r) { r.reserved1 = 1; })},
      {"slot record", change<SlotRecord>([](SlotRecord& r) { r.reserved2[0] = 1; })},
      {"slot record", change<SlotRecord>([](SlotRecord& r) { r.host_name[7] = 'x'; })},
      {"slot record", change<SlotRecord>([](SlotRecord& r) { r.initiator_name[7] = 'x'; })},
      {"slot record", change<SlotRecord>([](SlotRecord& r) { r.recoverer_name[7] = 'x'; })},
      {"slot record", change<SlotRecord>([](SlotRecord& r) { r.recoverer_slot = 64; })},
      {"heartbeat", change<Heartbeat>([](Heartbeat& h) { h.reserved0 = 1; })},
      {"heartbeat", change<Heartbeat>([](Heartbeat& h) { h.reserved1[400] = 1; })},
      {"mailbox", change<Mailbox>([](Mailbox& m) { m.count = 29; })},
      {"mailbox", change<Mailbox>([](Mailbox& m) { m.reserved[0] = 1; })},
      {"mailbox", change<Mailbox>([](Mailbox& m) { m.wants[2].mode = 4; })},
      {"mailbox", change<Mailbox>([](Mailbox& m) { m.wants[2].entries = 0x8000; })},
      {"mailbox", change<Mailbox>([](Mailbox& m) { m.wants[2].reserved0 = 1; })},
      {"mailbox", change<Mailbox>([](Mailbox& m) { m.wants[27].reserved1 = 1; })},
  };
  const auto samples = cluster_samples();
  int number = 0;
  for (const ClusterFault& fault : all) {
    const ClusterSample& sample = samples.at(fault.sample);
    Bytes block = blocks().bytes(sample.offset, geometry().logical_block);
    fault.plant(block);
    reseal(block, sample.offset);
    const Result<> result = sample.verify(block, sample.offset, geometry().fs_id);
    ASSERT_FALSE(result) << fault.sample << " " << number;
    EXPECT_EQ(result.error().code, Errc::kBadValue) << fault.sample << " " << number;
    ++number;
  }
}

TEST(ClusterVerify, OneNodesBlockIsNotAnothers) {
  const Geometry& g = geometry();
  const Bytes heartbeat = blocks().bytes(g.heartbeat_offset(SlotNo{1}), g.logical_block);
  EXPECT_EQ(verify_heartbeat(heartbeat, g.heartbeat_offset(SlotNo{1}), g.fs_id, SlotNo{2}).error().code,
            Errc::kBadIdentity);
  const std::uint64_t offset = g.mailbox_offset(SlotNo{1}, SlotNo{2});
  const Bytes mailbox = blocks().bytes(offset, g.logical_block);
  EXPECT_EQ(verify_mailbox(mailbox, offset, g.fs_id, SlotNo{2}, SlotNo{1}).error().code, Errc::kBadIdentity);
}

TEST(GeometryTest, AllocatableIsInsideOneGroupAndNotItsOwnBlocks) {
  const Geometry& g = geometry();
  const BlockNo data = g.group_data(GroupNo{1});
  const std::uint64_t room = g.group_start(GroupNo{1}).value + g.blocks_in_group(GroupNo{1}) - data.value;
  EXPECT_TRUE(g.allocatable({data, room}));
  EXPECT_FALSE(g.allocatable({data, room + 1}));
  EXPECT_FALSE(g.allocatable({data, 0}));
  EXPECT_FALSE(g.allocatable({data, UINT64_MAX}));
  EXPECT_FALSE(g.allocatable({g.group_header(GroupNo{1}), 1}));
  EXPECT_FALSE(g.allocatable({g.group_lock(GroupNo{1}), 1}));
  EXPECT_FALSE(g.allocatable({g.group_bitmap(GroupNo{1}, 0), 1}));
  EXPECT_FALSE(g.allocatable({BlockNo{g.first_group.value - 1}, 1}));
  EXPECT_FALSE(g.allocatable({BlockNo{g.block_count}, 1}));
  EXPECT_FALSE(g.allocatable({BlockNo{UINT64_MAX}, 1}));
}

}  // namespace
}  // namespace cawfs::format
