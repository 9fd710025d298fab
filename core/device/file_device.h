// The file LUN: a regular file that the processes of one machine share as they would share a LUN, with COMPARE AND
// WRITE and persistent reservations emulated (file_locks.h, file_sidecar.h: PATH.pr).
//
// - Each opener is an I_T nexus of its own, also within one process. A dead opener's registration stays until it is
//   preempted. The process must not fork after the LUN has been opened.
// - PREEMPT AND ABORT returns once no write of the victim is in flight, nor can be; a victim that is stopped in the
//   middle of one is killed. So is, after a second, a process that is stopped inside COMPARE AND WRITE or a change of
//   reservations, where it would keep all others waiting.
// - reset_lun() waits likewise for all openers that are not registered; of those that are, it waits a second for what
//   they have in flight. It aborts nothing and so raises no unit attention.
// - Unit attentions are those of reservations, returned by requests that write. Reading pays nothing for reservations;
//   a write pays a pread from the page cache, the first and last in flight an fcntl each (2.6 us of CPU for all three).
// - facts().volatile_cache is true: flush() is fdatasync, FUA is O_DSYNC.
#pragma once

#include <memory>
#include <string>

#include "core/base/log.h"
#include "core/device/device.h"
#include "core/device/open_device.h"
#include "core/runtime/reactor.h"

namespace cawfs {

Task<Result<std::unique_ptr<BlockDevice>>> open_file_device(Reactor& reactor, Log& log, std::string path,
                                                            OpenOptions options);

}  // namespace cawfs
