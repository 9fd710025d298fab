// What to make of answers by which a SCSI target does not say whether they pass.
//
// - NOT READY 08/00 (LOGICAL UNIT COMMUNICATION FAILURE) is what LIO answers whenever its backend fails an I/O, be it a
//   bad sector, a full backing store or a cable. It is of unknown outcome, so that it is tried again, until the same
//   request has been answered so for kPatience: then it is a medium error, since somebody waits for it.
// - Any other NOT READY (SPC-4 table 56: becoming ready, standby, unavailable) and LOGICAL UNIT NOT SUPPORTED (25/00; a
//   target that comes up, or maps the LUN again) mean that the storage is gone, for all nodes: everybody waits, with a
//   line in the log when it goes and when it is back.
#pragma once

#include <cstdint>
#include <map>
#include <utility>

#include "core/base/log.h"
#include "core/device/scsi_transport.h"
#include "core/runtime/executor.h"

namespace cawfs {

class ScsiPatience {
 public:
  static constexpr Duration kPatience = std::chrono::seconds(30);

  explicit ScsiPatience(Log& log) : log_(log) {}

  // What the answer to a command means; for commands with an operation code in the first byte and a logical block
  // address in bytes 2 to 9, or none.
  Result<> judge(const ScsiCommand& command, const ScsiStatus& status, Time now);

 private:
  using Request = std::pair<std::uint8_t, std::uint64_t>;  // operation code, logical block address
  struct Failure {
    Time first;
    Time last;
  };
  // Notes one more failure; whether there have been enough.
  bool exhausted(const Request& request, Time now);
  void note_presence(const ScsiStatus& status);

  Log& log_;
  std::map<Request, Failure> failing_;
  bool gone_ = false;
};

}  // namespace cawfs
