// A file system in memory, mounted for real: the daemon's side runs on a thread of its own, the test makes system
// calls. Needs root and /dev/fuse.
#pragma once

#include <gtest/gtest.h>
#include <sys/mount.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "mount/fuse_dispatch.h"
#include "tests/unit/mount/memory_operations.h"

namespace cawfs {

using namespace std::chrono_literals;

// The served file system; used by the reactor's thread only, by way of run_there().
struct Served {
  std::unique_ptr<Reactor> reactor = Reactor::make().value();
  std::unique_ptr<Log> log = stderr_log("fuse_dispatch_test", LogLevel::kError);
  MemoryOperations operations{reactor->executor()};
  std::unique_ptr<FuseConnection> connection;
  std::unique_ptr<FuseKernelCache> cache;
  std::unique_ptr<FuseDispatcher> dispatcher;
};

class FuseMountTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "cawfs-fuse-XXXXXX";
    directory = mkdtemp(name.data());
    auto mounted = std::make_shared<std::promise<bool>>();
    auto result = mounted->get_future();
    thread_ = std::thread([this, mounted] { serve(*mounted); });
    ASSERT_TRUE(result.get());
  }

  void TearDown() override {
    if (umount2(directory.c_str(), 0) != 0) {
      ADD_FAILURE() << "umount: " << std::strerror(errno);
      umount2(directory.c_str(), MNT_DETACH | MNT_FORCE);
    }
    thread_.join();
    rmdir(directory.c_str());
    EXPECT_EQ(opens_left, 0);
    for (const auto& [inode, count] : references_left) EXPECT_GE(count, 0) << inode.value;
  }

  // Runs `work` on the reactor's thread, between two steps of the daemon.
  void run_there(std::function<void(Served&)> work) {
    auto done = std::make_shared<std::promise<void>>();
    {
      const std::lock_guard lock(mutex_);
      work_.push_back([this, &work, done] {
        work(*served_);
        done->set_value();
      });
    }
    done->get_future().wait();
  }
  // Starts `task` there; does not wait for its end.
  void start_there(std::function<Task<void>(Served&)> make) {
    run_there([&](Served& served) { group_->spawn(make(served)); });
  }

  std::string path(const std::string& name) const { return directory + "/" + name; }
  std::string content(const std::string& name) const {
    std::ifstream in(path(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  void store(const std::string& name, const std::string& text) const {
    std::ofstream out(path(name), std::ios::binary);
    out << text;
  }

  DispatchOptions options;  // as of SetUp()
  std::string directory;
  int opens_left = -1;
  std::map<InodeNo, std::int64_t> references_left;

 private:
  static Task<void> tick(Executor& executor, const bool& stop) {
    while (!stop) co_await executor.sleep(1ms);
  }

  void serve(std::promise<bool>& mounted) {
    Served served;
    served_ = &served;
    Executor& executor = served.reactor->executor();
    TaskGroup group(executor);
    group_ = &group;
    served.connection = std::move(*FuseConnection::open(*served.reactor, *served.log));
    auto mounting = served.connection->mount("memory", directory, MS_NOSUID);
    if (!mounting) return mounted.set_value(false);
    auto ready = served.reactor->run(served.connection->handshake());
    served.cache =
        std::make_unique<FuseKernelCache>(executor, *served.connection, *served.log, served.operations.root());
    served.dispatcher = std::make_unique<FuseDispatcher>(*served.reactor, *served.log, *served.connection,
                                                         served.operations, *served.cache, options);
    mounted.set_value(ready.has_value());
    bool stop = false;
    TaskGroup ticker(executor);
    ticker.spawn(tick(executor, stop));  // so that work_ is looked at
    TaskGroup serving(executor);
    serving.spawn(served.dispatcher->serve());
    served.reactor->run_until([&] {
      run_work();
      return serving.running() == 0 && group.running() == 0;
    });
    stop = true;
    served.reactor->run_until([&] { return ticker.running() == 0; });
    opens_left = served.operations.opens;
    references_left = served.operations.references;
    served_ = nullptr;
  }

  void run_work() {
    std::vector<std::function<void()>> work;
    {
      const std::lock_guard lock(mutex_);
      work.swap(work_);
    }
    for (auto& one : work) one();
  }

  Served* served_ = nullptr;
  TaskGroup* group_ = nullptr;
  std::thread thread_;
  std::mutex mutex_;
  std::vector<std::function<void()>> work_;
};

}  // namespace cawfs
