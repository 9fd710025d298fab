#include "journal/read_only_log.h"

#include "core/base/assert.h"

namespace cawfs {

Task<Result<TxHandle>> ReadOnlyLog::begin(std::uint32_t /*credits*/) {
  co_return fail(Errc::kReadOnly);
}
Task<Result<>> ReadOnlyLog::commit(TxId /*id*/) {
  co_return Result<>{};
}
Task<Result<>> ReadOnlyLog::write_back(LockName /*lock*/) {
  co_return Result<>{};
}
Task<Result<>> ReadOnlyLog::write_back_all() {
  co_return Result<>{};
}
Task<Result<>> ReadOnlyLog::flush_data() {
  co_return Result<>{};
}

// No handle exists.
void ReadOnlyLog::change(TxId /*id*/, Buffer& /*buffer*/, LockTag /*tag*/) {
  CAWFS_ASSERT(false);
}
void ReadOnlyLog::revoke(TxId /*id*/, BlockRange /*blocks*/) {
  CAWFS_ASSERT(false);
}
void ReadOnlyLog::on_commit(TxId /*id*/, std::function<void()> /*done*/) {
  CAWFS_ASSERT(false);
}
void ReadOnlyLog::end(TxId /*id*/) {
  CAWFS_ASSERT(false);
}

}  // namespace cawfs
