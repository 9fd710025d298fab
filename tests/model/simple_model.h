// The executable specification in small: a tree of nodes in memory, each operation with the results and errors that
// POSIX.1-2017 (and where it is silent, Linux) prescribes. The file system's every answer is compared with it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/fs/filesystem.h"

namespace cawfs::test {

class SimpleModel {
 public:
  using Id = std::uint64_t;
  static constexpr Id kRoot = 1;

  struct Node {
    std::uint32_t mode = 0;
    std::uint32_t nlink = 0;
    std::uint32_t uid = 0;
    std::uint32_t gid = 0;
    std::uint32_t rdev = 0;
    std::string data;  // of a file; a symlink's target
    std::map<std::string, Id> entries;
    Id parent = 0;
    std::uint32_t opens = 0;
    bool directory() const;
    bool regular() const;
    bool symlink() const;
    std::uint64_t size() const { return directory() ? entries.size() : data.size(); }
  };

  explicit SimpleModel(std::uint32_t root_mode);

  const Node& node(Id id) const { return nodes_.at(id); }
  bool alive(Id id) const { return nodes_.contains(id); }
  std::vector<Id> all() const;

  Result<Id> lookup(Id directory, const std::string& name) const;
  Result<Id> create(Id directory, const std::string& name, const NewInode& inode, bool exclusive);
  Result<Id> mkdir(Id directory, const std::string& name, const NewInode& inode);
  Result<Id> mknod(Id directory, const std::string& name, const NewInode& inode);
  Result<Id> symlink(Id directory, const std::string& name, const std::string& target, const NewInode& inode);
  Result<std::string> readlink(Id id) const;
  Result<Id> link(Id id, Id directory, const std::string& name);
  Result<> unlink(Id directory, const std::string& name);
  Result<> rmdir(Id directory, const std::string& name);
  Result<> rename(Id from, const std::string& from_name, Id to, const std::string& to_name, RenameMode mode);
  Result<> setattr(Id id, const AttributeChange& change);
  Result<> open(Id id);
  void close(Id id);
  Result<std::string> read(Id id, std::uint64_t offset, std::size_t length) const;
  Result<std::uint64_t> write(Id id, std::uint64_t offset, const std::string& data, bool append, bool kill_suid_sgid);

 private:
  Result<> check_directory(Id directory, const std::string& name) const;
  Result<Id> find(Id directory, const std::string& name) const;
  Result<Id> add(Id directory, const std::string& name, const NewInode& inode, std::uint32_t type);
  void drop_if_unused(Id id);
  void unlink_node(Id id);
  bool is_below(Id id, Id ancestor) const;
  Result<> check_replace(Id source, Id target) const;
  void kill_privileges(Node& node);

  std::map<Id, Node> nodes_;
  Id next_ = kRoot + 1;
};

}  // namespace cawfs::test
