#include "utils/replay/replay_dead.h"

#include <cstring>
#include <utility>

#include "core/format/superblock_io.h"
#include "disklock/cluster_member.h"
#include "journal/replay.h"

namespace cawfs {

namespace {

std::array<std::uint8_t, 16> random_uuid(Random& random) {
  std::array<std::uint8_t, 16> uuid{};
  for (std::size_t at = 0; at < uuid.size(); at += sizeof(std::uint64_t)) {
    const std::uint64_t bits = random.next();
    std::memcpy(uuid.data() + at, &bits, sizeof(bits));
  }
  return uuid;
}

// Until the slot no longer is the dead node's: its record says CLEAN, or names another incarnation.
Task<Result<>> wait_for_recovery(Membership& member, NodeId dead, Duration interval) {
  while (true) {
    const auto stale = co_await member.is_stale(dead);
    if (!stale) co_return fail(stale.error());
    if (*stale) co_return Result<>{};
    if (member.withdrawn()) co_return fail(Errc::kFenced, "slot", member.self().slot.value);
    co_await member.executor().sleep(interval);
  }
}

}  // namespace

Task<Result<>> replay_dead(ReplayDeadParts parts, const format::Superblock& superblock, std::vector<NodeId> dead) {
  if (!writable(superblock)) co_return fail(Errc::kBadFeature, "superblock");
  const Geometry geometry = make_geometry(superblock);
  const Duration dead_time = std::chrono::milliseconds(superblock.dead_time_ms.value());
  // A name of its own: it is not this host's mount, whose slot it must not take for its own.
  const MemberOptions options{.host_name = parts.host_name,
                              .node_uuid = random_uuid(parts.random),
                              .boot_id = random_uuid(parts.random),
                              .host_lock = false,
                              .local = false,
                              .no_aptpl = false,
                              .dead_time = dead_time};
  ClusterMember member(parts.device, parts.executor, parts.random, parts.messages, geometry, options);
  JournalRecovery recovery({parts.executor, member.device(), geometry, parts.random, parts.messages});
  member.set_recovery_client(&recovery);

  auto result = co_await member.join();
  for (const NodeId node : dead) {
    if (!result) break;
    result = co_await wait_for_recovery(member, node, heartbeat_interval(dead_time));
  }
  const auto left = co_await member.leave();
  if (result) result = left;
  co_return result;
}

}  // namespace cawfs
