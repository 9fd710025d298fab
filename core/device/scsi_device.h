// A BlockDevice over any ScsiTransport: the commands of SBC-4 and SPC-4 that cawfs uses.
#pragma once

#include <memory>

#include "core/base/log.h"
#include "core/device/device.h"
#include "core/device/scsi_transport.h"
#include "core/runtime/executor.h"

namespace cawfs {

// Asks the logical unit what it can do (INQUIRY, READ CAPACITY, MODE SENSE, block limits). A unit attention that waited
// from before is taken note of and asked past: nothing of ours had been sent. `log` outlives the device.
Task<Result<std::unique_ptr<BlockDevice>>> open_scsi_device(Executor& executor, Log& log,
                                                            std::unique_ptr<ScsiTransport> transport);

}  // namespace cawfs
