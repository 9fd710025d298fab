#include "tests/sim/prove_planted.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <time.h>

#include <cstdio>
#include <set>
#include <string>
#include <tuple>

#include "tests/sim/profile.h"
#include "tests/sim/seed_run.h"

namespace cawfs::sim {

namespace {

SimulationOptions options_of(const PlantedCase& planted, std::uint64_t seed) {
  SimulationOptions options;
  options.seed = seed;
  options.nodes = planted.nodes;
  options.busy_time = std::chrono::seconds(planted.seconds);
  options.profile = find_profile(planted.profile);
  return options;
}

bool is_found(const PlantedCase& planted, SeedEnd end) {
  return end == SeedEnd::kCheckFailed || (end == SeedEnd::kAssertion && planted.by_assertion);
}

// The first line that says what is wrong, without the seed.
std::string reason(const SeedOutcome& outcome) {
  switch (outcome.end) {
    case SeedEnd::kNothingWrong:
      return "nothing wrong";
    case SeedEnd::kEndless:
      return "runs on without end";
    default:
      break;
  }
  const std::size_t failed = outcome.said.find("failed: ");
  if (failed == std::string::npos) return "crashed: " + outcome.said.substr(0, outcome.said.find('\n'));
  const std::size_t begin = failed + std::string_view("failed: ").size();
  const std::string text = outcome.said.substr(begin, outcome.said.find('\n', begin) - begin);
  return outcome.end == SeedEnd::kAssertion ? "asserted " + text : text;
}

double processor_seconds() {
  timespec spent{};
  rusage children{};
  getrusage(RUSAGE_CHILDREN, &children);
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &spent);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return static_cast<double>(spent.tv_sec) + seconds(children.ru_utime) + seconds(children.ru_stime);
}

// How many seeds were tried, from the first one on, until one found it; nothing: none did.
std::optional<std::uint64_t> tried_until_found(const PlantedCase& planted) {
  for (std::uint64_t i = 0; i < planted.seeds; ++i) {
    const std::uint64_t seed = planted.first + i;
    const SeedOutcome outcome = run_seed(options_of(planted, seed), planted.fault, Stderr::kKeep);
    if (!is_found(planted, outcome.end)) continue;
    fmt::print("{:28} seed {:4}: {}\n", planted.name, seed, reason(outcome));
    std::fflush(stdout);
    return i + 1;
  }
  fmt::print("{:28} NOT FOUND by seeds {} to {} of {}\n", planted.name, planted.first,
             planted.first + planted.seeds - 1, planted.profile);
  std::fflush(stdout);
  return std::nullopt;
}

}  // namespace

void list_planted() {
  for (const PlantedCase& one : planted_cases()) {
    fmt::print("{:28} {}\n{:28} found with --profile {} --nodes {} --seconds {}, {} seeds from {} on\n", one.name,
               one.what, "", one.profile, one.nodes, one.seconds, one.seeds, one.first);
  }
}

int prove_one(const PlantedCase& planted, const ProofRange& range) {
  if (range.seed) {
    const SeedOutcome outcome = run_seed(options_of(planted, *range.seed), planted.fault, Stderr::kShow);
    return is_found(planted, outcome.end) ? 0 : 1;
  }
  const std::uint64_t first = range.first.value_or(planted.first);
  const std::uint64_t count = range.count.value_or(planted.seeds);
  std::uint64_t found = 0;
  std::uint64_t tried = 0;
  for (; tried < count && (found == 0 || range.all); ++tried) {
    const SeedOutcome outcome = run_seed(options_of(planted, first + tried), planted.fault, Stderr::kKeep);
    if (is_found(planted, outcome.end)) ++found;
    fmt::print("{} seed {}: {}\n", planted.name, first + tried, reason(outcome));
    std::fflush(stdout);
  }
  fmt::print("{} is found by {} of {} seeds, in {:.1f} s of processor time\n", planted.name, found, tried,
             processor_seconds());
  return found > 0 ? 0 : 1;
}

int prove_all() {
  bool good = true;
  // What was tried, as it is without the fault; many faults share it.
  std::set<std::tuple<std::string, unsigned, std::uint64_t, std::uint64_t>> controls;
  for (const PlantedCase& planted : planted_cases()) {
    const auto tried = tried_until_found(planted);
    good = good && tried;
    for (std::uint64_t i = 0; i < tried.value_or(0); ++i) {
      if (!controls.emplace(planted.profile, planted.nodes, planted.seconds, planted.first + i).second) continue;
      const SeedOutcome outcome = run_seed(options_of(planted, planted.first + i), PlantedFault::kNone, Stderr::kKeep);
      if (outcome.end == SeedEnd::kNothingWrong) continue;
      fmt::print("WITHOUT A FAULT, {} nodes of {}, seed {}: {}\n", planted.nodes, planted.profile, planted.first + i,
                 reason(outcome));
      good = false;
    }
  }
  fmt::print("{} planted faults, {} seeds without any, {:.0f} s of processor time: {}\n", planted_cases().size(),
             controls.size(), processor_seconds(), good ? "all found" : "FAILED");
  return good ? 0 : 1;
}

}  // namespace cawfs::sim
