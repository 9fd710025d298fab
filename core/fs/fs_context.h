// What the operations of one file system share. Not for users of FileSystem.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <set>

#include "core/device/settled_io.h"
#include "core/fs/allocator.h"
#include "core/fs/buffer_cache.h"
#include "core/fs/filesystem.h"
#include "core/fs/inode_allocator.h"
#include "core/fs/inode_table.h"
#include "core/fs/lock_set.h"
#include "core/runtime/sync.h"
#include "core/runtime/task_group.h"

namespace cawfs {

struct FsContext {
  FsContext(FileSystemParts parts, FileSystemOptions given);
  FsContext(const FsContext&) = delete;

  Executor& executor;
  const Geometry& geometry;
  LockService& locks;
  BufferCache& buffers;
  TransactionLog& log;
  Random& random;
  Log& messages;
  const FileSystemOptions options;
  KernelCache* kernel = nullptr;

  StopSource stopping;  // of background work
  StopSource stop_io;
  SettledIo io;
  Allocator space;
  InodeAllocator numbers;
  InodeTable inodes;

  // Written data that is not on the device yet, over all inodes.
  std::uint64_t dirty_bytes = 0;
  bool write_back_failed = false;  // the last attempt; writers are not kept waiting for a device that is gone
  Condition dirty_less;            // it has become less
  Condition dirty_more;            // it has become more, or there is an inode more with something dirty

  // Work for the background (chores.h).
  enum class Chore : std::uint8_t { kEvict, kLookAfterClose, kAccessTime };
  std::deque<std::pair<Chore, InodeNo>> chores;
  std::deque<SlotNo> orphan_sweeps;
  std::uint64_t orphans_left = 0;  // slots in whose lists are inodes that other nodes had open
  std::set<InodeNo> look_again;    // after their close, as looking failed
  Condition chores_more;
  Condition sweeps_more;

  TaskGroup background;

  LockSet lock_set() { return LockSet(locks, geometry, executor, random); }
  std::int64_t wall_ns() const { return executor.clock().wall_ns(); }
  InodeNo orphan_inode() const { return geometry.orphan_inodes[locks.self().slot.value]; }
};

// Errors that an operation starts with: kReadOnly on a read-only mount.
Result<> check_writable(const FsContext& fs);
// kInvalid, kNameTooLong.
Result<> check_name(const std::string& name);

// Gets space ready for `request` with all of the operation's locks let go; where there is none, what has been promised
// to data not written yet is turned into blocks first, as promises are generous. Errors: as Allocator::prepare().
Task<Result<>> make_room(FsContext& fs, LockSet& locks, SpaceRequest request);

}  // namespace cawfs
