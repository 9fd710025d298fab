#include "disklock/join_plan.h"

#include <optional>

namespace cawfs {

namespace {

using format::SlotState;

// The own slot's heartbeat must have stood still for so many intervals where the boot id proves the old daemon gone.
constexpr int kOwnSlotIntervals = 3;

enum class Life : std::uint8_t {
  kAlive,
  kUnknown,
  kDead,
  kStranded,  // the node lives, claimed by one that has ended: it waits for a member to give its slot back
};

class Planner {
 public:
  Planner(const SlotTable& table, const SilenceWatch& watch, const JoinerIdentity& joiner, Duration dead_time,
          Duration interval)
      : table_(table), watch_(watch), joiner_(joiner), dead_time_(dead_time), interval_(interval) {}

  JoinPlan plan() const {
    if (auto decided = exclusive_nodes()) return *decided;
    if (auto decided = own_slot()) return *decided;
    if (auto decided = name_in_use()) return *decided;
    for (std::uint16_t i = 0; i < table_.slots(); ++i) {
      const SlotView* view = table_.view(SlotNo{i});
      if (view && can_be_taken(*view)) return {JoinPlan::Kind::kTake, view->slot};
    }
    return no_clean_slot();
  }

 private:
  static bool can_be_taken(const SlotView& view) { return view.state == SlotState::kClean && !view.used_up(); }
  static JoinPlan wait() { return {JoinPlan::Kind::kWait, SlotNo{}}; }
  // A dead slot whose recoverer is dead as well is recovered after that one's (see Recovery).
  JoinPlan claim(const SlotView& view) const {
    const SlotView* first = last_recoverer(view);
    if (!first && both_silent(view)) first = &view;
    if (first && first->used_up()) return refuse(Errc::kNoSlot, "nobody may take the dead node's slot", first->slot);
    return first ? JoinPlan{JoinPlan::Kind::kClaim, first->slot} : wait();
  }
  static JoinPlan refuse(Errc code, const char* where, SlotNo slot) {
    return {JoinPlan::Kind::kRefuse, slot, Error{code, where, slot.value}};
  }

  template <class Visit>
  void each_in_use(Visit visit) const {
    for (std::uint16_t i = 0; i < table_.slots(); ++i) {
      const SlotView* view = table_.view(SlotNo{i});
      if (view && view->in_use()) visit(*view);
    }
  }

  bool is_own(const SlotView& view) const { return view.record->node_uuid == joiner_.node_uuid; }
  bool same_boot(const SlotView& view) const { return view.record->boot_id == joiner_.boot_id; }

  Life life_of(SlotNo slot, SilenceWatch::Heart whose, Duration limit) const {
    if (watch_.silence(slot, whose) >= limit) return Life::kDead;
    return watch_.moved(slot, whose) ? Life::kAlive : Life::kUnknown;
  }
  Life life_of_node(const SlotView& view, Duration limit) const {
    return life_of(view.slot, SilenceWatch::Heart::kNode, limit);
  }
  // The slot of a slot's recoverer, where that has one of its own and has not been fenced there yet.
  const SlotView* recoverer_of(const SlotView& view) const {
    const bool elsewhere = view.state == SlotState::kRecovering && !view.recovered_from_within();
    if (!elsewhere || view.recoverer.slot == kNoSlotOfItsOwn) return nullptr;
    const SlotView* recoverer = table_.view(view.recoverer.slot);
    return recoverer && recoverer->may_write(view.recoverer) ? recoverer : nullptr;
  }
  // From a slot to its recoverer's, to that one's recoverer's, and so on: the last, whose recoverer has ended.
  // Null where they go round in a circle (see Recovery).
  const SlotView* last_recoverer(const SlotView& view) const {
    const SlotView* last = &view;
    for (std::uint32_t n = 0; n < table_.slots(); ++n) {
      const SlotView* next = recoverer_of(*last);
      if (!next) return last;
      last = next;
    }
    return nullptr;
  }
  bool both_silent(const SlotView& view) const { return cawfs::both_silent(table_, watch_, view, dead_time_); }
  // Who lives there finds its way out (see Recovery).
  Life life_in_circle(const SlotView& view) const {
    const Life node = life_of_node(view, dead_time_);
    return node == Life::kDead ? life_of(view.recoverer.slot, SilenceWatch::Heart::kNode, dead_time_) : node;
  }
  // Of a slot in use: of its node, or where it is RECOVERING of its recoverer. A slot whose recoverer lives is alive:
  // it will be CLEAN.
  Life life(const SlotView& view) const {
    const SlotView* last = last_recoverer(view);
    if (!last) return life_in_circle(view);
    if (last->state == SlotState::kActive) return life_of_node(*last, dead_time_);
    if (last->recoverer.slot == kNoSlotOfItsOwn) return Life::kDead;
    if (!table_.view(last->recoverer.slot)) return Life::kUnknown;
    if (last->recovered_from_within()) {
      const Life joiner = life_of(last->slot, SilenceWatch::Heart::kJoiner, dead_time_);
      if (joiner != Life::kDead) return joiner;
    }
    if (last->fenced()) return Life::kDead;
    // Without having been fenced it may have woken again.
    const Life node = life_of_node(*last, dead_time_);
    return node == Life::kAlive ? Life::kStranded : node;
  }

  // -o local and fsck suffer nobody beside them.
  std::optional<JoinPlan> exclusive_nodes() const {
    std::optional<JoinPlan> plan;
    each_in_use([&](const SlotView& view) {
      const std::uint8_t exclusive = view.flags & (format::kSlotLocal | format::kSlotFsck);
      if ((exclusive == 0 && joiner_.flags == 0) || (plan && plan->kind == JoinPlan::Kind::kRefuse)) return;
      const Duration limit = own_slot_limit(view).value_or(dead_time_);
      const Life state = view.state == SlotState::kActive ? life_of_node(view, limit) : life(view);
      const bool fsck = (exclusive & format::kSlotFsck) != 0;
      if (state == Life::kAlive || state == Life::kStranded) {
        plan = refuse(fsck ? Errc::kLive : Errc::kLocalMode, "another mount", view.slot);
      } else if (state == Life::kDead) {
        if (!plan) plan = claim(view);
      } else {
        plan = wait();
      }
    });
    return plan;
  }

  // How long my own old slot must have been silent; none if it is not known to be mine.
  std::optional<Duration> own_slot_limit(const SlotView& view) const {
    if (!is_own(view) || !joiner_.host_lock || view.state != SlotState::kActive) return std::nullopt;
    return same_boot(view) ? kOwnSlotIntervals * interval_ : dead_time_ / 2;
  }

  std::optional<JoinPlan> own_slot() const {
    std::optional<JoinPlan> clean;
    std::optional<JoinPlan> busy;
    for (std::uint16_t i = 0; i < table_.slots(); ++i) {
      const SlotView* view = table_.view(SlotNo{i});
      if (!view || !is_own(*view)) continue;
      if (can_be_taken(*view) && !clean) clean = JoinPlan{JoinPlan::Kind::kTake, view->slot};
      const std::optional<Duration> limit = own_slot_limit(*view);
      if (!limit) continue;
      const Life state = life_of_node(*view, *limit);
      if (state == Life::kDead) return claim(*view);
      if (state == Life::kUnknown) busy = wait();
      if (state == Life::kAlive && !same_boot(*view)) {
        return refuse(Errc::kNameInUse, "a machine with the same uuid", view->slot);
      }
    }
    return busy ? busy : clean;
  }

  std::optional<JoinPlan> name_in_use() const {
    std::optional<JoinPlan> plan;
    if (joiner_.initiator_name.empty()) return plan;
    each_in_use([&](const SlotView& view) {
      const bool recovers =
          view.recovered_from_within() && field_text(view.record->recoverer_name) == joiner_.initiator_name;
      if ((view.initiator_name != joiner_.initiator_name && !recovers) || plan) return;
      // The node is out for good, and its name free; its slot may stay as it is for long.
      if (!recovers && view.damaged() && view.may_be_replayed()) return;
      const Life state = life(view);
      const bool dead = view.state == SlotState::kRecovering || state == Life::kDead;
      if (state == Life::kAlive && !dead) {
        plan = refuse(Errc::kNameInUse, "initiator name", view.slot);
      } else {
        plan = everybody_is_dead() ? claim(view) : wait();
      }
    });
    return plan;
  }

  bool everybody_is_dead() const {
    bool all = true;
    each_in_use([&](const SlotView& view) { all = all && life(view) == Life::kDead; });
    return all;
  }

  // Slots are all in use, or have no journal.
  JoinPlan no_clean_slot() const {
    const SlotView* dead = nullptr;
    bool unknown = false;
    bool alive = false;
    bool coming = false;  // a slot will be CLEAN, for those alive recover the dead
    each_in_use([&](const SlotView& view) {
      const Life state = life(view);
      if (state == Life::kDead && (!dead || rank(view) > rank(*dead))) dead = &view;
      unknown = unknown || state == Life::kUnknown;
      alive = alive || state == Life::kAlive;
      const bool recovered = view.state == SlotState::kRecovering && state == Life::kAlive;
      coming = coming || ((recovered || state == Life::kDead) && !view.damaged());
    });
    if (unknown || (alive && coming)) return wait();
    if (dead && !alive) return claim(*dead);
    return refuse(Errc::kNoSlot, "all slots are in use", SlotNo{});
  }
  // Which of several dead slots to recover: one whose journal can be replayed, as far as is known; my own.
  int rank(const SlotView& view) const { return (view.damaged() ? 0 : 2) + (is_own(view) ? 1 : 0); }

  const SlotTable& table_;
  const SilenceWatch& watch_;
  const JoinerIdentity& joiner_;
  Duration dead_time_;
  Duration interval_;
};

}  // namespace

bool both_silent(const SlotTable& table, const SilenceWatch& watch, const SlotView& view, Duration dead_time) {
  if (view.state != SlotState::kRecovering || view.fenced() || view.recovered_from_within()) return false;
  if (view.recoverer.slot == kNoSlotOfItsOwn) return false;
  const SlotView* recoverer = table.view(view.recoverer.slot);
  return recoverer && recoverer->may_write(view.recoverer) && watch.silence(view.slot) >= dead_time &&
         watch.silence(recoverer->slot) >= dead_time;
}

JoinPlan plan_join(const SlotTable& table, const SilenceWatch& watch, const JoinerIdentity& joiner, Duration dead_time,
                   Duration interval) {
  return Planner(table, watch, joiner, dead_time, interval).plan();
}

SilenceWatch::Subjects subjects_of(const SlotTable& table) {
  SilenceWatch::Subjects subjects;
  for (std::uint16_t i = 0; i < table.slots(); ++i) {
    const SlotView* view = table.view(SlotNo{i});
    if (!view || !view->in_use()) continue;
    subjects.nodes[i] = view->incarnation;
    if (view->recovered_from_within()) subjects.joiners[i] = view->recoverer.incarnation;
  }
  return subjects;
}

}  // namespace cawfs
