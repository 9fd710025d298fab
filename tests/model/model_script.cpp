#include "tests/model/model_script.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

namespace cawfs::test {

namespace {
// What the kernel forgets comes in bunches.
constexpr std::uint64_t kForgetEvery = 64;
}  // namespace

ModelScript::ModelScript(Executor& executor, std::uint64_t seed, ScriptOptions options, const Attributes& top)
    : executor_(executor), seed_(seed), options_(std::move(options)), random_(seed), model_(top.mode) {
  numbers_[FileSystemModel::kRoot] = top.inode;
  ids_.push_back(FileSystemModel::kRoot);
}

Task<void> ModelScript::run(FileSystem& fs, std::uint64_t steps) {
  fs_ = &fs;
  for (std::uint64_t i = 1; i <= steps && !::testing::Test::HasFailure(); ++i) {
    ++step_;
    // So that what should have another time than before has one.
    co_await executor_.sleep(std::chrono::microseconds(1));
    co_await step();
    if (just_refused_) co_await check_full();
    if (step_ % kForgetEvery == 0) forget_dead();
    if (step_ % options_.compare_every == 0) co_await compare_tree();
  }
  if (!::testing::Test::HasFailure()) co_await compare_tree();
}

Task<void> ModelScript::let_go(FileSystem& fs) {
  fs_ = &fs;
  scan_.reset();
  while (!open_.empty()) co_await close_one();
  for (const auto& [id, count] : references_) fs_->forget(numbers_.at(id), count);
  references_.clear();
}

Task<void> ModelScript::step() {
  const bool full = model_.count() > options_.most_nodes;
  const std::uint64_t dice = random_.below(64);
  if (dice < 7) return full ? unlink() : create();
  if (dice < 9) return full ? rmdir() : make_directory();
  if (dice < 10) return full ? unlink() : make_special();
  if (dice < 12) return full ? unlink() : make_symlink();
  if (dice < 15) return lookup();
  if (dice < 18) return link();
  if (dice < 22) return unlink();
  if (dice < 24) return rmdir();
  if (dice < 30) return rename();
  if (dice < 39) return write();
  if (dice < 40) return write_within();
  if (dice < 45) return read();
  if (dice < 49) return setattr();
  if (dice < 52) return getattr();
  if (dice < 53) return readlink();
  if (dice < 56) return open_one();
  if (dice < 59) return close_one();
  if (dice < 61) return scan();
  if (dice < 62) return parent();
  if (dice < 63) return sync();
  return random_.one_in(8) ? space() : getattr();
}

std::string ModelScript::name() {
  if (random_.one_in(200)) {
    static const std::string odd[] = {"", ".", "..", "a/b", std::string("a\0b", 3), std::string(256, 'y')};
    return odd[random_.below(std::size(odd))];
  }
  if (!options_.often.empty() && random_.one_in(2)) return options_.often[random_.below(options_.often.size())];
  std::string name = "n" + std::to_string(random_.below(options_.names));
  if (random_.one_in(8)) name += std::string(250, 'x');
  return name.substr(0, 255);
}

// Half of them are there.
std::string ModelScript::name_in(Id directory) {
  const auto& entries = model_.node(directory).entries;
  std::string other = name();
  if (entries.empty() || random_.one_in(2)) return other;
  const auto it = entries.lower_bound(other);
  return it == entries.end() ? entries.begin()->first : it->first;
}

ModelScript::Id ModelScript::any() {
  for (;;) {
    const std::size_t i = random_.below(ids_.size());
    if (model_.alive(ids_[i])) return ids_[i];
    ids_[i] = ids_.back();
    ids_.pop_back();
  }
}
ModelScript::Id ModelScript::directory() {
  if (options_.flat && !random_.one_in(4)) return FileSystemModel::kRoot;
  for (int i = 0; i < 8; ++i) {
    const Id id = any();
    if (model_.node(id).directory()) return id;
  }
  return random_.one_in(50) ? any() : FileSystemModel::kRoot;
}
ModelScript::Id ModelScript::file() {
  for (int i = 0; i < 8; ++i) {
    const Id id = any();
    if (model_.node(id).regular()) return id;
  }
  return any();
}

NewInode ModelScript::new_inode(std::uint32_t type) {
  NewInode inode;
  inode.mode = type | static_cast<std::uint32_t>(random_.below(07777 + 1));
  inode.uid = static_cast<std::uint32_t>(random_.below(5));
  inode.gid = static_cast<std::uint32_t>(random_.below(5));
  inode.rdev = 0x12345;
  return inode;
}

std::string ModelScript::bytes(std::size_t size) {
  std::string data(size, '\0');
  std::uint64_t word = random_.next() | 0x0101010101010101;
  for (std::size_t i = 0; i < size; i += sizeof(word), word += 0x0003000500070009) {
    std::memcpy(data.data() + i, &word, std::min(sizeof(word), size - i));
  }
  return data;
}
std::size_t ModelScript::length() {
  switch (random_.below(8)) {
    case 0:
      return random_.below(5) * 4096;
    case 1:
      return random_.below(70000);
    case 2:
    case 3:
      return random_.below(5000);
    default:
      return random_.below(500);
  }
}
std::uint64_t ModelScript::offset(Id id) {
  const std::uint64_t size = model_.node(id).data.size();
  if (options_.far && random_.one_in(20)) return random_.next() >> random_.below(64);
  if (options_.far && random_.one_in(100)) return INT64_MAX - random_.below(10000);
  switch (random_.below(6)) {
    case 0:
      return 0;
    case 1:
      return size;
    case 2:
      return random_.below(size + 1);
    case 3:
      return random_.below(40) * 4096;
    case 4:
      return random_.below(4000);
    default:
      return random_.below(400000);
  }
}

// The kernel forgets what has gone, and now and then something else.
void ModelScript::forget_dead() {
  for (auto it = references_.begin(); it != references_.end();) {
    if (!model_.alive(it->first) || random_.one_in(8)) {
      fs_->forget(number(it->first), it->second);
      it = references_.erase(it);
    } else {
      ++it;
    }
  }
  std::erase_if(numbers_, [&](const auto& pair) { return !model_.alive(pair.first); });
}

void ModelScript::wrong(const std::string& what) const {
  ADD_FAILURE() << "seed " << seed_ << ", step " << step_ << ": " << what;
}

bool ModelScript::no_space(const Error& error) {
  if (!options_.scarce || error.code != Errc::kNoSpace) return false;
  ++refused_;
  just_refused_ = true;
  return true;
}

void ModelScript::compare(const char* what, Id id, const Attributes& real) {
  std::string differences = model().compare(id, real);
  if (real.inode != number(id)) differences += " it is another inode";
  if (!differences.empty()) wrong(std::string(what) + " of " + std::to_string(id) + ":" + differences);
}

// A name has been answered with attributes, and the kernel remembers the inode.
void ModelScript::learn(const char* what, const Result<Attributes>& real, const Result<Id>& expected) {
  if (!same_outcome(what, real, expected)) return;
  if (numbers_.emplace(*expected, real->inode).second) ids_.push_back(*expected);
  compare(what, *expected, *real);
  if (random_.one_in(2)) {
    fs_->forget(real->inode, 1);
  } else {
    ++references_[*expected];
  }
}

}  // namespace cawfs::test
