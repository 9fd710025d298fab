#include "mount/errno.h"

#include <cerrno>

namespace cawfs {

int to_errno(Errc code) {
  switch (code) {
    case Errc::kMiscompare:
    case Errc::kReservationConflict:
    case Errc::kUnitAttentionReset:
    case Errc::kUnitAttentionReservations:
    case Errc::kUnitAttentionOther:
    case Errc::kMedium:
    case Errc::kTransport:
    case Errc::kBounds:
    case Errc::kFenced:
    case Errc::kLeaseLapsed:
    case Errc::kNameInUse:
    case Errc::kNoSlot:
    case Errc::kForeignReservation:
    case Errc::kLocalMode:
    case Errc::kLive:
    case Errc::kStopping:
      return EIO;
    case Errc::kAgain:
      return EAGAIN;
    case Errc::kThinFull:
    case Errc::kNoSpace:
      return ENOSPC;
    case Errc::kUnsupported:
    case Errc::kNotSupported:
      return EOPNOTSUPP;
    case Errc::kBusy:
      return EBUSY;
    case Errc::kBadMagic:
    case Errc::kBadChecksum:
    case Errc::kBadIdentity:
    case Errc::kBadValue:
    case Errc::kBadFeature:
    case Errc::kBadVersion:
    case Errc::kBadBlockSize:
      return EUCLEAN;  // as ext4 and XFS
    case Errc::kNotFound:
      return ENOENT;
    case Errc::kExists:
      return EEXIST;
    case Errc::kNotDirectory:
      return ENOTDIR;
    case Errc::kIsDirectory:
      return EISDIR;
    case Errc::kNotEmpty:
      return ENOTEMPTY;
    case Errc::kNameTooLong:
      return ENAMETOOLONG;
    case Errc::kTooManyLinks:
      return EMLINK;
    case Errc::kCrossLink:
    case Errc::kInvalid:
      return EINVAL;
    case Errc::kFileTooBig:
      return EFBIG;
    case Errc::kReadOnly:
      return EROFS;
    case Errc::kStale:
      return ESTALE;
    case Errc::kPermission:
      return EPERM;
    case Errc::kNoAttribute:
      return ENODATA;
    case Errc::kRange:
      return ERANGE;
  }
  return EIO;
}

}  // namespace cawfs
