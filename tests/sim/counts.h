// How often each fault, state and operation occurred: a simulation that never gets somewhere proves nothing about it.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace cawfs::sim {

using Counts = std::map<std::string, std::uint64_t>;

inline void add(Counts& to, const Counts& more) {
  for (const auto& [what, count] : more) to[what] += count;
}

}  // namespace cawfs::sim
