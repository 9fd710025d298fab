// Tables that nodes share, read at once. One unreadable sector must not hide all others.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/base/error.h"
#include "core/device/device.h"
#include "core/runtime/task.h"

namespace cawfs {

// Reads `out` at byte `offset`. Where the device ends that with a medium error, reads it again in pieces of `stride`
// bytes, a multiple of the logical block that divides `out`: a piece that cannot be read is zeros, which no structure
// of ours looks like. Other errors are the device's.
Task<Result<>> read_readable_blocks(BlockDevice& device, std::uint64_t offset, std::span<std::byte> out,
                                    std::size_t stride);

}  // namespace cawfs
