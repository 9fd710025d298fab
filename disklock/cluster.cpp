#include "disklock/cluster.h"

namespace cawfs {

namespace {

// What a heartbeat may find before it on the way: an eighth of a second at 1 Gb/s, less where that takes longer than a
// heartbeat interval. More in flight makes no path known to us faster.
constexpr std::uint64_t kMostBytesInFlight = 16 << 20;

}  // namespace

Cluster::Cluster(BlockDevice& raw, Executor& executor, Random& random, Log& log, const Geometry& geometry,
                 ClusterOptions options)
    : geometry_(geometry),
      local_(options.member.local),
      member_(raw, executor, random, log, geometry_, options.member),
      data_(member_.device(), executor, kMostBytesInFlight, heartbeat_interval(options.member.dead_time)),
      mailboxes_(member_, geometry_, log, options.mail),
      locks_(member_, mailboxes_, geometry_, random, log, options.locks) {
  member_.set_figures([this](HeartbeatFigures& figures) {
    figures.locks_held = locks_.counts().held;
    if (figures_) figures_(figures);
  });
}

Task<Result<>> Cluster::join() {
  Result<> joined = co_await member_.join();
  if (joined && !local_) locks_.start();
  co_return joined;
}

Task<Result<>> Cluster::leave() {
  co_await locks_.stop();
  Result<> left = co_await member_.leave();
  co_return left;
}

}  // namespace cawfs
