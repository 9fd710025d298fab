// Kinds of clusters in which certain faults are likely: a planted fault is looked for in one of them.
#pragma once

#include <span>
#include <string_view>

#include "tests/sim/fault_rates.h"
#include "tests/sim/workload.h"

namespace cawfs::sim {

struct Profile {
  const char* name;
  const char* what;
  FaultRates rates;
  Mix mix = Mix::kAll;
  bool sessions = true;             // the target knows sessions, which a fence can end
  std::uint32_t logical_block = 0;  // 0: the seed chooses it
  std::uint64_t lun_bytes = 64 << 20;
  bool forgets_power = false;  // the target forgets registrations with its power (-o noaptpl)
};

std::span<const Profile> profiles();
// Null: there is none of that name.
const Profile* find_profile(std::string_view name);

}  // namespace cawfs::sim
