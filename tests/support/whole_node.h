// All of a mount but the kernel: cluster, journal and file system over one device, put together as mount.cawfs does it.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/base/log.h"
#include "core/format/superblock_io.h"
#include "core/fs/buffer_cache.h"
#include "core/fs/filesystem.h"
#include "core/fs/local_locks.h"
#include "disklock/cluster.h"
#include "journal/journal_log.h"
#include "journal/read_only_log.h"
#include "journal/replay.h"

namespace cawfs::testing {

// Keeps what it is told, for the report of a failure.
class LastMessages final : public Log {
 public:
  bool enabled(LogLevel level) const override { return level >= LogLevel::kInfo; }
  void write(LogLevel /*level*/, std::string_view message) override {
    if (lines.size() < kMost) lines.emplace_back(message);
  }
  std::string text() const {
    std::string out;
    for (const std::string& line : lines) out += "  " + line + "\n";
    return out;
  }
  std::vector<std::string> lines;

 private:
  static constexpr std::size_t kMost = 40;
};

struct WholeNodeOptions {
  std::string host = "node";
  std::uint8_t uuid = 1;  // of the host, each byte
  bool local = false;
  bool no_recovery = false;  // reads what stands there, joins nothing
};

class WholeNode final : private MembershipObserver {
 public:
  WholeNode(Executor& executor, std::unique_ptr<BlockDevice> device, std::uint64_t seed, WholeNodeOptions options)
      : executor_(executor), raw_(std::move(device)), random_(seed), options_(std::move(options)) {}

  // After a failure stop() is called all the same.
  Task<Result<>> start() {
    const auto superblock = co_await read_superblock(*raw_);
    if (!superblock) co_return fail(superblock.error());
    geometry_ = make_geometry(*superblock);
    if (!options_.no_recovery) {
      const auto joined = co_await join(*superblock);
      if (!joined) co_return joined;
    }
    buffers_ = std::make_unique<BufferCache>(executor_, device(), geometry_, kCacheBytes);
    if (!options_.no_recovery) {
      const auto opened = co_await open_journal();
      if (!opened) co_return opened;
    }
    if (options_.local || options_.no_recovery) {
      local_locks_ = std::make_unique<LocalLockService>(executor_, device(), geometry_, self());
    }
    LockService& locks = local_locks_ ? static_cast<LockService&>(*local_locks_) : cluster_->locks();
    TransactionLog& log = journal_ ? static_cast<TransactionLog&>(*journal_) : read_only_log_;
    fs_ = std::make_unique<FileSystem>(
        FileSystemParts{executor_, device(), geometry_, locks, *buffers_, log, random_, messages},
        FileSystemOptions{
            .read_only = options_.no_recovery, .metadata_cache_bytes = kCacheBytes, .dirty_data_bytes = kCacheBytes});
    const auto started = co_await fs_->start();
    co_return started;
  }

  Task<Result<>> stop() {
    Result<> written;
    if (fs_) written = co_await fs_->stop();
    if (local_locks_) local_locks_->stop();
    if (journal_) {
      const auto closed = co_await journal_->stop();
      if (written) written = closed;
    }
    if (cluster_) {
      if (observing_) cluster_->membership().remove_observer(this);
      if (!written && !cluster_->membership().withdrawn()) cluster_->membership().withdraw(written.error());
      const auto left = co_await cluster_->leave();
      if (written) written = left;
    }
    co_await raw_->close();
    co_return written;
  }

  FileSystem& fs() { return *fs_; }
  Executor& executor() { return executor_; }
  LastMessages messages;

 private:
  static constexpr std::uint64_t kCacheBytes = 4 << 20;

  BlockDevice& device() { return cluster_ ? cluster_->device() : *raw_; }
  NodeId self() const { return cluster_ ? cluster_->membership().self() : NodeId{}; }

  Task<Result<>> join(const format::Superblock& superblock) {
    ClusterOptions options;
    options.member = {.host_name = options_.host,
                      .node_uuid = {},
                      .boot_id = {},
                      .host_lock = true,
                      .local = options_.local,
                      .no_aptpl = false,
                      .dead_time = std::chrono::milliseconds(superblock.dead_time_ms.value())};
    options.member.node_uuid.fill(options_.uuid);
    options.member.boot_id.fill(options_.uuid);
    cluster_ = std::make_unique<Cluster>(*raw_, executor_, random_, messages, geometry_, options);
    recovery_ =
        std::make_unique<JournalRecovery>(ReplayParts{executor_, cluster_->device(), geometry_, random_, messages});
    cluster_->set_recovery_client(recovery_.get());
    const auto joined = co_await cluster_->join();
    if (!joined) co_return joined;
    cluster_->membership().add_observer(this);
    observing_ = true;
    co_return Result<>{};
  }
  Task<Result<>> open_journal() {
    const auto record = co_await cluster_->membership().read_slot(self().slot);
    if (!record) co_return fail(record.error());
    auto place = journal_place(*record, self(), geometry_);
    if (!place) co_return fail(place.error());
    auto journal = std::make_unique<JournalLog>(
        JournalParts{executor_, device(), geometry_, *buffers_, messages}, std::move(*place),
        JournalOptions{.on_failure = [this](const Error& error) { cluster_->membership().withdraw(error); }});
    const auto opened = co_await journal->start();
    if (opened) journal_ = std::move(journal);
    co_return opened;
  }

  void slot_changed(SlotNo slot, format::SlotState from, format::SlotState to, Incarnation /*incarnation*/) override {
    if (fs_) fs_->slot_changed(slot, from, to);
  }
  void withdrawn(Error reason) override {
    if (journal_) journal_->withdraw(reason);
  }

  Executor& executor_;
  std::unique_ptr<BlockDevice> raw_;
  SeededRandom random_;
  WholeNodeOptions options_;
  Geometry geometry_;
  bool observing_ = false;
  std::unique_ptr<Cluster> cluster_;
  std::unique_ptr<JournalRecovery> recovery_;
  std::unique_ptr<BufferCache> buffers_;
  std::unique_ptr<JournalLog> journal_;
  ReadOnlyLog read_only_log_;
  std::unique_ptr<LocalLockService> local_locks_;
  std::unique_ptr<FileSystem> fs_;
};

}  // namespace cawfs::testing
