// cawfs: looks at a file system from outside. Sub-commands: status.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

#include "core/base/explain.h"
#include "core/device/open_device.h"
#include "core/runtime/reactor.h"
#include "utils/common/usage.h"
#include "utils/status/cluster_status.h"

namespace cawfs {
namespace {

enum Exit : int { kDone = 0, kFailed = 1, kUsage = 2 };

constexpr const char* kFooter = R"(Examples:
  cawfs status iscsi://san/iqn.2026-11.example:store/0
  cawfs status --json disk.img

Exit codes:
  0  done
  1  it could not be read: no cawfs, or the device failed
  2  wrong usage
)";

constexpr const char* kStatusFooter =
    R"(Reads the LUN only: it works on any host that sees it, mounted there or not, and disturbs nobody.
Watches the heartbeats for up to two of their intervals, a fifth of the dead-time at most.
)";

struct Arguments {
  std::string source;
  std::string initiator;
  bool json = false;
};

Task<int> status(Reactor& reactor, Arguments arguments) {
  const auto log = stderr_log("cawfs", LogLevel::kWarning);
  OpenOptions open;
  open.read_only = true;
  open.exclusive = false;
  open.initiator_name = arguments.initiator;
  auto device = co_await open_device(reactor, *log, arguments.source, open);
  if (!device) {
    fmt::print(stderr, "cawfs: {}: {}\n", arguments.source, explain(device.error()));
    co_return kFailed;
  }
  const Result<ClusterStatus> found = co_await read_cluster_status(reactor.executor(), **device);
  co_await (*device)->close();
  if (!found) {
    fmt::print(stderr, "cawfs: {}: {}\n", arguments.source, explain(found.error()));
    co_return kFailed;
  }
  const std::string text = arguments.json ? status_json(*found) : status_text(*found);
  std::fputs(text.c_str(), stdout);
  co_return kDone;
}

int run(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("Looks at a cawfs file system from outside.", "cawfs");
  app.footer(kFooter);
  add_version(app);
  app.require_subcommand(1);
  auto* command = app.add_subcommand("status", "Nodes, heartbeats, locks held, journal use, space");
  command->footer(kStatusFooter);
  command->add_option("SOURCE", arguments.source, "iscsi://host[:port]/iqn/lun, or a file")->required();
  command->add_flag("--json", arguments.json, "For programs");
  command->add_option("--initiator", arguments.initiator, "iSCSI initiator name (default: the host's, made unique)");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return finish_parsing(app, error, kUsage);
  }
  auto reactor = Reactor::make();
  if (!reactor) {
    fmt::print(stderr, "cawfs: the kernel has no io_uring, or forbids it\n");
    return kFailed;
  }
  return (*reactor)->run(status(**reactor, std::move(arguments)));
}

}  // namespace
}  // namespace cawfs

int main(int argc, char** argv) {
  return cawfs::run(argc, argv);
}
