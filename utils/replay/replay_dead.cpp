#include "utils/replay/replay_dead.h"

#include <cstring>
#include <map>
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

// Keeps the errors of recoveries while it lives.
class FailedRecoveries final : private MembershipObserver {
 public:
  explicit FailedRecoveries(Membership& member) : member_(member) { member_.add_observer(this); }
  FailedRecoveries(const FailedRecoveries&) = delete;
  FailedRecoveries& operator=(const FailedRecoveries&) = delete;
  ~FailedRecoveries() override { member_.remove_observer(this); }

  const Error* of(NodeId dead) const {
    const auto found = errors_.find(dead);
    return found == errors_.end() ? nullptr : &found->second;
  }

 private:
  void recovery_failed(NodeId dead, Error why) override { errors_.insert_or_assign(dead, why); }

  Membership& member_;
  std::map<NodeId, Error> errors_;
};

// Until the slot no longer is the dead node's: its record says CLEAN, or names another incarnation.
Task<Result<>> wait_for_recovery(Membership& member, const FailedRecoveries& failed, NodeId dead, Duration interval) {
  while (true) {
    const auto stale = co_await member.is_stale(dead);
    if (!stale) co_return fail(stale.error());
    if (*stale) co_return Result<>{};
    if (member.withdrawn()) co_return fail(Errc::kFenced, "slot", member.self().slot.value);
    if (const Error* why = failed.of(dead)) co_return fail(*why);
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
  if (result) {
    const FailedRecoveries failed(member);
    for (const NodeId node : dead) {
      const auto recovered = co_await wait_for_recovery(member, failed, node, heartbeat_interval(dead_time));
      if (result) result = recovered;
    }
  }
  const auto left = co_await member.leave();
  if (result) result = left;
  co_return result;
}

}  // namespace cawfs
