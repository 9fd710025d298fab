// What the kernel may have cached, and how it is made to drop it. docs/design.md, "FUSE and its caches".
//
// Notifications that the kernel may block on go out on helper threads, while requests are served: dropping pages waits
// for unanswered READs of them. That a name or an inode is unknown to the kernel is no error, but an inode of which an
// answer has just been sent may not be there *yet*: its notification is repeated until the kernel has it or has
// forgotten it.
//
// When invalidate_inode() of a whole file returns, the kernel has no page of it that was read before. A READ that comes
// while a notification is under way may fill a page that the kernel has passed already. So it waits at a gate until all
// have been dropped; where the notification does not end, as the kernel may be waiting for that READ, it is let through
// and what it read is dropped again. Only that: READs that came before a notification was sent hold their pages locked
// until it has dropped them.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "core/fs/filesystem.h"
#include "core/runtime/sync.h"
#include "mount/fuse_connection.h"

namespace cawfs {

class FuseKernelCache final : public KernelCache {
 public:
  FuseKernelCache(Executor& executor, FuseConnection& connection, Log& log, InodeNo root)
      : executor_(executor), connection_(connection), log_(log), root_(root), gate_(executor) {}

  // An answer with attributes or names, while it is put together: what has been dropped since must not be cached from
  // it. The kernel learns of its inodes with the answer, so nothing waits for it to know them before.
  class Answer {
   public:
    explicit Answer(FuseKernelCache& cache);
    Answer(const Answer&) = delete;
    ~Answer();
    bool stands(InodeNo inode) const { return !dropped_.contains(inode); }

   private:
    friend class FuseKernelCache;
    FuseKernelCache& cache_;
    std::unordered_set<InodeNo> dropped_;
  };

  // A change of a file's size, while the kernel waits for its answer: until then it writes back no page of the file,
  // and so drops none that a map has changed.
  class SizeChange {
   public:
    SizeChange(FuseKernelCache& cache, InodeNo inode) : cache_(cache), inode_(inode) {
      ++cache_.inodes_[inode_].size_changes;
    }
    SizeChange(const SizeChange&) = delete;
    ~SizeChange() {
      --cache_.inodes_.at(inode_).size_changes;
      cache_.drop_if_unknown(inode_);
    }

   private:
    FuseKernelCache& cache_;
    InodeNo inode_;
  };

  // A READ into the page cache, from before its data is read until it has been answered.
  class PageRead {
   public:
    PageRead(FuseKernelCache& cache, InodeNo inode) : cache_(&cache), inode_(inode) {}
    PageRead(PageRead&& other) noexcept : cache_(std::exchange(other.cache_, nullptr)), inode_(other.inode_) {}
    ~PageRead() {
      if (cache_) cache_->page_read_ended(inode_);
    }

   private:
    FuseKernelCache* cache_;
    InodeNo inode_;
  };

  // Called with true when a notification waits for a change of the inode's size, with false when it no longer does: see
  // LockService::press().
  void set_press(std::function<void(InodeNo, bool)> press) { press_ = std::move(press); }

  // Called when the dropping of a whole file begins.
  void set_drop_began(std::function<void()> drop_began) { drop_began_ = std::move(drop_began); }
  bool drops(InodeNo inode) const { return drops_.contains(inode); }

  Task<void> invalidate_inode(InodeNo inode, std::uint64_t offset, std::uint64_t length) override;
  Task<void> invalidate_entries(InodeNo directory) override;
  // Every page of every file. (Names and attributes lapse with the lease.)
  Task<void> invalidate_all();
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
  // A READ into the page cache has come; returns when its data may be read.
  Task<PageRead> begin_page_read(InodeNo inode, std::uint64_t offset, std::uint64_t length);
  // Can the kernel have pages of the file?
  bool may_have_pages(InodeNo inode) const;

 private:
  struct Known {
    std::uint64_t references = 0;
    std::uint32_t readable_opens = 0;
    std::uint32_t page_reads = 0;    // under way
    std::uint32_t size_changes = 0;  // under way
    bool pages = false;
    Time names_until;  // of a directory: when the last of its cached names lapses
  };
  struct Range {
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
  };
  // A file being dropped, in passes: each drops what was read during the one before.
  struct Drop {
    explicit Drop(Executor& executor) : sent_change(executor) {}
    // Which READs the gate lets through.
    enum class Gate : std::uint8_t {
      kClosed,
      kEarlier,  // those of this pass's ranges that came before it
      kOpen,
    };
    std::vector<Range> ranges;  // of this pass
    std::vector<Range> again;   // read meanwhile
    std::uint64_t pass = 0;
    Gate gate = Gate::kClosed;
    bool sent = false;
    bool pressed = false;
    Condition sent_change;
  };

  void drop_if_unknown(InodeNo inode);
  void page_read_ended(InodeNo inode);
  Task<void> drop_whole(InodeNo inode);
  Task<void> drop_pass(InodeNo inode, Drop& drop);
  void unblock(InodeNo inode, Drop& drop);
  Task<void> send_ranges(InodeNo inode, Drop& drop, bool may_wait);
  static bool admit(Drop& drop, Range read, std::uint64_t arrived);
  // Until the kernel has it or has forgotten it. `may_wait`: the kernel may have to wait for something. False, where
  // that was not to be: it is not dropped, as the kernel may have to wait by now.
  Task<bool> send_inode(InodeNo inode, Range range, bool may_wait);
  Task<int> send_once(InodeNo inode, Range range, bool may_wait);
  void dropping(InodeNo inode);
  bool may_wait(InodeNo inode) const;

  Executor& executor_;
  FuseConnection& connection_;
  Log& log_;
  InodeNo root_;
  std::function<void(InodeNo, bool)> press_;
  std::function<void()> drop_began_;
  std::unordered_map<InodeNo, Known> inodes_;
  std::unordered_map<InodeNo, Drop*> drops_;
  std::uint64_t passes_ = 0;  // of all drops
  Condition gate_;            // a gate lets more through, or a drop has ended
  std::vector<Answer*> answers_;
};

}  // namespace cawfs
