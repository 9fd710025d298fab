#include "core/device/iscsi_device.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <fstream>

#include "core/device/iscsi_transport.h"
#include "core/device/scsi_device.h"

namespace cawfs {
namespace {

constexpr int kMostNodesPerHost = 256;

std::string host_initiator_name() {
  std::ifstream file("/etc/iscsi/initiatorname.iscsi");
  constexpr std::string_view kKey = "InitiatorName=";
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(kKey)) return line.substr(kKey.size());
  }
  std::array<char, 65> host{};
  gethostname(host.data(), host.size() - 1);
  return std::string("iqn.2026-11.cawfs:") + host.data();
}

// The smallest number whose lock is free; its descriptor is left open, so the lock is held until the process ends.
Result<int> take_number() {
  mkdir("/run/cawfs", 0755);
  for (int number = 1; number <= kMostNodesPerHost; ++number) {
    const std::string path = fmt::format("/run/cawfs/initiator-{}", number);
    const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) return fail(Errc::kPermission, "/run/cawfs");
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) return number;
    close(fd);
  }
  return fail(Errc::kBusy, "initiator names of this host");
}

}  // namespace

Task<Result<std::unique_ptr<BlockDevice>>> open_iscsi_device(Reactor& reactor, Log& log, std::string url,
                                                             OpenOptions options) {
  IscsiOptions iscsi;
  iscsi.url = url;
  iscsi.timeout = std::chrono::milliseconds(options.timeout_ms);
  iscsi.initiator_name = options.initiator_name;
  if (iscsi.initiator_name.empty()) {
    auto number = take_number();
    if (!number) {
      log.error("{}: no initiator name for this node: {}", url, describe(number.error().code));
      co_return fail(number.error());
    }
    iscsi.initiator_name = fmt::format("{}:cawfs-{}", host_initiator_name(), *number);
  }
  auto transport = co_await open_iscsi_transport(reactor, log, iscsi);
  if (!transport) co_return fail(transport.error());
  auto device = co_await open_scsi_device(reactor.executor(), log, std::move(*transport));
  if (!device) {
    log.error("{}: {} ({} {:#x})", url, describe(device.error().code), device.error().where, device.error().address);
  }
  co_return device;
}

}  // namespace cawfs
