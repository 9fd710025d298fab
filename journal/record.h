// Makes a transaction's record, and finds the records of a journal.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/base/error.h"
#include "core/device/io_buffer.h"
#include "core/device/settled_io.h"
#include "core/format/journal_verify.h"
#include "core/fs/buffer_cache.h"
#include "journal/ring.h"

namespace cawfs {

// Whose journal it is.
struct JournalPlace {
  NodeId node;
  bool local = false;  // an -o local mount's
  std::vector<BlockRange> extents;
};

// An upper bound of the ring blocks of a record with that many whole blocks and as many revokes.
std::uint32_t record_blocks(std::uint64_t credits);
// The most credits whose record fits in `blocks`.
std::uint32_t credits_in(std::uint32_t blocks);

struct RecordImage {
  BlockNo block;
  LockTag tag;
  std::span<const std::byte> bytes;  // the whole block, stamped
};

// The ring blocks of the record of these images and revokes.
std::uint32_t record_length(std::span<const RecordImage> images, std::span<const BlockRange> revokes);

struct RecordIdentity {
  std::uint64_t sequence = 0;
  std::uint64_t durable_sequence = 0;
  std::uint32_t ring_block = 0;
};

// The record as it is written, a multiple of a block long.
IoBuffer make_record(const JournalRing& ring, const Geometry& geometry, const JournalPlace& place,
                     const RecordIdentity& identity, std::span<const RecordImage> images,
                     std::span<const BlockRange> revokes);

// The log of a journal: all records from the tail on. `records` point into `ring`.
struct JournalLogView {
  struct Record {
    format::JournalRecordInfo info;
    format::JournalContents contents;
  };
  IoBuffer ring;  // from the tail on, unrolled
  std::vector<Record> records;
  std::uint64_t next_sequence = 0;
  std::uint32_t next_ring_block = 0;
};

// Reads the whole ring. A record that is torn or missing ends the log. Yet where a later record says that it had become
// durable, committed work is lost: kBadChecksum. kBadValue for a record whose contents cannot be.
Task<Result<JournalLogView>> read_log(SettledIo& io, const Geometry& geometry, const JournalRing& ring,
                                      const JournalPlace& place, format::JournalHeaderInfo header);

}  // namespace cawfs
