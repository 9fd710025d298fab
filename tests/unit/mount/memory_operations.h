// A file system in memory behind mount/operations.h, for tests of the FUSE layer alone.
#pragma once

#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <vector>

#include "core/runtime/sync.h"
#include "mount/operations.h"

namespace cawfs {

class MemoryOperations final : public Operations {
 public:
  struct Node {
    Attributes attributes;
    std::map<std::string, InodeNo> names;
    InodeNo parent;
    std::string target;
    std::vector<std::byte> data;
    WriteErrors write_errors;
  };

  explicit MemoryOperations(Executor& executor, Duration valid = std::chrono::seconds(60))
      : executor_(executor),
        valid_(valid),
        read_gate_(executor),
        lookup_gate_(executor),
        open_gate_(executor),
        write_gate_(executor),
        setattr_gate_(executor),
        lease_(executor) {
    read_gate_.set();
    lookup_gate_.set();
    open_gate_.set();
    write_gate_.set();
    setattr_gate_.set();
    lease_.set();
    Node& root = add(NewInode{.mode = S_IFDIR | 0755});
    root.parent = root.attributes.inode;
    root.attributes.nlink = 2;
  }

  // Tests change nodes behind the kernel's back through these.
  Node& node(InodeNo inode) { return nodes_.at(inode); }
  Node* find(InodeNo directory, const std::string& name) {
    auto& names = nodes_.at(directory).names;
    auto it = names.find(name);
    return it == names.end() ? nullptr : &nodes_.at(it->second);
  }
  // While they are reset, reads, lookups (of `gated_name` only, where that is set) and opens wait.
  Event& read_gate() { return read_gate_; }
  Event& lookup_gate() { return lookup_gate_; }
  Event& open_gate() { return open_gate_; }
  // One write waits, while it is reset: the `gated_write`th.
  Event& write_gate() { return write_gate_; }
  int gated_write = 0;
  // What writes of what maps wrote fail with: the next so many with kAgain; all.
  int mapped_refusals = 0;
  std::optional<Errc> mapped_error;
  // While it is reset, changes of attributes wait.
  Event& setattr_gate() { return setattr_gate_; }
  // Lapsed while it is reset.
  Event& lease() { return lease_; }
  bool fenced = false;
  std::string gated_name;
  // A file that the kernel does not know of.
  void make_elsewhere(const std::string& name) {
    make(root(), name, NewInode{.mode = S_IFREG | 0644});
    forget(find(root(), name)->attributes.inode, 1);
  }
  int lookups = 0;
  int reads = 0;
  int writes = 0;
  int syncs = 0;
  int lease_waits = 0;
  int setattrs = 0;
  int pressed = 0;
  std::map<InodeNo, std::int64_t> references;

  InodeNo root() const override { return InodeNo{kFirst}; }
  Time lease_end() const override { return lease_.is_set() ? executor_.now() + valid_ : Time{}; }
  void press(InodeNo) override { ++pressed; }
  void unpress(InodeNo) override { --pressed; }
  Task<Result<>> wait_for_lease() override {
    ++lease_waits;
    co_await lease_.wait();
    if (fenced) co_return fail(Errc::kFenced);
    co_return Result<>{};
  }

  Task<Result<Attributes>> lookup(InodeNo directory, std::string name) override {
    ++lookups;
    if (gated_name.empty() || name == gated_name) co_await lookup_gate_.wait();
    Node* found = find(directory, name);
    if (!found) co_return fail(Errc::kNotFound);
    ++references[found->attributes.inode];
    co_return fresh(*found);
  }
  void forget(InodeNo inode, std::uint64_t count) override { references[inode] -= static_cast<std::int64_t>(count); }
  Task<Result<Attributes>> getattr(InodeNo inode) override {
    if (!nodes_.contains(inode)) co_return fail(Errc::kStale);
    co_return fresh(nodes_.at(inode));
  }
  Task<Result<Attributes>> setattr(InodeNo inode, AttributeChange change) override {
    ++setattrs;
    co_await setattr_gate_.wait();
    Node& node = nodes_.at(inode);
    auto& a = node.attributes;
    if (change.mode) a.mode = (a.mode & S_IFMT) | *change.mode;
    if (change.uid) a.uid = *change.uid;
    if (change.gid) a.gid = *change.gid;
    if (change.size) node.data.resize(a.size = *change.size);
    if (change.atime_ns) a.atime_ns = *change.atime_ns;
    if (change.mtime_ns) a.mtime_ns = *change.mtime_ns;
    if (change.kill_suid_sgid) a.mode &= ~static_cast<std::uint32_t>(S_ISUID | S_ISGID);
    co_return fresh(node);
  }
  Task<Result<Attributes>> create(InodeNo directory, std::string name, NewInode inode, bool exclusive) override {
    if (Node* found = find(directory, name)) {
      if (exclusive) co_return fail(Errc::kExists);
      ++references[found->attributes.inode];
      co_return fresh(*found);
    }
    co_return make(directory, name, inode);
  }
  Task<Result<Attributes>> mkdir(InodeNo directory, std::string name, NewInode inode) override {
    if (find(directory, name)) co_return fail(Errc::kExists);
    co_return make(directory, name, inode);
  }
  Task<Result<Attributes>> mknod(InodeNo directory, std::string name, NewInode inode) override {
    if (find(directory, name)) co_return fail(Errc::kExists);
    co_return make(directory, name, inode);
  }
  Task<Result<Attributes>> symlink(InodeNo directory, std::string name, std::string target, NewInode inode) override {
    if (find(directory, name)) co_return fail(Errc::kExists);
    auto made = make(directory, name, inode);
    node(made->inode).target = target;
    co_return made;
  }
  Task<Result<std::string>> readlink(InodeNo inode) override { co_return node(inode).target; }
  Task<Result<Attributes>> link(InodeNo inode, InodeNo directory, std::string name) override {
    if (find(directory, name)) co_return fail(Errc::kExists);
    node(directory).names[name] = inode;
    ++node(inode).attributes.nlink;
    ++references[inode];
    co_return fresh(node(inode));
  }
  Task<Result<>> unlink(InodeNo directory, std::string name) override {
    Node* found = find(directory, name);
    if (!found) co_return fail(Errc::kNotFound);
    --found->attributes.nlink;
    node(directory).names.erase(name);
    co_return Result<>{};
  }
  Task<Result<>> rmdir(InodeNo directory, std::string name) override {
    Node* found = find(directory, name);
    if (!found) co_return fail(Errc::kNotFound);
    if (!found->names.empty()) co_return fail(Errc::kNotEmpty);
    node(directory).names.erase(name);
    co_return Result<>{};
  }
  Task<Result<>> rename(InodeNo from, std::string from_name, InodeNo to, std::string to_name,
                        RenameMode mode) override {
    Node* moved = find(from, from_name);
    if (!moved) co_return fail(Errc::kNotFound);
    Node* target = find(to, to_name);
    if (target && mode == RenameMode::kNoReplace) co_return fail(Errc::kExists);
    if (!target && mode == RenameMode::kExchange) co_return fail(Errc::kNotFound);
    const InodeNo inode = moved->attributes.inode;
    if (mode == RenameMode::kExchange) {
      node(from).names[from_name] = target->attributes.inode;
    } else {
      node(from).names.erase(from_name);
    }
    node(to).names[to_name] = inode;
    co_return Result<>{};
  }
  Task<Result<std::vector<DirectoryEntry>>> readdir(InodeNo directory, std::uint64_t cookie,
                                                    std::size_t limit) override {
    std::vector<DirectoryEntry> entries;
    std::uint64_t position = 0;
    for (const auto& [name, inode] : node(directory).names) {
      if (++position <= cookie) continue;
      if (entries.size() == limit) break;
      entries.push_back({name, inode, node(inode).attributes.mode & S_IFMT, position});
    }
    co_return entries;
  }
  Task<Result<InodeNo>> parent(InodeNo directory) override { co_return node(directory).parent; }
  Task<Result<>> open(InodeNo) override {
    ++opens;
    co_await open_gate_.wait();
    co_return Result<>{};
  }
  Task<void> close(InodeNo) override {
    --opens;
    co_return;
  }
  Task<Result<std::size_t>> read(InodeNo inode, std::uint64_t offset, std::span<std::byte> out, bool) override {
    ++reads;
    co_await read_gate_.wait();
    const auto& data = node(inode).data;
    if (offset >= data.size()) co_return std::size_t{0};
    const std::size_t n = std::min(out.size(), data.size() - offset);
    std::memcpy(out.data(), data.data() + offset, n);
    co_return n;
  }
  Task<Result<Written>> write(InodeNo inode, std::uint64_t offset, std::span<const std::byte> in, bool append, bool,
                              bool kill) override {
    if (++writes == gated_write) co_await write_gate_.wait();
    Node& file = node(inode);
    const std::uint64_t at = append ? file.data.size() : offset;
    if (file.data.size() < at + in.size()) file.data.resize(at + in.size());
    std::memcpy(file.data.data() + at, in.data(), in.size());
    file.attributes.size = file.data.size();
    file.attributes.mtime_ns = executor_.clock().wall_ns();
    if (kill) file.attributes.mode &= ~static_cast<std::uint32_t>(S_ISUID | S_ISGID);
    co_return Written{at, in.size()};
  }
  Task<Result<>> write_within(InodeNo inode, std::uint64_t offset, std::span<const std::byte> in) override {
    if (++writes == gated_write) co_await write_gate_.wait();
    if (mapped_refusals > 0) {
      --mapped_refusals;
      co_return fail(Errc::kAgain);
    }
    if (mapped_error) co_return fail(*mapped_error);
    auto& data = node(inode).data;
    for (std::size_t i = 0; i < in.size() && offset + i < data.size(); ++i) data[offset + i] = in[i];
    co_return Result<>{};
  }
  Task<Result<>> sync(InodeNo inode, bool, WriteErrorMark& told) override {
    ++syncs;
    co_return node(inode).write_errors.tell(told);
  }
  WriteErrorMark write_errors(InodeNo inode) override { return node(inode).write_errors.mark(); }
  void note_lost(InodeNo inode, const Error& error) override { node(inode).write_errors.note(error); }
  Task<Result<>> sync_all() override { co_return Result<>{}; }
  Task<Result<SpaceInfo>> space() override {
    co_return SpaceInfo{.blocks = 1000, .free_blocks = 500, .inodes = 100, .free_inodes = 50};
  }

  int opens = 0;

 private:
  static constexpr std::uint64_t kFirst = 1001;

  Node& add(NewInode inode) {
    const InodeNo number{kFirst + nodes_.size()};
    Node& node = nodes_[number];
    node.attributes.inode = number;
    node.attributes.generation = 1;
    node.attributes.mode = inode.mode;
    node.attributes.nlink = 1;
    node.attributes.uid = inode.uid;
    node.attributes.gid = inode.gid;
    node.attributes.rdev = inode.rdev;
    node.attributes.mtime_ns = executor_.clock().wall_ns();
    return node;
  }
  Result<Attributes> make(InodeNo directory, const std::string& name, NewInode inode) {
    Node& made = add(inode);
    made.parent = directory;
    node(directory).names[name] = made.attributes.inode;
    node(directory).attributes.mtime_ns = executor_.clock().wall_ns();
    ++references[made.attributes.inode];
    return fresh(made);
  }
  Attributes fresh(const Node& node) const {
    Attributes attributes = node.attributes;
    attributes.size = node.data.size();
    attributes.valid_until = executor_.now() + valid_;
    return attributes;
  }

  Executor& executor_;
  Duration valid_;
  Event read_gate_;
  Event lookup_gate_;
  Event open_gate_;
  Event write_gate_;
  Event setattr_gate_;
  Event lease_;
  std::map<InodeNo, Node> nodes_;
};

}  // namespace cawfs
