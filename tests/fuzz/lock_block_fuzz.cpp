// A lock block, and what a node would make of each of its entries: whatever an entry says, no lock is taken from a node
// that may be alive, and no generation falls.
#include <array>
#include <cstring>

#include "core/base/assert.h"
#include "core/format/cluster_verify.h"
#include "disklock/lock_entry.h"
#include "tests/fuzz/block_input.h"

namespace cawfs::fuzz {
namespace {

constexpr std::uint8_t kLogicalBlock4096 = 4;
constexpr std::uint64_t kOffset = 0x123000;
constexpr std::uint64_t kFsId = 0x1122334455667788;

// Who asks, and what it knows.
struct Asker {
  NodeId self;
  LockMode held;
  LockMode wanted;
  bool handover;
  bool presses;
  bool overtook;
  bool open;
  std::array<Waiting, 2> waiting;
  std::uint64_t expected;
  SlotLives lives;
};

LockMode shared_or_exclusive(std::uint8_t byte) {
  return (byte & 1) != 0 ? LockMode::kExclusive : LockMode::kShared;
}

Asker take_asker(FuzzInput& input) {
  Asker asker{};
  asker.self = {SlotNo{static_cast<std::uint16_t>(input.byte() % kSlots)}, Incarnation{input.byte() + 1u}};
  const std::uint8_t bits = input.byte();
  asker.held = (bits & 1) != 0 ? LockMode::kShared : LockMode::kNone;
  asker.wanted = asker.held == LockMode::kShared ? LockMode::kExclusive : shared_or_exclusive(bits >> 1 & 1);
  asker.handover = (bits & 4) != 0;
  asker.presses = (bits & 8) != 0;
  asker.overtook = (bits & 16) != 0;
  asker.open = (bits & 32) != 0;
  for (std::uint16_t i = 0; i < asker.waiting.size(); ++i) {
    // Two other slots than its own.
    const auto step = static_cast<std::uint16_t>(1 + 20 * i + input.byte() % 20);
    const auto slot = static_cast<std::uint16_t>((asker.self.slot.value + step) % kSlots);
    asker.waiting[i] = {{SlotNo{slot}, Incarnation{input.byte() + 1u}}, shared_or_exclusive(input.byte())};
  }
  asker.expected = input.take<std::uint64_t>() & ~slot_bit(asker.self.slot);
  for (std::uint8_t count = input.byte() % 4; count > 0; --count) {
    const SlotNo slot{static_cast<std::uint16_t>(input.byte() % kSlots)};
    const std::uint8_t life = input.byte();
    if (life == 0) {
      asker.lives.set_unknown(slot);
    } else {
      asker.lives.set(slot, life == 1 ? std::nullopt : std::optional(Incarnation{life - 1u}));
    }
  }
  return asker;
}

bool is_shared(LockMode mode) {
  return mode == LockMode::kShared || mode == LockMode::kDeferred;
}

// Slots that hold the lock, and are not known to have ended.
std::uint64_t holders(const LockEntry& entry, const Asker& asker) {
  if (entry.mode == LockMode::kExclusive) {
    const bool ended = asker.lives.stale(entry.owner) || entry.owner.slot == asker.self.slot;
    return ended ? 0 : slot_bit(entry.owner.slot);
  }
  if (!is_shared(entry.mode)) return 0;
  return entry.sharers & ~asker.lives.vacant() & ~slot_bit(asker.self.slot);
}

void check_after(const LockEntry& before, const LockEntry& after) {
  CAWFS_ASSERT(after.generation >= before.generation || before.generation.value == UINT64_MAX);
  format::LockEntry encoded{};
  encode(after, encoded);
  const auto decoded = decode(encoded);
  CAWFS_ASSERT(decoded && *decoded == after);
}

void check_acquire(const LockEntry& entry, const Asker& asker) {
  const AcquirePlan plan = plan_acquire(entry,
                                        {.self = asker.self,
                                         .held = asker.held,
                                         .wanted = asker.wanted,
                                         .handover = asker.handover,
                                         .generation = entry.generation,
                                         .presses = asker.presses,
                                         .overtook = asker.overtook},
                                        asker.lives);
  check_after(entry, plan.after);
  const std::uint64_t others = holders(entry, asker);
  switch (plan.step) {
    case AcquirePlan::Step::kHeld:
      CAWFS_ASSERT(holds(entry, asker.self, entry.mode, entry.generation));
      break;
    case AcquirePlan::Step::kGrant:
      CAWFS_ASSERT(holds(plan.after, asker.self, plan.after.mode, plan.after.generation));
      CAWFS_ASSERT(plan.after.mode == asker.wanted);
      if (asker.wanted == LockMode::kExclusive) CAWFS_ASSERT(others == 0);
      if (entry.mode == LockMode::kExclusive) CAWFS_ASSERT(others == 0);
      if (asker.wanted == LockMode::kExclusive) CAWFS_ASSERT(plan.after.generation != entry.generation);
      break;
    case AcquirePlan::Step::kWrite:
      // Nothing is taken away from anybody else.
      CAWFS_ASSERT((others & ~holders(plan.after, asker)) == 0);
      break;
    case AcquirePlan::Step::kWait:
      CAWFS_ASSERT(plan.after == entry);
      break;
    case AcquirePlan::Step::kYield:
      break;
    case AcquirePlan::Step::kLost:
      CAWFS_ASSERT(!holds(entry, asker.self, asker.held, entry.generation));
      break;
  }
}

void check_release(const LockEntry& entry, const Asker& asker) {
  if (entry.mode == LockMode::kNone) return;
  const ReleaseRequest request{.self = asker.self,
                               .held = entry.mode,
                               .generation = entry.generation,
                               .keep = entry.mode == LockMode::kExclusive ? asker.held : LockMode::kNone,
                               .again = LockMode::kNone,
                               .open = asker.open,
                               .waiting = asker.waiting,
                               .expected = asker.expected};
  const ReleasePlan plan = plan_release(entry, request);
  check_after(entry, plan.after);
  const bool held = holds(entry, asker.self, entry.mode, entry.generation);
  CAWFS_ASSERT((plan.step == ReleasePlan::Step::kLost) == !held);
  if (plan.step != ReleasePlan::Step::kWrite) return;
  if (plan.held != LockMode::kNone) CAWFS_ASSERT(holds(plan.after, asker.self, plan.held, plan.after.generation));
  // Who shared it still does, or it is free for the next.
  if (is_shared(entry.mode) && is_shared(plan.after.mode)) {
    CAWFS_ASSERT((entry.sharers & ~plan.after.sharers & ~slot_bit(asker.self.slot)) == 0);
  }
}

void check_disown(const LockEntry& entry, const Asker& asker) {
  const auto after = plan_disown(entry, asker.self, asker.open, asker.waiting);
  if (!after) return;
  check_after(entry, *after);
  CAWFS_ASSERT(after->mode != LockMode::kExclusive || after->owner.slot != asker.self.slot);
  CAWFS_ASSERT(!is_shared(after->mode) || (after->sharers & slot_bit(asker.self.slot)) == 0);
  CAWFS_ASSERT(!plan_disown(*after, asker.self, asker.open, asker.waiting));
}

void run(FuzzInput input) {
  const std::uint8_t flags = input.byte();
  const Asker asker = take_asker(input);
  Block whole{};
  const auto block = std::span(whole).first((flags & kLogicalBlock4096) != 0 ? 4096 : 512);
  input.fill(block);
  right_cluster_block(block, flags, format::kLockMagic, kOffset, kFsId);
  if (!format::verify_lock_block(block, kOffset, kFsId)) return;
  Block again = whole;
  format::seal_lock_block(std::span(again).first(block.size()), kOffset, kFsId);
  CAWFS_ASSERT(again == whole);

  format::LockBlock locks;
  std::memcpy(&locks, block.data(), sizeof(locks));
  for (const format::LockEntry& raw : locks.entries) {
    const auto entry = decode(raw);
    if (!entry) continue;
    check_acquire(*entry, asker);
    check_release(*entry, asker);
    check_disown(*entry, asker);
  }
}

}  // namespace
}  // namespace cawfs::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  cawfs::fuzz::run({data, size});
  return 0;
}
