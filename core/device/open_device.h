// Opens the block device that a SOURCE names: `iscsi://host[:port]/iqn/lun`, a regular file (the file LUN), or a SCSI
// disk.
#pragma once

#include <memory>
#include <string>

#include "core/base/log.h"
#include "core/device/device.h"
#include "core/runtime/reactor.h"

namespace cawfs {

struct OpenOptions {
  bool read_only = false;
  // O_EXCL on kernel disks: all I/O of one host goes through one process (design §7, last rule).
  bool exclusive = true;
  // iSCSI: this node's initiator name; empty: the host's, with a suffix where several nodes share a host.
  std::string initiator_name = {};
  std::uint32_t timeout_ms = 10'000;  // of a command
  // File LUNs: 512 or 4096; 0: as the LUN has been so far, 4096 for a new one. Changing it needs a sole opener.
  std::uint32_t file_logical_block = 0;
};

Task<Result<std::unique_ptr<BlockDevice>>> open_device(Reactor& reactor, Log& log, std::string source,
                                                       OpenOptions options);

}  // namespace cawfs
