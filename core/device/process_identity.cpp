#include "core/device/process_identity.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cctype>
#include <charconv>
#include <optional>
#include <string>
#include <string_view>

#include "core/device/file_handle.h"

namespace cawfs {
namespace {

std::string read_small_file(const std::string& path) {
  const FileHandle file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return {};
  std::string text(4096, '\0');
  const ssize_t n = ::read(file.get(), text.data(), text.size());
  text.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
  return text;
}

struct Stat {
  char state;
  std::uint64_t start_time;
};

// /proc/PID/stat: the command, field 2, stands in parentheses and may hold anything.
std::optional<Stat> read_stat(pid_t pid) {
  const std::string text = read_small_file("/proc/" + std::to_string(pid) + "/stat");
  const std::size_t command_end = text.rfind(") ");
  if (command_end == std::string::npos) return std::nullopt;
  std::string_view rest = std::string_view(text).substr(command_end + 2);  // from field 3, the state
  if (rest.empty()) return std::nullopt;
  Stat stat{.state = rest.front(), .start_time = 0};
  for (int field = 3; field < 22; ++field) {
    const std::size_t space = rest.find(' ');
    if (space == std::string_view::npos) return std::nullopt;
    rest.remove_prefix(space + 1);
  }
  const auto parsed = std::from_chars(rest.data(), rest.data() + rest.size(), stat.start_time);
  if (parsed.ec != std::errc()) return std::nullopt;
  return stat;
}

}  // namespace

BootId current_boot_id() {
  BootId id{};
  std::size_t digits = 0;
  for (char c : read_small_file("/proc/sys/kernel/random/boot_id")) {
    std::uint8_t value = 0;
    if (std::from_chars(&c, &c + 1, value, 16).ec != std::errc()) continue;  // a dash or the line's end
    if (digits / 2 >= id.size()) break;
    id[digits / 2] = static_cast<std::uint8_t>(id[digits / 2] << 4 | value);
    ++digits;
  }
  return id;
}

ProcessIdentity current_process() {
  const pid_t pid = ::getpid();
  const auto stat = read_stat(pid);
  return {.pid = pid, .start_time = stat ? stat->start_time : 0, .boot = current_boot_id()};
}

ProcessState process_state(const ProcessIdentity& process) {
  const auto stat = read_stat(process.pid);
  if (!stat || stat->start_time != process.start_time || current_boot_id() != process.boot || stat->state == 'Z' ||
      stat->state == 'X') {
    return ProcessState::kGone;
  }
  return stat->state == 'T' || stat->state == 't' ? ProcessState::kStopped : ProcessState::kRunning;
}

bool kill_process(const ProcessIdentity& process) {
  const FileHandle pidfd(static_cast<int>(::syscall(SYS_pidfd_open, process.pid, 0)));
  if (!pidfd) return false;
  // The descriptor names the process that has the number now: is it the one that is meant?
  if (process_state(process) == ProcessState::kGone) return false;
  return ::syscall(SYS_pidfd_send_signal, pidfd.get(), SIGKILL, nullptr, 0) == 0;
}

}  // namespace cawfs
