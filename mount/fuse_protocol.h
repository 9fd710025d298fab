// The kernel's FUSE protocol: Debian's <linux/fuse.h> (7.38) and what newer kernels added. Everything newer is used
// only where the kernel's INIT offers it.
#pragma once

#include <linux/fuse.h>

#include <cstddef>
#include <cstdint>

namespace cawfs::fuse {

// 7.39: shared maps of files opened with FOPEN_DIRECT_IO.
inline constexpr std::uint64_t kInitDirectIoAllowMmap = 1ULL << 36;
inline constexpr std::uint32_t kOpStatx = 52;

// 7.44: FUSE_NOTIFY_INC_EPOCH makes every name that the kernel has cached be looked up again.
inline constexpr std::uint32_t kMinorIncEpoch = 44;
inline constexpr std::int32_t kNotifyIncEpoch = 8;

struct StatxIn {
  std::uint32_t getattr_flags;
  std::uint32_t reserved;
  std::uint64_t fh;
  std::uint32_t sx_flags;
  std::uint32_t sx_mask;
};
static_assert(sizeof(StatxIn) == 24);

struct StatxTime {
  std::int64_t seconds;
  std::uint32_t nanoseconds;
  std::int32_t reserved;
};

struct Statx {
  std::uint32_t mask;
  std::uint32_t blksize;
  std::uint64_t attributes;
  std::uint32_t nlink;
  std::uint32_t uid;
  std::uint32_t gid;
  std::uint16_t mode;
  std::uint16_t spare0;
  std::uint64_t ino;
  std::uint64_t size;
  std::uint64_t blocks;
  std::uint64_t attributes_mask;
  StatxTime atime;
  StatxTime btime;
  StatxTime ctime;
  StatxTime mtime;
  std::uint32_t rdev_major;
  std::uint32_t rdev_minor;
  std::uint32_t dev_major;
  std::uint32_t dev_minor;
  std::uint64_t spare2[14];
};
static_assert(sizeof(Statx) == 256);

struct StatxOut {
  std::uint64_t attr_valid;
  std::uint32_t attr_valid_nsec;
  std::uint32_t flags;
  std::uint64_t spare[2];
  Statx stat;
};
static_assert(sizeof(StatxOut) == 288);

}  // namespace cawfs::fuse
