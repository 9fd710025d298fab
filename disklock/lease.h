// The self-lease (design §7): half the dead-time, counted from the moment the last heartbeat that completed was issued.
// While it is valid no other node can have taken this one for dead. Once it has lapsed it returns only after a
// heartbeat has completed and, after that, a fresh read of the slot record has shown the slot to be ours. Pure: no I/O,
// no clock.
#pragma once

#include <algorithm>
#include <optional>

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
      if (!returning_since_) returning_since_ = now;
      returning_end_ = std::max(returning_end_, end);
    }
  }
  // A read of the slot record, issued then, has shown the slot to be ours.
  void slot_seen(Time issued, Time now) {
    if (!returning_since_ || issued < *returning_since_) return;
    if (now < returning_end_) end_ = returning_end_;
    returning_since_.reset();
  }
  // Our slot was read as RECOVERING: as if the lease had lapsed.
  void suspend() {
    end_ = Time{};
    returning_since_.reset();
    returning_end_ = Time{};
  }

 private:
  Duration length_;
  Time end_;
  std::optional<Time> returning_since_;  // completion of the first heartbeat after the lapse
  Time returning_end_;
};

}  // namespace cawfs
