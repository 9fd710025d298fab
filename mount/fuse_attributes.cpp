#include "mount/fuse_attributes.h"

#include <sys/stat.h>

#include <algorithm>

namespace cawfs {

namespace {

constexpr std::int64_t kNsPerSecond = 1'000'000'000;

struct SplitTime {
  std::int64_t seconds;
  std::uint32_t nanoseconds;
};

// Times before 1970 have negative seconds and positive nanoseconds.
SplitTime split(std::int64_t ns) {
  std::int64_t seconds = ns / kNsPerSecond;
  std::int64_t rest = ns % kNsPerSecond;
  if (rest < 0) {
    rest += kNsPerSecond;
    --seconds;
  }
  return {seconds, static_cast<std::uint32_t>(rest)};
}

// What 64 bits of nanoseconds cannot hold (before 1677, after 2262) becomes the nearest time that they can.
std::int64_t join(std::uint64_t seconds, std::uint32_t nanoseconds) {
  constexpr std::int64_t kLimit = INT64_MAX / kNsPerSecond - 1;
  const std::int64_t clamped = std::clamp(static_cast<std::int64_t>(seconds), -kLimit, kLimit);
  return clamped * kNsPerSecond + std::min<std::int64_t>(nanoseconds, kNsPerSecond - 1);
}

fuse::StatxTime statx_time(std::int64_t ns) {
  const SplitTime time = split(ns);
  return {.seconds = time.seconds, .nanoseconds = time.nanoseconds, .reserved = 0};
}

}  // namespace

std::uint32_t device_from_fuse(std::uint32_t rdev) {
  const std::uint32_t major = (rdev & 0xfff00) >> 8;
  const std::uint32_t minor = (rdev & 0xff) | ((rdev >> 12) & 0xfff00);
  return major << 20 | minor;
}

std::uint32_t device_to_fuse(std::uint32_t rdev) {
  const std::uint32_t major = rdev >> 20;
  const std::uint32_t minor = rdev & 0xfffff;
  return (minor & 0xff) | major << 8 | (minor & ~0xffU) << 12;
}

Validity validity(Time until, Time now) {
  if (until <= now) return {};
  const auto left = (until - now).count();
  return {static_cast<std::uint64_t>(left / kNsPerSecond), static_cast<std::uint32_t>(left % kNsPerSecond)};
}

fuse_attr to_fuse(const Attributes& attributes) {
  const SplitTime atime = split(attributes.atime_ns);
  const SplitTime mtime = split(attributes.mtime_ns);
  const SplitTime ctime = split(attributes.ctime_ns);
  return {.ino = attributes.inode.value,
          .size = attributes.size,
          .blocks = attributes.blocks_512,
          .atime = static_cast<std::uint64_t>(atime.seconds),
          .mtime = static_cast<std::uint64_t>(mtime.seconds),
          .ctime = static_cast<std::uint64_t>(ctime.seconds),
          .atimensec = atime.nanoseconds,
          .mtimensec = mtime.nanoseconds,
          .ctimensec = ctime.nanoseconds,
          .mode = attributes.mode,
          .nlink = attributes.nlink,
          .uid = attributes.uid,
          .gid = attributes.gid,
          .rdev = device_to_fuse(attributes.rdev),
          .blksize = kBlockSize,
          .flags = 0};
}

fuse_attr_out to_attr_out(const Attributes& attributes, Time now) {
  const Validity valid = validity(attributes.valid_until, now);
  return {.attr_valid = valid.seconds, .attr_valid_nsec = valid.nanoseconds, .dummy = 0, .attr = to_fuse(attributes)};
}

fuse_entry_out to_entry_out(const Attributes& attributes, std::uint64_t node_id, Time name_until, Time now) {
  const Validity name = validity(name_until, now);
  const Validity attr = validity(attributes.valid_until, now);
  return {.nodeid = node_id,
          .generation = attributes.generation,
          .entry_valid = name.seconds,
          .attr_valid = attr.seconds,
          .entry_valid_nsec = name.nanoseconds,
          .attr_valid_nsec = attr.nanoseconds,
          .attr = to_fuse(attributes)};
}

fuse::StatxOut to_statx_out(const Attributes& attributes, Time now) {
  const Validity valid = validity(attributes.valid_until, now);
  fuse::StatxOut out{};
  out.attr_valid = valid.seconds;
  out.attr_valid_nsec = valid.nanoseconds;
  fuse::Statx& stat = out.stat;
  stat.mask = STATX_BASIC_STATS | STATX_BTIME;
  stat.blksize = kBlockSize;
  stat.nlink = attributes.nlink;
  stat.uid = attributes.uid;
  stat.gid = attributes.gid;
  stat.mode = static_cast<std::uint16_t>(attributes.mode);
  stat.ino = attributes.inode.value;
  stat.size = attributes.size;
  stat.blocks = attributes.blocks_512;
  stat.atime = statx_time(attributes.atime_ns);
  stat.btime = statx_time(attributes.btime_ns);
  stat.ctime = statx_time(attributes.ctime_ns);
  stat.mtime = statx_time(attributes.mtime_ns);
  stat.rdev_major = attributes.rdev >> 20;
  stat.rdev_minor = attributes.rdev & 0xfffff;
  return out;
}

AttributeChange from_fuse(const fuse_setattr_in& in) {
  AttributeChange change;
  if (in.valid & FATTR_MODE) change.mode = in.mode & 07777;
  if (in.valid & FATTR_UID) change.uid = in.uid;
  if (in.valid & FATTR_GID) change.gid = in.gid;
  if (in.valid & FATTR_SIZE) change.size = in.size;
  change.refuse_when_pressed = change.size.has_value();
  if (in.valid & FATTR_ATIME_NOW) {
    change.atime_now = true;
  } else if (in.valid & FATTR_ATIME) {
    change.atime_ns = join(in.atime, in.atimensec);
  }
  if (in.valid & FATTR_MTIME_NOW) {
    change.mtime_now = true;
  } else if (in.valid & FATTR_MTIME) {
    change.mtime_ns = join(in.mtime, in.mtimensec);
  }
  // With HANDLE_KILLPRIV_V2 the kernel leaves a change of owner to us without saying so.
  change.kill_suid_sgid = (in.valid & (FATTR_KILL_SUIDGID | FATTR_UID | FATTR_GID)) != 0;
  return change;
}

}  // namespace cawfs
