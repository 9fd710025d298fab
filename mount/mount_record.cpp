#include "mount/mount_record.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>
#include <utility>

namespace cawfs {

namespace {

constexpr const char* kRunDirectory = "/run/cawfs";
constexpr const char* kFailed = "failed: ";

std::string path_of(const std::string& device) {
  return fmt::format("{}/mount-{}", kRunDirectory, device);
}

struct MountLine {
  std::string device;
  std::string directory;
  std::string type;
};

// proc(5) writes blanks and backslashes in names as \ooo.
std::string unescaped(const std::string& text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      out += static_cast<char>(std::stoi(text.substr(i + 1, 3), nullptr, 8));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

// "36 35 0:45 /root /mnt rw,noatime shared:1 - fuse.cawfs source options".
MountLine parse_line(const std::string& line) {
  MountLine parsed;
  std::istringstream words(line);
  std::string skipped;
  words >> skipped >> skipped >> parsed.device >> skipped >> parsed.directory;
  parsed.directory = unescaped(parsed.directory);
  while (words >> skipped && skipped != "-") {
  }
  words >> parsed.type;
  return parsed;
}

template <class Visit>
void each_mount(Visit visit) {
  std::ifstream in("/proc/self/mountinfo");
  for (std::string line; std::getline(in, line);) visit(parse_line(line));
}

bool same_file(int fd, const std::string& path) {
  struct stat open{};
  struct stat named{};
  return fstat(fd, &open) == 0 && stat(path.c_str(), &named) == 0 && open.st_dev == named.st_dev &&
         open.st_ino == named.st_ino;
}

}  // namespace

std::optional<std::string> mounted_device(const std::string& directory) {
  std::optional<std::string> device;
  each_mount([&](const MountLine& line) {
    if (line.directory != directory) return;
    device.reset();
    if (line.type == "fuse.cawfs") device = line.device;
  });
  return device;
}

std::size_t count_mounts(const std::string& device) {
  std::size_t count = 0;
  each_mount([&](const MountLine& line) { count += line.device == device ? 1 : 0; });
  return count;
}

MountRecord::~MountRecord() {
  if (fd_ >= 0) close(fd_);
}

Outcome<> MountRecord::make(const std::string& directory) {
  const auto device = mounted_device(directory);
  if (!device)
    return failure(kExitSystem, fmt::format("{} is not among the mounts in /proc/self/mountinfo", directory));
  mkdir(kRunDirectory, 0755);
  path_ = path_of(*device);
  // An older one of that name is of a mount that has gone.
  unlink(path_.c_str());
  fd_ = open(path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd_ < 0 || flock(fd_, LOCK_EX | LOCK_NB) != 0) {
    return failure(kExitSystem, fmt::format("cannot make {}: {}", path_, std::strerror(errno)));
  }
  write("mounted\n");
  return {};
}

void MountRecord::ended(const std::string& problem) {
  if (fd_ < 0) return;
  write(problem.empty() ? "unmounted\n" : kFailed + problem);
  if (same_file(fd_, path_)) unlink(path_.c_str());
  close(std::exchange(fd_, -1));
}

void MountRecord::write(const std::string& text) {
  if (fd_ < 0) return;
  // Who reads it falls back on the lock.
  [[maybe_unused]] const bool done = pwrite(fd_, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size()) &&
                                     ftruncate(fd_, static_cast<off_t>(text.size())) == 0;
}

MountWatch::MountWatch(const std::string& device) : fd_(open(path_of(device).c_str(), O_RDONLY | O_CLOEXEC)) {}

MountWatch::~MountWatch() {
  if (fd_ >= 0) close(fd_);
}

bool MountWatch::unmounting() const {
  if (!text().starts_with("mounted")) return true;
  if (flock(fd_, LOCK_SH | LOCK_NB) != 0) return false;
  flock(fd_, LOCK_UN);
  return true;
}

std::string MountWatch::wait() const {
  while (flock(fd_, LOCK_SH) != 0 && errno == EINTR) {
  }
  const std::string last = text();
  if (last.starts_with(kFailed)) return last.substr(std::strlen(kFailed));
  if (last.starts_with("unmounted")) return "";
  return "the daemon was killed before it had written everything back; the next mount recovers what was committed";
}

std::string MountWatch::text() const {
  std::array<char, 1024> buffer{};
  const ssize_t n = pread(fd_, buffer.data(), buffer.size(), 0);
  return {buffer.data(), n > 0 ? static_cast<std::size_t>(n) : 0};
}

}  // namespace cawfs
