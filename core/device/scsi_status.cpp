#include "core/device/scsi_transport.h"

namespace cawfs {
namespace {

// Sense keys, SPC-4 table 48.
constexpr std::uint8_t kNotReady = 0x2;
constexpr std::uint8_t kMediumError = 0x3;
constexpr std::uint8_t kHardwareError = 0x4;
constexpr std::uint8_t kIllegalRequest = 0x5;
constexpr std::uint8_t kUnitAttention = 0x6;
constexpr std::uint8_t kDataProtect = 0x7;
constexpr std::uint8_t kAbortedCommand = 0xb;
constexpr std::uint8_t kMiscompare = 0xe;

// Additional sense codes and qualifiers, SPC-4 table 56.
constexpr std::uint16_t kCommunicationFailure = 0x0800;
constexpr std::uint16_t kOutOfRange = 0x2100;
constexpr std::uint16_t kUnitNotSupported = 0x2500;
constexpr std::uint16_t kSpaceAllocationFailed = 0x2707;

Errc unit_attention(std::uint16_t sense_code) {
  if ((sense_code >> 8) == 0x29) return Errc::kUnitAttentionReset;
  if (sense_code >= 0x2a03 && sense_code <= 0x2a05) return Errc::kUnitAttentionReservations;
  return Errc::kUnitAttentionOther;
}

Errc check_condition(const ScsiStatus& status) {
  switch (status.sense_key) {
    case kMediumError:
    case kHardwareError:
      return Errc::kMedium;
    case kIllegalRequest:
      if (status.sense_code == kUnitNotSupported) return Errc::kTransport;  // not there, or not yet
      return status.sense_code == kOutOfRange ? Errc::kBounds : Errc::kUnsupported;
    case kUnitAttention:
      return unit_attention(status.sense_code);
    case kDataProtect:
      return status.sense_code == kSpaceAllocationFailed ? Errc::kThinFull : Errc::kReadOnly;
    case kMiscompare:
      return Errc::kMiscompare;
    case kAbortedCommand:
    default:
      // Aborted, not ready and what else there is: it may have run in part.
      return Errc::kTransport;
  }
}

}  // namespace

bool is_backend_failure(const ScsiStatus& status) {
  return status.status == kScsiCheckCondition && status.sense_key == kNotReady &&
         status.sense_code == kCommunicationFailure;
}

bool is_absence(const ScsiStatus& status) {
  if (status.status != kScsiCheckCondition || is_backend_failure(status)) return false;
  return status.sense_key == kNotReady ||
         (status.sense_key == kIllegalRequest && status.sense_code == kUnitNotSupported);
}

Result<> scsi_result(const ScsiStatus& status) {
  switch (status.status) {
    case kScsiGood:
      return {};
    case kScsiReservationConflict:
      return fail(Errc::kReservationConflict, "SCSI command");
    case kScsiCheckCondition:
      return fail(check_condition(status), "SCSI sense code", status.sense_code);
    default:
      return fail(Errc::kTransport, "SCSI status", status.status);
  }
}

}  // namespace cawfs
