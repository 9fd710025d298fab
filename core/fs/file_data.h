// What reading and writing a file's data have in common: the dirty data's bookkeeping, the step from inline data to
// blocks, a block's contents wherever they are.
#pragma once

#include <cstdint>
#include <span>

#include "core/fs/file_map.h"
#include "core/fs/inode.h"

namespace cawfs {

struct FsContext;
class LockSet;

// To be alive while an inode's promises, dirty data, pending size or times are changed, which its EX hold allows: sees
// to the accounts when it ends.
class DirtyChange {
 public:
  DirtyChange(FsContext& fs, const Inode& inode, const LockHold& hold);
  DirtyChange(FsContext& fs, InodeState& state, Generation tenure);
  DirtyChange(const DirtyChange&) = delete;
  ~DirtyChange();

 private:
  FsContext& fs_;
  InodePin state_;
};

// Promises the space that writing [first, first + count) may come to need, beyond what is promised to the file already.
// False: the locks were let go, start over.
Task<Result<bool>> promise_space(FsContext& fs, LockSet& locks, Inode inode, std::uint64_t first, std::uint64_t count);

// If the file's data is inline and will not be with `size` bytes: makes it dirty data of block 0, to be written to
// blocks; the inode's block keeps it until then. False: the locks were let go, start over.
Task<Result<bool>> move_inline_data(FsContext& fs, LockSet& locks, Inode inode, std::uint64_t size);

// Is all of the file's data in the inode's block?
bool data_is_inline(const Inode& inode);

// Reads the block as it is on the device (zeros in a hole or beyond the end).
Task<Result<>> load_block(FsContext& fs, Inode inode, std::uint64_t block, std::span<std::byte> out);

}  // namespace cawfs
