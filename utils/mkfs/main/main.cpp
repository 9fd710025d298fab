// mkfs.cawfs: makes a cawfs file system.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "core/base/explain.h"
#include "core/device/open_device.h"
#include "core/format/file_system_plan.h"
#include "core/format/superblock_io.h"
#include "core/runtime/reactor.h"
#include "utils/common/messages.h"
#include "utils/mkfs/arguments.h"
#include "utils/mkfs/mkfs.h"

namespace cawfs {
namespace {

constexpr int kFailed = 1;
constexpr std::uint32_t kFileDeadTimeMs = 10'000;

// Makes the file, or brings an existing one to size (only with --force). False after a message.
bool create_file(const MkfsArguments& arguments) {
  // Before there is a file, which the next try would find in its way.
  const std::uint32_t logical_block = arguments.logical_block == 0 ? kBlockSize : arguments.logical_block;
  const auto plan = plan_file_system(arguments.create_bytes, logical_block, arguments.make);
  if (!plan && plan.error() == Errc::kNoSpace) {
    fmt::print(stderr, "mkfs.cawfs: {}: {}\n", arguments.source,
               too_small_text(arguments.create_bytes, logical_block, arguments.make));
    return false;
  }
  const int fd = ::open(arguments.source.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | (arguments.force ? 0 : O_EXCL), 0600);
  const bool done = fd >= 0 && ftruncate(fd, static_cast<off_t>(arguments.create_bytes)) == 0;
  if (!done) {
    fmt::print(stderr, "mkfs.cawfs: cannot create {}: {}{}\n", arguments.source, std::strerror(errno),
               errno == EEXIST ? "; leave --size out to use it as it is, or give it the size with --force" : "");
  }
  if (fd >= 0) ::close(fd);
  return done;
}

bool is_file(const std::string& source) {
  struct stat facts{};
  return ::stat(source.c_str(), &facts) == 0 && S_ISREG(facts.st_mode);
}

std::string uuid_text(const format::Uuid& uuid) {
  std::string text;
  for (std::size_t i = 0; i < uuid.size(); ++i) {
    text += fmt::format("{}{:02x}", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
  }
  return text;
}

void print_result(const format::Superblock& made) {
  fmt::print("cawfs {}: {} in {} groups, {} slots with journals of {}, dead-time {} s, logical block {}\n",
             uuid_text(made.uuid), size_text(made.block_count.value() * kBlockSize), made.group_count.value(),
             made.slots.value(), size_text(std::uint64_t{made.journal_blocks.value()} * kBlockSize),
             made.dead_time_ms.value() / 1000.0, made.logical_block.value());
}

class Program {
 public:
  Program(Reactor& reactor, MkfsArguments arguments)
      : reactor_(reactor),
        arguments_(std::move(arguments)),
        random_(system_random()),
        log_(stderr_log("mkfs.cawfs", arguments_.quiet ? LogLevel::kError : LogLevel::kWarning)) {}

  Task<int> run() {
    const bool free = co_await look_before();
    if (!free) co_return kFailed;
    OpenOptions options;
    options.initiator_name = arguments_.initiator;
    options.file_logical_block = arguments_.logical_block;
    auto device = co_await open_device(reactor_, *log_, arguments_.source, options);
    if (!device) {
      const bool absent = device.error() == Errc::kNotFound && !arguments_.source.starts_with("iscsi://");
      log_->error("{}: {}{}", arguments_.source, explain(device.error()),
                  absent ? "; with --size SIZE it is created" : "");
      co_return kFailed;
    }
    auto second = co_await open_second(**device);
    const int status = co_await make(**device, second.get());
    if (second) co_await second->close();
    co_await (*device)->close();
    co_return status;
  }

 private:
  // Opening a file for writing makes its sidecar, which has no business beside somebody else's file system. What it
  // cannot look at, the rest finds out about.
  Task<bool> look_before() {
    if (!is_file(arguments_.source) || ::access(arguments_.source.c_str(), W_OK) != 0) co_return true;
    OpenOptions options;
    options.read_only = true;
    options.exclusive = false;
    options.file_logical_block = arguments_.logical_block;
    auto device = co_await open_device(reactor_, *log_, arguments_.source, options);
    if (!device) co_return true;
    const MkfsOptions wanted{.make = arguments_.make, .force = arguments_.force, .progress = {}};
    const Result<> looked = co_await look_before_mkfs(parts(**device, nullptr), wanted);
    co_await (*device)->close();
    co_return looked.has_value();
  }

  MkfsParts parts(BlockDevice& device, BlockDevice* second) {
    return {reactor_.executor(), device, second, *random_, *log_, arguments_.source};
  }

  // Another session, for the probe. Null, after a warning, where the LUN cannot have one.
  Task<std::unique_ptr<BlockDevice>> open_second(const BlockDevice& first) {
    if (!arguments_.make.clustered || first.facts().write_protected) co_return nullptr;
    OpenOptions options;
    options.exclusive = false;
    if (!first.facts().initiator_name.empty()) options.initiator_name = first.facts().initiator_name + "-probe";
    auto second = co_await open_device(reactor_, *log_, arguments_.source, options);
    if (second) co_return std::move(*second);
    log_->warning("no second session ({}): COMPARE AND WRITE and reservations are proved in part only",
                  explain(second.error()));
    co_return nullptr;
  }

  Task<int> make(BlockDevice& device, BlockDevice* second) {
    MkfsOptions options;
    options.make = arguments_.make;
    options.make.created_ns = reactor_.executor().clock().wall_ns();
    if (!arguments_.dead_time_given && is_file(arguments_.source)) options.make.dead_time_ms = kFileDeadTimeMs;
    options.force = arguments_.force;
    ProgressLine progress("mkfs.cawfs: writing");
    if (!arguments_.quiet) {
      options.progress = [&](std::uint64_t done, std::uint64_t total) { progress.show(done, total); };
    }
    const Result<format::Superblock> made = co_await run_mkfs(parts(device, second), std::move(options));
    if (!made) co_return kFailed;
    if (!arguments_.quiet) print_result(*made);
    co_return 0;
  }

  Reactor& reactor_;
  MkfsArguments arguments_;
  std::unique_ptr<Random> random_;
  std::unique_ptr<Log> log_;
};

int run(int argc, char** argv) {
  ParsedMkfs parsed = parse_mkfs(argc, argv);
  if (!parsed.arguments) return parsed.exit_status;
  if (parsed.arguments->create_bytes != 0 && !create_file(*parsed.arguments)) return kFailed;
  auto reactor = Reactor::make();
  if (!reactor) {
    fmt::print(stderr, "mkfs.cawfs: the kernel has no io_uring, or forbids it\n");
    return kFailed;
  }
  Program program(**reactor, std::move(*parsed.arguments));
  return (*reactor)->run(program.run());
}

}  // namespace
}  // namespace cawfs

int main(int argc, char** argv) {
  return cawfs::run(argc, argv);
}
