#include "mount/host_identity.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <utility>

#include "core/base/checksum.h"
#include "core/base/types.h"

namespace cawfs {

namespace {

constexpr const char* kRunDirectory = "/run/cawfs";

std::string first_line(const char* path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

std::string host_name() {
  std::array<char, 256> name{};
  if (gethostname(name.data(), name.size() - 1) != 0) return "unknown";
  return name.data();
}

// "xxxxxxxx-xxxx-...": the hexadecimal digits, as far as there are any.
std::array<std::uint8_t, 16> parse_uuid(std::string text) {
  std::erase(text, '-');
  text.resize(32, '0');
  std::array<std::uint8_t, 16> uuid{};
  for (std::size_t i = 0; i < uuid.size(); ++i) std::from_chars(&text[2 * i], &text[2 * i] + 2, uuid[i], 16);
  return uuid;
}

// The machine's id itself is not to be shown around (machine-id(5)): only its hash is.
std::array<std::uint8_t, 16> node_uuid(const std::string& name) {
  std::string id = first_line("/etc/machine-id");
  if (id.empty()) id = host_name();
  const std::string text = "cawfs node " + id + " " + name;
  const auto bytes = std::as_bytes(std::span(text.data(), text.size()));
  std::array<std::uint8_t, 16> uuid{};
  for (std::uint8_t half = 0; half < 2; ++half) {
    const SipKey key{half};
    const std::uint64_t hash = siphash(bytes, key);
    std::memcpy(&uuid[std::size_t{half} * 8], &hash, sizeof(hash));
  }
  return uuid;
}

// A descriptor that holds the lock; -1 where another process does; -2 for an error.
int try_lock(const std::string& path) {
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return -2;
  if (flock(fd, LOCK_EX | LOCK_NB) == 0) return fd;
  const bool held = errno == EWOULDBLOCK;
  close(fd);
  return held ? -1 : -2;
}

}  // namespace

Outcome<std::optional<HostIdentity>> HostIdentity::take(std::span<const std::uint8_t, 16> file_system,
                                                        const std::string& name, bool alone) {
  mkdir(kRunDirectory, 0755);
  std::string prefix = std::string(kRunDirectory) + "/";
  for (std::uint8_t byte : file_system) prefix += fmt::format("{:02x}", byte);

  const std::uint32_t candidates = name.empty() && !alone ? kSlots : 1;
  for (std::uint32_t number = 0; number < candidates; ++number) {
    std::string node = name.empty() ? fmt::format("{}", number) : name;
    std::ranges::replace(node, '/', '_');
    const int lock = try_lock(fmt::format("{}-{}.lock", prefix, node));
    if (lock == -2) {
      return failure(kExitSystem, fmt::format("cannot lock a file in {}: {}", kRunDirectory, std::strerror(errno)));
    }
    if (lock < 0) continue;
    HostIdentity identity(lock);
    identity.host_name = cawfs::host_name();
    identity.node_uuid = cawfs::node_uuid(node);
    identity.boot_id = parse_uuid(first_line("/proc/sys/kernel/random/boot_id"));
    return std::optional<HostIdentity>(std::move(identity));
  }
  return std::nullopt;
}

HostIdentity::HostIdentity(HostIdentity&& other) noexcept
    : host_name(std::move(other.host_name)),
      node_uuid(other.node_uuid),
      boot_id(other.boot_id),
      lock_(std::exchange(other.lock_, -1)) {}

HostIdentity::~HostIdentity() {
  if (lock_ >= 0) close(lock_);
}

}  // namespace cawfs
