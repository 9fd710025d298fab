// One lock entry (design §6.1) and every change that a node may make to it. Pure: an entry as it was read, what the
// node remembers and what it has been told go in, the entry to write comes out; disklock/lock_block.h does the I/O.
//
// What holds for each change planned here, and is checked by tests/unit/disklock/lock_entry_test.cpp in all states that
// up to four nodes can reach:
//   - one live node at most has EX, and nobody S or D beside it (design §10 invariant 1);
//   - the generation never falls, and grows with every grant of EX, and of D from another mode;
//   - a node that waits and keeps polling is served, in the order of slots, once the owner has heard of it.
//
// A change is valid only against the image it was planned on: it is written by COMPARE AND WRITE, and planned again on
// the fresh image when others were faster.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "core/base/error.h"
#include "core/base/types.h"
#include "core/format/cluster_format.h"
#include "core/fs/lock_service.h"

namespace cawfs {

constexpr std::uint64_t slot_bit(SlotNo slot) {
  return std::uint64_t{1} << slot.value;
}

// A lock entry, decoded.
struct LockEntry {
  LockMode mode = LockMode::kNone;
  LockMode waiter = LockMode::kNone;  // S, D: what `owner` waits for; kNone: nobody waits
  NodeId owner{};                     // EX: the holder; S, D: the waiter
  Generation generation{};
  std::uint64_t sharers = 0;  // S, D: slots that hold it; EX: slots known to wait
  std::uint64_t openers = 0;
  friend bool operator==(const LockEntry&, const LockEntry&) = default;
};

// kBadValue where a field cannot be.
Result<LockEntry> decode(const format::LockEntry& entry);
void encode(const LockEntry& entry, format::LockEntry& out);

// What slot records say that were read from the disk **after** the lock block's image. Slots not read count as alive.
class SlotLives {
 public:
  // `live`: the incarnation that is ACTIVE or RECOVERING there; nullopt: none.
  void set(SlotNo slot, std::optional<Incarnation> live) {
    read_ |= slot_bit(slot);
    unknown_ &= ~slot_bit(slot);
    live_[slot.value] = live.value_or(Incarnation{0});
  }
  // Its record was read, and tells nothing: it counts as alive.
  void set_unknown(SlotNo slot) {
    read_ |= slot_bit(slot);
    unknown_ |= slot_bit(slot);
  }
  std::uint64_t read() const { return read_; }
  bool stale(NodeId node) const {
    return (read_ & ~unknown_ & slot_bit(node.slot)) && live_[node.slot.value] != node.incarnation;
  }
  // Bits of the slots that were read and have no node.
  std::uint64_t vacant() const {
    std::uint64_t bits = 0;
    for (std::uint16_t slot = 0; slot < kSlots; ++slot) {
      if (live_[slot] == Incarnation{0}) bits |= slot_bit(SlotNo{slot});
    }
    return bits & read_ & ~unknown_;
  }

 private:
  std::uint64_t read_ = 0;
  std::uint64_t unknown_ = 0;
  std::array<Incarnation, kSlots> live_{};
};

// Another node's want, from its mailbox.
struct Waiting {
  NodeId node;
  LockMode mode = LockMode::kNone;
};

struct AcquirePlan {
  enum class Step : std::uint8_t {
    kHeld,   // the entry grants it as it stands: a handover has come
    kGrant,  // writing `after` grants it
    kWrite,  // writing `after` registers this node as the waiter, or takes back what it does not hold; then plan again
    kWait,
    kYield,  // another node presses as this one does, and goes before it
    kLost,   // the entry does not say what this node remembers to hold
  };
  Step step = Step::kWait;
  LockEntry after{};
  // Slots to ask for it by mailbox, while the entry stays as it is (kWait) or has become `after` (kWrite).
  std::uint64_t ask = 0;
  // Slots in the way whose records were not read after the image: if one of them is stale, the plan changes.
  std::uint64_t doubt = 0;
};

struct AcquireRequest {
  NodeId self{};
  LockMode held = LockMode::kNone;    // weaker than `wanted`
  LockMode wanted = LockMode::kNone;  // not kNone
  // An earlier image, read by this incarnation, did not have this node as a sharer: so a bit that stands there now is a
  // handover's. Else it may be left from an earlier node of the slot, and a clearing of it may be under way.
  bool handover = false;
  Generation generation{};  // of its hold, where it has one
  // It cannot give its S up before it has had EX: so it goes before another waiter. `overtook`: it has done so already,
  // so a waiter that stands there now does the same.
  bool presses = false;
  bool overtook = false;
  bool open = false;  // the inode is open here
};
AcquirePlan plan_acquire(const LockEntry& entry, const AcquireRequest& request, const SlotLives& lives);

struct ReleaseRequest {
  NodeId self{};
  LockMode held = LockMode::kNone;  // what this node holds, not kNone
  Generation generation{};          // of its hold
  LockMode keep = LockMode::kNone;  // the strongest mode that may stay: nothing under the lock is changed any more, and
                                    // what this mode does not cover is forgotten
  LockMode again = LockMode::kNone;    // what this node's own users wait for
  bool open = false;                   // the inode is open here
  std::span<const Waiting> waiting{};  // other nodes' wants, at most one for each slot
  std::uint64_t expected = 0;          // slots known to wait whose wants may still be on their way
};

struct ReleasePlan {
  enum class Step : std::uint8_t {
    kWrite,      // write `after`; this node then holds `held`
    kAwaitMail,  // the turn is that of a slot whose want has not come yet: plan again when it has, or is not expected
                 // any more
    kLost,       // this node does not hold it (any more)
  };
  Step step = Step::kWrite;
  LockEntry after{};
  LockMode held = LockMode::kNone;
};

// Gives `held` up, to the next waiter where there is one.
ReleasePlan plan_release(const LockEntry& entry, const ReleaseRequest& request);

// What this node does not stand behind in memory, taken back: it holds nothing and waits for nothing here. nullopt: the
// entry does not name it. `waiting` and `open` as in ReleaseRequest.
std::optional<LockEntry> plan_disown(const LockEntry& entry, NodeId self, bool open, std::span<const Waiting> waiting);

// Does the entry say that `self` holds it so, since its grant with that generation? A sharer's bit alone does not:
// after others have had it EX it is that of another grant, and what was cached under the one before is out of date.
bool holds(const LockEntry& entry, NodeId self, LockMode held, Generation generation);

// May `a` and `b` be held by two nodes at once?
constexpr bool compatible(LockMode a, LockMode b) {
  if (a == LockMode::kNone || b == LockMode::kNone) return true;
  return a == b && a != LockMode::kExclusive;
}

// The first slot after `self` in the circle of slots with its bit in `slots`, which is not 0.
SlotNo next_slot(SlotNo self, std::uint64_t slots);

}  // namespace cawfs
