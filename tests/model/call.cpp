#include "tests/model/call.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace cawfs::test {

namespace {

std::string text(const ObjectRef& ref) {
  return fmt::format("{}.{:x}", ref.inode.value, ref.generation & 0xffff);
}

std::string asked(const Call& call) {
  const std::string object = text(call.object);
  const std::string entry = fmt::format("{}/{}", object, call.name);
  switch (call.kind) {
    case CallKind::kLookup:
      return "lookup " + entry;
    case CallKind::kCreate:
      return fmt::format("create {}{}", entry, call.flag ? " exclusive" : "");
    case CallKind::kMkdir:
      return "mkdir " + entry;
    case CallKind::kOpen:
      return "open " + entry;
    case CallKind::kSymlink:
      return "symlink " + entry;
    case CallKind::kLink:
      return fmt::format("link {} {}/{}", object, text(call.to), call.to_name);
    case CallKind::kUnlink:
      return "unlink " + entry;
    case CallKind::kRmdir:
      return "rmdir " + entry;
    case CallKind::kRename:
      return fmt::format("rename {} {}/{} mode {}", entry, text(call.to), call.to_name, static_cast<int>(call.mode));
    case CallKind::kReaddir:
      return "readdir " + object;
    case CallKind::kClose:
      return "close " + object;
    case CallKind::kGetattr:
      return "getattr " + object;
    case CallKind::kSetattr:
      return fmt::format("setattr {} size {} mode {:o}", object, call.change.size.value_or(-1),
                         call.change.mode.value_or(0));
    case CallKind::kRead:
      return fmt::format("read {} {}+{}", object, call.offset, call.length);
    case CallKind::kWrite:
      return fmt::format("write {} {}+{}", object, call.flag ? "end" : fmt::to_string(call.offset), call.data.size());
  }
  return "?";
}

std::string answered(const Call& call) {
  if (call.error) return std::string(cawfs::describe(*call.error));
  switch (call.kind) {
    case CallKind::kReaddir: {
      std::vector<std::string> names;
      names.reserve(call.entries.size());
      for (const auto& entry : call.entries) names.push_back(entry.name);
      return fmt::format("[{}]", fmt::join(names, " "));
    }
    case CallKind::kRead:
      return fmt::format("{} bytes '{}'", call.bytes.size(), call.bytes.substr(0, 16));
    case CallKind::kWrite:
      return fmt::format("at {} '{}'", call.at, call.data.substr(0, 16));
    case CallKind::kUnlink:
    case CallKind::kRmdir:
    case CallKind::kRename:
    case CallKind::kClose:
      return "done";
    default:
      return fmt::format("{} mode {:o} nlink {} size {} times {} {} {}",
                         text({call.attributes.inode, call.attributes.generation}), call.attributes.mode,
                         call.attributes.nlink, call.attributes.size, call.attributes.atime_ns,
                         call.attributes.mtime_ns, call.attributes.ctime_ns);
  }
}

}  // namespace

std::string describe(const Call& call) {
  return fmt::format("{}..{} node {} ({}..{}): {}: {}", call.invoked, call.returned, call.node, call.when.earliest,
                     call.when.latest, asked(call), answered(call));
}

}  // namespace cawfs::test
