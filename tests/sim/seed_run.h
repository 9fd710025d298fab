// One seed, simulated in a process of its own, so that an assertion is a failure of its seed, and what dead nodes leave
// behind goes with it.
#pragma once

#include <cstdint>
#include <string>

#include "core/base/planted_fault.h"
#include "tests/sim/counts.h"
#include "tests/sim/simulation.h"

namespace cawfs::sim {

enum class SeedEnd : std::uint8_t {
  kNothingWrong,
  kCheckFailed,  // a check of the simulator
  kAssertion,    // of the code that is simulated
  kEndless,
  kCrashed,
};

struct SeedOutcome {
  SeedEnd end = SeedEnd::kNothingWrong;
  std::string said;  // on stderr, where that was kept
  std::uint64_t trace_hash = 0;
  std::uint64_t simulated_ms = 0;
  Counts counts;
};

enum class Stderr : std::uint8_t { kShow, kKeep };

SeedOutcome run_seed(const SimulationOptions& options, PlantedFault planted, Stderr to);

}  // namespace cawfs::sim
