// cawfs-replay: what the journals of a file system hold, and replay of dead nodes' ones.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include "core/base/explain.h"
#include "core/device/open_device.h"
#include "core/format/superblock_io.h"
#include "core/runtime/reactor.h"
#include "utils/common/usage.h"
#include "utils/replay/journals.h"
#include "utils/replay/replay_dead.h"

namespace cawfs {
namespace {

enum Exit : int { kClean = 0, kNeedsReplay = 1, kUsage = 2, kLiveNode = 3, kFailed = 4 };

constexpr const char* kFooter =
    R"(Without --replay nothing is written: each journal is read, and what a replay would do is
printed. A mount replays dead nodes' journals by itself; this tool is for when none is to be
mounted. It needs the dead-time to see that a node is dead, fences it as a mount would, and
refuses the journal of a node that lives.

Examples:
  cawfs-replay iscsi://san/iqn.x:y/0            list the journals, and what replay would write
  cawfs-replay --slot 2 iscsi://san/iqn.x:y/0   the same for slot 2 only
  cawfs-replay --replay iscsi://san/iqn.x:y/0   replay the journals of all dead nodes
  cawfs-replay --replay --slot 2 disk.img       replay the journal of slot 2's dead node

Exit codes:
  0  no journal needs a replay (any more)
  1  at least one does (without --replay)
  2  wrong usage
  3  refused: the slot's node is alive
  4  the device, the file system or a journal cannot be read or written, or the slot has no journal
)";

struct Arguments {
  std::string source;
  std::vector<std::uint16_t> slots;
  bool replay = false;
  bool dry_run = false;
  std::string initiator;
};

int complain(const std::string& source, const std::string& what, const Error& error) {
  fmt::print(stderr, "cawfs-replay: {}: {}{}\n", source, what, explain(error));
  return kFailed;
}

std::string host_name() {
  std::array<char, 256> name{};
  if (gethostname(name.data(), name.size() - 1) != 0) return "cawfs-replay";
  return name.data();
}

class Program {
 public:
  Program(Reactor& reactor, Arguments arguments)
      : reactor_(reactor),
        arguments_(std::move(arguments)),
        random_(system_random()),
        messages_(stderr_log("cawfs-replay", LogLevel::kInfo)) {}

  Task<int> run() {
    OpenOptions options;
    options.read_only = !arguments_.replay;
    options.exclusive = arguments_.replay;
    options.initiator_name = arguments_.initiator;
    auto device = co_await open_device(reactor_, *messages_, arguments_.source, options);
    if (!device) co_return complain(arguments_.source, "", device.error());
    const int code = co_await with_device(**device);
    co_await (*device)->close();
    co_return code;
  }

 private:
  bool wanted(const JournalState& journal) const {
    return arguments_.slots.empty() || std::ranges::count(arguments_.slots, journal.slot.value) > 0;
  }

  Task<int> with_device(BlockDevice& device) {
    const auto superblock = co_await read_superblock(device);
    if (!superblock) co_return complain(arguments_.source, "", superblock.error());
    auto journals = co_await look_at_journals(reactor_.executor(), device, *random_, *messages_, *superblock);
    if (!journals) co_return complain(arguments_.source, "cannot read the journals: ", journals.error());
    std::erase_if(*journals, [this](const JournalState& journal) { return !wanted(journal); });
    for (const std::uint16_t slot : arguments_.slots) {
      const auto has = [slot](const JournalState& journal) { return journal.slot.value == slot; };
      if (std::ranges::any_of(*journals, has)) continue;
      fmt::print(stderr, "cawfs-replay: {}: slot {} has no journal\n", arguments_.source, slot);
      co_return kFailed;
    }
    std::fputs(print_journals(*journals).c_str(), stdout);
    std::fflush(stdout);
    const int code = judge(*journals);
    if (!arguments_.replay || code != kNeedsReplay) co_return code;

    std::vector<NodeId> dead;
    for (const JournalState& journal : *journals) {
      if (journal.needs_replay()) dead.push_back({journal.slot, journal.incarnation});
    }
    const auto replayed = co_await replay_dead({.executor = reactor_.executor(),
                                                .device = device,
                                                .random = *random_,
                                                .messages = *messages_,
                                                .host_name = host_name()},
                                               *superblock, dead);
    if (!replayed) co_return complain(arguments_.source, "cannot replay: ", replayed.error());
    fmt::print("{} journal{} replayed\n", dead.size(), dead.size() == 1 ? "" : "s");
    co_return kClean;
  }

  int judge(const std::vector<JournalState>& journals) const {
    const auto damaged = [](const JournalState& journal) { return journal.damaged(); };
    const auto live = [](const JournalState& journal) { return journal.live; };
    const auto needed = [](const JournalState& journal) { return journal.needs_replay(); };
    if (std::ranges::any_of(journals, damaged)) return kFailed;
    if (arguments_.replay && !arguments_.slots.empty() && std::ranges::any_of(journals, live)) {
      fmt::print(stderr, "cawfs-replay: refused: the node is alive\n");
      return kLiveNode;
    }
    return std::ranges::any_of(journals, needed) ? kNeedsReplay : kClean;
  }

  Reactor& reactor_;
  Arguments arguments_;
  std::unique_ptr<Random> random_;
  std::unique_ptr<Log> messages_;
};

int run(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("Lists the journals of a cawfs file system, and replays those of dead nodes.", "cawfs-replay");
  app.footer(kFooter);
  add_version(app);
  app.add_option("SOURCE", arguments.source, "iscsi://host[:port]/iqn/lun, or a file")->required();
  app.add_option("--slot", arguments.slots, "Only this slot's journal; may be repeated (default: all)")
      ->check(CLI::Range(0, static_cast<int>(kSlots) - 1));
  auto* replay = app.add_flag("--replay", arguments.replay, "Fence the dead nodes and replay their journals");
  app.add_flag("-n,--dry-run", arguments.dry_run, "Write nothing (the default)")->excludes(replay);
  app.add_option("--initiator", arguments.initiator, "iSCSI initiator name (default: the host's, made unique)");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return finish_parsing(app, error, kUsage);
  }
  auto reactor = Reactor::make();
  if (!reactor) return complain(arguments.source, "cannot start: ", reactor.error());
  Program program(**reactor, std::move(arguments));
  return (*reactor)->run(program.run());
}

}  // namespace
}  // namespace cawfs

int main(int argc, char** argv) {
  return cawfs::run(argc, argv);
}
