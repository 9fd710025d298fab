// Opening a file as a LUN: its descriptors, its sidecar, and an opener's place in it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/base/log.h"
#include "core/device/file_handle.h"
#include "core/device/file_locks.h"
#include "core/device/file_sidecar.h"
#include "core/device/open_device.h"
#include "core/runtime/reactor.h"

namespace cawfs {

struct FileLun {
  std::string path;   // absolute, without symbolic links
  FileHandle cached;  // of the file, O_DIRECT where that works
  FileHandle fua;     // the same with O_DSYNC; none if the LUN is only read
  bool direct = false;
  std::uint64_t size_bytes = 0;
  std::uint32_t logical_block = 0;

  // A LUN that is only read has neither index nor nexus, and no sidecar where none could be opened.
  bool read_only = false;
  FileSidecar sidecar;
  std::size_t index = 0;
  std::string nexus;

  FileHandle& channel(FileChannel which) { return which == FileChannel::kFua ? fua : cached; }
};

// kBadMagic, kBadChecksum and the like: the sidecar is damaged. kBusy: it is another file's, or was deleted, while
// somebody uses the LUN. What the log says names the way out.
Task<Result<FileLun>> open_file_lun(Reactor& reactor, Log& log, std::string path, OpenOptions options);

}  // namespace cawfs
