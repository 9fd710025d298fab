#include "disklock/lock_entry.h"

#include <bit>

#include "core/base/assert.h"
#include "core/base/planted_fault.h"

namespace cawfs {

namespace {

bool is_shared(LockMode mode) {
  return mode == LockMode::kShared || mode == LockMode::kDeferred;
}

Generation next(Generation generation) {
  return Generation{generation.value + 1};
}

void clear_owner(LockEntry& entry) {
  entry.owner = {};
  entry.waiter = LockMode::kNone;
}

void make_free(LockEntry& entry) {
  entry.mode = LockMode::kNone;
  entry.sharers = 0;
  clear_owner(entry);
}

void make_exclusive(LockEntry& entry, NodeId owner, std::uint64_t waiting) {
  entry.mode = LockMode::kExclusive;
  entry.waiter = LockMode::kNone;
  entry.owner = owner;
  entry.sharers = waiting & ~slot_bit(owner.slot);
  if (!planted(PlantedFault::kGenerationNotRaised)) entry.generation = next(entry.generation);
}

// From another mode; nobody waits.
void make_shared(LockEntry& entry, LockMode mode, std::uint64_t sharers) {
  entry.mode = mode;
  entry.sharers = sharers;
  clear_owner(entry);
  if (mode == LockMode::kDeferred) entry.generation = next(entry.generation);
}

void grant(LockEntry& entry, NodeId node, LockMode mode, std::uint64_t waiting) {
  if (mode == LockMode::kExclusive) {
    make_exclusive(entry, node, waiting);
  } else {
    make_shared(entry, mode, slot_bit(node.slot));
  }
}

void set_opener(LockEntry& entry, SlotNo slot, bool open) {
  entry.openers = open ? entry.openers | slot_bit(slot) : entry.openers & ~slot_bit(slot);
}

// Ended, as far as this node can know: read so, or an earlier node of its own slot.
bool ended(NodeId node, NodeId self, const SlotLives& lives) {
  return (node.slot == self.slot && node.incarnation != self.incarnation) || lives.stale(node);
}

// Takes out whatever has ended. Returns the slots that waited for an EX owner which has.
std::uint64_t take_out_ended(LockEntry& entry, NodeId self, const SlotLives& lives) {
  entry.openers &= ~(lives.vacant() & ~slot_bit(self.slot));
  if (entry.mode == LockMode::kExclusive) {
    if (!ended(entry.owner, self, lives)) return 0;
    const std::uint64_t waiting = entry.sharers & ~lives.vacant();
    make_free(entry);
    return waiting;
  }
  if (!is_shared(entry.mode)) {
    make_free(entry);
    return 0;
  }
  entry.sharers &= ~(lives.vacant() & ~slot_bit(self.slot));
  if (entry.waiter != LockMode::kNone && ended(entry.owner, self, lives)) clear_owner(entry);
  return 0;
}

// The last sharer has left.
void pass_to_waiter(LockEntry& entry, std::uint64_t waiting) {
  if (entry.waiter == LockMode::kNone) {
    make_free(entry);
  } else {
    grant(entry, entry.owner, entry.waiter, waiting);
  }
}

void leave_shared(LockEntry& entry, SlotNo slot, std::uint64_t waiting) {
  entry.sharers &= ~slot_bit(slot);
  if (entry.sharers == 0) pass_to_waiter(entry, waiting);
}

AcquirePlan plan_acquire_shared_entry(const LockEntry& entry, const AcquireRequest& request, const SlotLives& lives) {
  const auto& [self, held, wanted, handover, generation, presses, overtook, open] = request;
  AcquirePlan plan;
  const std::uint64_t mine = slot_bit(self.slot);
  // It may be what a release has left that could not be written, and which was to set the bit.
  const bool not_held = held == LockMode::kNone && (entry.sharers & mine);
  const std::uint64_t others = entry.sharers & ~mine;
  const bool waited_for = entry.waiter != LockMode::kNone;
  const bool by_me = waited_for && entry.owner == self;
  plan.after = entry;

  if (handover && held == LockMode::kNone && (entry.sharers & mine) && entry.mode == wanted) {
    plan.step = AcquirePlan::Step::kHeld;
    return plan;
  }
  if (waited_for && !by_me && presses) {
    if (overtook && entry.owner.slot < self.slot) {
      plan.step = AcquirePlan::Step::kYield;
      return plan;
    }
    if (others == 0) {
      grant(plan.after, self, wanted, slot_bit(entry.owner.slot));
      plan.step = AcquirePlan::Step::kGrant;
      return plan;
    }
  } else if (waited_for && !by_me) {
    // It is the waiter's turn; once granted it knows of this want, and if it does not wait any more it takes itself
    // out. A bit of mine that I do not hold would keep it waiting for ever.
    plan.ask = slot_bit(entry.owner.slot);
    plan.doubt = plan.ask & ~lives.read();
    if (not_held) {
      leave_shared(plan.after, self.slot, mine);
      set_opener(plan.after, self.slot, open);
      plan.step = AcquirePlan::Step::kWrite;
    }
    return plan;
  }
  if (compatible(entry.mode, wanted)) {
    clear_owner(plan.after);
    plan.after.sharers |= mine;
    plan.step = AcquirePlan::Step::kGrant;
    return plan;
  }
  const bool upgrade = held != LockMode::kNone;
  if (others == 0 || (upgrade && planted(PlantedFault::kUpgradeBesideSharers))) {
    grant(plan.after, self, wanted, 0);
    plan.step = AcquirePlan::Step::kGrant;
    return plan;
  }
  plan.doubt = others & ~lives.read();
  plan.ask = others;
  if (not_held) {
    plan.after.sharers = others;
    set_opener(plan.after, self.slot, open);
  }
  plan.after.owner = self;
  plan.after.waiter = wanted;
  const bool written = plan.after == entry;
  plan.step = written ? AcquirePlan::Step::kWait : AcquirePlan::Step::kWrite;
  return plan;
}

// Of the wants in `waiting`, those compatible with `mode`.
std::uint64_t slots_wanting(std::span<const Waiting> waiting, LockMode mode) {
  std::uint64_t slots = 0;
  for (const Waiting& want : waiting) {
    if (compatible(want.mode, mode)) slots |= slot_bit(want.node.slot);
  }
  return slots;
}

std::uint64_t slots_of(std::span<const Waiting> waiting) {
  std::uint64_t slots = 0;
  for (const Waiting& want : waiting) slots |= slot_bit(want.node.slot);
  return slots;
}

const Waiting& want_of(std::span<const Waiting> waiting, SlotNo slot) {
  for (const Waiting& want : waiting) {
    if (want.node.slot == slot) return want;
  }
  CAWFS_ASSERT(false);
}

// Makes the entry S (or D) for all who want that, and names the next of the others as its waiter.
void share_out(LockEntry& entry, const ReleaseRequest& request, LockMode mode, std::uint64_t sharers) {
  make_shared(entry, mode, sharers);
  const std::uint64_t rest = slots_of(request.waiting) & ~slots_wanting(request.waiting, mode);
  if (rest != 0) {
    const Waiting& waiter = want_of(request.waiting, next_slot(request.self.slot, rest));
    entry.owner = waiter.node;
    entry.waiter = waiter.mode;
  } else if (!compatible(request.again, mode)) {
    entry.owner = request.self;
    entry.waiter = request.again;
  }
}

ReleasePlan plan_release_exclusive(const LockEntry& entry, const ReleaseRequest& request) {
  ReleasePlan plan{.after = entry};
  const SlotNo self = request.self.slot;
  const std::uint64_t mine = slot_bit(self);
  const std::uint64_t known = slots_of(request.waiting);
  const std::uint64_t waiting = (known | request.expected) & ~mine;

  if (is_shared(request.keep)) {
    share_out(plan.after, request, request.keep, slots_wanting(request.waiting, request.keep) | mine);
    plan.held = request.keep;
    return plan;
  }
  if (waiting == 0) {
    make_free(plan.after);
    return plan;
  }
  const SlotNo turn = next_slot(self, waiting);
  if (!(known & slot_bit(turn))) {
    plan.step = ReleasePlan::Step::kAwaitMail;
    return plan;
  }
  const Waiting& chosen = want_of(request.waiting, turn);
  const std::uint64_t me_again = request.again == LockMode::kNone ? 0 : mine;
  if (chosen.mode == LockMode::kExclusive) {
    make_exclusive(plan.after, chosen.node, waiting | me_again);
    return plan;
  }
  std::uint64_t sharers = slots_wanting(request.waiting, chosen.mode);
  if (request.again == chosen.mode) {
    sharers |= mine;
    plan.held = chosen.mode;
  }
  share_out(plan.after, request, chosen.mode, sharers);
  return plan;
}

ReleasePlan plan_release_shared(const LockEntry& entry, const ReleaseRequest& request) {
  ReleasePlan plan{.after = entry};
  const std::uint64_t again = request.again == LockMode::kNone ? 0 : slot_bit(request.self.slot);
  leave_shared(plan.after, request.self.slot, slots_of(request.waiting) | again);
  // This node may be the waiter that the last sharer grants to.
  if (plan.after.mode == LockMode::kExclusive && plan.after.owner == request.self) plan.held = LockMode::kExclusive;
  if (is_shared(plan.after.mode) && (plan.after.sharers & slot_bit(request.self.slot))) plan.held = plan.after.mode;
  return plan;
}

}  // namespace

bool holds(const LockEntry& entry, NodeId self, LockMode held, Generation generation) {
  if (entry.mode != held || entry.generation != generation) return false;
  if (held == LockMode::kExclusive) return entry.owner == self;
  return (entry.sharers & slot_bit(self.slot)) != 0;
}

Result<LockEntry> decode(const format::LockEntry& entry) {
  if (entry.mode > static_cast<std::uint8_t>(format::LockModeOnDisk::kExclusive)) {
    return fail(Errc::kBadValue, "lock entry's mode", entry.mode);
  }
  if (entry.flags > format::kWaiterMask) return fail(Errc::kBadValue, "lock entry's flags", entry.flags);
  LockEntry out;
  out.mode = static_cast<LockMode>(entry.mode);
  out.generation = Generation{entry.generation.value()};
  out.sharers = entry.sharers.value();
  out.openers = entry.openers.value();
  if (is_shared(out.mode)) out.waiter = static_cast<LockMode>(entry.flags);
  if (out.mode == LockMode::kExclusive || out.waiter != LockMode::kNone) {
    if (entry.owner_slot.value() >= kSlots) {
      return fail(Errc::kBadValue, "lock entry's owner", entry.owner_slot.value());
    }
    out.owner = {SlotNo{entry.owner_slot.value()}, Incarnation{entry.owner_incarnation.value()}};
  }
  return out;
}

void encode(const LockEntry& entry, format::LockEntry& out) {
  out.mode = static_cast<std::uint8_t>(entry.mode);
  out.flags = static_cast<std::uint8_t>(entry.waiter);
  out.owner_slot = entry.owner.slot.value;
  out.owner_incarnation = entry.owner.incarnation.value;
  out.generation = entry.generation.value;
  out.sharers = entry.sharers;
  out.openers = entry.openers;
}

SlotNo next_slot(SlotNo self, std::uint64_t slots) {
  CAWFS_ASSERT(slots != 0);
  const int start = (self.value + 1) % static_cast<int>(kSlots);
  const int distance = std::countr_zero(std::rotr(slots, start));
  return SlotNo{static_cast<std::uint16_t>((start + distance) % static_cast<int>(kSlots))};
}

AcquirePlan plan_acquire(const LockEntry& entry, const AcquireRequest& request, const SlotLives& lives) {
  const auto& [self, held, wanted, handover, generation, presses, overtook, open] = request;
  CAWFS_ASSERT(wanted != LockMode::kNone && held != wanted && held != LockMode::kExclusive);
  AcquirePlan plan{.after = entry};
  if (held != LockMode::kNone && !holds(entry, self, held, generation)) {
    plan.step = AcquirePlan::Step::kLost;
    return plan;
  }
  if (entry.mode == LockMode::kExclusive && entry.owner == self) {
    plan.step = AcquirePlan::Step::kHeld;
    return plan;
  }
  LockEntry now = entry;
  const std::uint64_t waiting = take_out_ended(now, self, lives);
  if (now.mode == LockMode::kExclusive) {
    plan.ask = slot_bit(now.owner.slot);
    plan.doubt = plan.ask & ~lives.read();
    return plan;
  }
  if (now.mode == LockMode::kNone) {
    plan.after = now;
    grant(plan.after, self, wanted, waiting);
    plan.step = AcquirePlan::Step::kGrant;
  } else {
    plan = plan_acquire_shared_entry(now, request, lives);
    // Nothing but the dead has changed: leave that to whoever is granted next.
    if (plan.step == AcquirePlan::Step::kWait) plan.after = entry;
  }
  if (plan.step == AcquirePlan::Step::kGrant) {
    set_opener(plan.after, self.slot, false);
    plan.doubt |= plan.after.openers & ~lives.read();
  }
  return plan;
}

ReleasePlan plan_release(const LockEntry& entry, const ReleaseRequest& request) {
  CAWFS_ASSERT(request.held != LockMode::kNone && request.keep < request.held);
  if (!holds(entry, request.self, request.held, request.generation)) {
    return ReleasePlan{.step = ReleasePlan::Step::kLost, .after = entry};
  }
  ReleasePlan plan = request.held == LockMode::kExclusive ? plan_release_exclusive(entry, request)
                                                          : plan_release_shared(entry, request);
  set_opener(plan.after, request.self.slot, request.open && plan.held == LockMode::kNone);
  return plan;
}

std::optional<LockEntry> plan_disown(const LockEntry& entry, NodeId self, bool open, std::span<const Waiting> waiting) {
  LockEntry after = entry;
  const std::uint64_t others = slots_of(waiting) & ~slot_bit(self.slot);
  bool held = false;
  if (is_shared(after.mode) && after.waiter != LockMode::kNone && after.owner.slot == self.slot) clear_owner(after);
  if (after.mode == LockMode::kExclusive && after.owner.slot == self.slot) {
    held = true;
    make_free(after);
    if (others != 0) {
      const Waiting& chosen = want_of(waiting, next_slot(self.slot, others));
      grant(after, chosen.node, chosen.mode, others);
    }
  } else if (is_shared(after.mode) && (after.sharers & slot_bit(self.slot))) {
    held = true;
    leave_shared(after, self.slot, others);
  }
  // Letting a lock go sets the bit; where that could not be written, this does.
  if (held || !open) set_opener(after, self.slot, open);
  if (after == entry) return std::nullopt;
  return after;
}

}  // namespace cawfs
