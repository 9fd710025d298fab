// Proof that the simulator finds planted faults.
#pragma once

#include <cstdint>
#include <optional>

#include "tests/sim/planted_faults.h"

namespace cawfs::sim {

struct ProofRange {
  std::optional<std::uint64_t> seed;   // only this one, and what was found is shown in full
  std::optional<std::uint64_t> first;  // otherwise as the case says
  std::optional<std::uint64_t> count;
  bool all = false;  // goes on after the first seed that finds it
};

// Prints the cases.
void list_planted();
// Plants the fault and tries seeds until one finds it. Returns the exit status: 0 if one did.
int prove_one(const PlantedCase& planted, const ProofRange& range);
// All of them; then the same seeds with nothing planted, which must find nothing.
int prove_all();

}  // namespace cawfs::sim
