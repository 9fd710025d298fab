// Writes a journal by hand, as a node would have written it.
#pragma once

#include <vector>

#include "core/format/journal_verify.h"
#include "journal/record.h"
#include "journal/ring.h"
#include "tests/unit/journal/journal_fixture.h"

namespace cawfs::test {

struct RecordWriter {
  explicit RecordWriter(TestDisk& where) : target(where) {}

  void write_header(Incarnation incarnation, std::uint64_t sequence, std::uint32_t tail) {
    IoBuffer bytes(kBlockSize);
    ++header_writes;
    format::make_journal_header(bytes.bytes(), ring.header_copy(header_writes), target.geometry.fs_id,
                                {.slot = kNode.slot,
                                 .incarnation = incarnation,
                                 .writes = header_writes,
                                 .tail_sequence = sequence,
                                 .tail = tail,
                                 .ring_blocks = ring.blocks()});
    target.lun.poke(ring.header_copy(header_writes).offset_bytes(), bytes.bytes());
  }

  struct Change {
    BlockNo block;
    std::uint64_t value;
    std::uint64_t generation = 5;
    LockName lock = test_lock(0);
  };
  // Appends a record; returns its ring block.
  std::uint32_t append(std::vector<Change> changes, std::vector<BlockRange> revokes = {}, bool local = false,
                       NodeId writer = kNode) {
    std::vector<IoBuffer> blocks;
    std::vector<RecordImage> images;
    for (const Change& change : changes) {
      IoBuffer& bytes = blocks.emplace_back(kBlockSize);
      format::start_block(bytes.bytes(), format::BlockType::kTreeNode, change.block, target.geometry.fs_id);
      put_value(bytes.bytes(), change.value);
      format::stamp_unverified(bytes.bytes());
    }
    for (std::size_t i = 0; i < changes.size(); ++i) {
      images.push_back({changes[i].block, {changes[i].lock, Generation{changes[i].generation}}, blocks[i].bytes()});
    }
    auto place = target.place(writer);
    place.local = local;
    const std::uint32_t at = next_ring_block;
    const IoBuffer record = make_record(
        ring, target.geometry, place,
        {.sequence = next_sequence, .durable_sequence = next_sequence - 1, .ring_block = at}, images, revokes);
    poke_record(at, record);
    ++next_sequence;
    next_ring_block = ring.advance(at, static_cast<std::uint32_t>(record.size() / kBlockSize));
    return at;
  }
  void poke_record(std::uint32_t at, const IoBuffer& record) {
    std::size_t offset = 0;
    for (const BlockRange& piece : ring.pieces(at, static_cast<std::uint32_t>(record.size() / kBlockSize))) {
      target.lun.poke(piece.start.offset_bytes(), record.bytes().subspan(offset, piece.count * kBlockSize));
      offset += piece.count * kBlockSize;
    }
  }

  TestDisk& target;
  JournalRing ring{kExtents};
  std::uint64_t header_writes = 10;
  std::uint64_t next_sequence = 1;
  std::uint32_t next_ring_block = 0;
};

}  // namespace cawfs::test
