// A journal: records of the input's making, and then edits of the ring and the header copies, some with the checksum
// made right again. Replay ends with an error and has written nothing, or with what the journal says: while no edit has
// a right checksum, that is exactly what the first records, as many as it counts, have left.
#include <map>
#include <vector>

#include "core/format/verify.h"
#include "core/runtime/virtual_loop.h"
#include "journal/replay.h"
#include "tests/fuzz/block_input.h"
#include "tests/unit/journal/record_writer.h"

namespace cawfs::fuzz {
namespace {

using test::RecordWriter;

constexpr std::uint64_t kGeneration = 5;  // of the locks as they stand
constexpr BlockNo kFirst{1000};
constexpr std::uint32_t kBlocks = 6;
constexpr std::uint32_t kMostRecords = 16;
constexpr std::uint32_t kMostEdits = 16;

// What stands in the blocks, by the journal's own description of itself: none of a block that it leaves alone.
using Values = std::map<BlockNo, std::uint64_t>;

struct Record {
  std::vector<RecordWriter::Change> changes;
  std::vector<BlockRange> revokes;
};

Record take_record(FuzzInput& input) {
  Record record;
  for (unsigned left = input.byte() % 4; left > 0; --left) {
    const BlockNo block = kFirst + input.byte() % kBlocks;
    const std::uint64_t value = input.byte() + 1u;
    const std::uint64_t generation = input.byte() % 8 == 1 ? kGeneration - 1 : kGeneration;
    const bool again = std::ranges::count(record.changes, block, &RecordWriter::Change::block) > 0;
    if (!again) record.changes.push_back({block, value, generation});
  }
  for (unsigned left = input.byte() % 4 == 1 ? 1 : 0; left > 0; --left) {
    record.revokes.push_back({kFirst + input.byte() % kBlocks, 1u + input.byte() % 2});
  }
  return record;
}

Values after(std::span<const Record> records) {
  std::map<BlockNo, RecordWriter::Change> newest;
  for (const Record& record : records) {
    for (const auto& change : record.changes) newest[change.block] = change;
    for (const BlockRange& range : record.revokes) {
      for (std::uint64_t i = 0; i < range.count; ++i) newest.erase(range.start + i);
    }
  }
  Values values;
  for (const auto& [block, change] : newest) {
    if (change.generation == kGeneration) values[block] = change.value;
  }
  return values;
}

class Run {
 public:
  Run() : device_(disk_.lun.connect(executor_, "replayer")) {
    disk_.set_locks(test::test_lock(0), test::kNode, kGeneration);
    writer_.write_header(test::kNode.incarnation, 1, 0);
    writer_.write_header(test::kNode.incarnation, 1, 0);
  }

  void run(FuzzInput& input) {
    for (std::uint32_t left = input.byte() % kMostRecords; left > 0; --left) {
      Record record = take_record(input);
      if (writer_.next_ring_block + 16 > writer_.ring.blocks()) break;
      starts_.push_back(writer_.append(record.changes, record.revokes));
      records_.push_back(std::move(record));
    }
    for (std::uint32_t edits = 0; !input.empty() && edits < kMostEdits; ++edits) edit(input);
    disk_.lun.set_hook([this](const SimulatedRequest& request) {
      note(request);
      return SimulatedFate::kRun;
    });
    check(replay());
  }

 private:
  void edit(FuzzInput& input) {
    const std::uint8_t what = input.byte();
    const std::uint32_t place = input.byte();
    // Mostly among the fields at the front.
    const std::size_t offset = input.take<std::uint16_t>() % ((what & 0x80) != 0 ? kBlockSize : 256);
    const auto bytes = input.take_bytes(1 + what / 16u);
    const bool seal = (what & 1) != 0;
    const bool header = (what & 2) != 0;
    sealed_ |= seal;
    if (header) return edit_header(place % 2, offset, bytes, seal);
    if ((what & 4) == 0 && !starts_.empty()) return edit_record(place % starts_.size(), offset, bytes, seal);
    // Any block of the ring.
    const BlockNo address = writer_.ring.block(place % writer_.ring.blocks());
    Block block = peek(address);
    if ((what & 8) != 0) format::start_block(block, format::BlockType::kJournalRecord, address, disk_.geometry.fs_id);
    change(block, offset, bytes, seal);
    if (seal) format::stamp_unverified(block);
    disk_.lun.poke(address.offset_bytes(), block);
  }
  void edit_header(std::uint64_t copy, std::size_t offset, std::span<const std::byte> bytes, bool seal) {
    const BlockNo address = writer_.ring.header_copy(copy);
    Block block = peek(address);
    change(block, offset, bytes, seal);
    if (seal) format::stamp_unverified(block);
    disk_.lun.poke(address.offset_bytes(), block);
  }
  // The whole record's checksum is made right, by the length that it gives.
  void edit_record(std::size_t number, std::size_t offset, std::span<const std::byte> bytes, bool seal) {
    const JournalRing& ring = writer_.ring;
    const std::uint32_t start = starts_[number];
    Block first = peek(ring.block(start));
    change(first, offset, bytes, seal);
    const auto length = reinterpret_cast<const format::JournalRecord&>(first).blocks.value();
    const std::uint32_t blocks = std::clamp(length, 1u, ring.blocks() - start);
    IoBuffer record(std::size_t{blocks} * kBlockSize);
    for (std::uint32_t i = 0; i < blocks; ++i) {
      disk_.lun.peek(ring.block(start + i).offset_bytes(), record.bytes().subspan(i * kBlockSize, kBlockSize));
    }
    std::ranges::copy(first, record.data());
    if (seal) format::stamp_journal_record(record.bytes());
    writer_.poke_record(start, record);
  }
  // Without a seal the checksum itself is left alone, lest the fuzzer find the right one by itself.
  static void change(Block& block, std::size_t offset, std::span<const std::byte> bytes, bool seal) {
    constexpr std::size_t kCrcAt = offsetof(format::BlockHeader, crc);
    for (std::size_t i = 0; i < bytes.size() && offset + i < block.size(); ++i) {
      const std::size_t at = offset + i;
      const bool of_checksum = at >= kCrcAt && at < kCrcAt + sizeof(format::le32);
      if (seal || !of_checksum) block[at] = bytes[i];
    }
  }
  Block peek(BlockNo address) const {
    Block block;
    disk_.lun.peek(address.offset_bytes(), block);
    return block;
  }

  void note(const SimulatedRequest& request) {
    if (request.kind == SimulatedRequest::Kind::kFlush) ++writes_;
    if (request.kind != SimulatedRequest::Kind::kWrite) return;
    ++writes_;
    const BlockNo block{request.offset / kBlockSize};
    if (!writer_.ring.contains(block)) written_.push_back(block);
  }
  Result<ReplayReport> replay() {
    return loop_.run(executor_, replay_journal({executor_, *device_, disk_.geometry, random_, messages_}, disk_.place(),
                                               ReplayMode::kReplay));
  }

  void check(const Result<ReplayReport>& report) {
    if (!report) {
      const Errc code = report.error().code;
      const bool newer = code == Errc::kBadVersion || code == Errc::kBadFeature;  // as an edited block may say
      CAWFS_ASSERT(writes_ == 0 && (newer || error_class(code) == ErrorClass::kCorrupt));
      return;
    }
    for (const BlockNo block : written_) {
      const Block bytes = peek(block);
      const auto& header = reinterpret_cast<const format::BlockHeader&>(bytes);
      CAWFS_ASSERT(disk_.geometry.in_groups(block) || block.value == format::kSuperblockBlock);
      CAWFS_ASSERT(
          format::verify_block(bytes, static_cast<format::BlockType>(header.type.value()), block, disk_.geometry));
    }
    if (!sealed_) {
      CAWFS_ASSERT(report->records <= records_.size());
      const Values values = after(std::span(records_).first(report->records));
      for (std::uint32_t i = 0; i < kBlocks; ++i) {
        const auto expected = values.find(kFirst + i);
        CAWFS_ASSERT(disk_.value(kFirst + i) == (expected == values.end() ? 0 : expected->second));
      }
    }
    const std::size_t before = written_.size();
    const auto again = replay();
    CAWFS_ASSERT(again && again->empty && written_.size() == before);
  }

  VirtualLoop loop_;
  SeededRandom random_{1};
  test::TestDisk disk_{loop_, random_, 4096};
  RecordWriter writer_{disk_};
  Executor& executor_ = loop_.add_executor();
  std::unique_ptr<BlockDevice> device_;
  test::QuietLog messages_;
  std::vector<Record> records_;
  std::vector<std::uint32_t> starts_;  // their ring blocks
  bool sealed_ = false;                // an edit has a right checksum
  std::uint64_t writes_ = 0;
  std::vector<BlockNo> written_;  // outside the journal
};

}  // namespace
}  // namespace cawfs::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  cawfs::fuzz::FuzzInput input(data, size);
  cawfs::fuzz::Run().run(input);
  return 0;
}
