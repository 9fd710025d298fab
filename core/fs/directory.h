// A directory's entries: a B+tree keyed by (47 bits of the name's SipHash) << 16 | disambiguator. The key is the
// readdir cookie, stable however the tree grows. Names whose hashes collide have one key after the other.
//
// A Directory is one operation's view and plans like a BTree (core/fs/btree.h); the directory's lock is held.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/fs/btree.h"
#include "core/fs/filesystem.h"
#include "core/fs/inode.h"

namespace cawfs {

class Directory {
 public:
  struct Entry {
    std::uint64_t key = 0;
    InodeNo inode;
    std::uint32_t type = 0;  // as in st_mode
  };

  Directory(FsContext& fs, Inode inode);

  Task<Result<std::optional<Entry>>> find(std::string name);
  // Up to `limit` entries after `cookie`.
  Task<Result<std::vector<DirectoryEntry>>> list(std::uint64_t cookie, std::size_t limit);

  // Plans; kBadValue where the directory's count of its entries is wrong. kNoSpace if too many names have one hash. The
  // caller has seen that the name is not there.
  Task<Result<>> add(std::string name, InodeNo inode, std::uint32_t type);
  Task<Result<>> remove(Entry entry);
  // The entry of this name leads to another inode.
  Task<Result<>> redirect(Entry entry, std::string name, InodeNo inode, std::uint32_t type);

  const TreeNeeds& needs() { return tree_.needs(); }
  // Of the plan, the inode's own block included.
  std::uint32_t credits() { return tree_.needs().credits + 1; }
  // Puts the plan in place with the inode's counts, mtime and ctime.
  void apply(TxHandle& tx, const LockHold& hold, MetadataBlocks& blocks);

  const Inode& inode() const { return inode_; }

 private:
  std::uint64_t first_key(const std::string& name) const;
  // The count that the plan comes to so far.
  std::uint64_t counted() const { return inode_.disk_size() + static_cast<std::uint64_t>(entries_); }

  FsContext& fs_;
  Inode inode_;
  BTree tree_;
  std::int64_t entries_ = 0;  // by how many the plan changes them
};

}  // namespace cawfs
