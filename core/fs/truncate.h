// A file's end: cutting blocks off in bounded transactions, and making ready to grow.
//
// A file that has been cut short may keep blocks beyond its end for a while (until the next steps, or for ever after a
// crash between two of them), and the last block may hold old bytes beyond the end. Neither is ever visible: reads end
// at the size, and before a file grows prepare_growth() frees the blocks and zeroes the bytes.
#pragma once

#include <cstdint>
#include <optional>

#include "core/fs/allocator.h"
#include "core/fs/inode.h"

namespace cawfs {

struct FsContext;
class LockSet;

struct CutStep {
  bool more = false;                 // there is more to be cut off
  std::optional<SpaceRequest> room;  // nothing was done: make_room() with this and start over
};

// Frees some of what is mapped at block `from` and after it, in one transaction, and where `size` is given sets the
// inode's size to it in the same one.
Task<Result<CutStep>> cut_step(FsContext& fs, Inode inode, const LockHold& hold, std::uint64_t from,
                               std::optional<std::uint64_t> size);

// Cuts all of it off. False: the locks were let go, start over.
Task<Result<bool>> cut_from(FsContext& fs, LockSet& locks, Inode inode, std::uint64_t from);

// To be called, with the inode's EX, before its size grows. False: the locks were let go, start over.
Task<Result<bool>> prepare_growth(FsContext& fs, LockSet& locks, Inode inode);

// Sets a file's size, in memory or on the disk. False: the locks were let go, start over.
Task<Result<bool>> set_size(FsContext& fs, LockSet& locks, Inode inode, std::uint64_t size);

}  // namespace cawfs
