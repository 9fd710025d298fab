// A file descriptor with an owner, and the locks of its open file description (F_OFD_SETLK). Such a lock goes when it
// is unlocked or when the description ends; a description ends once every I/O on it has ended, also that of a process
// that was killed meanwhile. POSIX locks, in contrast, do not exclude within a process and go with any descriptor.
//
// Nothing here waits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>

#include "core/base/error.h"

namespace cawfs {

// Bytes [start, start + length) of a file; locked bytes need not exist.
struct LockRange {
  std::int64_t start = 0;
  std::int64_t length = 1;
  friend bool operator==(const LockRange&, const LockRange&) = default;
};

class FileHandle {
 public:
  FileHandle() = default;
  explicit FileHandle(int fd) : fd_(fd) {}
  FileHandle(FileHandle&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileHandle& operator=(FileHandle&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~FileHandle();

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }

  // Exclusively; false: another description holds a part of it.
  Result<bool> try_lock(LockRange range) const;
  void unlock(LockRange range) const;
  // A lock of another description that keeps `range` from being had.
  Result<std::optional<LockRange>> conflicting_lock(LockRange range) const;

  // All of it, or an error (kMedium; kThinFull for no space).
  Result<> read_exactly(std::span<std::byte> out, std::uint64_t offset) const;
  Result<> write_exactly(std::span<const std::byte> data, std::uint64_t offset) const;

 private:
  int fd_ = -1;
};

// What a failed system call means to a device's user. `error` is errno.
Errc errc_of_errno(int error);

}  // namespace cawfs
