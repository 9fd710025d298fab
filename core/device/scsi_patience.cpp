#include "core/device/scsi_patience.h"

namespace cawfs {
namespace {

Result<> medium_error(std::uint64_t block) {
  return fail(Errc::kMedium, "SCSI request, logical block", block);
}

std::uint64_t block_of(const ScsiCommand& command) {
  std::uint64_t block = 0;
  for (std::size_t i = 2; i < 10; ++i) block = block << 8 | command.cdb[i];
  return block;
}

}  // namespace

Result<> ScsiPatience::judge(const ScsiCommand& command, const ScsiStatus& status, Time now) {
  note_presence(status);
  const Request request{command.cdb[0], block_of(command)};
  if (!is_backend_failure(status)) {
    failing_.erase(request);
    return scsi_result(status);
  }
  if (!exhausted(request, now)) return scsi_result(status);
  log_.error(
      "the target has answered command {:#x} at logical block {} with sense code {:#x} for {} s: an I/O error of "
      "its backend, or its backing store is full",
      request.first, request.second, status.sense_code, kPatience / std::chrono::seconds(1));
  return medium_error(request.second);
}

// Who asked may have given up: what has not been tried for so long starts anew.
bool ScsiPatience::exhausted(const Request& request, Time now) {
  std::erase_if(failing_, [now](const auto& entry) { return now - entry.second.last > kPatience; });
  Failure& failure = failing_.try_emplace(request, Failure{now, now}).first->second;
  failure.last = now;
  return now - failure.first >= kPatience;
}

void ScsiPatience::note_presence(const ScsiStatus& status) {
  const bool gone = is_absence(status);
  if (gone && !gone_) log_.warning("the logical unit is not there (sense code {:#x}): waiting", status.sense_code);
  if (gone_ && status.status == kScsiGood) log_.info("the logical unit is there again");
  gone_ = gone || (gone_ && status.status != kScsiGood);
}

}  // namespace cawfs
