// Transactions as the file system sees them; journal/ implements this. A transaction gathers the changes of many
// operations (group commit); an operation takes part through a handle, and all its changes commit together or not at
// all.
//
// Ordered data: an operation that makes file data reachable first waits until the data has been written, then opens its
// handle; data written with Durability::kCached is announced with data_written(), and the next commit flushes before it
// commits.
//
// While a handle is open its owner waits for no lock, no other handle and no commit; reading a metadata block is
// allowed.
#pragma once

#include <cstdint>
#include <functional>
#include <utility>

#include "core/base/error.h"
#include "core/fs/buffer_cache.h"
#include "core/runtime/task.h"

namespace cawfs {

class TransactionLog;

// Ends when destroyed. Changes cannot be undone: check everything before the first change.
class TxHandle {
 public:
  TxHandle() = default;
  TxHandle(TransactionLog* log, TxId id, std::uint32_t credits) : log_(log), id_(id), credits_(credits) {}
  TxHandle(TxHandle&& other) noexcept { *this = std::move(other); }
  TxHandle& operator=(TxHandle&& other) noexcept {
    if (this != &other) {
      end();
      log_ = std::exchange(other.log_, nullptr);
      id_ = other.id_;
      credits_ = other.credits_;
    }
    return *this;
  }
  ~TxHandle() { end(); }

  TxId id() const { return id_; }
  std::uint32_t credits() const { return credits_; }
  // To be called before the buffer's first change in this transaction. `hold`: the EX hold of the lock that covers it.
  void change(Buffer& buffer, const LockHold& hold);
  // The metadata blocks are freed: replay skips every record of them up to this transaction. Their buffers are
  // forgotten.
  void revoke(BlockRange blocks);
  // Calls `done` once this transaction has committed (never, if the node dies or withdraws before). Freed blocks become
  // reusable here.
  void on_commit(std::function<void()> done);
  void end();

 private:
  TransactionLog* log_ = nullptr;
  TxId id_;
  std::uint32_t credits_ = 0;
};

class TransactionLog {
 public:
  virtual ~TransactionLog() = default;

  // Opens a handle that may change up to `credits` distinct buffers (and revoke as many blocks). Waits for room in the
  // journal. kReadOnly on a read-only mount, kFenced after withdrawal.
  virtual Task<Result<TxHandle>> begin(std::uint32_t credits) = 0;
  // The most credits one handle may ask for.
  virtual std::uint32_t max_credits() const = 0;

  // Returns when transaction `id` and all before it are durable.
  virtual Task<Result<>> commit(TxId id) = 0;
  // The running transaction, or the last one; what commit() needs to make everything done so far durable.
  virtual TxId last() const = 0;
  virtual bool committed(TxId id) const = 0;

  // Commits what was changed under the lock and writes it in place, durably. No handle that changes it is open.
  virtual Task<Result<>> write_back(LockName lock) = 0;
  // Commits everything and writes everything in place; the journal is empty afterwards.
  virtual Task<Result<>> write_back_all() = 0;

  // File data was written with Durability::kCached: the next commit flushes the device first.
  virtual void data_written() = 0;
  // Is data written since the last flush? fsync of data that needs no commit flushes itself.
  virtual Task<Result<>> flush_data() = 0;

 protected:
  friend class TxHandle;
  virtual void change(TxId id, Buffer& buffer, LockTag tag) = 0;
  virtual void revoke(TxId id, BlockRange blocks) = 0;
  virtual void on_commit(TxId id, std::function<void()> done) = 0;
  virtual void end(TxId id) = 0;
  // The handle's credits come back with it, so that a log need not keep them reserved until the whole transaction ends.
  virtual void end_handle(TxId id, std::uint32_t /*credits*/) { end(id); }
};

inline void TxHandle::change(Buffer& buffer, const LockHold& hold) {
  log_->change(id_, buffer, LockTag{hold.name(), hold.generation()});
}
inline void TxHandle::revoke(BlockRange blocks) {
  log_->revoke(id_, blocks);
}
inline void TxHandle::on_commit(std::function<void()> done) {
  log_->on_commit(id_, std::move(done));
}
inline void TxHandle::end() {
  if (log_) std::exchange(log_, nullptr)->end_handle(id_, credits_);
}

}  // namespace cawfs
