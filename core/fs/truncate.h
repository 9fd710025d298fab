// A file's end: cutting blocks off in bounded transactions, and making ready to grow.
//
// The new size and the first blocks cut off share a transaction, which is all there is to most files. One in more
// extents keeps the rest beyond its end until the next steps, marked kInodeCutting in its inode; after a crash between
// two of them it does so until it is cut, grows or is deleted. The last block may hold old bytes beyond the end.
// Neither is ever visible: reads end at the size, and before a file grows prepare_growth() frees the blocks and zeroes
// the bytes.
#pragma once

#include <cstdint>

#include "core/fs/inode.h"

namespace cawfs {

struct FsContext;
class LockSet;

// Frees all that is mapped at block `from` and after it. False: the locks were let go, start over.
Task<Result<bool>> cut_from(FsContext& fs, LockSet& locks, Inode inode, std::uint64_t from);

// To be called, with the inode's EX, before its size grows. False: the locks were let go, start over.
Task<Result<bool>> prepare_growth(FsContext& fs, LockSet& locks, Inode inode);

// Sets a file's size, in memory or on the disk. False: the locks were let go, start over.
Task<Result<bool>> set_size(FsContext& fs, LockSet& locks, Inode inode, std::uint64_t size);

}  // namespace cawfs
