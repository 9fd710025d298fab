// One call of a file-system operation by one node of several: what was asked, when, and what came of it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/fs/filesystem.h"
#include "tests/model/file_system_model.h"

namespace cawfs::test {

// An inode for its whole life: numbers are used again.
struct ObjectRef {
  InodeNo inode;
  std::uint64_t generation = 0;
  friend auto operator<=>(const ObjectRef&, const ObjectRef&) = default;
};

enum class CallKind : std::uint8_t {
  kLookup,
  kCreate,
  kMkdir,
  kSymlink,
  kLink,
  kUnlink,
  kRmdir,
  kRename,
  kOpen,  // by its name
  kReaddir,
  kClose,
  kGetattr,
  kSetattr,
  kRead,
  kWrite,
};
inline constexpr std::size_t kCallKinds = 15;

struct Call {
  unsigned node = 0;
  CallKind kind = CallKind::kLookup;
  ObjectRef object;  // what it is done to, or the directory of `name`
  std::string name{};
  ObjectRef to{};  // kLink: the new name's directory; kRename
  std::string to_name{};
  RenameMode mode = RenameMode::kReplace;
  bool flag = false;  // kCreate: exclusive; kWrite: at the end
  AttributeChange change{};
  std::uint64_t offset = 0;
  std::size_t length = 0;
  std::string data{};  // kWrite; kSymlink: the target

  // Its place in the order of all invocations and returns, and its span of the wall clock.
  std::uint64_t invoked = 0;
  std::uint64_t returned = 0;
  Span when{};

  std::optional<Errc> error{};
  Attributes attributes{};  // of what was found, made or changed
  std::string bytes{};      // kRead
  std::uint64_t at = 0;     // kWrite
  std::vector<DirectoryEntry> entries{};
};

std::string describe(const Call& call);

}  // namespace cawfs::test
