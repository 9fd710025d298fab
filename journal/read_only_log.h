// The transaction log of a read-only mount: there is nothing to commit, and no transaction can begin.
#pragma once

#include "core/fs/transaction.h"

namespace cawfs {

class ReadOnlyLog final : public TransactionLog {
 public:
  Task<Result<TxHandle>> begin(std::uint32_t credits) override;
  std::uint32_t max_credits() const override { return 1024; }
  Task<Result<>> commit(TxId id) override;
  TxId last() const override { return TxId{}; }
  bool committed(TxId /*id*/) const override { return true; }
  Task<Result<>> write_back(LockName lock) override;
  Task<Result<>> write_back_all() override;
  void data_written() override {}
  Task<Result<>> flush_data() override;

 private:
  void change(TxId id, Buffer& buffer, LockTag tag) override;
  void revoke(TxId id, BlockRange blocks) override;
  void on_commit(TxId id, std::function<void()> done) override;
  void end(TxId id) override;
};

}  // namespace cawfs
