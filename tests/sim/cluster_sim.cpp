// cluster_sim: simulates clusters, one seed after the other.
#include <fmt/format.h>
#include <getopt.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>

#include "tests/sim/profile.h"
#include "tests/sim/prove_planted.h"
#include "tests/sim/seed_run.h"

namespace cawfs::sim {
namespace {

using namespace std::chrono_literals;
using WallClock = std::chrono::steady_clock;

constexpr const char* kUsage = R"(Usage: cluster_sim [OPTIONS]

Simulates clusters under random operations and faults, each from one seed, and checks what they do.

  --seed N       only this seed
  --first N      seeds from N on (default: 1)
  --count N      how many seeds (default: 100)
  --minutes M    fresh seeds for M minutes, instead
  --nodes K      nodes in a cluster, 1 to 16 (default: 2 or 3, by the seed)
  --seconds S    simulated seconds of operations and faults (default: 20)
  --no-faults    operations only
  --profile P    with the faults of that profile, instead of those that the seed chooses
  --ci           what CI runs: seeds without and with faults, that operations, handovers and faults occur in them, and
                 that a seed run twice does the same twice
  --quiet        no counts
  --help         this text

Proof that bugs are found, in a build with CAWFS_PLANTED_FAULTS:

  --plant NAME   plants this fault and runs the seeds that it is to be found by, until one finds it; with --first and
                 --count other ones, and all of them; with --seed one, which shows what it finds
  --plant list   the faults, and where each is found
  --prove-planted  each fault, then the same seeds without any, which must find nothing; CI runs this

Exit status: 0 nothing wrong, 1 a seed failed (it is printed, with the command that runs it again), 2 wrong usage.
With --plant and --prove-planted: 0 each fault was found, 1 one was not.
)";

// What CI runs: the first ones, and those that have found something.
constexpr std::array<std::uint64_t, 16> kSeedsWithoutFaults{1, 2, 3, 4, 5, 6, 7, 8, 20, 23, 31, 37, 39, 78, 103, 120};
constexpr std::uint64_t kSecondsWithoutFaults = 6;  // simulated
constexpr std::array<std::uint64_t, 30> kSeedsWithFaults{1,  2,  3,  4,  5,  6,   7,   8,   9,   10,
                                                         11, 12, 13, 14, 15, 16,  25,  31,  38,  53,
                                                         67, 73, 75, 79, 85, 115, 184, 250, 390, 10369241383608331398U};
constexpr std::uint64_t kSecondsWithFaults = 10;
// Clusters of five, in which operations of several nodes can take locks from each other in turn.
constexpr std::array<std::uint64_t, 4> kSeedsOfFive{7950202599942020417, 824871095385266503, 17658984031727805634U,
                                                    12518846298461563725U};
constexpr std::uint64_t kSecondsOfFive = 20;

// What must have occurred over CI's seeds.
constexpr std::array kMustOccur{
    "EX granted",
    "EX handed over to EX",
    "EX given up for S",
    "EX of a dead node taken",
    "operation: direct write",
    "operation: open-unlinked file",
    "operation: append",
    "operation: exchange",
    "operation: in a directory that may go",
    "fault: node crashed",
    "fault: clock drifts",
    "fault: pause longer than the dead-time",
    "fault: path cut longer than the dead-time",
    "fault: device silent for a moment",
    "fault: device silent for longer than the dead-time",
    "fault: power cut without unit attention",
    "fault: target loses power before a flush",
    "fault: everything loses power",
    "fault: CAW lost",
    "fault: CAW ran, reply lost",
    "fault: CAW ended with a medium error",
    "fault: CAW miscompared with nothing",
    "fault: CAW ran twice",
    "lost CAW reply settled: ran",
    "lost CAW reply settled: not run",
    "node fenced",
    "slot recovered by a survivor",
    "slot recovered by a joiner",
};

struct Options {
  std::optional<std::uint64_t> seed;
  std::uint64_t first = 1;
  std::uint64_t count = 100;
  std::optional<std::uint64_t> minutes;
  unsigned nodes = 0;
  std::uint64_t seconds = 20;
  bool faults = true;
  bool ci = false;
  bool quiet = false;
  const Profile* profile = nullptr;
  bool first_given = false;
  bool count_given = false;
  std::string plant;
  bool prove_planted = false;
};

SimulationOptions options_of(const Options& options, std::uint64_t seed) {
  SimulationOptions sim;
  sim.seed = seed;
  sim.nodes = options.nodes != 0 ? options.nodes : 2 + static_cast<unsigned>(seed % 2);
  sim.busy_time = std::chrono::seconds(options.seconds);
  sim.faults = options.faults;
  sim.profile = options.profile;
  return sim;
}

class Runner {
 public:
  explicit Runner(Options options) : options_(options), began_(WallClock::now()) {}

  int run() {
    if (options_.ci) return run_ci();
    if (options_.seed) {
      run_one(*options_.seed);
    } else if (options_.minutes) {
      run_fresh(std::chrono::minutes(*options_.minutes));
    } else {
      for (std::uint64_t i = 0; i < options_.count && !failed_; ++i) run_one(options_.first + i);
    }
    report();
    return failed_ ? 1 : 0;
  }

 private:
  SeedOutcome run_one(std::uint64_t seed) {
    const SimulationOptions sim = options_of(options_, seed);
    SeedOutcome outcome = run_seed(sim, PlantedFault::kNone, Stderr::kShow);
    failed_ = failed_ || outcome.end != SeedEnd::kNothingWrong;
    if (outcome.end != SeedEnd::kNothingWrong && outcome.end != SeedEnd::kCheckFailed) {
      std::fprintf(stderr, "cluster_sim: seed %llu %s; to see it again: cluster_sim --seed %llu --nodes %u\n",
                   static_cast<unsigned long long>(seed),
                   outcome.end == SeedEnd::kEndless ? "runs on without end" : "crashed",
                   static_cast<unsigned long long>(seed), sim.nodes);
    }
    ++seeds_;
    simulated_ms_ += outcome.simulated_ms;
    add(counts_, outcome.counts);
    return outcome;
  }

  void run_for_ci(std::uint64_t seed) {
    if (failed_) return;
    const SeedOutcome first = run_one(seed);
    if (seed > 2 || failed_) return;
    if (run_one(seed).trace_hash == first.trace_hash) return;
    std::fprintf(stderr, "cluster_sim: seed %llu does not do the same twice\n", static_cast<unsigned long long>(seed));
    failed_ = true;
  }

  void run_fresh(WallClock::duration time) {
    std::random_device fresh;
    const auto end = WallClock::now() + time;
    while (WallClock::now() < end && !failed_) run_one((std::uint64_t{fresh()} << 32) | fresh());
  }

  int run_ci() {
    options_.faults = false;
    options_.seconds = kSecondsWithoutFaults;
    for (const std::uint64_t seed : kSeedsWithoutFaults) run_for_ci(seed);
    options_.faults = true;
    options_.seconds = kSecondsWithFaults;
    for (const std::uint64_t seed : kSeedsWithFaults) run_for_ci(seed);
    options_.nodes = 5;
    options_.seconds = kSecondsOfFive;
    for (const std::uint64_t seed : kSeedsOfFive) run_for_ci(seed);
    for (const char* what : kMustOccur) {
      if (failed_ || counts_[what] > 0) continue;
      std::fprintf(stderr, "cluster_sim: never occurred: %s\n", what);
      failed_ = true;
    }
    report();
    return failed_ ? 1 : 0;
  }

  void report() const {
    const double wall = std::chrono::duration<double>(WallClock::now() - began_).count();
    const double simulated = static_cast<double>(simulated_ms_) / 1000;
    if (!options_.quiet) {
      for (const auto& [what, count] : counts_) fmt::print("{:10} {}\n", count, what);
    }
    fmt::print("{} seeds, {:.0f} simulated seconds in {:.1f} s ({:.0f} per second): {}\n", seeds_, simulated, wall,
               simulated / wall, failed_ ? "FAILED" : "nothing wrong");
  }

  Options options_;
  WallClock::time_point began_;
  bool failed_ = false;
  std::uint64_t seeds_ = 0;
  std::uint64_t simulated_ms_ = 0;
  Counts counts_;
};

std::optional<Options> parse(int argc, char** argv) {
  static constexpr std::array kOptions{
      option{"seed", required_argument, nullptr, 's'},  option{"first", required_argument, nullptr, 'f'},
      option{"count", required_argument, nullptr, 'c'}, option{"minutes", required_argument, nullptr, 'm'},
      option{"nodes", required_argument, nullptr, 'n'}, option{"seconds", required_argument, nullptr, 't'},
      option{"no-faults", no_argument, nullptr, 'x'},   option{"ci", no_argument, nullptr, 'i'},
      option{"quiet", no_argument, nullptr, 'q'},       option{"profile", required_argument, nullptr, 'p'},
      option{"plant", required_argument, nullptr, 'l'}, option{"prove-planted", no_argument, nullptr, 'v'},
      option{"help", no_argument, nullptr, 'h'},        option{nullptr, 0, nullptr, 0}};
  Options options;
  for (int c = 0; (c = getopt_long(argc, argv, "", kOptions.data(), nullptr)) != -1;) {
    std::uint64_t number = 0;
    if (optarg != nullptr && c != 'p' && c != 'l') {
      char* end = nullptr;
      number = std::strtoull(optarg, &end, 10);
      if (*optarg == '\0' || *end != '\0') return std::nullopt;
    }
    switch (c) {
      case 's':
        options.seed = number;
        break;
      case 'f':
        options.first = number;
        options.first_given = true;
        break;
      case 'c':
        options.count = number;
        options.count_given = true;
        break;
      case 'm':
        options.minutes = number;
        break;
      case 'n':
        if (number < 1 || number > 16) return std::nullopt;
        options.nodes = static_cast<unsigned>(number);
        break;
      case 't':
        options.seconds = number;
        break;
      case 'x':
        options.faults = false;
        break;
      case 'i':
        options.ci = true;
        break;
      case 'q':
        options.quiet = true;
        break;
      case 'p':
        options.profile = find_profile(optarg);
        if (options.profile == nullptr) return std::nullopt;
        break;
      case 'l':
        options.plant = optarg;
        break;
      case 'v':
        options.prove_planted = true;
        break;
      case 'h':
        std::fputs(kUsage, stdout);
        std::exit(0);
      default:
        return std::nullopt;
    }
  }
  if (optind != argc) return std::nullopt;
  if (options.prove_planted && !options.plant.empty()) return std::nullopt;
  return options;
}

int run_planted(const Options& options) {
  if (options.plant == "list") {
    list_planted();
    return 0;
  }
  const PlantedCase* planted = find_planted(options.plant);
  if (!options.prove_planted && planted == nullptr) {
    std::fputs("cluster_sim: there is no such fault; see cluster_sim --plant list\n", stderr);
    return 2;
  }
  if (!kPlantedFaultsBuiltIn) {
    std::fputs("cluster_sim: built without CAWFS_PLANTED_FAULTS: no fault can be planted\n", stderr);
    return 2;
  }
  if (options.prove_planted) return prove_all();
  ProofRange range;
  range.seed = options.seed;
  if (options.first_given) range.first = options.first;
  if (options.count_given) range.count = options.count;
  range.all = options.count_given;
  return prove_one(*planted, range);
}

}  // namespace
}  // namespace cawfs::sim

int main(int argc, char** argv) {
  const auto options = cawfs::sim::parse(argc, argv);
  if (!options) {
    std::fputs("cluster_sim: wrong usage; see cluster_sim --help\n", stderr);
    return 2;
  }
  if (options->prove_planted || !options->plant.empty()) return cawfs::sim::run_planted(*options);
  return cawfs::sim::Runner(*options).run();
}
