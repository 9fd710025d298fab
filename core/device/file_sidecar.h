// The sidecar of a file LUN, PATH.pr: who has it open, and its persistent reservations. Shared by all openers of one
// machine.
//
//   0         header: what it belongs to                         (written once, or anew by a sole opener)
//   512       the sequence of the present table, 8 bytes         (read before every write to the LUN)
//   4096      128 opener records of 256 bytes                    (each written by the opener that has its index)
//   65536     two images of the reservation table, 192 KiB apart
//
// A table is changed under the sidecar's lock (file_lun_locks.h): the new image replaces the older of the two and
// reaches the disk, then the sequence changes. So a torn change leaves the table as it was; without one whole image the
// sidecar is an error (kBadChecksum), and where everybody has closed the file it may be deleted.
//
// Every call may block on the disk, except sequence().
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "core/device/file_handle.h"
#include "core/device/process_identity.h"
#include "core/device/reservation_table.h"

namespace cawfs {

inline constexpr std::size_t kMaxFileOpeners = 128;

// What a sidecar is for: the file itself, not its name, so that a file made anew does not inherit reservations.
struct SidecarHeader {
  std::uint64_t inode = 0;
  std::int64_t birth_ns = 0;  // 0: the file system does not know
  std::uint32_t logical_block = 0;
  friend bool operator==(const SidecarHeader&, const SidecarHeader&) = default;
};

struct SidecarTable {
  std::uint64_t sequence = 0;
  BootId boot{};  // of the last change
  ReservationTable reservations;
};

struct SidecarOpener {
  ProcessIdentity process;
  std::string nexus;
};

class FileSidecar {
 public:
  FileSidecar() = default;
  explicit FileSidecar(FileHandle file) : file_(std::move(file)) {}

  const FileHandle& file() const { return file_; }

  // No value: an empty file, or one whose making was cut short.
  Result<std::optional<SidecarHeader>> read_header() const;
  // Makes the sidecar anew, with an empty table. Opener records stay.
  Result<> format(const SidecarHeader& header);

  // The present table. Without the lock too: then it is one that was present at some moment of the call.
  Result<SidecarTable> load() const;
  // `table` becomes the present one, durably; its sequence grows. Under the lock.
  Result<> store(SidecarTable& table);
  // Makes the sequence agree with the images, which differ where somebody died in store(). Under the lock.
  Result<> settle(const SidecarTable& table);

  // Changes whenever the table has changed. Served from the page cache.
  Result<std::uint64_t> sequence() const;

  // No value: never written, or not whole.
  std::optional<SidecarOpener> read_opener(std::size_t index) const;
  Result<> write_opener(std::size_t index, const SidecarOpener& opener);

 private:
  Result<SidecarTable> read_image(std::uint64_t offset) const;

  FileHandle file_;
};

}  // namespace cawfs
