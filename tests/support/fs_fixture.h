// A mounted file system on a simulated LUN, with local locks and the test log. When it ends it unmounts and checks.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "core/fs/filesystem.h"
#include "tests/support/small_file_system.h"
#include "utils/fsck/fsck.h"

namespace cawfs::testing {

class KeptMessages final : public Log {
 public:
  bool enabled(LogLevel level) const override { return level >= LogLevel::kWarning; }
  void write(LogLevel /*level*/, std::string_view message) override { lines.emplace_back(message); }
  std::vector<std::string> lines;
};

class MountedFileSystem {
 public:
  explicit MountedFileSystem(SmallOptions options = {}, FileSystemOptions fs_options = {})
      : small(options), options_(fs_options) {
    mount();
  }
  ~MountedFileSystem() {
    unmount();
    check();
  }

  FileSystem& fs() { return *fs_; }
  template <class T>
  T run(Task<T> task) {
    return small.run(std::move(task));
  }
  void run(Task<void> task) { small.run(std::move(task)); }

  void remount() {
    unmount();
    mount();
  }
  void check() {
    FsckOptions options;
    options.refuse_live = false;
    options.tolerate_dirty_journals = true;
    auto report = small.run(check_file_system(small.executor, *small.device, options));
    ASSERT_TRUE(report.has_value()) << describe(report.error().code);
    EXPECT_TRUE(report->clean()) << report->text();
    last_orphans = report->orphans;
  }

  void give_up(LockName name, LockMode to) {
    auto given = small.run(small.locks->give_up(name, to));
    EXPECT_TRUE(given.has_value()) << describe(given.error().code);
  }

  void mount() {
    small.buffers =
        std::make_unique<BufferCache>(small.executor, *small.device, small.geometry, options_.metadata_cache_bytes);
    small.locks = std::make_unique<LocalLockService>(small.executor, *small.device, small.geometry,
                                                     NodeId{SlotNo{0}, Incarnation{++incarnation_}}, true);
    small.log = std::make_unique<MemoryLog>(*small.buffers);
    fs_ = std::make_unique<FileSystem>(FileSystemParts{small.executor, *small.device, small.geometry, *small.locks,
                                                       *small.buffers, *small.log, small.random, messages},
                                       options_);
    auto started = small.run(fs_->start());
    EXPECT_TRUE(started.has_value()) << describe(started.error().code);
  }
  void unmount() {
    stop();
    EXPECT_THAT(messages.lines, ::testing::IsEmpty());
  }
  void stop() {
    auto stopped = small.run(fs_->stop());
    EXPECT_TRUE(stopped.has_value()) << describe(stopped.error().code);
    fs_.reset();
    small.log.reset();
    small.locks.reset();
    small.buffers.reset();
  }

  SmallFileSystem small;
  KeptMessages messages;
  std::uint64_t last_orphans = 0;

 private:
  FileSystemOptions options_;
  std::uint32_t incarnation_ = 0;
  std::unique_ptr<FileSystem> fs_;
};

}  // namespace cawfs::testing
