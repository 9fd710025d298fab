// Writes this node's heartbeat: one durable plain write each interval, that bypasses every queue but the gate of the
// guarded device. One that is unanswered for two intervals is issued again beside the old one. Buffers and tasks are
// made once, at the start: a heartbeat needs no memory but what the device takes for a request.
#pragma once

#include <array>
#include <cstdint>
#include <functional>

#include "core/base/types.h"
#include "core/device/io_buffer.h"
#include "core/format/geometry.h"
#include "core/runtime/executor.h"
#include "core/runtime/sync.h"
#include "core/runtime/task_group.h"
#include "disklock/guarded_device.h"

namespace cawfs {

// Shown by `cawfs status`.
struct HeartbeatFigures {
  std::uint64_t locks_held = 0;
  std::uint64_t dirty_bytes = 0;
  std::uint64_t operations = 0;
  std::uint32_t journal_blocks = 0;
  std::uint32_t journal_used = 0;
};

class HeartbeatWriter {
 public:
  HeartbeatWriter(GuardedDevice& device, Executor& executor, const Geometry& geometry, Duration interval);

  // Called before each heartbeat; must not wait.
  void set_figures(std::function<void(HeartbeatFigures&)> figures) { figures_ = std::move(figures); }
  // Called when a heartbeat has completed, with the time at which it was issued.
  void set_observer(std::function<void(Time issued)> observer) { observer_ = std::move(observer); }

  // From now on, at once the first. Not while it runs.
  void start(NodeId self);
  void request_stop();
  // Another beats in the same block: every other interval is left to it, or those who read would see one of them only.
  void share_block(bool shared) { shared_ = shared; }
  // Returns when no heartbeat is in flight any more, after request_stop().
  Task<void> join();

 private:
  static constexpr std::size_t kLanes = 4;
  struct Lane {
    explicit Lane(Executor& executor) : go(executor) {}
    Condition go;
    IoBuffer buffer;
    Time issued;
    bool busy = false;
  };

  Task<void> beat_each_interval();
  Task<void> serve(Lane& lane);
  void beat();
  void fill(Lane& lane);

  GuardedDevice& device_;
  Executor& executor_;
  Geometry geometry_;
  Duration interval_;
  NodeId self_;
  std::uint64_t counter_ = 0;
  bool shared_ = false;
  std::function<void(HeartbeatFigures&)> figures_;
  std::function<void(Time)> observer_;
  std::array<Lane, kLanes> lanes_;
  StopSource stop_;
  TaskGroup tasks_;
};

}  // namespace cawfs
