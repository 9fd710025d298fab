#include "disklock/suspicion.h"

#include <algorithm>

namespace cawfs {

void SilenceWatch::observe(Time issued, Time completed, const Subjects& subjects, const Values& values) {
  const bool apart =
      last_issued_ && (issued - *last_issued_ > 2 * interval_ || completed - last_completed_ > 2 * interval_);
  const bool anew = apart || restart_;
  restart_ = false;
  last_issued_ = issued;
  last_completed_ = completed;

  for (std::size_t i = 0; i < kSlots; ++i) {
    std::optional<Subject>& known = subjects_[i];
    if (!subjects[i]) {
      known.reset();
    } else if (!known || known->incarnation != *subjects[i]) {
      known = Subject{*subjects[i], values[i], completed, issued};
    } else if (known->value != values[i]) {
      *known = Subject{known->incarnation, values[i], completed, issued, true};
    } else {
      if (anew) known->since = completed;
      known->confirmed = issued;
    }
  }
}

Duration SilenceWatch::silence(SlotNo slot) const {
  const std::optional<Subject>& known = subjects_[slot.value];
  if (!known) return Duration{0};
  return std::max(Duration{0}, known->confirmed - known->since);
}

bool SilenceWatch::moved(SlotNo slot) const {
  return subjects_[slot.value] && subjects_[slot.value]->moved;
}

std::optional<HeartbeatValue> SilenceWatch::last(SlotNo slot) const {
  if (!subjects_[slot.value]) return std::nullopt;
  return subjects_[slot.value]->value;
}

}  // namespace cawfs
