// What a daemon leaves under /run/cawfs for whoever unmounts: umount(2) returns while the daemon is still writing back,
// and nothing that the kernel shows leads from a mount to its daemon. The file is named after the mount's device number
// and locked for as long as the daemon lives; its text says how far the daemon is, and at the end what became of the
// data. umount.fuse.cawfs waits for it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "mount/failure.h"

namespace cawfs {

// "0:45": of the topmost mount on `directory` (absolute, as the kernel shows it); none if there is none of ours. Asks
// the kernel, never the file system.
std::optional<std::string> mounted_device(const std::string& directory);
// How often it is mounted in this mount namespace. To be asked before umount(2): afterwards the number may be
// another's.
std::size_t count_mounts(const std::string& device);

// The daemon's side.
class MountRecord {
 public:
  MountRecord() = default;
  MountRecord(const MountRecord&) = delete;
  ~MountRecord();

  // Once `directory` is mounted. kExitSystem.
  Outcome<> make(const std::string& directory);
  // The kernel has let go; what is left is writing back.
  void unmounting() { write("unmounting\n"); }
  // `problem` is empty, or says what was not written back.
  void ended(const std::string& problem);

 private:
  void write(const std::string& text);

  std::string path_;
  int fd_ = -1;
};

// The other side: opened before umount(2), because the name may be another mount's soon after it.
class MountWatch {
 public:
  explicit MountWatch(const std::string& device);
  MountWatch(const MountWatch&) = delete;
  ~MountWatch();

  // False: there is no record, so nothing to wait for.
  bool found() const { return fd_ >= 0; }
  // Has the daemon seen the end of its mount, or ended itself?
  bool unmounting() const;
  // Returns when the daemon has ended: what it could not write back, or nothing.
  std::string wait() const;

 private:
  std::string text() const;

  int fd_;
};

}  // namespace cawfs
