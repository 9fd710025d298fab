#include "disklock/heartbeat.h"

#include <algorithm>
#include <optional>

#include "core/format/cluster_format.h"
#include "core/format/cluster_verify.h"

namespace cawfs {

HeartbeatWriter::HeartbeatWriter(GuardedDevice& device, Executor& executor, const Geometry& geometry, Duration interval)
    : device_(device),
      executor_(executor),
      geometry_(geometry),
      interval_(interval),
      lanes_{Lane(executor), Lane(executor), Lane(executor), Lane(executor)},
      stop_(executor),
      tasks_(executor) {
  for (Lane& lane : lanes_) lane.buffer = IoBuffer(geometry.logical_block);
}

void HeartbeatWriter::start(NodeId self) {
  self_ = self;
  for (Lane& lane : lanes_) tasks_.spawn(serve(lane));
  tasks_.spawn(beat_each_interval());
}

void HeartbeatWriter::request_stop() {
  stop_.request();
  for (Lane& lane : lanes_) lane.go.notify_all();
}

Task<void> HeartbeatWriter::join() {
  return tasks_.join();
}

Task<void> HeartbeatWriter::beat_each_interval() {
  co_await executor_.yield();  // until the lanes wait
  Time next = executor_.now();
  while (!stop_.requested()) {
    beat();
    next = std::max(next + (shared_ ? 2 : 1) * interval_, executor_.now());
    co_await stop_.sleep_until(next);
  }
}

void HeartbeatWriter::beat() {
  Lane* idle = nullptr;
  std::optional<Time> youngest;
  for (Lane& lane : lanes_) {
    if (!lane.busy) {
      idle = &lane;
    } else if (!youngest || lane.issued > *youngest) {
      youngest = lane.issued;
    }
  }
  const Time now = executor_.now();
  if (!idle || (youngest && now - *youngest < 2 * interval_)) return;
  idle->busy = true;
  idle->issued = now;
  fill(*idle);
  idle->go.notify_all();
}

void HeartbeatWriter::fill(Lane& lane) {
  HeartbeatFigures figures;
  if (figures_) figures_(figures);
  auto& beat = *reinterpret_cast<format::Heartbeat*>(lane.buffer.data());
  beat.incarnation = self_.incarnation.value;
  beat.slot = self_.slot.value;
  beat.counter = ++counter_;
  beat.locks_held = figures.locks_held;
  beat.dirty_bytes = figures.dirty_bytes;
  beat.operations = figures.operations;
  beat.journal_blocks = figures.journal_blocks;
  beat.journal_used = figures.journal_used;
  format::seal_heartbeat_block(lane.buffer.bytes(), geometry_.heartbeat_offset(self_.slot), geometry_.fs_id);
}

Task<void> HeartbeatWriter::serve(Lane& lane) {
  while (!stop_.requested()) {
    if (!lane.busy) {
      co_await lane.go.wait();
      continue;
    }
    Result<> done =
        co_await device_.write_once(geometry_.heartbeat_offset(self_.slot), lane.buffer.bytes(), Durability::kFua);
    lane.busy = false;
    if (done && observer_) observer_(lane.issued);
  }
}

}  // namespace cawfs
