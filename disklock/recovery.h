// Recovery of a dead node's slot (design §7), step by step, each step a COMPARE AND WRITE of its slot record:
//
//   claim     ACTIVE -> RECOVERING by me; the heartbeat is read again, and if it has moved: back to ACTIVE
//   fence     RECOVERING -> RECOVERING, fenced
//   replay    the journal; flush
//   hand over -> CLEAN, or ACTIVE by a joiner that takes the slot
//
// Where the journal is damaged, the slot stays RECOVERING and says so (kSlotDamaged): nothing the dead node owned is
// given to anybody, and who waits for it gets an error. It is tried again each dead-time, for somebody may mend the
// journal. A joiner that was to take the slot leaves it to whoever comes next, and names itself there no more.
//
// It can be cut anywhere: whoever finds the recoverer stale claims the slot and starts over, or from "fenced" on.
// Before that the recoverer itself is fenced, for it may only be asleep in the middle of a replay:
//
//   - One with a slot of its own is fenced by that slot's recovery, which comes first: as long as its record says
//   ACTIVE,
//     it would register again when it wakes. claim() refuses until then.
//   - A joiner that recovers from within the slot stands in no other record. Where it may have replayed (the slot is
//     "fenced"), claiming puts it in the place of the node, which is out, and has it fenced (kSlotFenceAgain). Where it
//     cannot have, it is left alone: it finds the record changed before it replays.
//
// Two nodes may claim each other, where each has been silent for the other, and one's claim was long on its way. Then
// neither has its lease, and neither waits for it: one that finds the other alive gives its slot back; one that has
// fenced the other stands up, ACTIVE again, for the other cannot do anything about its claim any more. Two that have
// both ended so are silent both, and whoever claims such a slot need not wait for the recoverer's: nobody has written
// for it yet.
//
// So a record always names the only one who may still write what the slot covers, its recoverer aside.
//
// A node that was claimed, and whose recoverer ended before it had fenced it, may have woken: its heart beats. It is
// revived, ACTIVE again. But its recoverer may sleep between the two evictions of its fence, and would take the node's
// key away when it wakes, while the node sends COMPARE AND WRITE. One with a slot of its own has been fenced by then. A
// joiner is displaced in the record first, so that it does not register again, and then fenced. If who does that dies
// in between, no record names the joiner any more; therefore nobody is revived while a key is registered that stands in
// no record, and such keys are swept after two dead-times.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/types.h"
#include "core/format/cluster_format.h"
#include "core/format/geometry.h"
#include "core/runtime/executor.h"
#include "core/runtime/task.h"
#include "disklock/caw.h"
#include "disklock/fence.h"
#include "disklock/guarded_device.h"
#include "disklock/join_plan.h"
#include "disklock/recovery_client.h"
#include "disklock/slot_table.h"

namespace cawfs {

// A node's own words about itself, for slot records.
struct NodeCard {
  NodeId node;
  PrKey key;
  JoinerIdentity identity;
  std::uint32_t dead_time_ms = 0;
  std::uint32_t heartbeat_ms = 0;
};

// Whom to recover: the slot as the node table showed it.
struct Suspect {
  SlotNo slot;
  Incarnation incarnation;
  format::SlotState state = format::SlotState::kActive;  // or kRecovering, by a recoverer that has ended
  NodeId recoverer;
  HeartbeatValue heartbeat;  // ACTIVE: the value that stood still
  Duration silence{0};
  bool even_if_alive = false;  // an administrator knows better
  bool both_silent = false;    // RECOVERING, not fenced: neither its node nor its recoverer beats
  bool revived = false;        // RECOVERING: has come back before its recoverer, which is dead now, had fenced it
};
Suspect suspect_of(const SlotView& view);

// Changes of a slot record. They leave header and journal alone.
void occupy(format::SlotRecord& record, const NodeCard& card);  // ACTIVE by that node
void vacate(format::SlotRecord& record);                        // CLEAN

class Recovery {
 public:
  // `unasked` edits without the lease; a tool, which has none, has one editor.
  Recovery(GuardedDevice& device, CawEditor& editor, CawEditor& unasked, const Geometry& geometry, Executor& executor,
           Log& log, Fence& fence)
      : device_(device),
        editor_(editor),
        unasked_(unasked),
        geometry_(geometry),
        executor_(executor),
        log_(log),
        fence_(fence) {}
  void set_client(RecoveryClient* client) { client_ = client; }

  struct Claimed {
    Suspect suspect;
    NodeCard card;  // the recoverer's
    FenceVictim victim;
    bool node_fenced = false;      // the node is out, and cannot be given its slot back
    bool may_be_replayed = false;  // see SlotView
    // As it was when it was claimed; none where it was the recoverer's already.
    std::optional<format::SlotRecord> before;
    Time started;
  };
  // kAgain: somebody else was faster, the node lives, or its recoverer has to be recovered first.
  Task<Result<Claimed>> claim(Suspect suspect, NodeCard card);

  // A revived suspect's slot is its own again, once nobody is left who may still fence it. `card`: of a node with a
  // slot of its own. kAgain: somebody else was faster, or a key is registered that stands in no record.
  Task<Result<>> revive(Suspect suspect, NodeCard card);

  // The second step alone, for a tool: leaves the slot to whoever recovers it.
  Task<Result<>> fence(const Claimed& claimed);

  enum class HandOver : bool { kClean, kTake };
  // The rest. kTake: the slot is the recoverer's own afterwards, ACTIVE. kAgain: another node has claimed it.
  Task<Result<>> complete(Claimed claimed, HandOver hand_over);

 private:
  using Change = std::function<void(format::SlotRecord&)>;
  // Changes the record while it is RECOVERING by this recoverer and not yet as `done` says; kAgain when it is not.
  Task<Result<CawImage>> step(const Claimed& claimed, std::function<bool(const SlotView&)> done, Change change);
  Task<Result<CawImage>> step(CawEditor& editor, const Claimed& claimed, std::function<bool(const SlotView&)> done,
                              Change change);
  Task<void> replay_failed(const Claimed& claimed, const Error& error, HandOver hand_over);
  Task<Result<>> recoverer_has_ended(const Suspect& suspect, const NodeCard& card);
  Task<Result<bool>> still_silent(const Suspect& suspect);
  Task<Result<>> give_back(const Claimed& claimed);
  Task<Result<>> stand_up(const Claimed& claimed);
  Task<Result<>> shut_out_joiner(const Suspect& suspect, const NodeCard& card);
  Task<Result<>> see_no_unknown_key();

  GuardedDevice& device_;
  CawEditor& editor_;
  CawEditor& unasked_;
  Geometry geometry_;
  Executor& executor_;
  Log& log_;
  Fence& fence_;
  RecoveryClient* client_ = nullptr;
};

}  // namespace cawfs
