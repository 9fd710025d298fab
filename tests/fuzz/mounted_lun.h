// A LUN in memory with a damaged file system, used as a host would: mounted, read, changed, unmounted, checked. What
// takes longer than any sound code does is a find.
#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/runtime/task_group.h"
#include "core/runtime/virtual_loop.h"
#include "tests/support/disk_image.h"
#include "tests/support/whole_node.h"
#include "utils/fsck/fsck.h"

namespace cawfs::fuzz {

class MountedLun {
 public:
  MountedLun(const testing::DiskImage& disk, SimulatedLunOptions options) : lun_(loop_.clock(), random_, options) {
    disk.put(lun_);
  }

  SimulatedLun& lun() { return lun_; }

  // Mounts, lets `use` at the file system, and unmounts; the error of the mount, else that of the unmount.
  template <class State>
  Result<> mount(testing::WholeNodeOptions options, Task<void> (*use)(FileSystem&, State&), State& state) {
    Executor& executor = loop_.add_executor();
    testing::WholeNode node(executor, connect(executor), 1, std::move(options));
    return finish<Result<>>(executor, use_and_stop(node, use, state), "a mount", &node.messages);
  }
  // What fsck.cawfs -n says, whatever has died in its slot; without a wait for signs of life.
  Result<FsckReport> fsck() {
    FsckOptions options;
    options.tolerate_dirty_journals = true;
    options.refuse_live = false;
    Executor& executor = loop_.add_executor();
    const auto device = connect(executor);
    auto report =
        finish<Result<FsckReport>>(executor, check_file_system(executor, *device, std::move(options)), "fsck");
    loop_.run(executor, device->close());
    return report;
  }

 private:
  static constexpr Duration kLongest = std::chrono::minutes(10);
  static constexpr std::uint64_t kMostResumptions = 3'000'000;

  template <class State>
  static Task<Result<>> use_and_stop(testing::WholeNode& node, Task<void> (*use)(FileSystem&, State&), State& state) {
    const auto started = co_await node.start();
    if (started) co_await use(node.fs(), state);
    const auto stopped = co_await node.stop();
    co_return started ? stopped : started;
  }

  std::unique_ptr<BlockDevice> connect(Executor& executor) {
    return lun_.connect(executor, "nexus " + std::to_string(++nexuses_));
  }

  template <class T>
  static Task<void> keep(Task<T> task, std::optional<T>& result) {
    T value = co_await std::move(task);
    result.emplace(std::move(value));
  }
  template <class T>
  T finish(Executor& executor, Task<T> task, const char* what, const testing::LastMessages* messages = nullptr) {
    std::optional<T> result;
    TaskGroup group(executor);
    group.spawn(keep(std::move(task), result));
    const Time limit = loop_.now() + kLongest;
    std::uint64_t steps = 0;
    loop_.run_until([&] { return group.running() == 0 || ++steps > kMostResumptions || loop_.now() > limit; });
    if (group.running() == 0) return std::move(*result);
    fmt::print(stderr, "{} hangs after {} steps\n{}", what, steps, messages ? messages->text() : "");
    std::abort();
  }

  VirtualLoop loop_;
  SeededRandom random_{1};
  SimulatedLun lun_;
  unsigned nexuses_ = 0;
};

}  // namespace cawfs::fuzz
