#include "mount/mount_options.h"

#include <fmt/format.h>
#include <sys/mount.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

namespace cawfs {

namespace {

struct FlagWord {
  std::string_view word;
  unsigned long set = 0;
  unsigned long clear = 0;
};

constexpr std::array kFlagWords{
    FlagWord{"ro", MS_RDONLY, 0},
    FlagWord{"rw", 0, MS_RDONLY},
    FlagWord{"nosuid", MS_NOSUID, 0},
    FlagWord{"suid", 0, MS_NOSUID},
    FlagWord{"nodev", MS_NODEV, 0},
    FlagWord{"dev", 0, MS_NODEV},
    FlagWord{"noexec", MS_NOEXEC, 0},
    FlagWord{"exec", 0, MS_NOEXEC},
    FlagWord{"sync", MS_SYNCHRONOUS, 0},
    FlagWord{"async", 0, MS_SYNCHRONOUS},
    FlagWord{"noatime", MS_NOATIME, 0},
    FlagWord{"atime", 0, MS_NOATIME},
    FlagWord{"nodiratime", MS_NODIRATIME, 0},
    FlagWord{"diratime", 0, MS_NODIRATIME},
    FlagWord{"relatime", MS_RELATIME, 0},
    FlagWord{"norelatime", 0, MS_RELATIME},
    FlagWord{"strictatime", MS_STRICTATIME, 0},
    FlagWord{"nostrictatime", 0, MS_STRICTATIME},
    FlagWord{"silent", MS_SILENT, 0},
    FlagWord{"loud", 0, MS_SILENT},
    FlagWord{"defaults", 0, MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_SYNCHRONOUS},
};

// For mount(8), systemd and fstab; they mean nothing to a file system.
constexpr std::array<std::string_view, 11> kIgnoredWords{
    "nofail", "auto", "noauto", "nouser", "user", "users", "owner", "noowner", "group", "nogroup", "allow_other"};

struct Word {
  std::string_view name;
  std::optional<std::string_view> value;
};

Word split(std::string_view text) {
  const auto equals = text.find('=');
  if (equals == std::string_view::npos) return {text, std::nullopt};
  return {text.substr(0, equals), text.substr(equals + 1)};
}

bool set_switch(std::string_view name, MountOptions& options) {
  if (name == "norecovery") return options.no_recovery = true;
  if (name == "local") return options.local = true;
  if (name == "noaptpl") return options.no_aptpl = true;
  if (name == "_netdev") return options.network = true;
  if (name == "discard" || name == "nodiscard") {
    options.discard = name == "discard";
    return true;
  }
  const auto* flag = std::ranges::find(kFlagWords, name, &FlagWord::word);
  if (flag == kFlagWords.end()) return std::ranges::count(kIgnoredWords, name) > 0;
  options.mount_flags = (options.mount_flags & ~flag->clear) | flag->set;
  return true;
}

Outcome<> set_poll(std::string_view value, MountOptions& options) {
  unsigned milliseconds = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), milliseconds);
  if (error != std::errc() || end != value.data() + value.size() || milliseconds < 1 || milliseconds > 1000) {
    return failure(kExitUsage, fmt::format("option poll={}: give 1 to 1000 milliseconds", value));
  }
  options.poll_slowest = std::chrono::milliseconds(milliseconds);
  return {};
}

Outcome<> add_word(Word word, bool sloppy, MountOptions& options) {
  const auto& [name, value] = word;
  if (name.starts_with("x-") || name == "comment") return {};
  if (name == "initiator" || name == "poll") {
    if (!value || value->empty()) return failure(kExitUsage, fmt::format("option {0} needs a value: {0}=...", name));
    if (name == "poll") return set_poll(*value, options);
    options.initiator = *value;
    return {};
  }
  if (set_switch(name, options)) {
    if (value) return failure(kExitUsage, fmt::format("option {} takes no value", name));
    return {};
  }
  if (sloppy) return {};
  return failure(kExitUsage, fmt::format("unknown option \"{}\"; mount.cawfs --help lists them", name));
}

}  // namespace

Outcome<> parse_option_words(std::string_view text, bool sloppy, MountOptions& options) {
  while (!text.empty()) {
    const auto comma = std::min(text.find(','), text.size());
    const std::string_view word = text.substr(0, comma);
    text.remove_prefix(std::min(comma + 1, text.size()));
    if (word.empty()) continue;
    auto added = add_word(split(word), sloppy, options);
    if (!added) return added;
  }
  options.read_only = (options.mount_flags & MS_RDONLY) != 0;
  options.synchronous = (options.mount_flags & MS_SYNCHRONOUS) != 0;
  return {};
}

Outcome<> check_options(const MountOptions& options) {
  if (options.no_recovery && !options.read_only) {
    return failure(kExitUsage, "norecovery is for read-only mounts: use -o ro,norecovery");
  }
  return {};
}

}  // namespace cawfs
