#include "core/base/explain.h"

#include <fmt/format.h>

namespace cawfs {

namespace {

const char* remedy(Errc code) {
  switch (code) {
    case Errc::kBadMagic:
      return "; is this the right device? mkfs.cawfs makes a file system";
    case Errc::kBadChecksum:
    case Errc::kBadIdentity:
    case Errc::kBadValue:
      return "; the file system is damaged: fsck.cawfs -n says where, if it can be read at all";
    case Errc::kBadFeature:
    case Errc::kBadVersion:
      return "; made by a newer cawfs: update this host";
    case Errc::kBadBlockSize:
      return "; the device has another logical block size than when the file system was made";
    case Errc::kBounds:
      return "; has the device been cut off, or is it the wrong one?";
    case Errc::kReadOnly:
      return "; the device, or the file's permissions, refuse writing: a write-protected copy is mounted with "
             "-o ro,norecovery";
    case Errc::kNameInUse:
      return "; give each mount its own name with -o initiator=NAME";
    case Errc::kNoSlot:
      return "; as many nodes are active as have journals";
    case Errc::kForeignReservation:
      return "; another program has reserved the LUN";
    case Errc::kLocalMode:
      return "; unmount it there first, or mount without -o local everywhere";
    case Errc::kLive:
      return "; unmount it everywhere first";
    case Errc::kBusy:
      return "; another process uses the device";
    default:
      return "";
  }
}

}  // namespace

std::string explain(const Error& error) {
  std::string text(error.where);
  if (!text.empty() && error.address != 0) text += fmt::format(" {}", error.address);
  if (!text.empty()) text += ": ";
  return text + std::string(describe(error.code)) + remedy(error.code);
}

}  // namespace cawfs
