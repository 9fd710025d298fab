#include "disklock/suspicion.h"

#include <algorithm>

namespace cawfs {

void SilenceWatch::observe(Time issued, Time completed, const Subjects& subjects, const Values& values) {
  const bool apart =
      last_issued_ && (issued - *last_issued_ > 2 * interval_ || completed - last_completed_ > 2 * interval_);
  const Read read{issued, completed, apart || restart_};
  restart_ = false;
  last_issued_ = issued;
  last_completed_ = completed;
  for (std::size_t i = 0; i < kSlots; ++i) {
    observe_one(nodes_[i], subjects.nodes[i], values[i], Heart::kNode, read);
    observe_one(joiners_[i], subjects.joiners[i], values[i], Heart::kJoiner, read);
  }
}

void SilenceWatch::observe_one(std::optional<Subject>& known, std::optional<Incarnation> subject,
                               const HeartbeatValue& value, Heart whose, const Read& read) {
  if (!subject) {
    known.reset();
    return;
  }
  if (!known || known->incarnation != *subject) {
    known = Subject{*subject, value, read.completed, read.issued};
    return;
  }
  const bool its_own = value.incarnation == subject->value;
  const bool changed = value != known->value && (its_own || whose == Heart::kNode);
  if (read.anew) known->moved = false;
  if (changed || read.anew) known->since = read.completed;
  known->confirmed = read.issued;
  if (!changed) return;
  known->value = value;
  known->moved = known->moved || its_own;
}

Duration SilenceWatch::silence(SlotNo slot, Heart whose) const {
  const std::optional<Subject>& known = subject(slot, whose);
  if (!known) return Duration{0};
  return std::max(Duration{0}, known->confirmed - known->since);
}

bool SilenceWatch::moved(SlotNo slot, Heart whose) const {
  const std::optional<Subject>& known = subject(slot, whose);
  return known && known->moved;
}

std::optional<HeartbeatValue> SilenceWatch::last(SlotNo slot) const {
  if (!nodes_[slot.value]) return std::nullopt;
  return nodes_[slot.value]->value;
}

}  // namespace cawfs
