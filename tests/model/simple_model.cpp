#include "tests/model/simple_model.h"

#include <sys/stat.h>

#include <algorithm>

namespace cawfs::test {

namespace {
constexpr std::size_t kNameMax = 255;
constexpr std::size_t kTargetMax = 4095;
}  // namespace

bool SimpleModel::Node::directory() const {
  return S_ISDIR(mode);
}
bool SimpleModel::Node::regular() const {
  return S_ISREG(mode);
}
bool SimpleModel::Node::symlink() const {
  return S_ISLNK(mode);
}

SimpleModel::SimpleModel(std::uint32_t root_mode) {
  Node root;
  root.mode = root_mode;
  root.nlink = 2;
  root.parent = kRoot;
  nodes_.emplace(kRoot, root);
}

std::vector<SimpleModel::Id> SimpleModel::all() const {
  std::vector<Id> ids;
  for (const auto& [id, node] : nodes_) ids.push_back(id);
  return ids;
}

Result<> SimpleModel::check_directory(Id directory, const std::string& name) const {
  if (name.empty()) return fail(Errc::kInvalid);
  if (name.size() > kNameMax) return fail(Errc::kNameTooLong);
  if (!alive(directory)) return fail(Errc::kStale);
  if (!node(directory).directory()) return fail(Errc::kNotDirectory);
  return {};
}

Result<SimpleModel::Id> SimpleModel::find(Id directory, const std::string& name) const {
  if (auto ok = check_directory(directory, name); !ok) return fail(ok.error());
  const auto& entries = node(directory).entries;
  const auto it = entries.find(name);
  if (it == entries.end()) return fail(Errc::kNotFound);
  return it->second;
}

Result<SimpleModel::Id> SimpleModel::lookup(Id directory, const std::string& name) const {
  return find(directory, name);
}

Result<SimpleModel::Id> SimpleModel::add(Id directory, const std::string& name, const NewInode& inode,
                                         std::uint32_t type) {
  if (auto found = find(directory, name); found)
    return fail(Errc::kExists);
  else if (found.error().code != Errc::kNotFound)
    return fail(found.error());
  Node& parent = nodes_.at(directory);
  if (parent.nlink == 0) return fail(Errc::kNotFound);
  Node child;
  child.mode = type | (inode.mode & 07777);
  child.nlink = 1;
  child.uid = inode.uid;
  child.gid = inode.gid;
  child.rdev = (type == S_IFCHR || type == S_IFBLK) ? inode.rdev : 0;
  if (parent.mode & S_ISGID) {
    child.gid = parent.gid;
    if (type == S_IFDIR) child.mode |= S_ISGID;
  }
  if (type == S_IFDIR) {
    child.nlink = 2;
    child.parent = directory;
    ++parent.nlink;
  }
  const Id id = next_++;
  parent.entries.emplace(name, id);
  nodes_.emplace(id, child);
  return id;
}

Result<SimpleModel::Id> SimpleModel::create(Id directory, const std::string& name, const NewInode& inode,
                                            bool exclusive) {
  auto found = find(directory, name);
  if (found && !exclusive) {
    if (node(*found).directory()) return fail(Errc::kIsDirectory);
    return *found;
  }
  return add(directory, name, inode, S_IFREG);
}

Result<SimpleModel::Id> SimpleModel::mkdir(Id directory, const std::string& name, const NewInode& inode) {
  return add(directory, name, inode, S_IFDIR);
}

Result<SimpleModel::Id> SimpleModel::mknod(Id directory, const std::string& name, const NewInode& inode) {
  const std::uint32_t type = inode.mode & S_IFMT;
  if (type == S_IFDIR || type == S_IFLNK || type == 0) return fail(Errc::kInvalid);
  return add(directory, name, inode, type);
}

Result<SimpleModel::Id> SimpleModel::symlink(Id directory, const std::string& name, const std::string& target,
                                             const NewInode& inode) {
  if (name.size() > kNameMax) return fail(Errc::kNameTooLong);
  if (target.empty()) return fail(Errc::kNotFound);
  if (target.size() > kTargetMax) return fail(Errc::kNameTooLong);
  auto id = add(directory, name, inode, S_IFLNK);
  if (id) nodes_.at(*id).data = target;
  return id;
}

Result<std::string> SimpleModel::readlink(Id id) const {
  if (!alive(id)) return fail(Errc::kStale);
  if (!node(id).symlink()) return fail(Errc::kInvalid);
  return node(id).data;
}

Result<SimpleModel::Id> SimpleModel::link(Id id, Id directory, const std::string& name) {
  if (auto ok = check_directory(directory, name); !ok) return fail(ok.error());
  if (!alive(id)) return fail(Errc::kStale);
  if (node(id).directory()) return fail(Errc::kPermission);
  if (node(directory).entries.contains(name)) return fail(Errc::kExists);
  if (node(directory).nlink == 0 || node(id).nlink == 0) return fail(Errc::kNotFound);
  nodes_.at(directory).entries.emplace(name, id);
  ++nodes_.at(id).nlink;
  return id;
}

void SimpleModel::drop_if_unused(Id id) {
  const Node& n = node(id);
  if (n.nlink == 0 && n.opens == 0) nodes_.erase(id);
}

void SimpleModel::unlink_node(Id id) {
  Node& n = nodes_.at(id);
  n.nlink = n.directory() ? 0 : n.nlink - 1;
  drop_if_unused(id);
}

Result<> SimpleModel::unlink(Id directory, const std::string& name) {
  auto id = find(directory, name);
  if (!id) return fail(id.error());
  if (node(*id).directory()) return fail(Errc::kIsDirectory);
  nodes_.at(directory).entries.erase(name);
  unlink_node(*id);
  return {};
}

Result<> SimpleModel::rmdir(Id directory, const std::string& name) {
  auto id = find(directory, name);
  if (!id) return fail(id.error());
  if (!node(*id).directory()) return fail(Errc::kNotDirectory);
  if (!node(*id).entries.empty()) return fail(Errc::kNotEmpty);
  nodes_.at(directory).entries.erase(name);
  --nodes_.at(directory).nlink;
  unlink_node(*id);
  return {};
}

bool SimpleModel::is_below(Id id, Id ancestor) const {
  for (;;) {
    if (id == ancestor) return true;
    if (id == kRoot) return false;
    id = node(id).parent;
  }
}

Result<> SimpleModel::check_replace(Id source, Id target) const {
  if (node(source).directory() && !node(target).directory()) return fail(Errc::kNotDirectory);
  if (!node(source).directory() && node(target).directory()) return fail(Errc::kIsDirectory);
  if (node(target).directory() && !node(target).entries.empty()) return fail(Errc::kNotEmpty);
  return {};
}

Result<> SimpleModel::rename(Id from, const std::string& from_name, Id to, const std::string& to_name,
                             RenameMode mode) {
  if (from_name.size() > kNameMax || to_name.size() > kNameMax) return fail(Errc::kNameTooLong);
  if (auto ok = check_directory(from, from_name); !ok) return ok;
  if (auto ok = check_directory(to, to_name); !ok) return ok;
  auto source = find(from, from_name);
  if (!source) return fail(source.error());
  auto target = find(to, to_name);
  if (!target && target.error().code != Errc::kNotFound) return fail(target.error());
  if (node(to).nlink == 0) return fail(Errc::kNotFound);
  if (target && mode == RenameMode::kNoReplace) return fail(Errc::kExists);
  if (!target && mode == RenameMode::kExchange) return fail(Errc::kNotFound);
  if (target && *source == *target) return {};
  if (node(*source).directory() && is_below(to, *source)) return fail(Errc::kCrossLink);
  if (mode == RenameMode::kExchange && node(*target).directory() && is_below(from, *target)) {
    return fail(Errc::kCrossLink);
  }
  auto move = [&](Id id, Id old_parent, Id new_parent) {
    if (!node(id).directory()) return;
    --nodes_.at(old_parent).nlink;
    ++nodes_.at(new_parent).nlink;
    nodes_.at(id).parent = new_parent;
  };
  if (mode == RenameMode::kExchange) {
    nodes_.at(from).entries[from_name] = *target;
    nodes_.at(to).entries[to_name] = *source;
    move(*source, from, to);
    move(*target, to, from);
    return {};
  }
  if (target) {
    if (auto ok = check_replace(*source, *target); !ok) return ok;
    nodes_.at(to).entries.erase(to_name);
    if (node(*target).directory()) --nodes_.at(to).nlink;
    unlink_node(*target);
  }
  nodes_.at(from).entries.erase(from_name);
  nodes_.at(to).entries[to_name] = *source;
  move(*source, from, to);
  return {};
}

void SimpleModel::kill_privileges(Node& n) {
  if (!n.regular()) return;
  n.mode &= ~static_cast<std::uint32_t>(S_ISUID);
  if (n.mode & S_IXGRP) n.mode &= ~static_cast<std::uint32_t>(S_ISGID);
}

Result<> SimpleModel::setattr(Id id, const AttributeChange& change) {
  if (!alive(id)) return fail(Errc::kStale);
  Node& n = nodes_.at(id);
  if (change.size) {
    if (n.directory()) return fail(Errc::kIsDirectory);
    if (!n.regular()) return fail(Errc::kInvalid);
    if (*change.size > INT64_MAX) return fail(Errc::kFileTooBig);
    n.data.resize(*change.size);
  }
  if (change.mode) n.mode = (n.mode & S_IFMT) | (*change.mode & 07777);
  if (change.uid) n.uid = *change.uid;
  if (change.gid) n.gid = *change.gid;
  if (change.kill_suid_sgid) kill_privileges(n);
  return {};
}

Result<> SimpleModel::open(Id id) {
  if (!alive(id)) return fail(Errc::kStale);
  ++nodes_.at(id).opens;
  return {};
}

void SimpleModel::close(Id id) {
  --nodes_.at(id).opens;
  drop_if_unused(id);
}

Result<std::string> SimpleModel::read(Id id, std::uint64_t offset, std::size_t length) const {
  if (!alive(id)) return fail(Errc::kStale);
  if (node(id).directory()) return fail(Errc::kIsDirectory);
  if (!node(id).regular()) return fail(Errc::kInvalid);
  const std::string& data = node(id).data;
  if (offset >= data.size()) return std::string();
  return data.substr(offset, length);
}

Result<std::uint64_t> SimpleModel::write(Id id, std::uint64_t offset, const std::string& data, bool append,
                                         bool kill_suid_sgid) {
  if (!alive(id)) return fail(Errc::kStale);
  Node& n = nodes_.at(id);
  if (n.directory()) return fail(Errc::kIsDirectory);
  if (!n.regular()) return fail(Errc::kInvalid);
  if (append) offset = n.data.size();
  if (offset > INT64_MAX || data.size() > INT64_MAX - offset) return fail(Errc::kFileTooBig);
  if (data.empty()) return offset;
  if (n.data.size() < offset + data.size()) n.data.resize(offset + data.size());
  std::copy(data.begin(), data.end(), n.data.begin() + static_cast<std::ptrdiff_t>(offset));
  if (kill_suid_sgid) kill_privileges(n);
  return offset;
}

}  // namespace cawfs::test
