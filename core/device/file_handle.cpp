#include "core/device/file_handle.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

namespace cawfs {
namespace {

struct flock as_flock(LockRange range, short type) {
  struct flock lock{};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = range.start;
  lock.l_len = range.length;
  return lock;
}

}  // namespace

Errc errc_of_errno(int error) {
  switch (error) {
    case ENOENT:
    case ENXIO:
    case ENODEV:
      return Errc::kNotFound;
    case EACCES:
    case EPERM:
      return Errc::kPermission;
    case EROFS:
      return Errc::kReadOnly;
    case ENOSPC:
    case EDQUOT:
      return Errc::kThinFull;
    case EOPNOTSUPP:
    case ENOSYS:
      return Errc::kUnsupported;
    case EBUSY:
    case ETXTBSY:
      return Errc::kBusy;
    default:
      return Errc::kMedium;
  }
}

FileHandle::~FileHandle() {
  if (fd_ >= 0) ::close(fd_);
}

Result<bool> FileHandle::try_lock(LockRange range) const {
  struct flock lock = as_flock(range, F_WRLCK);
  if (::fcntl(fd_, F_OFD_SETLK, &lock) == 0) return true;
  if (errno == EAGAIN || errno == EACCES) return false;
  return fail(errc_of_errno(errno), "file lock");
}

void FileHandle::unlock(LockRange range) const {
  struct flock lock = as_flock(range, F_UNLCK);
  static_cast<void>(::fcntl(fd_, F_OFD_SETLK, &lock));
}

Result<std::optional<LockRange>> FileHandle::conflicting_lock(LockRange range) const {
  struct flock lock = as_flock(range, F_WRLCK);
  if (::fcntl(fd_, F_OFD_GETLK, &lock) != 0) return fail(errc_of_errno(errno), "file lock");
  if (lock.l_type == F_UNLCK) return std::nullopt;
  return LockRange{.start = lock.l_start, .length = lock.l_len};
}

Result<> FileHandle::read_exactly(std::span<std::byte> out, std::uint64_t offset) const {
  for (std::size_t done = 0; done < out.size();) {
    const ssize_t n = ::pread(fd_, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return fail(n < 0 ? errc_of_errno(errno) : Errc::kMedium, "file", offset + done);
    done += static_cast<std::size_t>(n);
  }
  return {};
}

Result<> FileHandle::write_exactly(std::span<const std::byte> data, std::uint64_t offset) const {
  for (std::size_t done = 0; done < data.size();) {
    const ssize_t n = ::pwrite(fd_, data.data() + done, data.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return fail(n < 0 ? errc_of_errno(errno) : Errc::kMedium, "file", offset + done);
    done += static_cast<std::size_t>(n);
  }
  return {};
}

}  // namespace cawfs
