// What the FUSE layer serves: FileSystem (core/fs/filesystem.h) by way of FileSystemOperations, or a file system in
// memory in tests and benchmarks of the FUSE layer alone. Semantics, errors and durability are those of FileSystem.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/fs/filesystem.h"

namespace cawfs {

class Operations {
 public:
  virtual ~Operations() = default;

  virtual InodeNo root() const = 0;
  virtual Time lease_end() const = 0;
  virtual Task<Result<>> wait_for_lease() = 0;
  virtual void press(InodeNo inode) = 0;
  virtual void unpress(InodeNo inode) = 0;
  virtual Task<Result<Attributes>> lookup(InodeNo directory, std::string name) = 0;
  virtual void forget(InodeNo inode, std::uint64_t references) = 0;
  virtual Task<Result<Attributes>> getattr(InodeNo inode) = 0;
  virtual Task<Result<Attributes>> setattr(InodeNo inode, AttributeChange change) = 0;
  virtual Task<Result<Attributes>> create(InodeNo directory, std::string name, NewInode inode, bool exclusive) = 0;
  virtual Task<Result<Attributes>> mkdir(InodeNo directory, std::string name, NewInode inode) = 0;
  virtual Task<Result<Attributes>> mknod(InodeNo directory, std::string name, NewInode inode) = 0;
  virtual Task<Result<Attributes>> symlink(InodeNo directory, std::string name, std::string target, NewInode inode) = 0;
  virtual Task<Result<std::string>> readlink(InodeNo inode) = 0;
  virtual Task<Result<Attributes>> link(InodeNo inode, InodeNo directory, std::string name) = 0;
  virtual Task<Result<>> unlink(InodeNo directory, std::string name) = 0;
  virtual Task<Result<>> rmdir(InodeNo directory, std::string name) = 0;
  virtual Task<Result<>> rename(InodeNo from, std::string from_name, InodeNo to, std::string to_name,
                                RenameMode mode) = 0;
  virtual Task<Result<std::vector<DirectoryEntry>>> readdir(InodeNo directory, std::uint64_t cookie,
                                                            std::size_t limit) = 0;
  virtual Task<Result<InodeNo>> parent(InodeNo directory) = 0;
  virtual Task<Result<>> open(InodeNo inode) = 0;
  virtual Task<void> close(InodeNo inode) = 0;
  virtual Task<Result<std::size_t>> read(InodeNo inode, std::uint64_t offset, std::span<std::byte> out,
                                         bool direct) = 0;
  virtual Task<Result<Written>> write(InodeNo inode, std::uint64_t offset, std::span<const std::byte> data, bool append,
                                      bool direct, bool kill_suid_sgid) = 0;
  virtual Task<Result<>> write_within(InodeNo inode, std::uint64_t offset, std::span<const std::byte> data) = 0;
  virtual Task<Result<>> sync(InodeNo inode, bool data_only, WriteErrorMark& told) = 0;
  virtual WriteErrorMark write_errors(InodeNo inode) = 0;
  virtual void note_lost(InodeNo inode, const Error& error) = 0;
  virtual Task<Result<>> sync_all() = 0;
  virtual Task<Result<SpaceInfo>> space() = 0;
};

}  // namespace cawfs
