// The file system's operations, as mount/ calls them. Each takes the locks it needs, is atomic towards every node, and
// has the errors of POSIX.1-2017 for the system call it serves (permissions are the kernel's, which mounts with
// default_permissions). Names are 1..255 bytes without '/' and NUL; "." and ".." are not looked up here.
//
// Durability: nothing before sync(), sync_all() or unmount, but in order of transactions.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/random.h"
#include "core/base/types.h"
#include "core/device/device.h"
#include "core/format/cluster_format.h"
#include "core/format/geometry.h"
#include "core/fs/lock_service.h"
#include "core/fs/transaction.h"
#include "core/fs/write_errors.h"
#include "core/runtime/executor.h"
#include "core/runtime/task.h"

namespace cawfs {

struct Attributes {
  InodeNo inode;
  std::uint64_t generation = 0;
  std::uint32_t mode = 0;  // as st_mode
  std::uint32_t nlink = 0;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint32_t rdev = 0;  // major << 20 | minor
  std::uint64_t size = 0;
  std::uint64_t blocks_512 = 0;
  std::int64_t atime_ns = 0;
  std::int64_t mtime_ns = 0;
  std::int64_t ctime_ns = 0;
  std::int64_t btime_ns = 0;
  // Until when the kernel may cache this (or the entry it came with); zero: not at all.
  Time valid_until;
};

// What setattr changes; `now` in a time means the node's wall clock.
struct AttributeChange {
  std::optional<std::uint32_t> mode;  // permission bits only
  std::optional<std::uint32_t> uid;
  std::optional<std::uint32_t> gid;
  std::optional<std::uint64_t> size;
  std::optional<std::int64_t> atime_ns;
  std::optional<std::int64_t> mtime_ns;
  bool atime_now = false;
  bool mtime_now = false;
  bool kill_suid_sgid = false;  // with size or owner changed by a caller without CAP_FSETID
  // With the size: the kernel writes back no page of the file until the answer, so rather kAgain than wait for another
  // node whose kernel waits, too (see LockService::press()).
  bool refuse_when_pressed = false;
};

struct NewInode {
  std::uint32_t mode = 0;  // type and permission bits
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;  // a setgid directory's own gid wins, by its rules
  std::uint32_t rdev = 0;
};

// Of a write.
struct Written {
  std::uint64_t offset = 0;
  std::uint64_t count = 0;
};

struct DirectoryEntry {
  std::string name;
  InodeNo inode;
  std::uint32_t type = 0;    // S_IFMT bits
  std::uint64_t cookie = 0;  // pass it to readdir to go on after this entry
};

struct SpaceInfo {
  std::uint64_t blocks = 0;  // of 4096 bytes
  std::uint64_t free_blocks = 0;
  std::uint64_t inodes = 0;  // free ones and those that free blocks could become, and those in use
  std::uint64_t free_inodes = 0;
};

enum class RenameMode : std::uint8_t { kReplace, kNoReplace, kExchange };

// The kernel's caches, implemented by mount/. Each may wait for the kernel; none for a lock.
class KernelCache {
 public:
  virtual ~KernelCache() = default;
  // Attributes, and data pages from `offset` on (`length` 0: to the end); for a directory also its cached listing.
  virtual Task<void> invalidate_inode(InodeNo inode, std::uint64_t offset, std::uint64_t length) = 0;
  // Every name cached under the directory.
  virtual Task<void> invalidate_entries(InodeNo directory) = 0;
};

struct FileSystemOptions {
  bool read_only = false;
  std::uint64_t metadata_cache_bytes = 64 << 20;
  std::uint64_t dirty_data_bytes = 64 << 20;  // writers wait beyond it
  bool discard = false;                       // tell the device of freed blocks (UNMAP)
};

// What the file system is built on; all outlive it.
struct FileSystemParts {
  Executor& executor;
  BlockDevice& device;
  const Geometry& geometry;
  LockService& locks;
  BufferCache& buffers;
  TransactionLog& log;
  Random& random;
  Log& messages;
};

class FileSystem {
 public:
  FileSystem(FileSystemParts parts, FileSystemOptions options);
  ~FileSystem();

  // Between construction and the first operation; becomes the lock service's client. Takes SUPER shared.
  Task<Result<>> start();
  // Writes everything back, ends background work, lets all locks' contents go. No operation runs or comes any more.
  Task<Result<>> stop();
  void set_kernel_cache(KernelCache* cache);
  // News of a slot. If its node has ended (it was recovered, or has left), what it had unlinked while it was open is
  // freed in the background, and what others had unlinked while it had that open.
  void slot_changed(SlotNo slot, format::SlotState from, format::SlotState to);

  InodeNo root() const;

  // An operation may end, or its answer be sent, after the self-lease has lapsed: others may then have changed what it
  // found. Before it is shown to anybody: does the lease stand still (wait_for_lease() waits for it to return)?
  // kFenced.
  Time lease_end() const;
  Task<Result<>> wait_for_lease();

  // The kernel does not let go of the inode's pages before a setattr() of its size that waits is done: see
  // LockService::press(). Operations that ask for it, and write_within(), may be refused then, with kAgain.
  void press(InodeNo inode);
  void unpress(InodeNo inode);

  Task<Result<Attributes>> lookup(InodeNo directory, std::string name);
  // Balance: each successful lookup, create, mkdir, mknod, symlink, link and readdir_plus entry is remembered as one
  // reference of the kernel's, which forget() takes back.
  void forget(InodeNo inode, std::uint64_t references);
  Task<Result<Attributes>> getattr(InodeNo inode);
  Task<Result<Attributes>> setattr(InodeNo inode, AttributeChange change);

  // kExists if the name is there; with `exclusive` false an existing file's attributes are returned instead, unchanged.
  Task<Result<Attributes>> create(InodeNo directory, std::string name, NewInode inode, bool exclusive);
  Task<Result<Attributes>> mkdir(InodeNo directory, std::string name, NewInode inode);
  Task<Result<Attributes>> mknod(InodeNo directory, std::string name, NewInode inode);
  Task<Result<Attributes>> symlink(InodeNo directory, std::string name, std::string target, NewInode inode);
  Task<Result<std::string>> readlink(InodeNo inode);
  Task<Result<Attributes>> link(InodeNo inode, InodeNo directory, std::string name);
  Task<Result<>> unlink(InodeNo directory, std::string name);
  Task<Result<>> rmdir(InodeNo directory, std::string name);
  Task<Result<>> rename(InodeNo from, std::string from_name, InodeNo to, std::string to_name, RenameMode mode);

  // Up to `limit` entries after `cookie` (0: from the first), without "." and "..". An entry that stays for the whole
  // scan is returned once, whatever else happens to the directory.
  Task<Result<std::vector<DirectoryEntry>>> readdir(InodeNo directory, std::uint64_t cookie, std::size_t limit);
  Task<Result<InodeNo>> parent(InodeNo directory);

  // An open inode stays readable and writable after its last link has gone, on any node.
  Task<Result<>> open(InodeNo inode);
  Task<void> close(InodeNo inode);

  // Reads up to out.size() bytes at `offset`; short at the end of the file.
  Task<Result<std::size_t>> read(InodeNo inode, std::uint64_t offset, std::span<std::byte> out, bool direct);
  // Writes `data`, or the front of it that there is space for; kNoSpace where there is none. `append`: at the end of
  // the file as it is then, whatever `offset` says. `direct`: the data is on the device, though maybe in its cache,
  // when this returns. Clears suid and sgid bits if `kill_suid_sgid`.
  Task<Result<Written>> write(InodeNo inode, std::uint64_t offset, std::span<const std::byte> data, bool append,
                              bool direct, bool kill_suid_sgid);
  // What a map has written: of `data` that which lies within the file as it is then. Maps do not make a file longer,
  // nor give it back what a truncate has cut off.
  Task<Result<>> write_within(InodeNo inode, std::uint64_t offset, std::span<const std::byte> data);
  // Everything of the inode that has been acknowledged is durable when this returns; with `data_only` all that is
  // needed to read the data back. Reports a write-back error once to each open, which keeps `told` (from
  // write_errors(), right after open()); without one, if nobody has been told yet.
  Task<Result<>> sync(InodeNo inode, bool data_only, WriteErrorMark& told);
  Task<Result<>> sync(InodeNo inode, bool data_only);
  Task<Result<>> sync_all();
  WriteErrorMark write_errors(InodeNo inode);
  // What a map had written could not be: as if write-back had failed.
  void note_lost(InodeNo inode, const Error& error);
  // Files of which acknowledged data was lost and nobody told. After stop(): nobody will be.
  std::uint64_t untold_losses();

  Task<Result<SpaceInfo>> space();
  // Bytes that have been acknowledged and are not on the device yet.
  std::uint64_t dirty_bytes() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace cawfs
