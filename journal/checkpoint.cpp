// The in-place side of JournalLog: the background checkpoint, and what must be in place before a lock goes.
#include <utility>

#include "core/base/assert.h"
#include "journal/journal_log.h"

namespace cawfs {

namespace {

constexpr std::size_t kBatch = 256;  // blocks written in place at once

}  // namespace

Task<void> JournalLog::run_checkpoints() {
  while (!ended()) {
    if (space_->used() <= ring_.blocks() / 2) {
      co_await checkpoint_.wait();
      continue;
    }
    co_await reclaim(ring_.blocks() / 4);
    forget_settled_locks();
  }
}

// Until at most `target` ring blocks are in use.
Task<void> JournalLog::reclaim(std::uint32_t target) {
  while (!ended() && space_->used() > target) {
    if (space_->tail() != space_->durable_tail()) {
      const auto published = co_await publish_tail();
      if (!published) co_return;
      continue;
    }
    std::vector<BlockNo> writable;
    TxId freed_by;
    for (const BlockNo block : space_->held(target, kBatch)) {
      if (in_place_->writable(block)) writable.push_back(block);
      if (freed_by == TxId{}) freed_by = in_place_->freed_by(block);
    }
    if (!writable.empty()) {
      co_await write_in_place(std::move(writable));
      continue;
    }
    // What is in the way is in flight, or waits for the transaction that freed it.
    if (freed_by != TxId{}) request_commit(freed_by);
    co_await progress_.wait();
  }
}

Task<void> JournalLog::write_in_place(std::vector<BlockNo> blocks) {
  const LoggedWork work(messages_, "checkpoint");
  const auto written = co_await in_place_->write_in_place(std::move(blocks));
  if (!written) fail_with(written.error());
}

Task<Result<>> JournalLog::publish_tail() {
  const auto guard = co_await header_.lock();
  if (failed_) co_return fail(*failed_);
  if (stopping_) co_return fail(Errc::kStopping, "journal");
  const RingSpace::Place tail = space_->tail();
  if (tail == space_->durable_tail()) co_return Result<>{};
  const auto written = co_await headers_.write(
      {.incarnation = place_.node.incarnation, .tail_sequence = tail.sequence, .tail = space_->ring_block(tail)});
  if (!written) {
    fail_with(written.error());
    co_return fail(*failed_);
  }
  space_->set_durable_tail(tail);
  room_.notify_all();
  co_return Result<>{};
}

void JournalLog::forget_settled_locks() {
  std::erase_if(last_change_,
                [this](const auto& change) { return committed(change.second) && !in_place_->any_under(change.first); });
}

Task<Result<>> JournalLog::settle(std::vector<BlockNo> blocks) {
  std::vector<BlockNo> writable;
  TxId freed_by;
  for (const BlockNo block : blocks) {
    if (in_place_->writable(block)) writable.push_back(block);
    freed_by = std::max(freed_by, in_place_->freed_by(block));
  }
  if (!writable.empty()) {
    co_await write_in_place(std::move(writable));
  } else if (freed_by != TxId{}) {
    const auto done = co_await commit(freed_by);
    if (!done) co_return done;
  } else {
    co_await progress_.wait();
  }
  if (failed_) co_return fail(*failed_);
  co_return Result<>{};
}

Task<Result<>> JournalLog::write_back(LockName lock) {
  while (true) {
    if (failed_) co_return fail(*failed_);
    const auto change = last_change_.find(lock);
    if (change == last_change_.end()) co_return Result<>{};
    const TxId id = change->second;
    if (!committed(id)) {
      const auto done = co_await commit(id);
      if (!done) co_return done;
      continue;
    }
    if (!in_place_->any_under(lock)) {
      last_change_.erase(change);
      co_return Result<>{};
    }
    const auto done = co_await settle(in_place_->under(lock));
    if (!done) co_return done;
  }
}

Task<Result<>> JournalLog::write_back_all() {
  if (failed_) co_return fail(*failed_);
  if (!space_) co_return fail(Errc::kStopping, "journal was not started");
  const TxId id = last();
  const auto done = co_await commit(id);
  if (!done) co_return done;
  while (!in_place_->empty()) {
    const auto written = co_await settle(in_place_->all());
    if (!written) co_return written;
  }
  const auto published = co_await publish_tail();
  co_return published;
}

}  // namespace cawfs
