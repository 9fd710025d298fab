// Makes and checks the structures of core/format/journal_format.h. What the disk says is an Error, whatever its bytes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/base/error.h"
#include "core/base/types.h"
#include "core/format/cluster_format.h"
#include "core/format/geometry.h"
#include "core/format/journal_format.h"

namespace cawfs::format {

// The extents of a slot record's journal, without unused ones. kBadValue if there is none, one lies outside the groups,
// two overlap or the journal is too small or too large.
Result<std::vector<BlockRange>> journal_extents(const SlotRecord& record, const Geometry& geometry);
Result<> check_journal_extents(std::span<const BlockRange> extents, const Geometry& geometry);

// Blocks of the ring: all of the extents' but the header copies.
std::uint32_t ring_blocks(std::span<const BlockRange> extents);

// What is written to a header copy. `writes` decides which copy: number `writes % kJournalHeaderCopies`, at block
// extents[0].start + that.
struct JournalHeaderInfo {
  SlotNo slot = {};
  Incarnation incarnation = {};
  std::uint64_t writes = 0;
  std::uint64_t tail_sequence = 1;
  std::uint32_t tail = 0;
  std::uint32_t ring_blocks = 0;
};
void make_journal_header(std::span<std::byte> block, BlockNo address, std::uint64_t fs_id,
                         const JournalHeaderInfo& info);

// The header copies of an empty journal of nobody's, for mkfs: `out` is kJournalHeaderCopies blocks, to be written at
// extents[0].start. The rest of the journal is to be written with zeros.
void make_empty_journal(std::span<std::byte> out, std::uint64_t fs_id, SlotNo slot,
                        std::span<const BlockRange> extents);

// One header copy, read from `address`. Errors: kBadMagic, kBadChecksum, kBadIdentity (address, file system, slot,
// type), kBadVersion, kBadValue.
Result<JournalHeaderInfo> verify_journal_header(std::span<const std::byte> block, BlockNo address,
                                                const Geometry& geometry, SlotNo slot, std::uint32_t ring_blocks);

// Fills in header.crc of a whole record (`record.size()` is its length on disk).
void stamp_journal_record(std::span<std::byte> record);

// The first block of a record, before the rest is read: header, identity and counts; not the crc. `blocks` of the
// result is at most `ring_blocks`, so the rest can be read.
struct JournalRecordInfo {
  std::uint16_t flags = 0;
  Incarnation incarnation;
  std::uint64_t sequence = 0;
  std::uint64_t durable_sequence = 0;
  std::uint32_t ring_block = 0;
  std::uint32_t blocks = 0;
  std::uint32_t length_bytes = 0;
  std::uint32_t entries = 0;
  std::uint32_t revokes = 0;
};
Result<JournalRecordInfo> verify_journal_record_start(std::span<const std::byte> block, BlockNo address,
                                                      const Geometry& geometry, SlotNo slot, std::uint32_t ring_blocks);

// The crc of a whole record whose start has been verified.
Result<> verify_journal_record_crc(std::span<const std::byte> record);

struct JournalImage {
  BlockNo block;
  BlockNo lock_block;
  std::uint8_t lock_entry = 0;
  Generation generation;
  std::span<const std::byte> used;  // in the record
};
struct JournalContents {
  std::vector<JournalImage> images;
  std::vector<BlockRange> revokes;
};
// Takes apart a record whose start and crc have been verified. kBadValue where an entry, a revoke or a size cannot be.
Result<JournalContents> parse_journal_record(std::span<const std::byte> record, const JournalRecordInfo& info,
                                             const Geometry& geometry);

}  // namespace cawfs::format
