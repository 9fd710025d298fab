// The transaction log of one node, over its slot's journal.
//
// One transaction runs at a time and gathers the changes of all handles. A commit waits until its open handles have
// ended, takes a snapshot of the changed blocks in one step, and writes it as one record with FUA while the next
// transaction already runs; a few commits may be on their way to the device at once, and they end in order. After it,
// the blocks are written in place in the background (checkpoint), when half of the ring is used, or when their lock is
// given up.
//
// Guarantees:
// - commit() has returned: the transaction and all before it survive any crash, and file data announced before it.
// - After a crash replay finds each transaction whole or not at all, and none without all before it.
// - A block is written in place only as it committed, never while or after a transaction frees it; a transaction that
//   frees it commits only when no write of it is in flight.
// - begin() waits for room and never deadlocks: neither commit nor checkpoint waits for a begin(), and a transaction's
//   record always fits in what is free.
//
// Errors. A write of unknown outcome is issued again until the device answers. Any final error of the device, a
// reservation conflict above all, ends the log: every call returns it (a conflict as kFenced), nothing more is written,
// on_failure is told once.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/device/settled_io.h"
#include "core/fs/buffer_cache.h"
#include "core/fs/transaction.h"
#include "core/runtime/sync.h"
#include "core/runtime/task_group.h"
#include "journal/committed_blocks.h"
#include "journal/headers.h"
#include "journal/record.h"
#include "journal/ring.h"
#include "journal/ring_space.h"

namespace cawfs {

// All outlive the log.
struct JournalParts {
  Executor& executor;
  BlockDevice& device;
  const Geometry& geometry;
  BufferCache& buffers;
  Log& messages;
};

struct JournalOptions {
  // A transaction commits this long after it began, at the latest.
  Duration commit_interval = std::chrono::seconds(5);
  // Called once, when the log ends with an error; must not wait.
  std::function<void(Error)> on_failure;
};

class JournalLog final : public TransactionLog {
 public:
  // `place.extents` have been checked (format::journal_extents).
  JournalLog(JournalParts parts, JournalPlace place, JournalOptions options);
  // After stop(), or after its executor was killed.
  ~JournalLog() override;

  // Makes the journal this incarnation's. kBadValue if it is not empty: a dead node's journal is replayed first.
  Task<Result<>> start();
  // Writes everything back, leaves the journal empty and nobody's, ends background work. After withdraw() it writes
  // nothing, and what was not in place is lost. Nothing else may be called afterwards.
  Task<Result<>> stop();
  // The node is out: every call fails with `reason` from now on, nothing more is written. Writes in flight end.
  void withdraw(Error reason) { fail_with(reason); }

  Task<Result<TxHandle>> begin(std::uint32_t credits) override;
  std::uint32_t max_credits() const override { return credits_in(max_record_); }
  Task<Result<>> commit(TxId id) override;
  TxId last() const override;
  bool committed(TxId id) const override { return id <= committed_; }
  Task<Result<>> write_back(LockName lock) override;
  Task<Result<>> write_back_all() override;
  void data_written() override { ++data_written_; }
  Task<Result<>> flush_data() override { return flush_to(data_written_); }

  // For `cawfs status`, in blocks.
  std::uint32_t ring_blocks() const { return ring_.blocks(); }
  std::uint32_t ring_blocks_used() const { return space_ ? space_->used() : 0; }

 private:
  // The running transaction.
  struct Running {
    TxId id;
    Time began;
    std::uint32_t handles = 0;
    std::uint64_t open_credits = 0;  // of open handles
    std::map<BlockNo, BufferRef> changed;
    std::vector<BlockRange> revokes;
    std::vector<std::function<void()>> callbacks;
    bool closing = false;  // waits for its handles; no new ones

    bool empty() const { return changed.empty() && revokes.empty() && callbacks.empty(); }
  };
  // A transaction on its way to the device.
  struct Sealed {
    TxId id;
    std::uint64_t data_written = 0;  // data to be flushed before it
    std::vector<BlockImage> images;
    std::vector<BlockRange> revokes;
    std::vector<std::function<void()>> callbacks;
    std::uint64_t sequence = 0;
    std::uint32_t ring_block = 0;
    IoBuffer record;  // empty: nothing to be written
  };

  void change(TxId id, Buffer& buffer, LockTag tag) override;
  void revoke(TxId id, BlockRange blocks) override;
  void on_commit(TxId id, std::function<void()> done) override;
  void end(TxId id) override { end_handle(id, 0); }
  void end_handle(TxId id, std::uint32_t credits) override;

  // May a handle with `credits` join the running transaction now? Sees to it that it may later, if not.
  bool admit(std::uint32_t credits);
  void request_commit(TxId id);
  void fail_with(Error error);
  bool ended() const { return failed_ || stopping_; }

  // commit.cpp
  Task<void> run_commits();
  Task<void> run_periodic_commits();
  std::unique_ptr<Sealed> seal();
  void make_sealed_record(Sealed& sealed);
  Task<void> commit_sealed(std::unique_ptr<Sealed> sealed);
  Task<Result<>> write_sealed(Sealed& sealed);
  Task<void> write_piece(BlockNo start, std::span<const std::byte> bytes, Result<>& result);
  void finish(Sealed& sealed);
  Task<Result<>> flush_to(std::uint64_t data_written);

  // checkpoint.cpp
  Task<void> run_checkpoints();
  Task<void> reclaim(std::uint32_t target);
  // Gets on with `blocks`: writes in place those that can be, else waits for what is in the way. The caller looks
  // again.
  Task<Result<>> settle(std::vector<BlockNo> blocks);
  Task<void> write_in_place(std::vector<BlockNo> blocks);
  // Makes the present tail durable, if it has moved.
  Task<Result<>> publish_tail();
  void forget_settled_locks();

  Executor& executor_;
  const Geometry& geometry_;
  BufferCache& buffers_;
  Log& messages_;
  JournalPlace place_;
  JournalOptions options_;
  JournalRing ring_;
  std::uint32_t max_record_;  // ring blocks

  StopSource stop_io_;  // ends the repetition of I/O, and background sleeps
  SettledIo io_;
  JournalHeaders headers_;
  std::optional<RingSpace> space_;           // from start() on
  std::optional<CommittedBlocks> in_place_;  // from start() on

  std::optional<Running> running_;
  TxId next_id_{1};
  TxId sealed_;     // the last that was sealed
  TxId committed_;  // the last that committed
  TxId wanted_;     // to be committed as soon as possible
  std::uint32_t commits_in_flight_ = 0;
  std::uint64_t durable_sequence_ = 0;  // of the last record that committed
  // The last transaction that changed something under a lock; until it has committed and nothing is out of place.
  std::map<LockName, TxId> last_change_;

  std::uint64_t data_written_ = 0;  // counts data_written()
  std::uint64_t data_flushed_ = 0;  // what the last flush covers
  bool flushing_ = false;

  std::optional<Error> failed_;
  bool stopping_ = false;

  Mutex begins_;    // first come, first served
  Mutex header_;    // held while the header is written
  Condition room_;  // a handle may perhaps be admitted; the running transaction was sealed
  Condition work_;  // commits: wanted_, handles, commits_in_flight_ changed
  Condition running_began_;
  Condition commit_ended_;
  Condition progress_;    // a commit or a write in place has ended
  Condition checkpoint_;  // the checkpoint has work
  Condition flushed_;
  TaskGroup tasks_;
};

}  // namespace cawfs
