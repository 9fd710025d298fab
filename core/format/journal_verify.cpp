#include "core/format/journal_verify.h"

#include <algorithm>
#include <cstring>

#include "core/base/assert.h"
#include "core/format/checksums.h"
#include "core/format/disk_format.h"

namespace cawfs::format {

namespace {

constexpr const char* kHeaderName = "journal header";
constexpr const char* kRecordName = "journal record";

bool all_zero(std::span<const std::uint8_t> bytes) {
  return std::ranges::all_of(bytes, [](std::uint8_t byte) { return byte == 0; });
}

template <class T>
T load(std::span<const std::byte> bytes, std::size_t offset) {
  T value;
  CAWFS_ASSERT(offset + sizeof(T) <= bytes.size());
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

Result<> check_magic(const BlockHeader& header, BlockNo address, BlockType type, const char* name) {
  if (header.magic.value() != kBlockMagic || header.type.value() != static_cast<std::uint16_t>(type)) {
    return fail(Errc::kBadMagic, name, address.value);
  }
  return {};
}

Result<> check_identity(const BlockHeader& header, BlockNo address, const Geometry& geometry, const char* name) {
  if (header.address.value() != address.value || header.fs_id.value() != geometry.fs_id) {
    return fail(Errc::kBadIdentity, name, address.value);
  }
  if (header.version.value() != kVersion) return fail(Errc::kBadVersion, name, address.value);
  if (header.reserved.value() != 0) return fail(Errc::kBadValue, name, address.value);
  return {};
}

// May a journal hold an image of this block? Of the fixed areas only the superblock is ever journaled.
bool journaled(BlockNo block, const Geometry& geometry) {
  return geometry.in_groups(block) || block.value == kSuperblockBlock;
}

}  // namespace

Result<> check_journal_extents(std::span<const BlockRange> extents, const Geometry& geometry) {
  constexpr const char* kName = "journal extents";
  if (extents.empty() || extents.size() > kJournalExtents) return fail(Errc::kBadValue, kName);
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < extents.size(); ++i) {
    const auto [start, count] = extents[i];
    if (count == 0 || count > kMaxJournalBlocks || !geometry.in_groups(start) ||
        count > geometry.block_count - start.value) {
      return fail(Errc::kBadValue, kName, start.value);
    }
    for (std::size_t j = 0; j < i; ++j) {
      if (start.value < extents[j].start.value + extents[j].count && extents[j].start.value < start.value + count) {
        return fail(Errc::kBadValue, kName, start.value);
      }
    }
    total += count;
  }
  if (extents[0].count < kJournalHeaderCopies || total < kMinJournalBlocks || total > kMaxJournalBlocks) {
    return fail(Errc::kBadValue, kName, extents[0].start.value);
  }
  return {};
}

Result<std::vector<BlockRange>> journal_extents(const SlotRecord& record, const Geometry& geometry) {
  std::vector<BlockRange> extents;
  for (const JournalExtent& extent : record.journal) {
    if (extent.count.value() != 0) extents.push_back({BlockNo{extent.start.value()}, extent.count.value()});
  }
  if (const auto ok = check_journal_extents(extents, geometry); !ok) return fail(ok.error());
  return extents;
}

std::uint32_t ring_blocks(std::span<const BlockRange> extents) {
  std::uint64_t total = 0;
  for (const BlockRange& extent : extents) total += extent.count;
  CAWFS_ASSERT(total > kJournalHeaderCopies && total <= kMaxJournalBlocks);
  return static_cast<std::uint32_t>(total) - kJournalHeaderCopies;
}

void make_journal_header(std::span<std::byte> block, BlockNo address, std::uint64_t fs_id,
                         const JournalHeaderInfo& info) {
  CAWFS_ASSERT(block.size() == kBlockSize);
  JournalHeader header{};
  header.header.magic = kBlockMagic;
  header.header.address = address.value;
  header.header.fs_id = fs_id;
  header.header.type = static_cast<std::uint16_t>(BlockType::kJournalHeader);
  header.header.version = kVersion;
  header.slot = info.slot.value;
  header.incarnation = info.incarnation.value;
  header.writes = info.writes;
  header.tail_sequence = info.tail_sequence;
  header.tail = info.tail;
  header.ring_blocks = info.ring_blocks;
  header.header.crc = block_crc(std::as_bytes(std::span(&header, 1)));
  std::memcpy(block.data(), &header, sizeof(header));
}

void make_empty_journal(std::span<std::byte> out, std::uint64_t fs_id, SlotNo slot,
                        std::span<const BlockRange> extents) {
  CAWFS_ASSERT(out.size() == kJournalHeaderCopies * kBlockSize);
  JournalHeaderInfo info;
  info.slot = slot;
  info.ring_blocks = ring_blocks(extents);
  for (std::uint32_t copy = 0; copy < kJournalHeaderCopies; ++copy) {
    info.writes = copy;
    make_journal_header(out.subspan(copy * kBlockSize, kBlockSize), extents[0].start + copy, fs_id, info);
  }
}

Result<JournalHeaderInfo> verify_journal_header(std::span<const std::byte> block, BlockNo address,
                                                const Geometry& geometry, SlotNo slot, std::uint32_t ring_blocks) {
  const auto header = load<JournalHeader>(block, 0);
  if (const auto ok = check_magic(header.header, address, BlockType::kJournalHeader, kHeaderName); !ok) {
    return fail(ok.error());
  }
  if (header.header.crc.value() != block_crc(block)) return fail(Errc::kBadChecksum, kHeaderName, address.value);
  if (const auto ok = check_identity(header.header, address, geometry, kHeaderName); !ok) return fail(ok.error());
  if (header.slot.value() != slot.value) return fail(Errc::kBadIdentity, kHeaderName, address.value);
  if (header.ring_blocks.value() != ring_blocks || header.tail.value() >= ring_blocks ||
      header.tail_sequence.value() == 0 || header.reserved0.value() != 0 || !all_zero(header.reserved1)) {
    return fail(Errc::kBadValue, kHeaderName, address.value);
  }
  return JournalHeaderInfo{.slot = slot,
                           .incarnation = Incarnation{header.incarnation.value()},
                           .writes = header.writes.value(),
                           .tail_sequence = header.tail_sequence.value(),
                           .tail = header.tail.value(),
                           .ring_blocks = ring_blocks};
}

void stamp_journal_record(std::span<std::byte> record) {
  CAWFS_ASSERT(record.size() >= kBlockSize);
  le32 crc;
  crc = block_crc(record);
  std::memcpy(record.data() + offsetof(BlockHeader, crc), &crc, sizeof(crc));
}

Result<JournalRecordInfo> verify_journal_record_start(std::span<const std::byte> block, BlockNo address,
                                                      const Geometry& geometry, SlotNo slot,
                                                      std::uint32_t ring_blocks) {
  const auto record = load<JournalRecord>(block, 0);
  if (const auto ok = check_magic(record.header, address, BlockType::kJournalRecord, kRecordName); !ok) {
    return fail(ok.error());
  }
  if (const auto ok = check_identity(record.header, address, geometry, kRecordName); !ok) return fail(ok.error());
  if (record.slot.value() != slot.value) return fail(Errc::kBadIdentity, kRecordName, address.value);

  const std::uint64_t blocks = record.blocks.value();
  const std::uint64_t length = record.length_bytes.value();
  const std::uint64_t fixed = sizeof(JournalRecord) + std::uint64_t{record.entry_count.value()} * sizeof(JournalEntry) +
                              std::uint64_t{record.revoke_count.value()} * sizeof(JournalRevoke);
  if (blocks == 0 || blocks > ring_blocks || blocks > kMaxRecordBlocks || record.ring_block.value() >= ring_blocks ||
      fixed > length || (length + kBlockSize - 1) / kBlockSize != blocks || record.sequence.value() == 0 ||
      record.durable_sequence.value() >= record.sequence.value() || (record.flags.value() & ~kRecordLocal) != 0 ||
      record.reserved0.value() != 0 || !all_zero(record.reserved1)) {
    return fail(Errc::kBadValue, kRecordName, address.value);
  }
  return JournalRecordInfo{.flags = record.flags.value(),
                           .incarnation = Incarnation{record.incarnation.value()},
                           .sequence = record.sequence.value(),
                           .durable_sequence = record.durable_sequence.value(),
                           .ring_block = record.ring_block.value(),
                           .blocks = record.blocks.value(),
                           .length_bytes = record.length_bytes.value(),
                           .entries = record.entry_count.value(),
                           .revokes = record.revoke_count.value()};
}

Result<> verify_journal_record_crc(std::span<const std::byte> record) {
  const auto header = load<BlockHeader>(record, 0);
  if (header.crc.value() != block_crc(record)) return fail(Errc::kBadChecksum, kRecordName, header.address.value());
  return {};
}

Result<JournalContents> parse_journal_record(std::span<const std::byte> record, const JournalRecordInfo& info,
                                             const Geometry& geometry) {
  const std::uint64_t address = load<BlockHeader>(record, 0).address.value();
  const std::size_t length = info.length_bytes;
  if (length > record.size()) return fail(Errc::kBadValue, kRecordName, address);
  JournalContents contents;
  contents.images.reserve(info.entries);
  std::size_t at = sizeof(JournalRecord);
  std::size_t data = at + info.entries * sizeof(JournalEntry) + info.revokes * sizeof(JournalRevoke);
  for (std::uint32_t i = 0; i < info.entries; ++i, at += sizeof(JournalEntry)) {
    const auto entry = load<JournalEntry>(record, at);
    const std::size_t used = entry.used_bytes.value();
    const BlockNo block{entry.block.value()};
    if (used == 0 || used > kBlockSize || used > length - data || !journaled(block, geometry) ||
        entry.lock_entry >= kEntriesPerLockBlock || entry.reserved0 != 0 || entry.reserved1.value() != 0) {
      return fail(Errc::kBadValue, kRecordName, address);
    }
    contents.images.push_back({.block = block,
                               .lock_block = BlockNo{entry.lock_block.value()},
                               .lock_entry = entry.lock_entry,
                               .generation = Generation{entry.generation.value()},
                               .used = record.subspan(data, used)});
    data += used;
  }
  for (std::uint32_t i = 0; i < info.revokes; ++i, at += sizeof(JournalRevoke)) {
    const auto revoke = load<JournalRevoke>(record, at);
    const BlockNo start{revoke.start.value()};
    if (!geometry.in_groups(start) || revoke.count.value() == 0 ||
        revoke.count.value() > geometry.block_count - start.value) {
      return fail(Errc::kBadValue, kRecordName, address);
    }
    contents.revokes.push_back({start, revoke.count.value()});
  }
  if (data != length) return fail(Errc::kBadValue, kRecordName, address);
  return contents;
}

}  // namespace cawfs::format
