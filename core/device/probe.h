// Proves on the LUN in hand what cawfs lives by: that COMPARE AND WRITE is atomic between two sessions, and that
// persistent reservations refuse and admit whom they should. Targets that list both and do neither exist; mkfs and
// mount do not trust, they try (design §4 rule 6).
#pragma once

#include <cstdint>

#include "core/base/error.h"
#include "core/base/random.h"
#include "core/device/device.h"
#include "core/runtime/executor.h"
#include "core/runtime/task.h"

namespace cawfs {

// Two sessions race to count in the logical block at `scratch` (bytes), which nobody writes but by COMPARE AND WRITE;
// further nodes may be probing on it at the same time. `second` may be the same device as `first` where a host has one
// nexus only; that proves less. Both may write.
//
// kUnsupported: the device has no COMPARE AND WRITE, or it is not atomic, or it writes in spite of a miscompare;
// `where` says which. Device errors.
Task<Result<>> probe_compare_and_write(Executor& executor, Random& random, BlockDevice& first, BlockDevice& second,
                                       std::uint64_t scratch);

struct ReservationProbe {
  PrKey key;  // `first` is registered with it, and the reservation of type `type` stands
  ReservationType type = ReservationType::kWriteExclusiveAllRegistrants;
  PrKey second_key;  // of nobody else
  // Persistence of all registrations follows the latest REGISTER, so this is what `first` has asked for.
  Aptpl aptpl = Aptpl::kYes;
  std::uint64_t scratch = 0;        // changed by COMPARE AND WRITE only
  std::uint64_t plain_scratch = 0;  // a logical block that probes write plainly
};

// `second`, another session, is refused a WRITE while it is not registered, admitted WRITE and COMPARE AND WRITE once
// it is, and refused after `first` has preempted it. It is not registered afterwards.
//
// kUnsupported: one of these is not so; `where` says which. Device errors.
Task<Result<>> probe_reservations(BlockDevice& first, BlockDevice& second, ReservationProbe probe);

// As much of both as can be tried beside a live cluster: the race, and the reservation's refusals where `first` is the
// only one registered. `second` is registered meanwhile, because a COMPARE AND WRITE may not be refused.
//
// Errors: as above. After kTransport, of either session, nothing is known; `second` must then be opened anew.
Task<Result<>> probe_beside_others(Executor& executor, Random& random, BlockDevice& first, BlockDevice& second,
                                   ReservationProbe probe);

}  // namespace cawfs
