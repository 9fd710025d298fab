// Reads everything of a file system that may be damaged: names, contents, and the errors met on the way.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>

#include "core/base/error.h"
#include "core/fs/filesystem.h"
#include "core/runtime/task.h"

namespace cawfs::testing {

struct Seen {
  std::map<std::string, std::string> contents;  // files and symbolic links that could be read
  std::set<std::string> names;                  // all paths found
  std::set<std::string> listed;                 // directories that could be listed to the end
  std::uint64_t visited = 0;
  std::uint64_t corrupt = 0;  // errors of that class
  std::string first_error;

  void note(const std::string& path, const Error& error);
};

// From the root down, as far as it can be read; a tree with loops in it is left after some thousand names. `seen`
// begins empty.
Task<void> read_everything(FileSystem& fs, Seen& seen);

}  // namespace cawfs::testing
