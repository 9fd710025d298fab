// What the file system does in the background beside writing back: frees inodes whose last link and last user have
// gone, clears this node's openers bit after a last close, updates access times that are due.
#pragma once

#include "core/fs/inode.h"

namespace cawfs {

struct FsContext;

// The inode has been read: its access time is updated some time later, if that is due (relatime: it is older than the
// last change, or than a day), to when it was read. Delays nobody.
void note_access(FsContext& fs, const Inode& inode);
// Something of the inode's users here has gone: if that was the last, and its last link has gone too (or may have, on
// another node), it is looked after.
void note_released(FsContext& fs, InodeState& state);

// Frees the inode if it has no link and nobody, here or elsewhere, has it open. Else does nothing.
Task<Result<>> evict_inode(FsContext& fs, InodeNo number);
// Frees what it can of a slot's orphans.
Task<Result<>> sweep_orphans(FsContext& fs, SlotNo slot);

// Until stopping is requested and no work is left.
Task<void> run_chores(FsContext& fs);
// Looks at this slot's orphans again from time to time: those that another node had open.
Task<void> run_sweeps(FsContext& fs);

}  // namespace cawfs
