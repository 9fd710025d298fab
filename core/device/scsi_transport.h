// What carries SCSI commands to one logical unit: iSCSI here, SG_IO and CAM by the same interface. ScsiDevice
// (core/device/scsi_device.h) knows the commands, a transport knows none.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "core/base/error.h"
#include "core/runtime/executor.h"
#include "core/runtime/task.h"

namespace cawfs {

enum class ScsiDirection : std::uint8_t { kNone, kIn, kOut };

struct ScsiCommand {
  std::array<std::uint8_t, 16> cdb{};
  std::size_t cdb_length = 16;
  ScsiDirection direction = ScsiDirection::kNone;
  std::span<iovec> data;  // the caller's until the command has ended
  // Sent on this session or not at all; none: on whichever there is.
  std::optional<std::uint64_t> session;
};

// SAM-5 5.3 and SPC-4 4.5.
struct ScsiStatus {
  std::uint8_t status = 0;
  std::uint8_t sense_key = 0;
  std::uint16_t sense_code = 0;  // ASC << 8 | ASCQ
  std::size_t residual = 0;      // bytes of data-in that were asked for and did not come
};

inline constexpr std::uint8_t kScsiGood = 0x00;
inline constexpr std::uint8_t kScsiCheckCondition = 0x02;
inline constexpr std::uint8_t kScsiBusy = 0x08;
inline constexpr std::uint8_t kScsiReservationConflict = 0x18;
inline constexpr std::uint8_t kScsiTaskSetFull = 0x28;

class ScsiTransport {
 public:
  virtual ~ScsiTransport() = default;

  // kTransport: no status came, the outcome is unknown. A command is never sent twice.
  virtual Task<Result<ScsiStatus>> execute(ScsiCommand& command) = 0;
  virtual Task<Result<>> reset_lun() = 0;
  virtual Task<Result<>> evict(std::string initiator_name, std::uint64_t isid) = 0;
  virtual Task<void> close() = 0;

  virtual std::string initiator_name() const = 0;
  virtual std::uint64_t isid() const = 0;
  // Counts the sessions, the present or latest one included.
  virtual std::uint64_t session() const = 0;
  // See BlockDevice.
  virtual void set_path_timeout(Duration timeout) = 0;
};

// NOT READY 08/00: LIO's answer where its backend has failed an I/O.
bool is_backend_failure(const ScsiStatus& status);
// Any other NOT READY, and LOGICAL UNIT NOT SUPPORTED: nobody has this logical unit at present.
bool is_absence(const ScsiStatus& status);
// What a status means; success for GOOD.
Result<> scsi_result(const ScsiStatus& status);

}  // namespace cawfs
