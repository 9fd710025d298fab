// A whole node in a test: the file system over its journal on a simulated LUN, with the local lock service.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/base/log.h"
#include "core/base/random.h"
#include "core/device/simulated_device.h"
#include "core/format/superblock_io.h"
#include "core/fs/buffer_cache.h"
#include "core/fs/filesystem.h"
#include "core/fs/local_locks.h"
#include "journal/journal_log.h"
#include "journal/replay.h"

namespace cawfs::test {

class QuietLog final : public Log {
 public:
  bool enabled(LogLevel /*level*/) const override { return false; }
  void write(LogLevel /*level*/, std::string_view /*message*/) override {}
};

inline constexpr SlotNo kSimSlot{0};

// The journal of the slot, from its record on the device.
inline Task<Result<JournalPlace>> read_place(BlockDevice& device, const Geometry& geometry, NodeId node) {
  IoBuffer bytes(geometry.logical_block);
  const auto got = co_await device.read(geometry.slot_record_offset(node.slot), bytes.bytes());
  if (!got) co_return fail(got.error());
  format::SlotRecord record;
  std::memcpy(&record, bytes.data(), sizeof(record));
  auto place = journal_place(record, node, geometry);
  if (place) place->local = true;
  co_return place;
}

class SimMount {
 public:
  SimMount(Executor& executor, std::unique_ptr<BlockDevice> device, std::uint64_t seed, Incarnation incarnation)
      : executor_(executor), device_(std::move(device)), random_(seed), node_{kSimSlot, incarnation} {}

  Task<Result<>> start() {
    const auto superblock = co_await read_superblock(*device_);
    if (!superblock) co_return fail(superblock.error());
    geometry_ = make_geometry(*superblock);
    auto place = co_await read_place(*device_, geometry_, node_);
    if (!place) co_return fail(place.error());
    locks_ = std::make_unique<LocalLockService>(executor_, *device_, geometry_, node_, true);
    buffers_ = std::make_unique<BufferCache>(executor_, *device_, geometry_, 1 << 20);
    log_ = std::make_unique<JournalLog>(JournalParts{executor_, *device_, geometry_, *buffers_, messages_},
                                        std::move(*place), JournalOptions{});
    const auto opened = co_await log_->start();
    if (!opened) co_return opened;
    fs_ = std::make_unique<FileSystem>(
        FileSystemParts{executor_, *device_, geometry_, *locks_, *buffers_, *log_, random_, messages_},
        FileSystemOptions{.metadata_cache_bytes = 1 << 20, .dirty_data_bytes = 1 << 20, .discard = true});
    const auto started = co_await fs_->start();
    co_return started;
  }
  Task<Result<>> stop() {
    auto result = co_await fs_->stop();
    const auto closed = co_await log_->stop();
    if (result) result = closed;
    locks_->stop();
    co_await device_->close();
    co_return result;
  }

  FileSystem& fs() { return *fs_; }
  LocalLockService& locks() { return *locks_; }
  JournalLog& log() { return *log_; }
  const Geometry& geometry() const { return geometry_; }
  Executor& executor() { return executor_; }

 private:
  Executor& executor_;
  std::unique_ptr<BlockDevice> device_;
  SeededRandom random_;
  NodeId node_;
  QuietLog messages_;
  Geometry geometry_;
  std::unique_ptr<LocalLockService> locks_;
  std::unique_ptr<BufferCache> buffers_;
  std::unique_ptr<JournalLog> log_;
  std::unique_ptr<FileSystem> fs_;
};

}  // namespace cawfs::test
