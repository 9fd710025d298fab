// Attributes between the file system's form and the kernel's.
#pragma once

#include <cstdint>

#include "core/base/error.h"
#include "core/fs/filesystem.h"
#include "mount/fuse_protocol.h"

namespace cawfs {

// Device numbers as FUSE carries them (the kernel's 32-bit encoding) and as Attributes does (major << 20 | minor).
std::uint32_t device_from_fuse(std::uint32_t rdev);
std::uint32_t device_to_fuse(std::uint32_t rdev);

// How long the kernel may trust something that is valid until `until`.
struct Validity {
  std::uint64_t seconds = 0;
  std::uint32_t nanoseconds = 0;
};
Validity validity(Time until, Time now);

fuse_attr to_fuse(const Attributes& attributes);
fuse_attr_out to_attr_out(const Attributes& attributes, Time now);
// `name_until`: until when the name may be trusted.
fuse_entry_out to_entry_out(const Attributes& attributes, std::uint64_t node_id, Time name_until, Time now);
fuse::StatxOut to_statx_out(const Attributes& attributes, Time now);

AttributeChange from_fuse(const fuse_setattr_in& in);

}  // namespace cawfs
