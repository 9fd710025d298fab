#include "tests/model/file_system_model.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>

namespace cawfs::test {

namespace {
constexpr std::size_t kNameMax = 255;
constexpr std::size_t kTargetMax = 4095;
constexpr std::int64_t kDayNs = std::int64_t{24} * 3600 * 1'000'000'000;

Result<> check_name(const std::string& name) {
  if (name.size() > kNameMax) return fail(Errc::kNameTooLong);
  if (name.empty() || name == "." || name == "..") return fail(Errc::kInvalid);
  if (name.find('/') != std::string::npos || name.find('\0') != std::string::npos) return fail(Errc::kInvalid);
  return {};
}

// A regular file that is changed by somebody without the right to keep them loses suid, and sgid where that is not
// merely the mark of mandatory locking (group execution is off).
void kill_privileges(FileSystemModel::Node& node) {
  if (!node.regular()) return;
  node.mode &= ~static_cast<std::uint32_t>(S_ISUID);
  if (node.mode & S_IXGRP) node.mode &= ~static_cast<std::uint32_t>(S_ISGID);
}

std::string differs(const char* what, std::uint64_t seen, std::uint64_t should) {
  return seen == should ? "" : fmt::format(" {} is {}, not {};", what, seen, should);
}

std::string learn(const char* what, std::int64_t seen, Span& known) {
  if (!known.contains(seen)) return fmt::format(" {} is {}, not in {}..{};", what, seen, known.earliest, known.latest);
  known = {seen, seen};
  return {};
}
}  // namespace

bool FileSystemModel::Node::directory() const {
  return S_ISDIR(mode);
}
bool FileSystemModel::Node::regular() const {
  return S_ISREG(mode);
}
bool FileSystemModel::Node::symlink() const {
  return S_ISLNK(mode);
}
// A directory's is the number of its names.
std::uint64_t FileSystemModel::Node::size() const {
  if (directory()) return entries.size();
  return symlink() ? target.size() : data.size();
}

FileSystemModel::FileSystemModel(std::uint32_t root_mode) {
  Node root;
  root.mode = root_mode;
  root.nlink = 2;
  root.parent = kRoot;
  nodes_.emplace(kRoot, root);
}

std::vector<FileSystemModel::Id> FileSystemModel::all() const {
  std::vector<Id> ids;
  for (const auto& [id, node] : nodes_) ids.push_back(id);
  return ids;
}

// When it may be stored is the file system's affair: until it has been seen, both times are right.
void FileSystemModel::accessed(Node& node) const {
  const bool may_be_due = node.atime.earliest <= std::max(node.mtime.latest, node.ctime.latest) ||
                          now_.latest - node.atime.earliest >= kDayNs;
  if (!may_be_due) return;
  if (!node.read_since) node.read_since = now_.earliest;
  node.last_read = now_;
}

std::string FileSystemModel::compare_access_time(Node& node, std::int64_t seen) const {
  if (node.atime.contains(seen)) {
    node.atime = {seen, seen};
    return {};
  }
  if (!node.read_since || !Span{*node.read_since, now_.latest}.contains(seen)) return learn("atime", seen, node.atime);
  node.atime = {seen, seen};
  node.read_since = node.last_read.earliest;
  if (seen > node.last_read.latest) node.read_since.reset();
  return {};
}

std::string FileSystemModel::compare(Id id, const Attributes& seen) {
  Node& n = nodes_.at(id);
  std::string wrong = differs("mode", seen.mode, n.mode) + differs("nlink", seen.nlink, n.nlink) +
                      differs("uid", seen.uid, n.uid) + differs("gid", seen.gid, n.gid) +
                      differs("rdev", seen.rdev, n.rdev) + differs("size", seen.size, n.size());
  if (!n.generation) n.generation = seen.generation;
  wrong += differs("generation", seen.generation, *n.generation);
  wrong += compare_access_time(n, seen.atime_ns) + learn("mtime", seen.mtime_ns, n.mtime) +
           learn("ctime", seen.ctime_ns, n.ctime) + learn("btime", seen.btime_ns, n.btime);
  return wrong;
}

void FileSystemModel::set_entry(Id directory, const std::string& name, Id id) {
  Node& parent = nodes_.at(directory);
  parent.entries[name] = {id, ++changes_};
  modified(parent);
}
void FileSystemModel::drop_entry(Id directory, const std::string& name) {
  Node& parent = nodes_.at(directory);
  parent.entries.erase(name);
  ++changes_;
  modified(parent);
}

Result<> FileSystemModel::check_directory(Id directory, const std::string& name) const {
  if (auto good = check_name(name); !good) return good;
  if (!alive(directory)) return fail(Errc::kStale);
  if (!node(directory).directory()) return fail(Errc::kNotDirectory);
  return {};
}

Result<FileSystemModel::Id> FileSystemModel::find(Id directory, const std::string& name) const {
  if (auto ok = check_directory(directory, name); !ok) return fail(ok.error());
  const auto& entries = node(directory).entries;
  const auto it = entries.find(name);
  if (it == entries.end()) return fail(Errc::kNotFound);
  return it->second.id;
}

Result<FileSystemModel::Id> FileSystemModel::lookup(Id directory, const std::string& name) const {
  return find(directory, name);
}

Result<FileSystemModel::Id> FileSystemModel::add(Id directory, const std::string& name, const NewInode& inode,
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
  child.atime = child.mtime = child.ctime = child.btime = now_;
  const Id id = next_++;
  set_entry(directory, name, id);
  nodes_.emplace(id, child);
  return id;
}

Result<FileSystemModel::Id> FileSystemModel::create(Id directory, const std::string& name, const NewInode& inode,
                                                    bool exclusive) {
  auto found = find(directory, name);
  if (found && !exclusive) {
    if (node(*found).directory()) return fail(Errc::kIsDirectory);
    return *found;
  }
  return add(directory, name, inode, S_IFREG);
}

Result<FileSystemModel::Id> FileSystemModel::mkdir(Id directory, const std::string& name, const NewInode& inode) {
  return add(directory, name, inode, S_IFDIR);
}

Result<FileSystemModel::Id> FileSystemModel::mknod(Id directory, const std::string& name, const NewInode& inode) {
  const std::uint32_t type = inode.mode & S_IFMT;
  if (type == S_IFDIR || type == S_IFLNK || type == 0) return fail(Errc::kInvalid);
  return add(directory, name, inode, type);
}

Result<FileSystemModel::Id> FileSystemModel::symlink(Id directory, const std::string& name, const std::string& target,
                                                     const NewInode& inode) {
  if (auto good = check_name(name); !good) return fail(good.error());
  if (target.empty()) return fail(Errc::kNotFound);
  if (target.size() > kTargetMax) return fail(Errc::kNameTooLong);
  auto id = add(directory, name, inode, S_IFLNK);
  if (id) nodes_.at(*id).target = target;
  return id;
}

Result<std::string> FileSystemModel::readlink(Id id) {
  if (!alive(id)) return fail(Errc::kStale);
  if (!node(id).symlink()) return fail(Errc::kInvalid);
  accessed(nodes_.at(id));
  return node(id).target;
}

Result<FileSystemModel::Id> FileSystemModel::link(Id id, Id directory, const std::string& name) {
  if (auto ok = check_directory(directory, name); !ok) return fail(ok.error());
  if (!alive(id)) return fail(Errc::kStale);
  if (node(id).directory()) return fail(Errc::kPermission);
  if (node(directory).entries.contains(name)) return fail(Errc::kExists);
  if (node(directory).nlink == 0 || node(id).nlink == 0) return fail(Errc::kNotFound);
  set_entry(directory, name, id);
  ++nodes_.at(id).nlink;
  changed(nodes_.at(id));
  return id;
}

void FileSystemModel::drop_if_unused(Id id) {
  const Node& n = node(id);
  if (n.nlink == 0 && n.opens == 0) nodes_.erase(id);
}

void FileSystemModel::unlink_node(Id id) {
  Node& n = nodes_.at(id);
  n.nlink = n.directory() ? 0 : n.nlink - 1;
  changed(n);
  drop_if_unused(id);
}

Result<> FileSystemModel::unlink(Id directory, const std::string& name) {
  auto id = find(directory, name);
  if (!id) return fail(id.error());
  if (node(*id).directory()) return fail(Errc::kIsDirectory);
  drop_entry(directory, name);
  unlink_node(*id);
  return {};
}

Result<> FileSystemModel::rmdir(Id directory, const std::string& name) {
  auto id = find(directory, name);
  if (!id) return fail(id.error());
  if (!node(*id).directory()) return fail(Errc::kNotDirectory);
  if (!node(*id).entries.empty()) return fail(Errc::kNotEmpty);
  drop_entry(directory, name);
  --nodes_.at(directory).nlink;
  unlink_node(*id);
  return {};
}

bool FileSystemModel::is_below(Id id, Id ancestor) const {
  for (;;) {
    if (id == ancestor) return true;
    if (id == kRoot) return false;
    id = node(id).parent;
  }
}

Result<> FileSystemModel::check_replace(Id source, Id target) const {
  if (node(source).directory() && !node(target).directory()) return fail(Errc::kNotDirectory);
  if (!node(source).directory() && node(target).directory()) return fail(Errc::kIsDirectory);
  if (node(target).directory() && !node(target).entries.empty()) return fail(Errc::kNotEmpty);
  return {};
}

Result<> FileSystemModel::check_rename(Id source, Id from, std::optional<Id> target, Id to, RenameMode mode) const {
  if (node(to).nlink == 0) return fail(Errc::kNotFound);
  if (target && mode == RenameMode::kNoReplace) return fail(Errc::kExists);
  if (!target && mode == RenameMode::kExchange) return fail(Errc::kNotFound);
  if (target && source == *target) return {};
  if (node(source).directory() && is_below(to, source)) return fail(Errc::kCrossLink);
  if (mode == RenameMode::kExchange && node(*target).directory() && is_below(from, *target)) {
    return fail(Errc::kCrossLink);
  }
  if (target && mode == RenameMode::kReplace) return check_replace(source, *target);
  return {};
}

void FileSystemModel::move(Id id, Id old_parent, Id new_parent) {
  changed(nodes_.at(id));
  if (!node(id).directory()) return;
  --nodes_.at(old_parent).nlink;
  ++nodes_.at(new_parent).nlink;
  nodes_.at(id).parent = new_parent;
}

Result<> FileSystemModel::rename(Id from, const std::string& from_name, Id to, const std::string& to_name,
                                 RenameMode mode) {
  for (const std::string* name : {&from_name, &to_name}) {
    if (auto good = check_name(*name); !good) return good;
  }
  if (auto ok = check_directory(from, from_name); !ok) return ok;
  if (auto ok = check_directory(to, to_name); !ok) return ok;
  const auto source = find(from, from_name);
  if (!source) return fail(source.error());
  const auto found = find(to, to_name);
  const std::optional<Id> target = found ? std::optional(*found) : std::nullopt;
  if (auto good = check_rename(*source, from, target, to, mode); !good) return good;
  if (target && *source == *target) return {};
  if (mode == RenameMode::kExchange) {
    set_entry(from, from_name, *target);
    set_entry(to, to_name, *source);
    move(*source, from, to);
    move(*target, to, from);
    return {};
  }
  if (target) {
    if (node(*target).directory()) --nodes_.at(to).nlink;
    unlink_node(*target);
  }
  drop_entry(from, from_name);
  set_entry(to, to_name, *source);
  move(*source, from, to);
  return {};
}

Result<> FileSystemModel::setattr(Id id, const AttributeChange& change) {
  if (!alive(id)) return fail(Errc::kStale);
  Node& n = nodes_.at(id);
  if (change.size) {
    if (n.directory()) return fail(Errc::kIsDirectory);
    if (!n.regular()) return fail(Errc::kInvalid);
    if (*change.size > INT64_MAX) return fail(Errc::kFileTooBig);
    n.data.resize(*change.size);
    modified(n);
  }
  const bool times = change.atime_ns || change.mtime_ns || change.atime_now || change.mtime_now;
  if (change.mode || change.uid || change.gid || change.kill_suid_sgid || times) changed(n);
  if (change.mode) n.mode = (n.mode & S_IFMT) | (*change.mode & 07777);
  if (change.uid) n.uid = *change.uid;
  if (change.gid) n.gid = *change.gid;
  if (change.kill_suid_sgid) kill_privileges(n);
  if (change.atime_ns || change.atime_now) n.read_since.reset();
  if (change.atime_ns) n.atime = {*change.atime_ns, *change.atime_ns};
  if (change.atime_now) n.atime = now_;
  if (change.mtime_ns) n.mtime = {*change.mtime_ns, *change.mtime_ns};
  if (change.mtime_now) n.mtime = now_;
  return {};
}

Result<> FileSystemModel::open(Id id) {
  if (!alive(id)) return fail(Errc::kStale);
  ++nodes_.at(id).opens;
  return {};
}

void FileSystemModel::close(Id id) {
  --nodes_.at(id).opens;
  drop_if_unused(id);
}

Result<> FileSystemModel::check_file(Id id) const {
  if (!alive(id)) return fail(Errc::kStale);
  if (node(id).directory()) return fail(Errc::kIsDirectory);
  if (!node(id).regular()) return fail(Errc::kInvalid);
  return {};
}

Result<std::string> FileSystemModel::read(Id id, std::uint64_t offset, std::size_t length) {
  if (auto good = check_file(id); !good) return fail(good.error());
  if (length > 0) accessed(nodes_.at(id));
  return node(id).data.read(offset, length);
}

Result<std::uint64_t> FileSystemModel::write(Id id, std::uint64_t offset, std::string_view data, bool append,
                                             bool kill_suid_sgid) {
  if (auto good = check_file(id); !good) return fail(good.error());
  Node& n = nodes_.at(id);
  if (append) offset = n.data.size();
  if (offset > INT64_MAX || data.size() > INT64_MAX - offset) return fail(Errc::kFileTooBig);
  if (data.empty()) return offset;
  n.data.write(offset, data);
  if (kill_suid_sgid) kill_privileges(n);
  modified(n);
  return offset;
}

Result<> FileSystemModel::write_within(Id id, std::uint64_t offset, std::string_view data) {
  if (auto good = check_file(id); !good) return good;
  const std::uint64_t size = node(id).data.size();
  data = data.substr(0, size - std::min(offset, size));
  auto written = write(id, offset, data, false, false);
  if (!written) return fail(written.error());
  return {};
}

Result<> FileSystemModel::readdir(Id id) {
  if (!alive(id)) return fail(Errc::kStale);
  if (!node(id).directory()) return fail(Errc::kNotDirectory);
  accessed(nodes_.at(id));
  return {};
}

Result<FileSystemModel::Id> FileSystemModel::parent(Id id) const {
  if (!alive(id)) return fail(Errc::kStale);
  if (!node(id).directory()) return fail(Errc::kNotDirectory);
  return node(id).parent;
}

}  // namespace cawfs::test
