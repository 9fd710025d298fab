// Which slot a joiner takes, or why it may not join (design §7, "Join" and "Own slot at once"). Pure: looks at one read
// of the node table and at what has been seen of the heartbeats.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "core/base/error.h"
#include "core/base/types.h"
#include "disklock/slot_table.h"
#include "disklock/suspicion.h"

namespace cawfs {

struct JoinerIdentity {
  std::string host_name;
  std::string initiator_name;  // empty where there are no sessions
  std::uint64_t isid = 0;
  std::array<std::uint8_t, 16> node_uuid{};
  std::array<std::uint8_t, 16> boot_id{};
  // This process holds the host's lock for this file system: no other daemon of this host with this uuid is alive.
  bool host_lock = false;
  // kSlotLocal or kSlotFsck: no other node beside this one.
  std::uint8_t flags = 0;
};

struct JoinPlan {
  enum class Kind : std::uint8_t {
    kTake,   // the slot is CLEAN
    kClaim,  // its node, or its recoverer, is dead: recover it, then take it
    kWait,   // look again an interval later
    kRefuse,
  };
  Kind kind;
  SlotNo slot;
  Error error{};  // kRefuse: kNameInUse, kLocalMode, kLive, kNoSlot
};

// `watch` has seen the same table. `dead_time`, `interval`: the file system's.
JoinPlan plan_join(const SlotTable& table, const SilenceWatch& watch, const JoinerIdentity& joiner, Duration dead_time,
                   Duration interval);

// Who beats where, for SilenceWatch.
SilenceWatch::Subjects subjects_of(const SlotTable& table);

// Is the slot RECOVERING and not fenced, by a recoverer with a slot of its own, and neither it nor its node has beaten
// for the dead-time? Then nobody has written for it yet, and whoever comes may claim it.
bool both_silent(const SlotTable& table, const SilenceWatch& watch, const SlotView& view, Duration dead_time);

}  // namespace cawfs
