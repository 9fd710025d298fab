#include "tests/sim/planted_faults.h"

#include <algorithm>
#include <array>

namespace cawfs::sim {

namespace {

constexpr std::array kCases{
    PlantedCase{.fault = PlantedFault::kReplayWithoutFence,
                .name = "replay-without-fence",
                .what = "a recoverer replays a journal without having fenced its node",
                .profile = "cuts"},
    PlantedCase{.fault = PlantedFault::kReplayWithoutGeneration,
                .name = "replay-without-generation",
                .what = "replay does not compare a lock entry's generation with the record's",
                .profile = "crashes"},
    PlantedCase{.fault = PlantedFault::kLostReplyIsRun,
                .name = "lost-reply-is-run",
                .what = "a COMPARE AND WRITE whose reply is lost counts as run, nobody reads the block back",
                .profile = "caws"},
    PlantedCase{.fault = PlantedFault::kNoResetAfterPreempt,
                .name = "no-reset-after-preempt",
                .what = "PREEMPT AND ABORT counts as a fence where no session could be ended",
                .profile = "backend",
                .seconds = 15},
    PlantedCase{.fault = PlantedFault::kLeaseTooLong,
                .name = "lease-too-long",
                .what = "the self-lease is longer than the dead-time",
                .profile = "cut-readers",
                .seconds = 15},
    PlantedCase{.fault = PlantedFault::kCachedSlotRecord,
                .name = "cached-slot-record",
                .what = "whether a lock's owner has ended is taken from the node table read last",
                .profile = "mounts"},
    PlantedCase{.fault = PlantedFault::kRecoveringOwnersEntry,
                .name = "recovering-owners-entry",
                .what = "a lock entry is taken from an owner whose journal has not been replayed",
                .profile = "crashes"},
    PlantedCase{.fault = PlantedFault::kUpgradeBesideSharers,
                .name = "upgrade-beside-sharers",
                .what = "shared becomes exclusive though others share",
                .profile = "calm"},
    PlantedCase{.fault = PlantedFault::kGenerationNotRaised,
                .name = "generation-not-raised",
                .what = "exclusive is granted without a new generation",
                .profile = "calm"},
    PlantedCase{.fault = PlantedFault::kNewSessionUnnoticed,
                .name = "new-session-unnoticed",
                .what = "a new session does not count as a reset",
                .profile = "power"},
    PlantedCase{.fault = PlantedFault::kUnflushedNotWrittenAgain,
                .name = "unflushed-not-written-again",
                .what = "what no flush has covered is not written again after a reset",
                .profile = "power"},
    PlantedCase{.fault = PlantedFault::kReplayNotFlushed,
                .name = "replay-not-flushed",
                .what = "a journal is emptied, and its slot given up, before what it held is flushed",
                .profile = "power"},
    PlantedCase{.fault = PlantedFault::kDataNotFlushed,
                .name = "data-not-flushed",
                .what = "a transaction commits, and an fsync ends, without a flush of the file data before it",
                .profile = "outages",
                .nodes = 1},
    PlantedCase{.fault = PlantedFault::kCommitNotDurable,
                .name = "commit-not-durable",
                .what = "a commit's record is left in the target's cache",
                .profile = "outages",
                .nodes = 1},
    PlantedCase{.fault = PlantedFault::kInPlaceNotFlushed,
                .name = "in-place-not-flushed",
                .what = "a lock goes when what it covers is in place, but not flushed",
                .profile = "outages"},
    PlantedCase{.fault = PlantedFault::kDirtyDataLeft,
                .name = "dirty-data-left",
                .what = "a lock goes before the file's dirty data has been written",
                .profile = "calm"},
    PlantedCase{.fault = PlantedFault::kReleaseBeforeInPlace,
                .name = "release-before-in-place",
                .what = "a lock goes before its committed blocks have been written in place",
                .profile = "calm",
                .by_assertion = true},
    PlantedCase{.fault = PlantedFault::kBuffersKept,
                .name = "buffers-kept",
                .what = "what a lock covered stays in the cache when it goes",
                .profile = "calm"},
    PlantedCase{.fault = PlantedFault::kBitmapsKept,
                .name = "bitmaps-kept",
                .what = "an allocation group's bitmaps stay in the cache when its lock goes",
                .profile = "calm"},
    PlantedCase{.fault = PlantedFault::kOpenersIgnored,
                .name = "openers-ignored",
                .what = "an orphan is freed while another node has it open",
                .profile = "names"},
    PlantedCase{.fault = PlantedFault::kLeaseFromCompletion,
                .name = "lease-from-completion",
                .what = "the self-lease counts from a heartbeat's answer, not from when it was issued",
                .profile = "late-readers",
                .seconds = 30,
                .seeds = 12},
    PlantedCase{.fault = PlantedFault::kReservationNotMadeAgain,
                .name = "reservation-not-made-again",
                .what = "nobody makes the reservation again when the target has forgotten it",
                .profile = "forgets"},
};

}  // namespace

std::span<const PlantedCase> planted_cases() {
  return kCases;
}

const PlantedCase* find_planted(std::string_view name) {
  const auto found = std::ranges::find(kCases, name, &PlantedCase::name);
  return found == kCases.end() ? nullptr : &*found;
}

}  // namespace cawfs::sim
