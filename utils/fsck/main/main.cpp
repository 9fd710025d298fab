// fsck.cawfs: checks a cawfs file system.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

#include "core/base/explain.h"
#include "core/device/open_device.h"
#include "core/format/superblock_io.h"
#include "core/runtime/reactor.h"
#include "utils/common/messages.h"
#include "utils/common/usage.h"
#include "utils/fsck/fsck.h"

namespace cawfs {
namespace {

// As fsck(8).
enum Exit : int { kClean = 0, kProblems = 4, kFailed = 8, kUsage = 16 };

constexpr const char* kFooter =
    R"(Reads everything and changes nothing. Refuses a file system that a node has mounted; waits up
to the dead-time to see whether a silent node lives. Journals of dead nodes are replayed by the
next mount, or by cawfs-replay; without that nothing else can be said, and the check ends there.

Each line of the output is: name of the problem, where (a block, inode, group or slot), details.

Examples:
  fsck.cawfs -n iscsi://san/iqn.2026-11.example:store/0
  fsck.cawfs -n disk.img
  fsck.cawfs --problems      what each problem means

Exit codes:
  0   no problem
  4   problems were found
  8   it could not be checked: mounted, a journal to be replayed first, no cawfs, or the device
      failed
  16  wrong usage
)";

struct Arguments {
  std::string source;
  bool check = false;
  bool boot = false;
  bool repair = false;
  bool problems = false;
  bool tolerate = false;
  bool quiet = false;
  std::string initiator;
};

int fail_with(const std::string& message) {
  fmt::print(stderr, "fsck.cawfs: {}\n", message);
  return kFailed;
}

// A dead node's journal is in the way, and nothing else has been found.
bool only_needs_replay(const FsckReport& report) {
  return !report.complete && report.slots_to_recover > 0 && report.problem_count == report.slots_to_recover;
}

int print_report(const FsckReport& report, const std::string& source, bool quiet) {
  std::fputs(report.text().c_str(), stdout);
  const std::string problems = fmt::format("{} problem{}", report.problem_count, report.problem_count == 1 ? "" : "s");
  if (only_needs_replay(report)) {
    return fail_with(fmt::format(
        "{}: not checked: a dead node's journal is to be replayed first, by a mount or by cawfs-replay --replay",
        source));
  }
  if (!report.complete) {
    if (!quiet) fmt::print("{}; not checked any further\n", problems);
    return kProblems;
  }
  if (!quiet) {
    fmt::print("{}: {} inodes, {} of them directories; {} of {} blocks in use\n", report.clean() ? "clean" : problems,
               report.inodes, report.directories, report.used_blocks, report.blocks);
  }
  return report.clean() ? kClean : kProblems;
}

void print_problems() {
  for (const ProblemInfo& problem : all_problems()) fmt::print("{:28}{}\n", problem.name, problem.meaning);
}

Task<int> check(Reactor& reactor, BlockDevice& device, Arguments arguments) {
  ProgressLine progress("fsck.cawfs: checking");
  FsckOptions options;
  options.tolerate_dirty_journals = arguments.tolerate;
  options.progress = [&](std::uint64_t done, std::uint64_t total) { progress.show(done, total); };
  const Result<FsckReport> report = co_await check_file_system(reactor.executor(), device, std::move(options));
  if (!report) co_return fail_with(fmt::format("{}: {}", arguments.source, explain(report.error())));
  co_return print_report(*report, arguments.source, arguments.quiet);
}

// All there is to be done at boot.
Task<int> look(BlockDevice& device, Arguments arguments) {
  const Result<format::Superblock> superblock = co_await read_superblock(device);
  if (!superblock) co_return fail_with(fmt::format("{}: {}", arguments.source, explain(superblock.error())));
  co_return kClean;
}

Task<int> open_and_check(Reactor& reactor, Arguments arguments) {
  const auto log = stderr_log("fsck.cawfs", LogLevel::kWarning);
  OpenOptions open;
  open.read_only = true;
  open.exclusive = false;
  open.initiator_name = arguments.initiator;
  auto device = co_await open_device(reactor, *log, arguments.source, open);
  if (!device) co_return fail_with(fmt::format("{}: {}", arguments.source, explain(device.error())));
  int code = kClean;
  if (arguments.boot) {
    code = co_await look(**device, arguments);
  } else {
    code = co_await check(reactor, **device, arguments);
  }
  co_await (*device)->close();
  co_return code;
}

int run(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("Checks a cawfs file system.", "fsck.cawfs");
  app.footer(kFooter);
  add_version(app);
  auto* source = app.add_option("SOURCE", arguments.source, "iscsi://host[:port]/iqn/lun, or a file");
  auto* only_check = app.add_flag("-n", arguments.check, "Check, and change nothing");
  app.add_flag("-a,-p", arguments.boot, "At boot: is it there? Mounting replays the journals")->excludes(only_check);
  app.add_flag("-y", arguments.repair, "Repair: not there yet");
  app.add_flag("--problems", arguments.problems, "List all problems and their meaning");
  app.add_flag("--tolerate-dirty-journals", arguments.tolerate,
               "Go on where a dead node's journal is waiting to be replayed");
  app.add_option("--initiator", arguments.initiator, "iSCSI initiator name (default: the host's, made unique)");
  app.add_flag("-q,--quiet", arguments.quiet, "Print problems only");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return finish_parsing(app, error, kUsage);
  }
  if (arguments.problems) {
    print_problems();
    return kClean;
  }
  if (source->count() == 0 || arguments.repair || (!arguments.check && !arguments.boot)) {
    fmt::print(stderr, "fsck.cawfs: {}; see fsck.cawfs --help\n",
               source->count() == 0 ? "no SOURCE" : "it cannot repair yet, only check: say -n");
    return kUsage;
  }
  auto reactor = Reactor::make();
  if (!reactor) return fail_with("the kernel has no io_uring, or forbids it");
  return (*reactor)->run(open_and_check(**reactor, std::move(arguments)));
}

}  // namespace
}  // namespace cawfs

int main(int argc, char** argv) {
  return cawfs::run(argc, argv);
}
