// Faults that the simulator must find: tests/sim/planted_faults.cpp says what each of them is and how it is found. Each
// is asked for at the statement that protects from it.
//
// In a test build (CMake: CAWFS_PLANTED_FAULTS) the simulator plants one of them for the whole process; in any other
// build planted() is false at compile time and nothing of this is left in the object code.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cawfs {

enum class PlantedFault : std::uint8_t {
  kNone,
  // disklock
  kReplayWithoutFence,
  kNoResetAfterPreempt,
  kNoEvictionBeforePreempt,
  kReservationNotMadeAgain,
  kLeaseFromCompletion,
  kLeaseTooLong,
  kLostReplyIsRun,
  kCachedSlotRecord,
  kRecoveringOwnersEntry,
  kUpgradeBesideSharers,
  kGenerationNotRaised,
  kNewSessionUnnoticed,
  kUnflushedNotWrittenAgain,
  // journal
  kReplayWithoutGeneration,
  kRevokesForgotten,
  kReplayNotFlushed,
  kDataNotFlushed,
  kCommitNotDurable,
  kInPlaceNotFlushed,
  // core/fs
  kDirtyDataLeft,
  kReleaseBeforeInPlace,
  kBuffersKept,
  kBitmapsKept,
  kOpenersIgnored,
  kCount,  // how many there are
};

#ifdef CAWFS_PLANTED_FAULTS
inline constexpr bool kPlantedFaultsBuiltIn = true;
inline PlantedFault planted_fault = PlantedFault::kNone;  // set once, before any node starts
inline bool planted(PlantedFault fault) {
  return planted_fault == fault;
}
#else
inline constexpr bool kPlantedFaultsBuiltIn = false;
constexpr bool planted(PlantedFault /*fault*/) {
  return false;
}
#endif

}  // namespace cawfs
