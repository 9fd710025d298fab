// One round of changes to a lock block: what LockManager has planned on an image, before it is written.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "disklock/lock_manager.h"

namespace cawfs {

struct LockManager::Round {
  enum class Kind : std::uint8_t {
    kGrant,
    kWrite,  // registers as the waiter, or takes back what is not held
    kRelease,
  };
  struct Change {
    std::size_t entry;
    Kind kind;
    LockEntry after;
    LockMode held = LockMode::kNone;  // kRelease: what stays, or comes
  };

  std::vector<Change> changes;      // all written by one CAW
  std::vector<std::size_t> handed;  // entries that grant what is wanted as they stand
  std::uint64_t records = 0;        // slots whose records must be read before anything is done
  bool waiting = false;             // for others to change the block
  std::optional<Time> until;        // to be planned again then

  void plan_again_at(Time when) {
    if (!until || when < *until) until = when;
  }
};

}  // namespace cawfs
