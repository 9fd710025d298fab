// An inode's block, and its state in memory, in the hands of an operation that holds its lock.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>

#include "core/base/error.h"
#include "core/format/disk_format.h"
#include "core/fs/buffer_cache.h"
#include "core/fs/filesystem.h"
#include "core/fs/inode_table.h"

namespace cawfs {

struct FsContext;

// File types and mode bits, as st_mode has them everywhere.
inline constexpr std::uint32_t kTypeMask = 0170000;
inline constexpr std::uint32_t kTypeFile = 0100000;
inline constexpr std::uint32_t kTypeDirectory = 0040000;
inline constexpr std::uint32_t kTypeSymlink = 0120000;
inline constexpr std::uint32_t kTypeCharDevice = 0020000;
inline constexpr std::uint32_t kTypeBlockDevice = 0060000;
inline constexpr std::uint32_t kTypePipe = 0010000;
inline constexpr std::uint32_t kTypeSocket = 0140000;
inline constexpr std::uint32_t kPermissionBits = 07777;
inline constexpr std::uint32_t kSetUid = 04000;
inline constexpr std::uint32_t kSetGid = 02000;
inline constexpr std::uint32_t kGroupExecute = 00010;

inline constexpr std::uint64_t kFileSizeMax = INT64_MAX;
inline constexpr std::uint32_t kLinkMax = 0x7fffffff;
inline constexpr std::size_t kSymlinkMax = 4095;

class Inode {
 public:
  Inode() = default;
  Inode(BufferRef buffer, InodePin state) : buffer_(std::move(buffer)), state_(std::move(state)) {}

  explicit operator bool() const { return buffer_ != nullptr; }
  InodeNo number() const { return state_->number; }
  LockName lock() const { return lock_of(number()); }
  Buffer& buffer() const { return *buffer_; }
  const BufferRef& buffer_ref() const { return buffer_; }
  InodeState& state() const { return *state_; }
  // For changes: after TxHandle::change() of the buffer.
  format::Inode& raw() const { return buffer_->as<format::Inode>(); }

  std::uint32_t mode() const { return raw().mode.value(); }
  std::uint32_t type() const { return mode() & kTypeMask; }
  bool directory() const { return type() == kTypeDirectory; }
  bool regular() const { return type() == kTypeFile; }
  bool symlink() const { return type() == kTypeSymlink; }
  std::uint32_t nlink() const { return raw().nlink.value(); }
  std::uint32_t flags() const { return raw().flags.value(); }
  format::InodeContent content() const { return static_cast<format::InodeContent>(raw().content); }
  std::uint64_t disk_size() const { return raw().size.value(); }
  // With what has not been written back yet.
  std::uint64_t size() const { return state_->size.value_or(disk_size()); }
  InodeNo parent() const { return InodeNo{raw().parent.value()}; }
  std::size_t content_bytes() const { return raw().content_bytes.value(); }

 private:
  BufferRef buffer_;
  InodePin state_;
};

// Reads the inode; its lock is held at least shared. kStale if the number is free, belongs to the file system itself or
// has been reused since the kernel learnt it.
Task<Result<Inode>> read_inode(FsContext& fs, InodeNo number);
// The same for a number that a directory, whose lock is held too, gives now: whatever the kernel knew of it before.
Task<Result<Inode>> read_named_inode(FsContext& fs, InodeNo number);
// The same, of a directory: else kNotDirectory.
Task<Result<Inode>> read_directory(FsContext& fs, InodeNo number);

// What stat shows. `also` is the directory whose entry comes with it, if any: what the kernel may cache lasts no longer
// than both locks.
Attributes attributes_of(FsContext& fs, const Inode& inode, std::optional<InodeNo> also = std::nullopt);

// The kernel has been told of the inode: one reference more.
void remember(const Inode& inode);

// Has this node seen that the number is an inode's, so that its lock may be touched?
bool number_known(FsContext& fs, InodeNo number);
// Sees to it, whether the number came from the kernel or from a directory: kStale if it is none. Takes group locks:
// nothing is held.
Task<Result<>> check_number(FsContext& fs, InodeNo number);

// Sets ctime, and mtime too where `modified`, to now. The buffer is in the transaction.
void touch(FsContext& fs, const Inode& inode, bool modified);
// Without set-user-id, and without set-group-id where it means that (the file is executable by its group).
std::uint32_t without_privileges(std::uint32_t mode);

}  // namespace cawfs
