// A script's operations on files and attributes, and the comparison of all there is.
#include <sys/stat.h>

#include "tests/model/model_script.h"

namespace cawfs::test {

namespace {
// What one operation of a script asks for at most, generously: its data, or a chunk of inodes, and nodes of trees.
constexpr std::uint64_t kMostBlocksAtOnce = 64;
}  // namespace

Task<void> ModelScript::write() {
  const Id id = file();
  const bool append = random_.one_in(4);
  const bool direct = random_.one_in(6);
  const bool kill = random_.one_in(3);
  std::string data = bytes(length());
  std::uint64_t where = offset(id);
  if (direct && random_.one_in(2)) data.resize(data.size() / 4096 * 4096);
  if (direct && random_.one_in(2)) where = where / 4096 * 4096;
  begin();
  auto real = co_await fs_->write(number(id), where, std::as_bytes(std::span(data)), append, direct, kill);
  if (!real && no_space(real.error())) co_return;
  if (real && options_.scarce) data.resize(real->count);
  auto expected = model().write(id, where, data, append, kill);
  if (!same_outcome("write", real, expected)) co_return;
  if (real->offset != *expected) wrong("write: elsewhere");
  if (real->count != data.size()) wrong("write: in part");
}

Task<void> ModelScript::write_within() {
  const Id id = file();
  const std::string data = bytes(length());
  const std::uint64_t where = offset(id);
  begin();
  auto real = co_await fs_->write_within(number(id), where, std::as_bytes(std::span(data)));
  if (!real && no_space(real.error())) co_return;
  same_outcome("write_within", real, model().write_within(id, where, data));
}

Task<void> ModelScript::read() {
  const Id id = file();
  const std::uint64_t at = offset(id);
  std::string got(length(), '?');
  begin();
  auto real = co_await fs_->read(number(id), at, std::as_writable_bytes(std::span(got)), false);
  auto expected = model().read(id, at, got.size());
  if (!same_outcome("read", real, expected)) co_return;
  got.resize(*real);
  if (got != *expected) {
    wrong("read at " + std::to_string(at) + ": " + std::to_string(got.size()) + " bytes, not these " +
          std::to_string(expected->size()));
  }
}

AttributeChange ModelScript::attribute_change() {
  AttributeChange change;
  if (random_.one_in(2)) {
    change.size = random_.one_in(3) ? random_.below(400000) : random_.below(9000);
    if (options_.far && random_.one_in(8)) change.size = random_.next() >> random_.below(64);
  }
  if (random_.one_in(3)) change.mode = static_cast<std::uint32_t>(random_.below(010000));
  if (random_.one_in(4)) change.uid = static_cast<std::uint32_t>(random_.below(9));
  if (random_.one_in(4)) change.gid = static_cast<std::uint32_t>(random_.below(9));
  change.kill_suid_sgid = random_.one_in(4);
  if (random_.one_in(4)) change.atime_ns = static_cast<std::int64_t>(random_.below(1'000'000'000'000));
  if (random_.one_in(4)) change.mtime_ns = static_cast<std::int64_t>(random_.below(1'000'000'000'000));
  change.atime_now = !change.atime_ns && random_.one_in(6);
  change.mtime_now = !change.mtime_ns && random_.one_in(6);
  return change;
}

Task<void> ModelScript::setattr() {
  const Id id = random_.one_in(3) ? any() : file();
  const AttributeChange change = attribute_change();
  begin();
  auto real = co_await fs_->setattr(number(id), change);
  if (!real && no_space(real.error())) co_return;
  if (same_outcome("setattr", real, model().setattr(id, change))) compare("setattr", id, *real);
}

Task<void> ModelScript::getattr() {
  const Id id = any();
  auto real = co_await fs_->getattr(number(id));
  if (!real) {
    wrong("getattr: " + std::string(describe(real.error().code)));
  } else {
    compare("getattr", id, *real);
  }
}

Task<void> ModelScript::readlink() {
  Id id = any();
  for (int i = 0; i < 8 && !model_.node(id).symlink(); ++i) id = any();
  begin();
  auto real = co_await fs_->readlink(number(id));
  auto expected = model().readlink(id);
  if (same_outcome("readlink", real, expected) && *real != *expected) wrong("readlink: another target");
}

Task<void> ModelScript::open_one() {
  const Id id = any();
  auto real = co_await fs_->open(number(id));
  if (same_outcome("open", real, model().open(id))) open_.push_back(id);
}

Task<void> ModelScript::close_one() {
  if (open_.empty()) co_return;
  const std::size_t i = random_.below(open_.size());
  const Id id = open_[i];
  open_.erase(open_.begin() + static_cast<std::ptrdiff_t>(i));
  co_await fs_->close(number(id));
  model().close(id);
}

Task<void> ModelScript::sync() {
  Result<> done;
  if (random_.one_in(8)) {
    done = co_await fs_->sync_all();
  } else {
    done = co_await fs_->sync(number(any()), random_.one_in(2));
  }
  if (!done) wrong("sync: " + std::string(describe(done.error().code)));
}

// Which numbers it has is not specified, but what they cannot be.
Task<void> ModelScript::space() {
  auto info = co_await fs_->space();
  if (!info) {
    wrong("space: " + std::string(describe(info.error().code)));
  } else if (info->blocks == 0 || info->free_blocks > info->blocks || info->free_inodes > info->inodes ||
             info->inodes - info->free_inodes < model_.count()) {
    wrong("space: cannot be");
  }
}

// There was no space for something: there is little indeed.
Task<void> ModelScript::check_full() {
  just_refused_ = false;
  const auto info = co_await fs_->space();
  if (!info || info->free_blocks > kMostBlocksAtOnce) {
    wrong("no space, with " + std::to_string(info ? info->free_blocks : 0) + " blocks free");
  }
}

// Everything that can be reached, with contents, and what is open besides.
Task<void> ModelScript::compare_tree() {
  for (const Id id : model_.all()) {
    const auto& node = model_.node(id);
    auto attributes = co_await fs_->getattr(number(id));
    if (!attributes) {
      wrong("getattr: " + std::string(describe(attributes.error().code)));
      co_return;
    }
    compare("tree", id, *attributes);
    if (node.directory()) co_await compare_directory(id);
    if (node.regular()) co_await compare_file(id);
  }
}

// Its end, all that was written to it, and what lies before and behind each piece of that.
Task<void> ModelScript::compare_file(Id id) {
  constexpr std::uint64_t kAround = 100;
  const SparseBytes& data = model_.node(id).data;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> runs{
      {data.size() - std::min(data.size(), kAround), kAround + 1}};
  for (const auto& [first, piece] : data.pieces()) {
    const std::uint64_t begin = first - std::min(first, kAround);
    const std::uint64_t end = first + piece.size() + kAround;
    if (runs.size() > 1 && begin <= runs.back().first + runs.back().second) {
      runs.back().second = end - runs.back().first;
    } else {
      runs.emplace_back(begin, end - begin);
    }
  }
  for (const auto& [begin, size] : runs) co_await compare_bytes(id, begin, size);
}

Task<void> ModelScript::compare_bytes(Id id, std::uint64_t offset, std::size_t size) {
  std::string got(size, '?');
  begin();
  auto read = co_await fs_->read(number(id), offset, std::as_writable_bytes(std::span(got)), false);
  auto expected = model().read(id, offset, size);
  if (!same_outcome("read", read, expected)) co_return;
  got.resize(*read);
  if (got != *expected) wrong("bytes of " + std::to_string(id) + " at " + std::to_string(offset));
}

Task<void> ModelScript::compare_directory(Id id) {
  const auto under_way =
      std::exchange(scan_, Scan{.directory = id, .cookie = 0, .since = model_.changes(), .found = {}});
  while (scan_) co_await scan();
  scan_ = under_way;
}

}  // namespace cawfs::test
