// A script's operations on names and directories.
#include <sys/stat.h>

#include "tests/model/model_script.h"

namespace cawfs::test {

Task<void> ModelScript::create() {
  const Id where = directory();
  const std::string as = name();
  const NewInode inode = new_inode();
  const bool exclusive = random_.one_in(2);
  begin();
  auto real = co_await fs_->create(number(where), as, inode, exclusive);
  if (!real && no_space(real.error())) co_return;
  learn("create", real, model().create(where, as, inode, exclusive));
}

Task<void> ModelScript::make_directory() {
  const Id where = directory();
  const std::string as = name();
  const NewInode inode = new_inode();
  begin();
  auto real = co_await fs_->mkdir(number(where), as, inode);
  if (!real && no_space(real.error())) co_return;
  learn("mkdir", real, model().mkdir(where, as, inode));
}

Task<void> ModelScript::make_special() {
  static constexpr std::uint32_t kTypes[] = {S_IFIFO, S_IFCHR, S_IFSOCK, S_IFBLK, S_IFREG, S_IFDIR, S_IFLNK, 0};
  const Id where = directory();
  const std::string as = name();
  const NewInode inode = new_inode(kTypes[random_.below(std::size(kTypes))]);
  begin();
  auto real = co_await fs_->mknod(number(where), as, inode);
  if (!real && no_space(real.error())) co_return;
  learn("mknod", real, model().mknod(where, as, inode));
}

Task<void> ModelScript::make_symlink() {
  const Id where = directory();
  const std::string as = name();
  const NewInode inode = new_inode();
  const std::string target = bytes(random_.one_in(4) ? random_.below(4200) : random_.below(100));
  begin();
  auto real = co_await fs_->symlink(number(where), as, target, inode);
  if (!real && no_space(real.error())) co_return;
  learn("symlink", real, model().symlink(where, as, target, inode));
}

Task<void> ModelScript::lookup() {
  const Id where = directory();
  const std::string as = name_in(where);
  begin();
  auto real = co_await fs_->lookup(number(where), as);
  learn("lookup", real, model().lookup(where, as));
}

Task<void> ModelScript::link() {
  const Id where = directory();
  const Id what = any();
  const std::string as = name();
  begin();
  auto real = co_await fs_->link(number(what), number(where), as);
  if (!real && no_space(real.error())) co_return;
  learn("link", real, model().link(what, where, as));
}

Task<void> ModelScript::unlink() {
  const Id where = directory();
  const std::string as = name_in(where);
  begin();
  auto real = co_await fs_->unlink(number(where), as);
  same_outcome("unlink", real, model().unlink(where, as));
}

Task<void> ModelScript::rmdir() {
  const Id where = directory();
  const std::string as = name_in(where);
  begin();
  auto real = co_await fs_->rmdir(number(where), as);
  same_outcome("rmdir", real, model().rmdir(where, as));
}

Task<void> ModelScript::rename() {
  const Id from = directory();
  const Id to = random_.one_in(3) ? from : directory();
  const std::string from_name = name_in(from);
  const std::string to_name = name_in(to);
  const auto mode = static_cast<RenameMode>(random_.below(3));
  begin();
  auto real = co_await fs_->rename(number(from), from_name, number(to), to_name, mode);
  if (!real && no_space(real.error())) co_return;
  same_outcome("rename", real, model().rename(from, from_name, to, to_name, mode));
}

// A directory's parent; of one that has gone meanwhile it does not matter any more.
Task<void> ModelScript::parent() {
  const Id id = directory();
  auto real = co_await fs_->parent(number(id));
  const auto expected = model().parent(id);
  if (!same_outcome("parent", real, expected)) co_return;
  if (model_.node(id).nlink > 0 && id != FileSystemModel::kRoot && *real != number(*expected)) wrong("parent: another");
}

// Goes on with the listing that is under way, if any.
Task<void> ModelScript::scan() {
  if (scan_ && !model_.alive(scan_->directory)) scan_.reset();
  if (!scan_) scan_ = Scan{.directory = directory(), .cookie = 0, .since = model_.changes(), .found = {}};
  const Id id = scan_->directory;
  const std::size_t limit = 1 + random_.below(40);
  begin();
  auto some = co_await fs_->readdir(number(id), scan_->cookie, limit);
  if (!same_outcome("readdir", some, model().readdir(id))) {
    scan_.reset();
    co_return;
  }
  if (some->size() > limit) wrong("readdir: more than asked for");
  for (const DirectoryEntry& entry : *some) {
    if (entry.cookie <= scan_->cookie) wrong("readdir: cookies do not grow");
    scan_->cookie = entry.cookie;
    const auto& entries = model_.node(id).entries;
    const auto it = entries.find(entry.name);
    if (it == entries.end()) {
      wrong("readdir: no such name: " + entry.name);
      continue;
    }
    const auto [child, since] = it->second;
    if (entry.inode != number(child)) wrong("readdir: another inode: " + entry.name);
    if (entry.type != (model_.node(child).mode & S_IFMT)) wrong("readdir: another type: " + entry.name);
    if (!scan_->found.emplace(entry.name, since).second) wrong("readdir: twice: " + entry.name);
  }
  if (some->empty()) end_scan();
}

// All names that were there all the time have been found.
void ModelScript::end_scan() {
  for (const auto& [name, entry] : model_.node(scan_->directory).entries) {
    if (entry.since <= scan_->since && !scan_->found.contains({name, entry.since})) wrong("readdir: missed: " + name);
  }
  scan_.reset();
}

}  // namespace cawfs::test
