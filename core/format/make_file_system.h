// Writes a new, empty file system on a device: what mkfs.cawfs does once it has decided that it may.
#pragma once

#include <cstdint>
#include <functional>

#include "core/base/error.h"
#include "core/base/random.h"
#include "core/device/device.h"
#include "core/format/disk_format.h"
#include "core/format/file_system_plan.h"
#include "core/runtime/task.h"

namespace cawfs {

// Called with what has been written and what there is to write, bytes.
using MakeProgress = std::function<void(std::uint64_t done, std::uint64_t total)>;

// Nobody else uses the device. Fixed areas and journals are written in full (a thin LUN cannot fail there later); of
// the groups only what is in use. Traces of what stood there before (first 128 KiB, last 4 MiB, superblock copies) are
// wiped first and the superblock comes last, after a flush: a run that is cut leaves no file system, neither the old
// one nor half a new one. Durable on return. `random` gives uuid, directory hash key and nonces.
//
// Errors: those of plan_file_system(), and the device's.
Task<Result<format::Superblock>> make_file_system(BlockDevice& device, Random& random, MakeOptions options,
                                                  MakeProgress progress = {});

}  // namespace cawfs
