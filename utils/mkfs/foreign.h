// What stands on a device before mkfs destroys it.
#pragma once

#include <optional>
#include <string>

#include "core/base/error.h"
#include "core/device/device.h"
#include "core/runtime/executor.h"
#include "core/runtime/task.h"

namespace cawfs {

// A file system, RAID member or partition table that libblkid knows, in words: "an ext4 file system". libblkid sees a
// sparse copy of the device's first and last MiB, read through `device`: so iSCSI LUNs are looked at like disks.
Task<Result<std::optional<std::string>>> find_foreign(BlockDevice& device);

// A cawfs file system, damaged or not, in words, with the hosts that have it mounted. May take the dead-time, which a
// silent node in an active slot is given to show that it lives.
struct OldFileSystem {
  std::string text;
  bool live = false;
};
Task<Result<std::optional<OldFileSystem>>> find_cawfs(Executor& executor, BlockDevice& device);

}  // namespace cawfs
