// The operations of FileSystem, each in the file that its comment names. All have FileSystem's contracts.
//
// A changing operation has one shape. It takes its locks (in order, LockSet), reads and checks everything, plans its
// changes of trees, and reserves space and a free inode, all without waiting for another node; where one of these is
// not to be had, it lets everything go, has it got ready, and starts over. Then it begins a transaction with exact
// credits, and from there on it neither waits nor fails.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/fs/filesystem.h"
#include "core/fs/inode.h"

namespace cawfs {

struct FsContext;
class LockSet;

// lookup.cpp
Task<Result<Attributes>> lookup(FsContext& fs, InodeNo directory, std::string name);
Task<Result<std::vector<DirectoryEntry>>> readdir(FsContext& fs, InodeNo directory, std::uint64_t cookie,
                                                  std::size_t limit);
Task<Result<InodeNo>> parent_of(FsContext& fs, InodeNo directory);
// Takes a child's lock beside those of `locks`, which hold its directory's. True: it is held, go on. False: all locks
// were let go, take what `locks` want and look again. `checked` remembers over these rounds that the number is good,
// `doubts` how often one was not: the name may have gone meanwhile, so only many say that its directory is damaged.
Task<Result<bool>> lock_child(FsContext& fs, LockSet& locks, InodeNo child, LockMode mode, LocalUse use,
                              InodeNo& checked, int& doubts);

// create.cpp
// What a new inode is.
struct NewNode {
  std::uint32_t type = 0;  // as in st_mode
  NewInode given;
  std::string target;     // of a symlink
  bool exclusive = true;  // else an existing file will do
};
Task<Result<Attributes>> make_node(FsContext& fs, InodeNo directory, std::string name, NewNode node);
// mknod: kInvalid if the type is none for it.
Task<Result<Attributes>> make_special(FsContext& fs, InodeNo directory, std::string name, NewInode inode);
Task<Result<Attributes>> link(FsContext& fs, InodeNo inode, InodeNo directory, std::string name);

// remove.cpp
Task<Result<>> unlink(FsContext& fs, InodeNo directory, std::string name);
Task<Result<>> rmdir(FsContext& fs, InodeNo directory, std::string name);

// rename.cpp
Task<Result<>> rename(FsContext& fs, InodeNo from, std::string from_name, InodeNo to, std::string to_name,
                      RenameMode mode);

// attributes.cpp
Task<Result<Attributes>> getattr(FsContext& fs, InodeNo inode);
Task<Result<Attributes>> setattr(FsContext& fs, InodeNo inode, AttributeChange change);
Task<Result<>> open_inode(FsContext& fs, InodeNo inode);
void close_inode(FsContext& fs, InodeNo inode);
void forget_inode(FsContext& fs, InodeNo inode, std::uint64_t references);

// read.cpp
Task<Result<std::size_t>> read_file(FsContext& fs, InodeNo inode, std::uint64_t offset, std::span<std::byte> out);
Task<Result<std::string>> readlink(FsContext& fs, InodeNo inode);

// write.cpp
struct WriteRequest {
  InodeNo inode;
  std::uint64_t offset = 0;
  std::span<const std::byte> data;
  bool append = false;
  bool direct = false;
  bool kill_suid_sgid = false;
  bool within = false;  // what lies behind the end of the file as it is then is not written
};
Task<Result<Written>> write_file(FsContext& fs, WriteRequest request);

}  // namespace cawfs
