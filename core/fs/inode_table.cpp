#include "core/fs/inode_table.h"

#include <algorithm>

#include "core/base/assert.h"

namespace cawfs {

void intrusive_ptr_release(InodeState* state) {
  CAWFS_ASSERT(state->pins_ > 0);
  if (--state->pins_ == 0) state->table->drop_if_idle(*state);
}

InodePin InodeTable::get(InodeNo inode) {
  auto& slot = states_[inode];
  if (!slot) slot = std::make_unique<InodeState>(this, inode);
  return InodePin(slot.get());
}

InodePin InodeTable::find(InodeNo inode) {
  const auto it = states_.find(inode);
  return it == states_.end() ? InodePin() : InodePin(it->second.get());
}

std::vector<InodePin> InodeTable::all() {
  std::vector<InodePin> pins;
  pins.reserve(states_.size());
  for (auto& [number, state] : states_) pins.push_back(InodePin(state.get()));
  // In an order that does not depend on the hash table.
  std::sort(pins.begin(), pins.end(), [](const InodePin& a, const InodePin& b) { return a->number < b->number; });
  return pins;
}

void InodeTable::mark_dirty(InodeState& state, Time now) {
  if (state.is_linked()) return;
  state.dirty_since = now;
  dirty_.push_back(state);
}

void InodeTable::mark_clean(InodeState& state) {
  if (!state.dirty() && state.is_linked()) state.unlink();
}

void InodeTable::drop_if_idle(InodeState& state) {
  if (state.references > 0 || state.opens > 0 || state.dirty() || state.eviction_queued || state.read_ns ||
      state.write_errors.untold())
    return;
  states_.erase(state.number);
}

}  // namespace cawfs
