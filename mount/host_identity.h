// Who this mount is among the nodes of the cluster. A host that mounts one LUN several times (a demo, tests) is several
// nodes: each has a lock file under /run/cawfs, and its uuid is made of the machine's id and that file's name. So a
// mount that comes back after a crash is known to be the old one's successor, and to be alone.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "mount/failure.h"

namespace cawfs {

class HostIdentity {
 public:
  // `file_system`: its uuid. `name`: an initiator name given by the user, or empty: the first free number is taken;
  // with `alone` only the first. None: what was asked for is in use by another process of this host. kExitSystem.
  static Outcome<std::optional<HostIdentity>> take(std::span<const std::uint8_t, 16> file_system,
                                                   const std::string& name, bool alone);
  HostIdentity(HostIdentity&& other) noexcept;
  HostIdentity& operator=(HostIdentity&&) = delete;
  ~HostIdentity();

  std::string host_name;
  std::array<std::uint8_t, 16> node_uuid{};
  std::array<std::uint8_t, 16> boot_id{};

 private:
  explicit HostIdentity(int lock) : lock_(lock) {}
  int lock_;
};

}  // namespace cawfs
