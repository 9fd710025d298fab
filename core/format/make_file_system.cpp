#include "core/format/make_file_system.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "core/device/io_buffer.h"
#include "core/format/cluster_format.h"
#include "core/format/cluster_verify.h"
#include "core/format/journal_verify.h"
#include "core/format/layout.h"
#include "core/format/superblock_io.h"
#include "core/format/verify.h"

namespace cawfs {
namespace {

using namespace format;

constexpr std::uint64_t kTransfer = 1 << 20;  // bytes of one write
constexpr std::uint64_t kUnmapAtOnce = std::uint64_t{1} << 30;
constexpr std::size_t kSlotTableBytes = std::size_t{kSlots} * kBlockSize;
constexpr std::uint16_t kNoSlot = 0xffff;
constexpr std::uint32_t kRootMode = S_IFDIR | 0755;
constexpr std::uint32_t kSystemMode = S_IFREG | 0600;
constexpr std::uint32_t kLongestHeartbeatMs = 1000;

// Bit `n` of a chunk's free mask is its inode n + 1.
using FreeMask = std::uint16_t;

class Maker {
 public:
  Maker(BlockDevice& device, Random& random, const MakeOptions& options, FileSystemPlan plan, MakeProgress progress)
      : device_(device), random_(random), options_(options), plan_(std::move(plan)), progress_(std::move(progress)) {
    uuid_ = options.uuid == Uuid{} ? random_uuid() : options.uuid;
    geometry().fs_id = fs_id_of(uuid_);
    for (std::size_t i = 0; i < geometry().sip_key.size(); ++i) {
      geometry().sip_key[i] = static_cast<std::uint8_t>(random.next());
    }
    total_ = bytes_to_write();
  }

  Task<Result<Superblock>> run();

 private:
  Geometry& geometry() { return plan_.geometry; }
  const Geometry& geometry() const { return plan_.geometry; }
  Uuid random_uuid();
  std::uint64_t bytes_to_write() const;
  CawHeader first_caw_header();

  Task<Result<>> write(BlockNo block, std::span<const std::byte> data);
  Task<Result<>> write_zeros(BlockNo block, std::uint64_t count);

  Task<Result<>> wipe();
  Task<Result<>> discard();
  Task<Result<>> write_slot_records();
  Task<Result<>> write_heartbeats();
  Task<Result<>> write_mailboxes();
  Task<Result<>> write_lock_block(BlockNo block);
  Task<Result<>> write_journals();
  Task<Result<>> write_chunks();
  Task<Result<>> write_groups();
  Task<Result<>> write_group(GroupNo group);
  Task<Result<>> write_superblocks(Superblock& superblock);

  std::vector<std::byte> inode_image(InodeNo inode) const;
  FreeMask free_inodes(BlockNo chunk) const;
  GroupHeader group_header(GroupNo group) const;
  Superblock superblock() const;

  BlockDevice& device_;
  Random& random_;
  const MakeOptions& options_;
  FileSystemPlan plan_;
  MakeProgress progress_;
  Uuid uuid_{};
  std::uint64_t done_ = 0;
  std::uint64_t total_ = 0;
};

// Version 4 (RFC 9562).
Uuid Maker::random_uuid() {
  Uuid uuid;
  for (std::uint8_t& byte : uuid) byte = static_cast<std::uint8_t>(random_.next());
  uuid[6] = static_cast<std::uint8_t>((uuid[6] & 0x0f) | 0x40);
  uuid[8] = static_cast<std::uint8_t>((uuid[8] & 0x3f) | 0x80);
  return uuid;
}

// Nearly: what is small is left out, and the progress is clipped to it.
std::uint64_t Maker::bytes_to_write() const {
  std::uint64_t blocks = geometry().first_group.value + kMinLastGroupBlocks;
  for (const auto& journal : plan_.journals) {
    for (const BlockRange& extent : journal) blocks += extent.count;
  }
  return (blocks + 3 * std::uint64_t{geometry().group_count}) * kBlockSize;
}

CawHeader Maker::first_caw_header() {
  CawHeader header{};
  header.sequence = 1;
  header.writer_slot = kNoSlot;
  header.nonce = random_.next();
  return header;
}

Task<Result<>> Maker::write(BlockNo block, std::span<const std::byte> data) {
  const Result<> written = co_await device_.write(block.offset_bytes(), data, Durability::kCached);
  if (!written) co_return written;
  done_ = std::min(total_, done_ + data.size());
  if (progress_) progress_(done_, total_);
  co_return Result<>{};
}

Task<Result<>> Maker::write_zeros(BlockNo block, std::uint64_t count) {
  const IoBuffer zeros(std::min(count * kBlockSize, kTransfer));
  const std::uint64_t step = zeros.size() / kBlockSize;
  for (std::uint64_t at = 0; at < count; at += step) {
    const auto data = zeros.bytes().first(std::min(step, count - at) * kBlockSize);
    const Result<> written = co_await write(block + at, data);
    if (!written) co_return written;
  }
  co_return Result<>{};
}

// Takes away what makes the old file system one: the superblock, durably, before anything else of it is touched.
Task<Result<>> Maker::wipe() {
  const Result<> front = co_await write_zeros(BlockNo{0}, kFixedAreasBlock);
  if (!front) co_return front;
  const Result<> first_flush = co_await device_.flush();
  if (!first_flush) co_return first_flush;
  const std::uint64_t device_blocks = device_.facts().size_bytes / kBlockSize;
  const Result<> back = co_await write_zeros(BlockNo{device_blocks - kMinLastGroupBlocks}, kMinLastGroupBlocks);
  if (!back) co_return back;
  const Result<> copy = co_await write_zeros(first_superblock_copy(geometry()), 1);
  if (!copy) co_return copy;
  const Result<> last_flush = co_await device_.flush();
  co_return last_flush;
}

// What has been wiped stays: unmapped blocks may say anything.
Task<Result<>> Maker::discard() {
  if (!options_.discard || device_.facts().unmap_granularity == 0) co_return Result<>{};
  const std::uint64_t end = device_.facts().size_bytes / kBlockSize * kBlockSize - kMinLastGroupBlocks * kBlockSize;
  for (std::uint64_t at = kFixedAreasBlock * kBlockSize; at < end; at += kUnmapAtOnce) {
    const Result<> done = co_await device_.unmap(at, std::min(kUnmapAtOnce, end - at));
    if (!done && done.error().code == Errc::kUnsupported) co_return Result<>{};
    if (!done) co_return done;
  }
  const Result<> copy = co_await write_zeros(first_superblock_copy(geometry()), 1);
  co_return copy;
}

Task<Result<>> Maker::write_slot_records() {
  IoBuffer table(kSlotTableBytes);
  for (std::uint16_t slot = 0; slot < kSlots; ++slot) {
    SlotRecord record{};
    record.header = first_caw_header();
    record.dead_time_ms = options_.dead_time_ms;
    record.heartbeat_ms = std::min(options_.dead_time_ms / 10, kLongestHeartbeatMs);
    if (slot < geometry().slots) {
      record.state = static_cast<std::uint8_t>(SlotState::kClean);
      for (std::size_t i = 0; i < plan_.journals[slot].size(); ++i) {
        record.journal[i].start = plan_.journals[slot][i].start.value;
        record.journal[i].count = static_cast<std::uint32_t>(plan_.journals[slot][i].count);
      }
    }
    const auto block = table.bytes().subspan(std::size_t{slot} * kBlockSize, geometry().logical_block);
    std::memcpy(block.data(), &record, sizeof(record));
    seal_slot_record(block, geometry().slot_record_offset(SlotNo{slot}), geometry().fs_id);
  }
  const Result<> written = co_await write(geometry().node_table, table.bytes());
  co_return written;
}

Task<Result<>> Maker::write_heartbeats() {
  IoBuffer table(kSlotTableBytes);
  for (std::uint16_t slot = 0; slot < kSlots; ++slot) {
    Heartbeat heartbeat{};
    heartbeat.slot = slot;
    const auto block = table.bytes().subspan(std::size_t{slot} * kBlockSize, geometry().logical_block);
    std::memcpy(block.data(), &heartbeat, sizeof(heartbeat));
    seal_heartbeat_block(block, geometry().heartbeat_offset(SlotNo{slot}), geometry().fs_id);
  }
  const Result<> written = co_await write(geometry().heartbeats, table.bytes());
  co_return written;
}

Task<Result<>> Maker::write_mailboxes() {
  const std::size_t logical = geometry().logical_block;
  IoBuffer row(kSlots * logical);
  for (std::uint16_t to = 0; to < kSlots; ++to) {
    for (std::uint16_t from = 0; from < kSlots; ++from) {
      Mailbox mailbox{};
      mailbox.to = to;
      mailbox.from = from;
      const auto block = row.bytes().subspan(from * logical, logical);
      std::memcpy(block.data(), &mailbox, sizeof(mailbox));
      seal_mailbox(block, geometry().mailbox_offset(SlotNo{to}, SlotNo{from}), geometry().fs_id);
    }
    const BlockNo block{geometry().mailbox_offset(SlotNo{to}, SlotNo{0}) / kBlockSize};
    const Result<> written = co_await write(block, row.bytes());
    if (!written) co_return written;
  }
  co_return Result<>{};
}

// All entries free.
Task<Result<>> Maker::write_lock_block(BlockNo block) {
  IoBuffer buffer(kBlockSize);
  LockBlock lock{};
  lock.header = first_caw_header();
  std::memcpy(buffer.data(), &lock, sizeof(lock));
  seal_lock_block(buffer.bytes().first(geometry().logical_block), block.offset_bytes(), geometry().fs_id);
  const Result<> written = co_await write(block, buffer.bytes());
  co_return written;
}

Task<Result<>> Maker::write_journals() {
  for (std::uint16_t slot = 0; slot < geometry().slots; ++slot) {
    const auto& extents = plan_.journals[slot];
    for (const BlockRange& extent : extents) {
      const Result<> zeroed = co_await write_zeros(extent.start, extent.count);
      if (!zeroed) co_return zeroed;
    }
    IoBuffer headers(std::size_t{kJournalHeaderCopies} * kBlockSize);
    make_empty_journal(headers.bytes(), geometry().fs_id, SlotNo{slot}, extents);
    const Result<> written = co_await write(extents.front().start, headers.bytes());
    if (!written) co_return written;
  }
  co_return Result<>{};
}

std::vector<std::byte> Maker::inode_image(InodeNo number) const {
  std::vector<std::byte> image(kBlockSize);
  start_block(image, BlockType::kInode, number.block(), geometry().fs_id);
  auto& inode = *reinterpret_cast<Inode*>(image.data());
  const bool root = number == geometry().root;
  const bool system = std::ranges::find(geometry().orphan_inodes, number) != geometry().orphan_inodes.end();
  if (root || system) {
    inode.mode = root ? kRootMode : kSystemMode;
    inode.nlink = root ? 2 : 1;
    inode.atime_ns = inode.mtime_ns = inode.ctime_ns = inode.btime_ns = options_.created_ns;
    inode.generation = 1;
    inode.parent = root ? number.value : 0;
    inode.flags = system ? kInodeSystem : 0;
    inode.tree_kind = static_cast<std::uint16_t>(root ? TreeKind::kDirectory : TreeKind::kOrphans);
    inode.content = static_cast<std::uint8_t>(InodeContent::kTree);
    inode.content_bytes = static_cast<std::uint16_t>(kInodeContent);
  }
  stamp_block(image);
  return image;
}

FreeMask Maker::free_inodes(BlockNo chunk) const {
  FreeMask free = (1u << (kChunkBlocks - 1)) - 1;
  const auto use = [&](InodeNo inode) {
    if (inode > InodeNo{chunk.value} && inode < InodeNo{chunk.value + kChunkBlocks}) {
      free = static_cast<FreeMask>(free & ~(1u << (inode.value - chunk.value - 1)));
    }
  };
  use(geometry().root);
  for (const InodeNo inode : geometry().orphan_inodes) use(inode);
  return free;
}

Task<Result<>> Maker::write_chunks() {
  for (const BlockNo chunk : plan_.chunks) {
    const Result<> lock = co_await write_lock_block(chunk);
    if (!lock) co_return lock;
    IoBuffer inodes((kChunkBlocks - 1) * kBlockSize);
    for (std::uint64_t i = 1; i < kChunkBlocks; ++i) {
      const auto image = inode_image(InodeNo{chunk.value + i});
      std::memcpy(inodes.data() + (i - 1) * kBlockSize, image.data(), kBlockSize);
    }
    const Result<> written = co_await write(chunk + 1, inodes.bytes());
    if (!written) co_return written;
  }
  co_return Result<>{};
}

// The blocks of `group` that its bitmap block `index` speaks for, in use or past the group's end.
Bitmap bitmap_bits(const Geometry& geometry, GroupNo group, const GroupPlan& plan, std::uint32_t index) {
  Bitmap bitmap{};
  const std::uint64_t start = geometry.group_start(group).value + index * kBitsPerBitmapBlock;
  const std::uint64_t end = start + kBitsPerBitmapBlock;
  const auto mark = [&](std::uint64_t from, std::uint64_t to) {
    for (std::uint64_t block = std::max(from, start); block < std::min(to, end); ++block) {
      const std::uint64_t bit = block - start;
      bitmap.bits[bit / 8] = static_cast<std::uint8_t>(bitmap.bits[bit / 8] | 1u << (bit % 8));
    }
  };
  for (const BlockRange& range : plan.used) mark(range.start.value, range.start.value + range.count);
  mark(geometry.group_start(group).value + geometry.blocks_in_group(group), UINT64_MAX);
  return bitmap;
}

std::uint32_t count_free(const Bitmap& bitmap) {
  std::uint32_t free = 0;
  for (const std::uint8_t byte : bitmap.bits) free += 8 - static_cast<std::uint32_t>(std::popcount(byte));
  return free;
}

GroupHeader Maker::group_header(GroupNo group) const {
  GroupHeader header{};
  start_block(std::as_writable_bytes(std::span(&header, 1)), BlockType::kGroupHeader, geometry().group_header(group),
              geometry().fs_id);
  header.group = group.value;
  header.bitmap_blocks = geometry().bitmap_blocks(group);
  std::uint32_t free = 0;
  for (std::uint32_t i = 0; i < geometry().bitmap_blocks(group); ++i) {
    const std::uint32_t count = count_free(bitmap_bits(geometry(), group, plan_.groups[group.value], i));
    header.summary[i] = count == kBitsPerBitmapBlock ? count | kBitmapUninit : count;
    free += count;
  }
  header.free_blocks = free;
  if (group.value != 0) return header;

  // All chunks are in group 0; they fit into the root's area (at most five).
  std::size_t at = 0;
  std::uint32_t free_inode_count = 0;
  for (const BlockNo chunk : plan_.chunks) {
    TreeRecord record;
    record.key = chunk.value;
    record.length = sizeof(le16);
    le16 mask;
    mask = free_inodes(chunk);
    std::memcpy(header.chunk_index_area.data() + at, &record, sizeof(record));
    std::memcpy(header.chunk_index_area.data() + at + sizeof(record), &mask, sizeof(mask));
    at += sizeof(record) + sizeof(mask);
    free_inode_count += static_cast<std::uint32_t>(std::popcount(free_inodes(chunk)));
  }
  header.chunks = static_cast<std::uint32_t>(plan_.chunks.size());
  header.free_inodes = free_inode_count;
  header.chunk_index.count = static_cast<std::uint16_t>(plan_.chunks.size());
  header.chunk_index.used = static_cast<std::uint16_t>(at);
  return header;
}

Task<Result<>> Maker::write_group(GroupNo group) {
  IoBuffer buffer(kBlockSize);
  const GroupHeader header = group_header(group);
  std::memcpy(buffer.data(), &header, sizeof(header));
  stamp_block(buffer.bytes());
  const Result<> written = co_await write(geometry().group_header(group), buffer.bytes());
  if (!written) co_return written;
  const Result<> lock = co_await write_lock_block(geometry().group_lock(group));
  if (!lock) co_return lock;
  for (std::uint32_t i = 0; i < geometry().bitmap_blocks(group); ++i) {
    if ((header.summary[i].value() & kBitmapUninit) != 0) continue;
    const Bitmap bitmap = bitmap_bits(geometry(), group, plan_.groups[group.value], i);
    std::memcpy(buffer.data(), &bitmap, sizeof(bitmap));
    start_block(buffer.bytes(), BlockType::kBitmap, geometry().group_bitmap(group, i), geometry().fs_id);
    stamp_block(buffer.bytes());
    const Result<> done = co_await write(geometry().group_bitmap(group, i), buffer.bytes());
    if (!done) co_return done;
  }
  co_return Result<>{};
}

Task<Result<>> Maker::write_groups() {
  for (std::uint32_t group = 0; group < geometry().group_count; ++group) {
    const Result<> written = co_await write_group(GroupNo{group});
    if (!written) co_return written;
  }
  co_return Result<>{};
}

Superblock Maker::superblock() const {
  const Geometry& g = geometry();
  Superblock s{};
  s.incompat = options_.clustered ? kIncompatClustered : 0;
  s.uuid = uuid_;
  options_.label.copy(s.label.data(), s.label.size());
  s.block_count = g.block_count;
  s.logical_block = g.logical_block;
  s.slots = g.slots;
  s.dead_time_ms = options_.dead_time_ms;
  s.journal_blocks = plan_.journal_blocks;
  s.group_count = g.group_count;
  s.group_blocks = g.group_blocks;
  s.sip_key = g.sip_key;
  s.node_table = g.node_table.value;
  s.heartbeats = g.heartbeats.value;
  s.mailboxes = g.mailboxes.value;
  s.global_lock = g.global_lock.value;
  s.scratch = g.scratch.value;
  s.first_group = g.first_group.value;
  s.root_inode = g.root.value;
  for (std::size_t i = 0; i < kSlots; ++i) s.orphan_inodes[i] = g.orphan_inodes[i].value;
  s.sequence = 1;
  s.created_ns = options_.created_ns;
  return s;
}

// The copies first: `superblock` ends as the one at its own place.
Task<Result<>> Maker::write_superblocks(Superblock& superblock) {
  const std::array places{first_superblock_copy(geometry()), last_superblock_copy(geometry()),
                          BlockNo{kSuperblockBlock}};
  IoBuffer buffer(kBlockSize);
  for (const BlockNo place : places) {
    const Result<> before = co_await device_.flush();
    if (!before) co_return before;
    std::memcpy(buffer.data(), &superblock, sizeof(superblock));
    start_block(buffer.bytes(), BlockType::kSuperblock, place, geometry().fs_id);
    stamp_block(buffer.bytes());
    std::memcpy(&superblock, buffer.data(), sizeof(superblock));
    const Result<> written = co_await write(place, buffer.bytes());
    if (!written) co_return written;
  }
  const Result<> after = co_await device_.flush();
  co_return after;
}

Task<Result<Superblock>> Maker::run() {
  const Result<> wiped = co_await wipe();
  if (!wiped) co_return fail(wiped.error());
  const Result<> discarded = co_await discard();
  if (!discarded) co_return fail(discarded.error());
  const Result<> slots = co_await write_slot_records();
  if (!slots) co_return fail(slots.error());
  const Result<> heartbeats = co_await write_heartbeats();
  if (!heartbeats) co_return fail(heartbeats.error());
  const Result<> mailboxes = co_await write_mailboxes();
  if (!mailboxes) co_return fail(mailboxes.error());
  const Result<> lock = co_await write_lock_block(geometry().global_lock);
  if (!lock) co_return fail(lock.error());
  const Result<> scratch =
      co_await write_zeros(geometry().scratch, geometry().first_group.value - geometry().scratch.value);
  if (!scratch) co_return fail(scratch.error());
  const Result<> journals = co_await write_journals();
  if (!journals) co_return fail(journals.error());
  const Result<> chunks = co_await write_chunks();
  if (!chunks) co_return fail(chunks.error());
  const Result<> groups = co_await write_groups();
  if (!groups) co_return fail(groups.error());
  Superblock made = superblock();
  const Result<> superblocks = co_await write_superblocks(made);
  if (!superblocks) co_return fail(superblocks.error());
  if (progress_) progress_(total_, total_);
  co_return made;
}

}  // namespace

Task<Result<Superblock>> make_file_system(BlockDevice& device, Random& random, MakeOptions options,
                                          MakeProgress progress) {
  auto plan = plan_file_system(device.facts().size_bytes, device.facts().logical_block, options);
  if (!plan) co_return fail(plan.error());
  Maker maker(device, random, options, std::move(*plan), std::move(progress));
  Result<Superblock> made = co_await maker.run();
  co_return made;
}

}  // namespace cawfs
