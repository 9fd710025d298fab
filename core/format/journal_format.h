// On-disk structures of a slot's journal: redo of whole metadata blocks, trimmed to their used prefix. docs/format.md,
// "Journal".
//
// A journal is up to four extents. The first two blocks of the first extent are the two copies of its header; all other
// blocks, in the order of the extents, are one ring of records, numbered from 0.
//
// Header. The copies are written in turn, each with a higher `writes`; the valid one with the highest counts. So a
// write that is torn or cut leaves the copy before it, whose tail is older: still right, because ring blocks behind a
// tail are used again only after the header with that tail is durable.
//
// Record: one transaction. It starts at a ring block, may wrap and may span extents, so that it may take several
// device writes; one crc over all its bytes decides whether it is there at all. A record counts only if its fs_id,
// slot, incarnation, ring block and sequence are the ones expected: the log is the longest run of such records from the
// tail. Sequences go on across incarnations.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "core/base/types.h"
#include "core/format/block_header.h"

namespace cawfs::format {

inline constexpr std::uint32_t kJournalHeaderCopies = 2;
// With the header copies. A transaction takes a quarter of the ring: with 62 blocks the largest that cannot be done in
// parts, a rename over a file or between two directories, has room for directories of six levels of nodes.
inline constexpr std::uint32_t kMinJournalBlocks = 256;
inline constexpr std::uint32_t kMaxJournalBlocks = 1u << 16;  // 256 MiB: replay holds it in memory
inline constexpr std::uint32_t kMaxRecordBlocks = 1024;

struct JournalHeader {
  BlockHeader header;  // kJournalHeader
  le16 slot;
  le16 reserved0;
  le32 incarnation;    // whose records count; 0: the journal is empty and nobody's
  le64 writes;         // grows with each header written
  le64 tail_sequence;  // of the record at the tail, or of the next one to be written
  le32 tail;           // ring block
  le32 ring_blocks;
  std::array<std::uint8_t, 4032> reserved1;
};
static_assert(sizeof(JournalHeader) == kBlockSize);
static_assert(offsetof(JournalHeader, writes) == 40);
static_assert(offsetof(JournalHeader, ring_blocks) == 60);

inline constexpr std::uint16_t kRecordLocal = 1;  // of an -o local mount: its entries name no lock entries

// Followed by `entry_count` JournalEntry, `revoke_count` JournalRevoke and the used prefixes of the entries' blocks, in
// their order, without gaps; zeros up to the end of the last block. header.crc covers all of it, with the crc field
// taken as zero; header.address is the device block of the record's first block.
struct JournalRecord {
  BlockHeader header;  // kJournalRecord
  le16 slot;
  le16 flags;  // kRecord*
  le32 incarnation;
  le64 sequence;
  le64 durable_sequence;  // all records up to this one were durable before this one was written
  le32 ring_block;        // where it starts
  le32 blocks;            // its length in ring blocks
  le32 length_bytes;      // in use, with this structure
  le32 entry_count;
  le32 revoke_count;
  le32 reserved0;
  std::array<std::uint8_t, 16> reserved1;
};
static_assert(sizeof(JournalRecord) == 96);
static_assert(offsetof(JournalRecord, sequence) == 40);
static_assert(offsetof(JournalRecord, entry_count) == 68);

// A metadata block as the transaction left it, with its checksum stamped.
struct JournalEntry {
  le64 block;
  le64 lock_block;  // the entry that covers it; with kRecordLocal this and the next two are not looked at
  le64 generation;  // of the tenure that changed it
  le8 lock_entry;
  le8 reserved0;
  le16 used_bytes;  // 1..4096; what follows in the block is zeros
  le32 reserved1;
};
static_assert(sizeof(JournalEntry) == 32);

// Metadata blocks freed by the transaction: replay skips every record of them up to this one.
struct JournalRevoke {
  le64 start;  // block
  le64 count;
};
static_assert(sizeof(JournalRevoke) == 16);

}  // namespace cawfs::format
