// Operations over the real file system: each call as it stands.
#pragma once

#include "mount/operations.h"

namespace cawfs {

class FileSystemOperations final : public Operations {
 public:
  explicit FileSystemOperations(FileSystem& fs) : fs_(fs) {}

  InodeNo root() const override { return fs_.root(); }
  Time lease_end() const override { return fs_.lease_end(); }
  Task<Result<>> wait_for_lease() override { return fs_.wait_for_lease(); }
  void press(InodeNo inode) override { fs_.press(inode); }
  void unpress(InodeNo inode) override { fs_.unpress(inode); }
  Task<Result<Attributes>> lookup(InodeNo directory, std::string name) override {
    return fs_.lookup(directory, std::move(name));
  }
  void forget(InodeNo inode, std::uint64_t references) override { fs_.forget(inode, references); }
  Task<Result<Attributes>> getattr(InodeNo inode) override { return fs_.getattr(inode); }
  Task<Result<Attributes>> setattr(InodeNo inode, AttributeChange change) override {
    return fs_.setattr(inode, change);
  }
  Task<Result<Attributes>> create(InodeNo directory, std::string name, NewInode inode, bool exclusive) override {
    return fs_.create(directory, std::move(name), inode, exclusive);
  }
  Task<Result<Attributes>> mkdir(InodeNo directory, std::string name, NewInode inode) override {
    return fs_.mkdir(directory, std::move(name), inode);
  }
  Task<Result<Attributes>> mknod(InodeNo directory, std::string name, NewInode inode) override {
    return fs_.mknod(directory, std::move(name), inode);
  }
  Task<Result<Attributes>> symlink(InodeNo directory, std::string name, std::string target, NewInode inode) override {
    return fs_.symlink(directory, std::move(name), std::move(target), inode);
  }
  Task<Result<std::string>> readlink(InodeNo inode) override { return fs_.readlink(inode); }
  Task<Result<Attributes>> link(InodeNo inode, InodeNo directory, std::string name) override {
    return fs_.link(inode, directory, std::move(name));
  }
  Task<Result<>> unlink(InodeNo directory, std::string name) override { return fs_.unlink(directory, std::move(name)); }
  Task<Result<>> rmdir(InodeNo directory, std::string name) override { return fs_.rmdir(directory, std::move(name)); }
  Task<Result<>> rename(InodeNo from, std::string from_name, InodeNo to, std::string to_name,
                        RenameMode mode) override {
    return fs_.rename(from, std::move(from_name), to, std::move(to_name), mode);
  }
  Task<Result<std::vector<DirectoryEntry>>> readdir(InodeNo directory, std::uint64_t cookie,
                                                    std::size_t limit) override {
    return fs_.readdir(directory, cookie, limit);
  }
  Task<Result<InodeNo>> parent(InodeNo directory) override { return fs_.parent(directory); }
  Task<Result<>> open(InodeNo inode) override { return fs_.open(inode); }
  Task<void> close(InodeNo inode) override { return fs_.close(inode); }
  Task<Result<std::size_t>> read(InodeNo inode, std::uint64_t offset, std::span<std::byte> out, bool direct) override {
    return fs_.read(inode, offset, out, direct);
  }
  Task<Result<Written>> write(InodeNo inode, std::uint64_t offset, std::span<const std::byte> data, bool append,
                              bool direct, bool kill_suid_sgid) override {
    return fs_.write(inode, offset, data, append, direct, kill_suid_sgid);
  }
  Task<Result<>> write_within(InodeNo inode, std::uint64_t offset, std::span<const std::byte> data) override {
    return fs_.write_within(inode, offset, data);
  }
  Task<Result<>> sync(InodeNo inode, bool data_only, WriteErrorMark& told) override {
    return fs_.sync(inode, data_only, told);
  }
  WriteErrorMark write_errors(InodeNo inode) override { return fs_.write_errors(inode); }
  void note_lost(InodeNo inode, const Error& error) override { fs_.note_lost(inode, error); }
  Task<Result<>> sync_all() override { return fs_.sync_all(); }
  Task<Result<SpaceInfo>> space() override { return fs_.space(); }

 private:
  FileSystem& fs_;
};

}  // namespace cawfs
