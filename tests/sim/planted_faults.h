// The faults that can be planted in a test build, and where each is found. That none goes unfound is what makes the
// simulator's silence about the code without them worth something.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "core/base/planted_fault.h"

namespace cawfs::sim {

struct PlantedCase {
  PlantedFault fault = PlantedFault::kNone;
  const char* name = "";
  const char* what = "";
  // It is found by one of these seeds, in clusters of so many nodes, of the profile, for so many simulated seconds.
  const char* profile = "";
  unsigned nodes = 2;
  std::uint64_t seconds = 10;
  std::uint64_t first = 1;
  std::uint64_t seeds = 5;
  // By an assertion about what must hold, which the code makes of itself, rather than by what the simulator checks.
  bool by_assertion = false;
};

std::span<const PlantedCase> planted_cases();
// Null: there is none of that name.
const PlantedCase* find_planted(std::string_view name);

}  // namespace cawfs::sim
