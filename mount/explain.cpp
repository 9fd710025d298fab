#include "mount/explain.h"

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
      return "; run fsck.cawfs -n";
    case Errc::kBadFeature:
    case Errc::kBadVersion:
      return "; made by a newer cawfs: update this host";
    case Errc::kReadOnly:
      return "; to read a write-protected copy as it stands, use -o ro,norecovery";
    case Errc::kBounds:
      return "; has the device been cut off, or is it the wrong one?";
    case Errc::kBadBlockSize:
      return "; the device has another logical block size than when the file system was made";
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
  std::string text(describe(error.code));
  if (*error.where) text += fmt::format(" ({})", error.where);
  return text + remedy(error.code);
}

}  // namespace cawfs
