// How long has each node been silent? The rule of design §7, exactly: silence runs from the completion of the first
// read that showed a heartbeat's value to the issue of the latest that still does. It starts anew whenever two reads
// were more than two intervals apart, for then the watcher slept or the storage was gone for all; after every LUN reset
// that the watcher issued or saw; and it never counts from before the watcher first saw this incarnation as a node or a
// recoverer. Pure: no I/O, no clock.
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

  // Whose heartbeat slot i's block is taken to be; nobody's where empty.
  using Subjects = std::array<std::optional<Incarnation>, kSlots>;
  using Values = std::array<HeartbeatValue, kSlots>;
  // The subjects were read before the values were: issued, then completed.
  void observe(Time issued, Time completed, const Subjects& subjects, const Values& values);
  // The next read starts everything anew.
  void restart() { restart_ = true; }

  // 0 for a slot without a subject.
  Duration silence(SlotNo slot) const;
  // Has the value changed since the watcher first saw this subject? Then it lives, or did a moment ago.
  bool moved(SlotNo slot) const;
  std::optional<HeartbeatValue> last(SlotNo slot) const;

 private:
  struct Subject {
    Incarnation incarnation;
    HeartbeatValue value;
    Time since;      // completion of the first read that showed the value
    Time confirmed;  // issue of the latest that still does
    bool moved = false;
  };

  Duration interval_;
  std::array<std::optional<Subject>, kSlots> subjects_;
  std::optional<Time> last_issued_;
  Time last_completed_;
  bool restart_ = false;
};

}  // namespace cawfs
