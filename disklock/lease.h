// The self-lease (design §7): half the dead-time, counted from the moment the last heartbeat that completed was issued.
// While it is valid no other node can have taken this one for dead. Once it has lapsed it returns only after a
// heartbeat has completed and, after that, a fresh read of the slot record has shown the slot to be ours: whoever
// claims the slot later looks at the heartbeat again, and finds that it has moved. A heartbeat that completed after
// that read was issued counts for the next one, for it may have come after both. Pure: no I/O, no clock.
#pragma once

#include <algorithm>

#include "core/runtime/executor.h"

namespace cawfs {

class Lease {
 public:
  explicit Lease(Duration length) : length_(length) {}

  Time end() const { return end_; }
  bool valid(Time now) const { return now < end_; }

  // A heartbeat issued then has completed now.
  void heartbeat(Time issued, Time now) {
    const Time end = issued + length_;
    if (valid(now)) {
      end_ = std::max(end_, end);
    } else {
      returning_end_ = std::max(returning_end_, end);
    }
  }
  // A read of the slot record is issued now.
  void look() { looked_end_ = returning_end_; }
  // It has shown the slot to be ours.
  void slot_seen(Time now) {
    if (now >= looked_end_) return;
    end_ = looked_end_;
    returning_end_ = looked_end_ = Time{};
  }
  // Our slot was read as RECOVERING: as if the lease had lapsed.
  void suspend() { end_ = returning_end_ = looked_end_ = Time{}; }

 private:
  Duration length_;
  Time end_;
  Time returning_end_;  // by the heartbeats that have completed since the lapse
  Time looked_end_;     // by those that had when the slot record was read
};

}  // namespace cawfs
