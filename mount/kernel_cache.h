// What the kernel may have cached, and how it is made to drop it. docs/design.md, "FUSE and its caches".
//
// Notifications that the kernel may block on go out on helper threads, while requests are served: dropping pages waits
// for unanswered READs of them. That a name or an inode is unknown to the kernel is no error, but an inode of which an
// answer has just been sent may not be there *yet*: its notification is repeated until the kernel has it or has
// forgotten it.
#pragma once

#include <chrono>
#include <cstdint>
#include <unordered_map>

#include "core/fs/filesystem.h"
#include "mount/fuse_connection.h"

namespace cawfs {

class FuseKernelCache final : public KernelCache {
 public:
  FuseKernelCache(Executor& executor, FuseConnection& connection, Log& log, InodeNo root)
      : executor_(executor), connection_(connection), log_(log), root_(root) {}

  Task<void> invalidate_inode(InodeNo inode, std::uint64_t offset, std::uint64_t length) override;
  Task<void> invalidate_entries(InodeNo directory) override;
  // Attributes only; for a file whose size the kernel has wrong.
  void forget_attributes(InodeNo inode);

  // For the dispatcher. FUSE's numbers of inodes are ours, but for the root's.
  std::uint64_t node_id(InodeNo inode) const { return inode == root_ ? FUSE_ROOT_ID : inode.value; }
  InodeNo inode(std::uint64_t node_id) const { return node_id == FUSE_ROOT_ID ? root_ : InodeNo{node_id}; }

  // The kernel is about to be given a reference to the inode, and gives `count` back.
  void referenced(InodeNo inode) { ++inodes_[inode].references; }
  void forgotten(InodeNo inode, std::uint64_t count);
  // A name under the directory is about to be given to the kernel, for it to trust until `until`.
  void name_given(InodeNo directory, Time until);
  // A file is opened or closed that may be read or mapped.
  void opened_readable(InodeNo inode) { ++inodes_[inode].readable_opens; }
  void closed_readable(InodeNo inode);
  // A READ into the page cache has come.
  void reading_pages(InodeNo inode) { inodes_[inode].pages = true; }
  // Can the kernel have pages of the file?
  bool may_have_pages(InodeNo inode) const;

 private:
  struct Known {
    std::uint64_t references = 0;
    std::uint32_t readable_opens = 0;
    bool pages = false;
    Time names_until;  // of a directory: when the last of its cached names lapses
  };

  void drop_if_unknown(InodeNo inode);
  // `may_wait`: the kernel may have to wait for something.
  Task<int> send_inode(InodeNo inode, std::int64_t offset, std::int64_t length, bool may_wait);

  Executor& executor_;
  FuseConnection& connection_;
  Log& log_;
  InodeNo root_;
  std::unordered_map<InodeNo, Known> inodes_;
};

}  // namespace cawfs
