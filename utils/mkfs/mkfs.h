// The steps of mkfs.cawfs on an open device: look, claim, prove, write.
#pragma once

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
  Log& log;  // says what is in the way, or missing
};

struct MkfsOptions {
  MakeOptions make;
  bool force = false;
  MakeProgress progress;
};

// Errors: kExists (something stands there, and `force` is not given), kLive (mounted, likewise), kForeignReservation,
// kUnsupported (the LUN fails the probe), kNoSpace (too small), kReadOnly, device errors. Nothing has been written
// before the first step that writes the new file system, but to the scratch block while proving.
Task<Result<format::Superblock>> run_mkfs(MkfsParts parts, MkfsOptions options);

}  // namespace cawfs
