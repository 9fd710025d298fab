// Brings files' dirty data to the device. Each step takes some megabytes of one file, finds blocks for what has none,
// writes the data, and only then opens the transaction that makes it part of the file (ordered data): so no crash ever
// shows what stood in the blocks before.
//
// Data that cannot be placed (a medium error, a thin pool used up, no space although promised) is dropped; the file's
// next sync() reports it. Other errors leave the data dirty, as does metadata of the file that cannot be read, until
// its lock has to go.
#pragma once

#include <optional>

#include "core/fs/allocator.h"
#include "core/fs/inode.h"

namespace cawfs {

struct FsContext;

// Errors after which data will not find its place.
bool is_loss(Errc code);

// One step for one file, whose lock `hold` holds EX, local use exclusive. Returns what space has to be got ready first,
// if it could do nothing for want of it.
Task<Result<std::optional<SpaceRequest>>> write_back_step(FsContext& fs, Inode inode, const LockHold& hold);

// Everything that is dirty of the inode, with its locks taken for each step.
Task<Result<>> write_back_inode(FsContext& fs, InodeNo number);
// Everything dirty of all inodes that is dirty now; the first error, after having tried all.
Task<Result<>> write_back_all(FsContext& fs);
// The same for an inode whose lock is being given up: nobody uses it, and no lock is waited for. What finds no place is
// lost; errors are those of the log and of a device that cannot be reached.
Task<Result<>> write_back_unused(FsContext& fs, InodeNo number);

// Waits, holding nothing, until there is room for `bytes` more of dirty data.
Task<Result<>> wait_for_dirty_room(FsContext& fs, std::uint64_t bytes);

// Writes back what has been dirty for some seconds, and more when there is much of it, until stopping is requested.
Task<void> run_write_back(FsContext& fs);

}  // namespace cawfs
