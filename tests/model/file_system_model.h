// The executable specification: a tree of nodes in memory, each operation with its preconditions, results, errors,
// attributes and times, as POSIX.1-2017 (and where it is silent, Linux) prescribes. core/fs is compared with it
// operation by operation (model_test.cpp).
//
// What holds for all of them:
//   - An operation that fails changes nothing.
//   - Names are 1..255 bytes: kNameTooLong, and kInvalid for empty ones, ".", ".." and such with '/' or NUL. This is
//     looked at before anything else; the directory next (kStale: gone; kNotDirectory), then what the name leads to.
//   - Of a directory that was removed while it was open: nothing is found in it, and nothing can be made (kNotFound).
//   - A node lives while it has a name or is open.
//
// Times. An operation marks
//   atime   of what it reads (read of more than 0 bytes, readdir, readlink), by the rule of relatime: only where it is
//           not newer than the last change, or a day old; and it may be stored some time later, but never over a time
//           that was set explicitly since, nor a later one;
//   mtime   of a file whose bytes or size it sets (even to what they were), and of a directory of whose names it adds,
//           removes or redirects one; not by a write of no bytes;
//   ctime   wherever mtime, and of each node whose mode, owner, times, link count or name it changes;
//   all four of what it makes.
// A mark is the node's wall clock at some moment while the operation ran.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/error.h"
#include "core/fs/filesystem.h"
#include "tests/model/sparse_bytes.h"

namespace cawfs::test {

// Wall clock: some moment in there. What has been seen is known exactly.
struct Span {
  std::int64_t earliest = std::numeric_limits<std::int64_t>::min();
  std::int64_t latest = std::numeric_limits<std::int64_t>::max();
  bool contains(std::int64_t time) const { return earliest <= time && time <= latest; }
};

class FileSystemModel {
 public:
  using Id = std::uint64_t;
  static constexpr Id kRoot = 1;

  struct Entry {
    Id id = 0;
    std::uint64_t since = 0;  // which change of names gave it this meaning
  };
  struct Node {
    std::uint32_t mode = 0;
    std::uint32_t nlink = 0;
    std::uint32_t uid = 0;
    std::uint32_t gid = 0;
    std::uint32_t rdev = 0;
    SparseBytes data;    // of a file
    std::string target;  // of a symlink
    std::map<std::string, Entry> entries;
    Id parent = 0;
    std::uint32_t opens = 0;
    Span atime;
    Span mtime;
    Span ctime;
    Span btime;
    // Reads that may be stored as the atime yet: when the first began, and the last one.
    std::optional<std::int64_t> read_since;
    Span last_read;
    std::optional<std::uint64_t> generation;  // as first seen
    bool directory() const;
    bool regular() const;
    bool symlink() const;
    std::uint64_t size() const;
  };

  explicit FileSystemModel(std::uint32_t root_mode);

  const Node& node(Id id) const { return nodes_.at(id); }
  bool alive(Id id) const { return nodes_.contains(id); }
  std::size_t count() const { return nodes_.size(); }
  std::vector<Id> all() const;
  std::uint64_t changes() const { return changes_; }

  // When the operation that follows ran.
  FileSystemModel& at(Span when) {
    now_ = when;
    return *this;
  }
  // Empty if these are the node's attributes (its number aside), else which is not. Learns the times.
  std::string compare(Id id, const Attributes& seen);

  Result<Id> lookup(Id directory, const std::string& name) const;
  // Not `exclusive`: what is there, unchanged, unless it is a directory (kIsDirectory).
  Result<Id> create(Id directory, const std::string& name, const NewInode& inode, bool exclusive);
  Result<Id> mkdir(Id directory, const std::string& name, const NewInode& inode);
  // kInvalid for directories, symlinks and no type.
  Result<Id> mknod(Id directory, const std::string& name, const NewInode& inode);
  // An empty target: kNotFound; of more than 4095 bytes: kNameTooLong.
  Result<Id> symlink(Id directory, const std::string& name, const std::string& target, const NewInode& inode);
  // kInvalid of anything else.
  Result<std::string> readlink(Id id);
  // Of a directory: kPermission. Of what has lost its last name: kNotFound.
  Result<Id> link(Id id, Id directory, const std::string& name);
  Result<> unlink(Id directory, const std::string& name);
  Result<> rmdir(Id directory, const std::string& name);
  // Two names of one node: nothing happens, successfully.
  Result<> rename(Id from, const std::string& from_name, Id to, const std::string& to_name, RenameMode mode);
  // A size: kIsDirectory, kInvalid of what else is no file, kFileTooBig. The privileges are cleared last.
  Result<> setattr(Id id, const AttributeChange& change);
  Result<> open(Id id);
  void close(Id id);
  Result<std::string> read(Id id, std::uint64_t offset, std::size_t length);
  // Where it wrote. `append` ignores `offset`. Beyond 2^63 - 1 bytes: kFileTooBig.
  Result<std::uint64_t> write(Id id, std::uint64_t offset, std::string_view data, bool append, bool kill_suid_sgid);
  Result<> write_within(Id id, std::uint64_t offset, std::string_view data);
  // The entries are node(id).entries: one that stays for the whole scan is seen once.
  Result<> readdir(Id id);
  Result<Id> parent(Id id) const;

 private:
  Result<> check_directory(Id directory, const std::string& name) const;
  Result<> check_file(Id id) const;
  Result<Id> find(Id directory, const std::string& name) const;
  Result<Id> add(Id directory, const std::string& name, const NewInode& inode, std::uint32_t type);
  Result<> check_rename(Id source, Id from, std::optional<Id> target, Id to, RenameMode mode) const;
  Result<> check_replace(Id source, Id target) const;
  void move(Id id, Id old_parent, Id new_parent);
  void set_entry(Id directory, const std::string& name, Id id);
  void drop_entry(Id directory, const std::string& name);
  void drop_if_unused(Id id);
  void unlink_node(Id id);
  bool is_below(Id id, Id ancestor) const;

  void accessed(Node& node) const;
  void modified(Node& node) const { node.mtime = node.ctime = now_; }
  void changed(Node& node) const { node.ctime = now_; }
  std::string compare_access_time(Node& node, std::int64_t seen) const;

  std::map<Id, Node> nodes_;
  Id next_ = kRoot + 1;
  std::uint64_t changes_ = 0;
  Span now_;
};

}  // namespace cawfs::test
