#include "tests/support/tree_reader.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

namespace cawfs::testing {
namespace {

constexpr std::uint64_t kMostVisited = 4000;  // a damaged tree may have loops
constexpr std::size_t kDeepest = 12;
constexpr std::uint64_t kMostRead = 2 << 20;

Task<void> read_node(FileSystem& fs, Attributes attributes, std::string path, Seen& seen) {
  if ((attributes.mode & S_IFMT) == S_IFLNK) {
    const auto target = co_await fs.readlink(attributes.inode);
    if (target) seen.contents[path] = *target;
    if (!target) seen.note(path, target.error());
    co_return;
  }
  if ((attributes.mode & S_IFMT) != S_IFREG) co_return;
  std::vector<std::byte> bytes(std::min(attributes.size, kMostRead));
  const auto read = co_await fs.read(attributes.inode, 0, bytes, false);
  if (read) seen.contents[path].assign(reinterpret_cast<const char*>(bytes.data()), *read);
  if (!read) seen.note(path, read.error());
  if (attributes.size <= kMostRead) co_return;
  const auto end = co_await fs.read(attributes.inode, attributes.size - 10, std::span(bytes).first(20), false);
  if (!end) seen.note(path, end.error());
}

Task<void> walk(FileSystem& fs, InodeNo directory, std::string path, std::size_t depth, Seen& seen) {
  std::uint64_t cookie = 0;
  while (seen.visited < kMostVisited) {
    const auto entries = co_await fs.readdir(directory, cookie, 50);
    if (!entries) {
      seen.note(path, entries.error());
      co_return;
    }
    if (entries->empty()) {
      seen.listed.insert(path);
      co_return;
    }
    for (const DirectoryEntry& entry : *entries) {
      cookie = entry.cookie;
      if (++seen.visited >= kMostVisited) co_return;
      const std::string at = path + "/" + entry.name;
      seen.names.insert(at);
      const auto attributes = co_await fs.lookup(directory, entry.name);
      if (!attributes) {
        seen.note(at, attributes.error());
        continue;
      }
      if (S_ISDIR(attributes->mode) && depth < kDeepest) {
        co_await walk(fs, attributes->inode, at, depth + 1, seen);
      } else {
        co_await read_node(fs, *attributes, at, seen);
      }
      fs.forget(attributes->inode, 1);
    }
  }
}

}  // namespace

void Seen::note(const std::string& path, const Error& error) {
  if (error_class(error.code) == ErrorClass::kCorrupt) ++corrupt;
  if (first_error.empty()) {
    first_error = fmt::format("{}: {} ({} {})", path, describe(error.code), error.where, error.address);
  }
}

Task<void> read_everything(FileSystem& fs, Seen& seen) {
  co_await walk(fs, fs.root(), "", 0, seen);
}

}  // namespace cawfs::testing
