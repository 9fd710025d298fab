// How long has each node been silent? The rule of design §7, exactly: silence runs from the completion of the first
// read that showed a heartbeat's value to the issue of the latest that still does. It starts anew whenever two reads
// were more than two intervals apart, for then the watcher slept or the storage was gone for all; after every LUN reset
// that the watcher issued or saw; and it never counts from before the watcher first saw this incarnation as a node or a
// recoverer. Pure: no I/O, no clock.
//
// A joiner that recovers a slot from within it beats in the node's own heartbeat block, and the node may have woken and
// beat there, too. Each counts as alive for its own beats only. The joiner's are not hidden by the node's for long (see
// HeartbeatWriter::share_block()). The node's may be hidden by the joiner's, so that it counts as silent only from when
// the whole block stood still.
#pragma once

#include <array>
#include <optional>

#include "core/base/types.h"
#include "core/runtime/executor.h"
#include "disklock/slot_table.h"

namespace cawfs {

class SilenceWatch {
 public:
  explicit SilenceWatch(Duration interval) : interval_(interval) {}

  // Who beats in slot i's block: its node, and a joiner that recovers it from within.
  enum class Heart : std::uint8_t { kNode, kJoiner };
  struct Subjects {
    std::array<std::optional<Incarnation>, kSlots> nodes;
    std::array<std::optional<Incarnation>, kSlots> joiners;
  };
  using Values = std::array<HeartbeatValue, kSlots>;
  // The subjects were read before the values were: issued, then completed.
  void observe(Time issued, Time completed, const Subjects& subjects, const Values& values);
  // The next read starts everything anew.
  void restart() { restart_ = true; }

  // 0 for a slot without a subject.
  Duration silence(SlotNo slot, Heart whose = Heart::kNode) const;
  // Has it beaten since the watcher first saw this subject, and began to count? Then it lives, or did a moment ago.
  bool moved(SlotNo slot, Heart whose = Heart::kNode) const;
  // What slot i's block says.
  std::optional<HeartbeatValue> last(SlotNo slot) const;

 private:
  struct Subject {
    Incarnation incarnation;
    HeartbeatValue value;
    Time since;      // completion of the first read that showed the value
    Time confirmed;  // issue of the latest that still does
    bool moved = false;
  };

  struct Read {
    Time issued;
    Time completed;
    bool anew;
  };
  static void observe_one(std::optional<Subject>& known, std::optional<Incarnation> subject,
                          const HeartbeatValue& value, Heart whose, const Read& read);
  const std::optional<Subject>& subject(SlotNo slot, Heart whose) const {
    return whose == Heart::kNode ? nodes_[slot.value] : joiners_[slot.value];
  }

  Duration interval_;
  std::array<std::optional<Subject>, kSlots> nodes_;
  std::array<std::optional<Subject>, kSlots> joiners_;
  std::optional<Time> last_issued_;
  Time last_completed_;
  bool restart_ = false;
};

}  // namespace cawfs
