// What the node remembers of an inode beside its block, which lies in the buffer cache: who uses it here, and the data
// written to it that is not on the device yet. An inode with none of these is not in the table.
#pragma once

#include <boost/intrusive/list.hpp>
#include <boost/intrusive_ptr.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "core/base/types.h"
#include "core/fs/dirty_data.h"
#include "core/fs/write_errors.h"
#include "core/runtime/executor.h"

namespace cawfs {

class InodeTable;

struct InodeState : boost::intrusive::list_base_hook<boost::intrusive::link_mode<boost::intrusive::auto_unlink>> {
  InodeState(InodeTable* t, InodeNo n) : table(t), number(n) {}

  InodeTable* const table;
  const InodeNo number;

  std::uint64_t references = 0;  // the kernel's
  std::uint32_t opens = 0;
  // The generation of the inode that the references are about; another one on the disk means that the number has been
  // reused since. 0: not known yet.
  std::uint64_t generation = 0;
  bool unlinked = false;  // its last link has gone, as far as this node has seen
  // The lock was let go while the inode was open: its last link may have gone elsewhere.
  bool lost_while_open = false;
  bool eviction_queued = false;
  std::optional<std::int64_t> read_ns;  // when it was read last, where its access time is to be set to that

  // All of these only while the lock is held EX.
  DirtyData data;
  std::uint64_t accounted_bytes = 0;        // of data, in the sum over all inodes
  std::uint64_t promised_blocks = 0;        // of the allocator, for what of `data` has no block yet
  std::optional<std::uint64_t> size;        // the file's, where it is ahead of the inode's block
  std::optional<std::int64_t> modified_ns;  // mtime and ctime, where they are ahead
  Time dirty_since;
  Generation tenure;  // of the lock

  WriteErrors write_errors;

  bool dirty() const { return !data.empty() || size || modified_ns; }

 private:
  friend class InodeTable;
  friend void intrusive_ptr_add_ref(InodeState* state) { ++state->pins_; }
  friend void intrusive_ptr_release(InodeState* state);
  std::uint32_t pins_ = 0;
};

// Keeps the state in the table.
using InodePin = boost::intrusive_ptr<InodeState>;

class InodeTable {
 public:
  // The inodes with something dirty, the longest dirty first.
  using DirtyList = boost::intrusive::list<InodeState, boost::intrusive::constant_time_size<false>>;

  InodePin get(InodeNo inode);
  // Null if nothing is known of it.
  InodePin find(InodeNo inode);

  void mark_dirty(InodeState& state, Time now);
  // To be called when something of it has become clean.
  void mark_clean(InodeState& state);
  DirtyList& dirty() { return dirty_; }
  std::vector<InodePin> all();
  std::size_t size() const { return states_.size(); }

 private:
  friend void intrusive_ptr_release(InodeState* state);
  void drop_if_idle(InodeState& state);

  std::unordered_map<InodeNo, std::unique_ptr<InodeState>> states_;
  DirtyList dirty_;
};

}  // namespace cawfs
