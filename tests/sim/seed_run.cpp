#include "tests/sim/seed_run.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <sstream>

#include "core/base/assert.h"

namespace cawfs::sim {

namespace {

constexpr rlim_t kSeedLimitSeconds = 60;  // of processor time

// In the child: runs the seed and writes down what came of it.
[[noreturn]] void run_child(const SimulationOptions& options, int out) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  const rlimit limit{kSeedLimitSeconds, kSeedLimitSeconds};
  setrlimit(RLIMIT_CPU, &limit);  // what never waits cannot be stopped otherwise
  // Never destroyed: after a failure it is in the middle of something.
  SimulationResult result = (new Simulation(options))->run();
  if (result.failure) {
    std::fprintf(stderr, "cluster_sim: seed %llu failed: %s\n", static_cast<unsigned long long>(options.seed),
                 result.failure->c_str());
    std::fflush(stderr);
  }
  std::string text = fmt::format("{} {}\n", result.trace_hash,
                                 std::chrono::duration_cast<std::chrono::milliseconds>(result.simulated).count());
  for (const auto& [what, count] : result.counts) text += fmt::format("{} {}\n", count, what);
  std::size_t written = 0;
  while (written < text.size()) {
    const ssize_t n = write(out, text.data() + written, text.size() - written);
    if (n <= 0) _exit(3);
    written += static_cast<std::size_t>(n);
  }
  _exit(result.failure ? 1 : 0);
}

std::string read_all(int fd) {
  std::string text;
  std::array<char, 4096> buffer{};
  for (ssize_t n = 0; (n = read(fd, buffer.data(), buffer.size())) > 0;) {
    text.append(buffer.data(), static_cast<std::size_t>(n));
  }
  return text;
}

SeedEnd end_of(int status, bool reported) {
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return SeedEnd::kNothingWrong;
  // A sanitizer exits so, too, but reports nothing.
  if (WIFEXITED(status) && WEXITSTATUS(status) == 1 && reported) return SeedEnd::kCheckFailed;
  if (!WIFSIGNALED(status)) return SeedEnd::kCrashed;
  const int signal = WTERMSIG(status);
  if (signal == SIGABRT) return SeedEnd::kAssertion;
  return signal == SIGXCPU || signal == SIGKILL ? SeedEnd::kEndless : SeedEnd::kCrashed;
}

}  // namespace

SeedOutcome run_seed(const SimulationOptions& options, [[maybe_unused]] PlantedFault planted, Stderr to) {
  std::array<int, 2> ends{};
  CAWFS_ASSERT(pipe(ends.data()) == 0);
  const int said = to == Stderr::kKeep ? memfd_create("stderr", MFD_CLOEXEC) : -1;
  std::fflush(stdout);
  const pid_t child = fork();
  CAWFS_ASSERT(child >= 0);
  if (child == 0) {
    close(ends[0]);
    if (said >= 0) dup2(said, STDERR_FILENO);
#ifdef CAWFS_PLANTED_FAULTS
    planted_fault = planted;
#endif
    run_child(options, ends[1]);
  }
  close(ends[1]);
  const std::string text = read_all(ends[0]);
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);

  SeedOutcome outcome;
  outcome.end = end_of(status, !text.empty());
  if (said >= 0) {
    lseek(said, 0, SEEK_SET);
    outcome.said = read_all(said);
    close(said);
  }
  std::istringstream lines(text);
  lines >> outcome.trace_hash >> outcome.simulated_ms;
  std::uint64_t count = 0;
  for (std::string what; lines >> count && std::getline(lines >> std::ws, what);) outcome.counts[what] = count;
  return outcome;
}

}  // namespace cawfs::sim
