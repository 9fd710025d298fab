// The commit side of JournalLog: sealing the running transaction, writing its record, ending in order.
#include <cstring>
#include <utility>

#include "core/base/assert.h"
#include "core/base/planted_fault.h"
#include "core/format/verify.h"
#include "journal/journal_log.h"

namespace cawfs {

namespace {

// More would make the records smaller, not the commits faster.
constexpr std::uint32_t kCommitsInFlight = 2;

}  // namespace

Task<void> JournalLog::run_commits() {
  while (!ended()) {
    const bool wanted = running_ && running_->id <= wanted_;
    if (!wanted || commits_in_flight_ == kCommitsInFlight) {
      co_await work_.wait();
      continue;
    }
    running_->closing = true;
    if (running_->handles > 0) {
      co_await work_.wait();
      continue;
    }
    ++commits_in_flight_;
    tasks_.spawn(commit_sealed(seal()));
    room_.notify_all();
  }
}

Task<void> JournalLog::run_periodic_commits() {
  while (!ended()) {
    if (!running_) {
      co_await running_began_.wait();
      continue;
    }
    const TxId id = running_->id;
    co_await stop_io_.sleep_until(running_->began + options_.commit_interval);
    request_commit(id);
    while (!ended() && running_ && running_->id == id) co_await room_.wait();
  }
}

std::unique_ptr<JournalLog::Sealed> JournalLog::seal() {
  CAWFS_ASSERT(running_ && running_->handles == 0);
  auto sealed = std::make_unique<Sealed>();
  sealed->id = running_->id;
  sealed->data_written = data_written_;
  sealed->revokes = std::move(running_->revokes);
  sealed->callbacks = std::move(running_->callbacks);
  sealed->images.reserve(running_->changed.size());
  for (const auto& [block, buffer] : running_->changed) {
    auto copy = std::make_shared<IoBuffer>(kBlockSize);
    std::memcpy(copy->data(), buffer->bytes().data(), kBlockSize);
    format::stamp_block(copy->bytes());
    buffer->running = TxId{};
    buffer->committed = sealed->id;
    sealed->images.push_back({.block = block, .tag = buffer->tag, .buffer = buffer, .bytes = std::move(copy)});
  }
  if (!sealed->images.empty() || !sealed->revokes.empty()) make_sealed_record(*sealed);
  sealed_ = sealed->id;
  running_.reset();
  return sealed;
}

void JournalLog::make_sealed_record(Sealed& sealed) {
  std::vector<RecordImage> images;
  images.reserve(sealed.images.size());
  for (const BlockImage& image : sealed.images) images.push_back({image.block, image.tag, image.bytes->bytes()});
  // The place comes first, for the record names it; its length follows from its contents alone.
  const std::uint32_t blocks = record_length(images, sealed.revokes);
  CAWFS_ASSERT(blocks <= max_record_);
  const std::uint64_t durable = durable_sequence_;
  const RingSpace::Place place = space_->append(sealed.id, blocks);
  sealed.sequence = place.sequence;
  sealed.ring_block = space_->ring_block(place);
  const RecordIdentity identity{
      .sequence = place.sequence, .durable_sequence = durable, .ring_block = sealed.ring_block};
  sealed.record = make_record(ring_, geometry_, place_, identity, images, sealed.revokes);
}

Task<void> JournalLog::commit_sealed(std::unique_ptr<Sealed> sealed) {
  const LoggedWork work(messages_, "commit");
  const auto written = co_await write_sealed(*sealed);
  if (!written) fail_with(written.error());
  while (!failed_ && committed_.value + 1 != sealed->id.value) co_await commit_ended_.wait();
  --commits_in_flight_;
  if (failed_) {
    for (const BlockImage& image : sealed->images) {
      if (image.buffer->committed == sealed->id) image.buffer->committed = TxId{};
    }
  } else {
    finish(*sealed);
  }
  work_.notify_all();
}

Task<Result<>> JournalLog::write_sealed(Sealed& sealed) {
  const auto flushed = co_await flush_to(sealed.data_written);
  if (!flushed) co_return flushed;
  for (const BlockRange& range : sealed.revokes) {
    for (std::uint64_t i = 0; i < range.count; ++i) {
      while (in_place_->writing(range.start + i)) co_await progress_.wait();
    }
  }
  if (failed_) co_return fail(*failed_);
  if (sealed.record.size() == 0) co_return Result<>{};

  const auto blocks = static_cast<std::uint32_t>(sealed.record.size() / kBlockSize);
  const std::vector<BlockRange> pieces = ring_.pieces(sealed.ring_block, blocks);
  std::vector<Result<>> results(pieces.size());
  TaskGroup group(executor_);
  std::size_t at = 0;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const std::size_t length = pieces[i].count * kBlockSize;
    group.spawn(write_piece(pieces[i].start, sealed.record.bytes().subspan(at, length), results[i]));
    at += length;
  }
  co_await group.join();
  for (const auto& result : results) {
    if (!result) co_return result;
  }
  co_return Result<>{};
}

Task<void> JournalLog::write_piece(BlockNo start, std::span<const std::byte> bytes, Result<>& result) {
  const Durability durability = planted(PlantedFault::kCommitNotDurable) ? Durability::kCached : Durability::kFua;
  result = co_await io_.write(start.offset_bytes(), bytes, durability);
}

void JournalLog::finish(Sealed& sealed) {
  for (BlockImage& image : sealed.images) in_place_->install(std::move(image), sealed.id);
  for (const BlockRange& range : sealed.revokes) {
    for (std::uint64_t i = 0; i < range.count; ++i) in_place_->forget_freed(range.start + i, sealed.id);
  }
  if (sealed.record.size() != 0) {
    space_->committed(sealed.id);
    durable_sequence_ = sealed.sequence;
  }
  committed_ = sealed.id;
  for (const auto& done : sealed.callbacks) done();
  commit_ended_.notify_all();
  progress_.notify_all();
  checkpoint_.notify_all();
}

Task<Result<>> JournalLog::flush_to(std::uint64_t data_written) {
  if (failed_) co_return fail(*failed_);
  if (planted(PlantedFault::kDataNotFlushed)) data_flushed_ = data_written;
  while (data_flushed_ < data_written) {
    if (flushing_) {
      co_await flushed_.wait();
      if (failed_) co_return fail(*failed_);
      continue;
    }
    flushing_ = true;
    const std::uint64_t covers = data_written_;
    const auto done = co_await io_.flush();
    flushing_ = false;
    flushed_.notify_all();
    if (!done) {
      fail_with(done.error());
      co_return fail(*failed_);
    }
    data_flushed_ = covers;
  }
  co_return Result<>{};
}

}  // namespace cawfs
