// What the file system does when a lock is asked for by another node (LockClient).
#pragma once

#include "core/fs/lock_service.h"

namespace cawfs {

struct FsContext;

class FsLockClient final : public LockClient {
 public:
  explicit FsLockClient(FsContext& fs) : fs_(fs) {}

  Task<void> invalidate(LockName name, LockMode from, LockMode to) override;
  Task<Result<>> settle(LockName name, LockMode from, LockMode to) override;
  bool is_open(LockName name) override;

 private:
  Task<void> invalidate_inode(InodeNo inode, LockMode from, LockMode to);
  Task<void> convert_promises(GroupNo group);
  Task<Result<>> settle_inode(InodeNo inode, LockMode from, LockMode to);

  FsContext& fs_;
};

}  // namespace cawfs
