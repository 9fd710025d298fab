#include "journal/record.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "core/base/assert.h"

namespace cawfs {

namespace {

using format::JournalRecordInfo;

// A heartbeat must not wait for long behind a replay: on its way to the device, or for its turn.
constexpr std::size_t kRingReadBytes = 4 << 20;
constexpr std::uint32_t kBlocksInOneStep = 1024;

constexpr std::size_t kBytesPerCredit = sizeof(format::JournalEntry) + sizeof(format::JournalRevoke) + kBlockSize;

// Length without trailing zeros; a block of zeros has one byte.
std::size_t used_bytes(std::span<const std::byte> block) {
  std::size_t used = block.size();
  while (used > sizeof(std::uint64_t)) {
    std::uint64_t word = 0;
    std::memcpy(&word, block.data() + used - sizeof(word), sizeof(word));
    if (word != 0) break;
    used -= sizeof(word);
  }
  while (used > 1 && block[used - 1] == std::byte{0}) --used;
  return used;
}

template <class T>
void append(std::span<std::byte> out, std::size_t& at, const T& value) {
  CAWFS_ASSERT(at + sizeof(T) <= out.size());
  std::memcpy(out.data() + at, &value, sizeof(T));
  at += sizeof(T);
}

std::size_t fixed_bytes(std::size_t images, std::size_t revokes) {
  return sizeof(format::JournalRecord) + images * sizeof(format::JournalEntry) +
         revokes * sizeof(format::JournalRevoke);
}

std::size_t blocks_of(std::size_t bytes) {
  return (bytes + kBlockSize - 1) / kBlockSize;
}

format::JournalEntry make_entry(const RecordImage& image, std::size_t used, bool local) {
  format::JournalEntry entry{};
  entry.block = image.block.value;
  entry.used_bytes = static_cast<std::uint16_t>(used);
  if (local) return entry;
  entry.lock_block = image.tag.name.block.value;
  entry.lock_entry = image.tag.name.entry;
  entry.generation = image.tag.generation.value;
  return entry;
}

// What is expected at a place of the unrolled ring: the start of a record of this journal's incarnation, or nothing.
class RecordFinder {
 public:
  RecordFinder(const Geometry& geometry, const JournalRing& ring, SlotNo slot, const format::JournalHeaderInfo& header,
               std::span<const std::byte> unrolled)
      : geometry_(geometry), ring_(ring), slot_(slot), header_(header), unrolled_(unrolled) {}

  // `at`, here and below: blocks after the tail, up to the whole ring.
  std::uint32_t ring_block(std::uint32_t at) const { return ring_.advance(header_.tail, at); }
  BlockNo device_block(std::uint32_t at) const { return ring_.block(ring_block(at)); }
  std::span<const std::byte> bytes(std::uint32_t at, std::uint32_t blocks) const {
    return unrolled_.subspan(std::size_t{at} * kBlockSize, std::size_t{blocks} * kBlockSize);
  }

  // A whole record with a good crc that starts `at` blocks after the tail.
  std::optional<JournalRecordInfo> find(std::uint32_t at) const {
    const auto info =
        format::verify_journal_record_start(bytes(at, 1), device_block(at), geometry_, slot_, ring_.blocks());
    if (!info || info->incarnation != header_.incarnation || info->ring_block != ring_block(at) ||
        info->blocks > ring_.blocks() - at || !format::verify_journal_record_crc(bytes(at, info->blocks))) {
      return std::nullopt;
    }
    return *info;
  }

 private:
  const Geometry& geometry_;
  const JournalRing& ring_;
  SlotNo slot_;
  const format::JournalHeaderInfo& header_;
  std::span<const std::byte> unrolled_;
};

// Does a record after the end of the log, which lies `at` blocks after the tail, know of more durable ones?
Task<Result<>> check_end(Executor& executor, const RecordFinder& finder, std::uint32_t at, std::uint32_t blocks,
                         std::uint64_t next_sequence) {
  for (std::uint32_t i = at; i < blocks; ++i) {
    if (i % kBlocksInOneStep == 0) co_await executor.yield();
    const auto later = finder.find(i);
    if (later && later->sequence > next_sequence && later->durable_sequence >= next_sequence) {
      co_return fail(Errc::kBadChecksum, "committed journal record", finder.device_block(at).value);
    }
  }
  co_return Result<>{};
}

Task<Result<>> read_ring(SettledIo& io, const JournalRing& ring, std::uint32_t tail, std::span<std::byte> out) {
  std::size_t at = 0;
  for (const BlockRange& piece : ring.pieces(tail, ring.blocks())) {
    const std::size_t end = at + piece.count * kBlockSize;
    for (std::uint64_t offset = piece.start.offset_bytes(); at < end; offset += kRingReadBytes, at += kRingReadBytes) {
      const auto got = co_await io.read(offset, out.subspan(at, std::min(kRingReadBytes, end - at)));
      if (!got) co_return got;
    }
    at = end;
  }
  co_return Result<>{};
}

}  // namespace

std::uint32_t record_blocks(std::uint64_t credits) {
  const std::uint64_t bytes = sizeof(format::JournalRecord) + credits * kBytesPerCredit;
  return static_cast<std::uint32_t>(blocks_of(bytes));
}

std::uint32_t credits_in(std::uint32_t blocks) {
  const std::uint64_t bytes = std::uint64_t{blocks} * kBlockSize - sizeof(format::JournalRecord);
  return static_cast<std::uint32_t>(bytes / kBytesPerCredit);
}

std::uint32_t record_length(std::span<const RecordImage> images, std::span<const BlockRange> revokes) {
  std::size_t bytes = fixed_bytes(images.size(), revokes.size());
  for (const RecordImage& image : images) bytes += used_bytes(image.bytes);
  return static_cast<std::uint32_t>(blocks_of(bytes));
}

IoBuffer make_record(const JournalRing& ring, const Geometry& geometry, const JournalPlace& place,
                     const RecordIdentity& identity, std::span<const RecordImage> images,
                     std::span<const BlockRange> revokes) {
  std::vector<std::size_t> used;
  used.reserve(images.size());
  std::size_t length = fixed_bytes(images.size(), revokes.size());
  for (const RecordImage& image : images) {
    used.push_back(used_bytes(image.bytes));
    length += used.back();
  }
  const std::size_t blocks = blocks_of(length);
  IoBuffer buffer(blocks * kBlockSize);

  format::JournalRecord record{};
  record.header.magic = format::kBlockMagic;
  record.header.address = ring.block(identity.ring_block).value;
  record.header.fs_id = geometry.fs_id;
  record.header.type = static_cast<std::uint16_t>(format::BlockType::kJournalRecord);
  record.header.version = format::kVersion;
  record.slot = place.node.slot.value;
  record.flags = place.local ? format::kRecordLocal : std::uint16_t{0};
  record.incarnation = place.node.incarnation.value;
  record.sequence = identity.sequence;
  record.durable_sequence = identity.durable_sequence;
  record.ring_block = identity.ring_block;
  record.blocks = static_cast<std::uint32_t>(blocks);
  record.length_bytes = static_cast<std::uint32_t>(length);
  record.entry_count = static_cast<std::uint32_t>(images.size());
  record.revoke_count = static_cast<std::uint32_t>(revokes.size());

  std::size_t at = 0;
  append(buffer.bytes(), at, record);
  for (std::size_t i = 0; i < images.size(); ++i)
    append(buffer.bytes(), at, make_entry(images[i], used[i], place.local));
  for (const BlockRange& range : revokes) {
    format::JournalRevoke revoke{};
    revoke.start = range.start.value;
    revoke.count = range.count;
    append(buffer.bytes(), at, revoke);
  }
  for (std::size_t i = 0; i < images.size(); ++i) {
    std::memcpy(buffer.data() + at, images[i].bytes.data(), used[i]);
    at += used[i];
  }
  CAWFS_ASSERT(at == length);
  format::stamp_journal_record(buffer.bytes());
  return buffer;
}

Task<Result<JournalLogView>> read_log(SettledIo& io, const Geometry& geometry, const JournalRing& ring,
                                      const JournalPlace& place, format::JournalHeaderInfo header) {
  JournalLogView log;
  log.next_sequence = header.tail_sequence;
  log.next_ring_block = header.tail;
  if (header.incarnation == Incarnation{}) co_return log;

  log.ring = IoBuffer(std::size_t{ring.blocks()} * kBlockSize);
  const auto got = co_await read_ring(io, ring, header.tail, log.ring.bytes());
  if (!got) co_return fail(got.error());

  const RecordFinder finder(geometry, ring, place.node.slot, header, log.ring.bytes());
  std::uint32_t at = 0;
  while (at < ring.blocks()) {
    const auto info = finder.find(at);
    if (!info || info->sequence != log.next_sequence) break;
    auto contents = format::parse_journal_record(finder.bytes(at, info->blocks), *info, geometry);
    if (!contents) co_return fail(contents.error());
    const bool local = (info->flags & format::kRecordLocal) != 0;
    if (local != place.local) co_return fail(Errc::kBadValue, "journal record", finder.device_block(at).value);
    log.records.push_back({*info, std::move(*contents)});
    co_await io.executor().yield();
    at += info->blocks;
    ++log.next_sequence;
  }
  log.next_ring_block = finder.ring_block(at);
  const auto end = co_await check_end(io.executor(), finder, at, ring.blocks(), log.next_sequence);
  if (!end) co_return fail(end.error());
  co_return log;
}

}  // namespace cawfs
