// The steps of mkfs.cawfs on an open device: look, claim, prove, write.
#pragma once

#include <string>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/random.h"
#include "core/device/device.h"
#include "core/format/disk_format.h"
#include "core/format/make_file_system.h"
#include "core/runtime/executor.h"
#include "core/runtime/task.h"

namespace cawfs {

struct MkfsParts {
  Executor& executor;
  BlockDevice& device;
  BlockDevice* second;  // another session on the same LUN, for the probe; null: there is none
  Random& random;
  Log& log;                         // says what is wrong: one line, with what may be done about it
  std::string name = "the device";  // in that line
};

struct MkfsOptions {
  MakeOptions make;
  bool force = false;
  MakeProgress progress;
};

// What is said of a device on which the options do not fit.
std::string too_small_text(std::uint64_t size_bytes, std::uint32_t logical_block, const MakeOptions& options);

// What stands in the way: the size, or what is on the device (not with `force`). Reads only, so that `device` may have
// been opened for reading. The errors of run_mkfs(), logged as there.
Task<Result<>> look_before_mkfs(MkfsParts parts, const MkfsOptions& options);

// Errors, which have been logged: kExists (something stands there, and `force` is not given), kLive (mounted,
// likewise), kForeignReservation, kUnsupported (the LUN fails the probe), kNoSpace (too small), kReadOnly, device
// errors. Nothing has been written before the first step that writes the new file system, but to the scratch block
// while proving.
Task<Result<format::Superblock>> run_mkfs(MkfsParts parts, MkfsOptions options);

}  // namespace cawfs
