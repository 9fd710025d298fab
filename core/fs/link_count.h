// Losing a name: the part that unlink, rmdir and rename over something have in common. The last name's loss puts the
// inode on this slot's orphan list in the same transaction, so that a crash cannot leak it.
#pragma once

#include <optional>

#include "core/fs/inode.h"
#include "core/fs/orphans.h"

namespace cawfs {

struct FsContext;
class LockSet;

class NameLoss {
 public:
  // Plans the loss of one name of `inode`, which `locks` hold EX. Empty: the orphan list's lock was not to be had, all
  // locks were let go and want it now too: start over. kBadValue: the inode has no link to lose.
  static Task<Result<std::optional<NameLoss>>> plan(FsContext& fs, LockSet& locks, Inode inode);

  bool last() const { return orphans_.has_value(); }
  // What it adds to the operation's.
  std::uint32_t new_blocks() { return orphans_ ? orphans_->needs().new_blocks : 0; }
  std::uint32_t credits() { return 1 + (orphans_ ? orphans_->needs().credits + 1 : 0); }
  void add_frees(std::vector<BlockRange>& frees);

  void apply(FsContext& fs, TxHandle& tx, const LockSet& locks, MetadataBlocks& blocks);
  // After the transaction has ended.
  void done(FsContext& fs);

 private:
  Inode inode_;
  std::optional<OrphanList> orphans_;
};

void add_frees(std::vector<BlockRange>& frees, const TreeNeeds& needs);

}  // namespace cawfs
