// One node of a simulated cluster, from its mount to its end: all that mount.cawfs makes between the device and FUSE.
// It can be unmounted in order or crash at any moment; then what remains of it is kept, as memory that nobody looks at.
#pragma once

#include <deque>
#include <memory>
#include <string>

#include "core/base/log.h"
#include "core/base/random.h"
#include "core/device/simulated_device.h"
#include "core/fs/buffer_cache.h"
#include "core/fs/filesystem.h"
#include "core/runtime/task_group.h"
#include "core/runtime/virtual_loop.h"
#include "disklock/cluster.h"
#include "journal/journal_log.h"
#include "journal/replay.h"

namespace cawfs::sim {

// Keeps the last lines, and counts those that begin like one that matters.
class SimLog final : public Log {
 public:
  SimLog(const VirtualLoop& loop, std::string name) : loop_(loop), name_(std::move(name)) {}
  bool enabled(LogLevel level) const override { return level >= LogLevel::kInfo; }
  void write(LogLevel level, std::string_view message) override;
  // Not the node's own: what the simulator did to it.
  void note(std::string_view message) { write(LogLevel::kInfo, message); }
  const std::deque<std::string>& lines() const { return lines_; }
  std::size_t count(std::string_view text) const;

 private:
  const VirtualLoop& loop_;
  std::string name_;
  std::deque<std::string> lines_;
  std::deque<std::string> all_;
};

class SimNode final : private MembershipObserver {
 public:
  // `name` is the host's, and its initiator name; a host has one node at a time.
  SimNode(VirtualLoop& loop, SimulatedLun& lun, std::string name, std::uint8_t boot, int clock_percent,
          std::uint64_t seed);
  ~SimNode() override;

  // Before start(): a target that forgets registrations with its power will do.
  void accept_no_aptpl() { no_aptpl_ = true; }

  // Errors: of the join, the journal, the file system. stop() in any case.
  Task<Result<>> start();
  // No client uses it any more.
  Task<Result<>> stop();
  // Nothing of it runs any more.
  void crash();

  FileSystem& fs() { return *fs_; }
  Executor& executor() { return executor_; }
  const std::string& name() const { return name_; }
  SimLog& log() { return log_; }
  const SimLog& log() const { return log_; }
  NodeId self() const { return cluster_ ? cluster_->membership().self() : NodeId{}; }
  bool withdrawn() const { return cluster_ && cluster_->membership().withdrawn(); }
  bool crashed() const { return crashed_; }
  std::size_t lapses() const { return lapses_; }
  std::size_t lease_returns() const { return lease_returns_; }

 private:
  Task<Result<>> join(const format::Superblock& superblock);
  Task<Result<>> start_journal();
  void slot_changed(SlotNo slot, format::SlotState from, format::SlotState to, Incarnation incarnation) override;
  void withdrawn(Error reason) override;
  void lease_lapsed() override { ++lapses_; }
  void lease_returned() override { ++lease_returns_; }

  std::string name_;
  std::uint8_t boot_;
  Executor& executor_;
  SeededRandom random_;
  SimLog log_;
  std::unique_ptr<BlockDevice> raw_;
  bool no_aptpl_ = false;
  bool crashed_ = false;
  bool observing_ = false;
  std::size_t lapses_ = 0;
  std::size_t lease_returns_ = 0;

  Geometry geometry_;
  std::unique_ptr<Cluster> cluster_;
  std::unique_ptr<JournalRecovery> recovery_;
  std::unique_ptr<BufferCache> buffers_;
  std::unique_ptr<JournalLog> journal_;
  std::unique_ptr<FileSystem> fs_;
  bool fs_started_ = false;
};

}  // namespace cawfs::sim
