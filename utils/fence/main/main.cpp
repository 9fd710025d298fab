// cawfs-fence: lists the slots of a file system, fences one, or tests whether a LUN can fence at all.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

#include "core/base/explain.h"
#include "core/device/open_device.h"
#include "core/format/superblock_io.h"
#include "core/runtime/reactor.h"
#include "utils/common/usage.h"
#include "utils/fence/fence_slot.h"
#include "utils/fence/self_test.h"
#include "utils/status/cluster_status.h"

namespace cawfs {
namespace {

enum Exit : int { kDone = 0, kFailed = 1, kUsage = 2, kLiveNode = 3, kNotProven = 4 };

constexpr const char* kFooter =
    R"(Without options: lists slots, keys and heartbeats, and changes nothing.

--slot N makes the LUN refuse everything that the node in slot N writes, waits until what it had
in flight has ended, and marks the slot. The node's journal is replayed by the next node that
looks, within seconds, or by the next mount. Running nodes do all this by themselves after the
dead-time; this is for when one cannot wait. A node that shows life is refused without --force.

--self-test LUN needs a LUN that holds nothing: it overwrites the last 16 MiB. A second session
plays a victim with many writes in flight, and is fenced again and again; none of its writes may
land once the fence has returned.

Examples:
  cawfs-fence iscsi://san/iqn.2026-11.example:store/0
  cawfs-fence --slot 3 iscsi://san/iqn.2026-11.example:store/0
  cawfs-fence --self-test --rounds 100 iscsi://san/iqn.2026-11.example:new/0

Exit codes:
  0  done; --self-test: fencing works
  1  failed: no cawfs, nobody in the slot, the device or its reservations failed
  2  wrong usage
  3  the node shows life, and there was no --force
  4  --self-test: writes landed after the fence
)";

constexpr std::uint64_t kTestBytes = 16 << 20;

struct Arguments {
  std::string source;
  std::string initiator;
  int slot = -1;
  bool force = false;
  bool self_test = false;
  std::uint32_t rounds = 20;
};

int fail_with(const std::string& source, const Error& error) {
  fmt::print(stderr, "cawfs-fence: {}: {}\n", source, explain(error));
  return kFailed;
}

Task<int> list(Reactor& reactor, BlockDevice& device, Arguments arguments) {
  const Result<ClusterStatus> status = co_await read_cluster_status(reactor.executor(), device);
  if (!status) co_return fail_with(arguments.source, status.error());
  std::fputs(status_text(*status).c_str(), stdout);
  co_return kDone;
}

Task<int> fence(Reactor& reactor, BlockDevice& device, Log& log, Arguments arguments) {
  const auto random = system_random();
  const SlotNo slot{static_cast<std::uint16_t>(arguments.slot)};
  const FenceForce force = arguments.force ? FenceForce::kYes : FenceForce::kNo;
  const Result<> done = co_await fence_slot(reactor.executor(), device, *random, log, slot, force);
  if (!done && done.error() == Errc::kNotFound) {
    fmt::print(stderr, "cawfs-fence: {}: no node is in slot {}\n", arguments.source, slot.value);
    co_return kFailed;
  }
  if (!done && done.error() == Errc::kLive) {
    fmt::print(stderr, "cawfs-fence: {}: the node in slot {} is alive; --force fences it all the same\n",
               arguments.source, slot.value);
    co_return kLiveNode;
  }
  if (!done) co_return fail_with(arguments.source, done.error());
  fmt::print("slot {} is fenced\n", slot.value);
  co_return kDone;
}

Task<int> self_test(Reactor& reactor, BlockDevice& device, Log& log, Arguments arguments) {
  const Result<format::Superblock> found = co_await read_superblock(device);
  if (found || found.error() != Errc::kBadMagic) {
    fmt::print(stderr, "cawfs-fence: {}: there is a cawfs file system; the self-test overwrites its LUN\n",
               arguments.source);
    co_return kFailed;
  }
  OpenOptions open;
  open.exclusive = false;
  if (!device.facts().initiator_name.empty()) open.initiator_name = device.facts().initiator_name + ".victim";
  auto victim = co_await open_device(reactor, log, arguments.source, open);
  if (!victim) co_return fail_with(arguments.source, victim.error());
  const auto random = system_random();
  SelfTestOptions options;
  options.length = kTestBytes;
  options.offset = (device.facts().size_bytes - kTestBytes) / kBlockSize * kBlockSize;
  options.rounds = arguments.rounds;
  const Result<SelfTestReport> report =
      co_await fence_self_test(reactor.executor(), device, **victim, *random, log, options);
  co_await (*victim)->close();
  if (!report) co_return fail_with(arguments.source, report.error());
  fmt::print("{} rounds, {} writes of the victim, longest fence {:.2f} s, {} blocks changed after a fence: {}\n",
             report->rounds, report->writes_before, std::chrono::duration<double>(report->longest_fence).count(),
             report->late_blocks, report->late_blocks == 0 ? "fencing works" : "FENCING DOES NOT WORK HERE");
  co_return report->late_blocks == 0 ? kDone : kNotProven;
}

Task<int> start(Reactor& reactor, Arguments arguments) {
  const auto log = stderr_log("cawfs-fence", LogLevel::kInfo);
  OpenOptions open;
  open.read_only = arguments.slot < 0 && !arguments.self_test;
  open.exclusive = false;
  open.initiator_name = arguments.initiator;
  auto device = co_await open_device(reactor, *log, arguments.source, open);
  if (!device) co_return fail_with(arguments.source, device.error());
  if (arguments.self_test && (*device)->facts().size_bytes < 2 * kTestBytes) {
    co_await (*device)->close();
    fmt::print(stderr, "cawfs-fence: {}: too small for the self-test, which needs 32 MiB\n", arguments.source);
    co_return kFailed;
  }
  int code = kDone;
  if (arguments.self_test) {
    code = co_await self_test(reactor, **device, *log, arguments);
  } else if (arguments.slot >= 0) {
    code = co_await fence(reactor, **device, *log, arguments);
  } else {
    code = co_await list(reactor, **device, arguments);
  }
  co_await (*device)->close();
  co_return code;
}

int run(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("Lists the slots of a cawfs file system, or fences one.", "cawfs-fence");
  app.footer(kFooter);
  add_version(app);
  app.add_option("SOURCE", arguments.source, "iscsi://host[:port]/iqn/lun, or a file")->required();
  auto* slot = app.add_option("--slot", arguments.slot, "Fence the node in this slot")->check(CLI::Range(0, 63));
  app.add_flag("--force", arguments.force, "Even if it shows life")->needs(slot);
  auto* test = app.add_flag("--self-test", arguments.self_test, "Does fencing work on this empty LUN?");
  test->excludes(slot);
  app.add_option("--rounds", arguments.rounds, "Of the self-test")->needs(test)->check(CLI::Range(1, 100'000));
  app.add_option("--initiator", arguments.initiator, "iSCSI initiator name (default: the host's, made unique)");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return finish_parsing(app, error, kUsage);
  }
  auto reactor = Reactor::make();
  if (!reactor) {
    fmt::print(stderr, "cawfs-fence: the kernel has no io_uring, or forbids it\n");
    return kFailed;
  }
  return (*reactor)->run(start(**reactor, std::move(arguments)));
}

}  // namespace
}  // namespace cawfs

int main(int argc, char** argv) {
  return cawfs::run(argc, argv);
}
