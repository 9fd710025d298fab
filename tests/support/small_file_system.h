// A small file system on a simulated LUN with one node's buffers, local locks and test log: what tests of core/fs stand
// on.
#pragma once

#include <gtest/gtest.h>

#include <memory>

#include "core/device/simulated_device.h"
#include "core/format/make_file_system.h"
#include "core/format/superblock_io.h"
#include "core/fs/buffer_cache.h"
#include "core/fs/local_locks.h"
#include "core/runtime/virtual_loop.h"
#include "tests/support/memory_log.h"

namespace cawfs::testing {

struct SmallOptions {
  std::uint64_t size_bytes = 64 << 20;
  std::uint32_t slots = 2;
  std::uint32_t group_blocks = 0;
  std::uint32_t journal_blocks = 256;
  std::uint64_t cache_bytes = 64 << 20;
  std::uint64_t seed = 1;
  SlotNo slot{0};
};

class SmallFileSystem {
 public:
  explicit SmallFileSystem(SmallOptions options = {})
      : random(options.seed),
        executor(loop.add_executor()),
        lun(loop.clock(), random, {.size_bytes = options.size_bytes}),
        device(lun.connect(executor, "node")) {
    MakeOptions make;
    make.slots = options.slots;
    make.group_blocks = options.group_blocks;
    make.journal_blocks = options.journal_blocks;
    const auto super = loop.run(executor, make_file_system(*device, random, make));
    EXPECT_TRUE(super.has_value()) << (super ? "" : describe(super.error().code)) << " "
                                   << (super ? "" : super.error().where);
    geometry = make_geometry(*super);
    buffers = std::make_unique<BufferCache>(executor, *device, geometry, options.cache_bytes);
    locks = std::make_unique<LocalLockService>(executor, *device, geometry, NodeId{options.slot, Incarnation{1}}, true);
    log = std::make_unique<MemoryLog>(*buffers);
  }

  template <class T>
  T run(Task<T> task) {
    return loop.run(executor, std::move(task));
  }
  void run(Task<void> task) { loop.run(executor, std::move(task)); }

  TxHandle begin(std::uint32_t credits) { return std::move(*run(log->begin(credits))); }

  // Everything in place, and a new cache that has seen nothing.
  void remount(std::uint64_t cache_bytes = 64 << 20) {
    EXPECT_TRUE(run(log->write_back_all()).has_value());
    log.reset();
    buffers = std::make_unique<BufferCache>(executor, *device, geometry, cache_bytes);
    log = std::make_unique<MemoryLog>(*buffers);
  }

  VirtualLoop loop;
  SeededRandom random;
  Executor& executor;
  SimulatedLun lun;
  std::unique_ptr<BlockDevice> device;
  Geometry geometry;
  std::unique_ptr<BufferCache> buffers;
  std::unique_ptr<LocalLockService> locks;
  std::unique_ptr<MemoryLog> log;
};

}  // namespace cawfs::testing
