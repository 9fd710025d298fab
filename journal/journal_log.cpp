#include "journal/journal_log.h"

#include <algorithm>
#include <utility>

#include "core/base/assert.h"

namespace cawfs {

JournalLog::JournalLog(JournalParts parts, JournalPlace place, JournalOptions options)
    : executor_(parts.executor),
      geometry_(parts.geometry),
      buffers_(parts.buffers),
      messages_(parts.messages),
      place_(std::move(place)),
      options_(std::move(options)),
      ring_(place_.extents),
      max_record_(std::min(ring_.blocks() / 4, format::kMaxRecordBlocks)),
      stop_io_(parts.executor),
      io_(parts.executor, parts.device, stop_io_),
      headers_(io_, geometry_, ring_, place_.node.slot),
      begins_(parts.executor),
      header_(parts.executor),
      room_(parts.executor),
      work_(parts.executor),
      running_began_(parts.executor),
      commit_ended_(parts.executor),
      progress_(parts.executor),
      checkpoint_(parts.executor),
      flushed_(parts.executor),
      tasks_(parts.executor) {}

JournalLog::~JournalLog() = default;

Task<Result<>> JournalLog::start() {
  const auto header = co_await headers_.read();
  if (!header) co_return fail(header.error());
  if (header->incarnation != Incarnation{})
    co_return fail(Errc::kBadValue, "journal is not empty", place_.node.slot.value);
  auto mine = *header;
  mine.incarnation = place_.node.incarnation;
  const auto written = co_await headers_.write_both(mine);
  if (!written) co_return written;

  durable_sequence_ = mine.tail_sequence - 1;
  space_.emplace(ring_, mine.tail, mine.tail_sequence);
  in_place_.emplace(io_, *space_, progress_);
  tasks_.spawn(run_commits());
  tasks_.spawn(run_periodic_commits());
  tasks_.spawn(run_checkpoints());
  co_return Result<>{};
}

Task<Result<>> JournalLog::stop() {
  auto result = co_await write_back_all();
  if (result) {
    CAWFS_ASSERT(!running_ || (running_->handles == 0 && running_->empty()));
    const auto guard = co_await header_.lock();
    const RingSpace::Place tail = space_->tail();
    stopping_ = true;
    result = co_await headers_.write_both(
        {.incarnation = Incarnation{}, .tail_sequence = tail.sequence, .tail = space_->ring_block(tail)});
  }
  stopping_ = true;
  stop_io_.request();
  room_.notify_all();
  work_.notify_all();
  running_began_.notify_all();
  commit_ended_.notify_all();
  progress_.notify_all();
  checkpoint_.notify_all();
  co_await tasks_.join();

  if (running_) {
    for (const auto& [block, buffer] : running_->changed) buffer->running = TxId{};
    running_.reset();
  }
  if (!in_place_) co_return result;
  // Of a lock that is being given up: where the log has failed, those tasks, which are not the log's, still run.
  while (in_place_->writing_any()) co_await progress_.wait();
  in_place_->abandon();
  co_return result;
}

void JournalLog::fail_with(Error error) {
  if (failed_) return;
  if (error == Errc::kReservationConflict) error.code = Errc::kFenced;
  failed_ = error;
  messages_.error("journal of slot {}: {} ({} {}); nothing more is written", place_.node.slot.value,
                  describe(error.code), error.where, error.address);
  stop_io_.request();
  room_.notify_all();
  work_.notify_all();
  running_began_.notify_all();
  commit_ended_.notify_all();
  progress_.notify_all();
  checkpoint_.notify_all();
  flushed_.notify_all();
  if (options_.on_failure) options_.on_failure(error);
}

Task<Result<TxHandle>> JournalLog::begin(std::uint32_t credits) {
  CAWFS_ASSERT(credits > 0);
  if (credits > max_credits()) co_return fail(Errc::kNoSpace, "journal: one transaction", credits);
  const auto turn = co_await begins_.lock();
  while (true) {
    if (failed_) co_return fail(*failed_);
    if (stopping_) co_return fail(Errc::kStopping, "journal");
    if (admit(credits)) break;
    co_await room_.wait();
  }
  if (!running_) {
    running_ = Running{};
    running_->id = next_id_;
    running_->began = executor_.now();
    next_id_ = TxId{next_id_.value + 1};
    running_began_.notify_all();
  }
  ++running_->handles;
  running_->open_credits += credits;
  co_return TxHandle(this, running_->id, credits);
}

bool JournalLog::admit(std::uint32_t credits) {
  std::uint64_t needed = credits;
  if (running_) {
    if (running_->closing) return false;
    needed += running_->open_credits + std::max(running_->changed.size(), running_->revokes.size());
    if (record_blocks(needed) > max_record_) {
      request_commit(running_->id);
      return false;
    }
  }
  if (record_blocks(needed) > space_->free()) {
    checkpoint_.notify_all();
    return false;
  }
  return true;
}

void JournalLog::change(TxId id, Buffer& buffer, LockTag tag) {
  CAWFS_ASSERT(running_ && running_->id == id && running_->handles > 0);
  CAWFS_ASSERT(in_place_->freed_by(buffer.block()) == TxId{});
  buffer.tag = tag;
  last_change_[tag.name] = id;
  if (buffer.running == id) return;
  buffer.running = id;
  const bool added = running_->changed.emplace(buffer.block(), &buffer).second;
  CAWFS_ASSERT(added);
}

void JournalLog::revoke(TxId id, BlockRange blocks) {
  CAWFS_ASSERT(running_ && running_->id == id && running_->handles > 0 && blocks.count > 0);
  running_->revokes.push_back(blocks);
  for (std::uint64_t i = 0; i < blocks.count; ++i) {
    const BlockNo block = blocks.start + i;
    CAWFS_ASSERT(in_place_->freed_by(block) == TxId{});
    in_place_->free(block, id);
    if (const auto it = running_->changed.find(block); it != running_->changed.end()) {
      it->second->running = TxId{};
      running_->changed.erase(it);
    }
    buffers_.forget(block);
  }
}

void JournalLog::on_commit(TxId id, std::function<void()> done) {
  CAWFS_ASSERT(running_ && running_->id == id && running_->handles > 0);
  running_->callbacks.push_back(std::move(done));
}

void JournalLog::end_handle(TxId id, std::uint32_t credits) {
  CAWFS_ASSERT(running_ && running_->id == id && running_->handles > 0);
  --running_->handles;
  running_->open_credits = running_->handles == 0 ? 0 : running_->open_credits - credits;
  if (running_->handles == 0) work_.notify_all();
  room_.notify_all();
}

TxId JournalLog::last() const {
  return running_ && !running_->empty() ? running_->id : sealed_;
}

void JournalLog::request_commit(TxId id) {
  if (id <= wanted_) return;
  wanted_ = id;
  work_.notify_all();
}

Task<Result<>> JournalLog::commit(TxId id) {
  CAWFS_ASSERT(id < next_id_);
  request_commit(id);
  while (committed_ < id) {
    if (failed_) co_return fail(*failed_);
    co_await commit_ended_.wait();
  }
  co_return Result<>{};
}

}  // namespace cawfs
