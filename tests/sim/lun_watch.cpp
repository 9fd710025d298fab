#include "tests/sim/lun_watch.h"

#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <utility>

namespace cawfs::sim {

namespace {

using Kind = SimulatedRequest::Kind;
using format::LockBlock;
using format::LockEntry;
using format::LockModeOnDisk;
using format::SlotRecord;
using format::SlotState;

// Silence of the dead-time is what a node is fenced for; what disturbed it may have begun a while before that.
constexpr int kDisturbedDeadTimes = 3;

LockModeOnDisk mode_of(const LockEntry& entry) {
  return static_cast<LockModeOnDisk>(entry.mode);
}
NodeId owner_of(const LockEntry& entry) {
  return {SlotNo{entry.owner_slot.value()}, Incarnation{entry.owner_incarnation.value()}};
}
bool shared(const LockEntry& entry) {
  return mode_of(entry) == LockModeOnDisk::kShared || mode_of(entry) == LockModeOnDisk::kDeferred;
}
bool changes(Kind kind) {
  return kind == Kind::kWrite || kind == Kind::kUnmap || kind == Kind::kZero || kind == Kind::kCaw;
}

template <class T>
T as(const std::vector<std::byte>& bytes) {
  T object;
  std::memcpy(&object, bytes.data(), sizeof object);
  return object;
}

}  // namespace

LunWatch::LunWatch(const VirtualLoop& loop, SimulatedLun& lun, const Geometry& geometry)
    : loop_(loop), lun_(lun), geometry_(geometry) {}

void LunWatch::complain(const std::string& what) {
  if (!trouble_) {
    trouble_ = fmt::format("at {:.4f}: {}", std::chrono::duration<double>(loop_.now().since_boot).count(), what);
  }
}

void LunWatch::node_starts(const std::string& nexus, Run run) {
  current_[nexus] = run;
  disturbed(nexus);
}

std::vector<std::byte> LunWatch::peek(std::uint64_t offset) const {
  std::vector<std::byte> bytes(geometry_.logical_block);
  lun_.peek(offset, bytes);
  return bytes;
}

std::optional<SlotNo> LunWatch::slot_at(std::uint64_t offset) const {
  const std::uint64_t first = geometry_.slot_record_offset(SlotNo{0});
  if (offset < first || (offset - first) / kBlockSize >= kSlots) return std::nullopt;
  return SlotNo{static_cast<std::uint16_t>((offset - first) / kBlockSize)};
}

SlotRecord LunWatch::record_of(std::uint16_t slot) const {
  return as<SlotRecord>(peek(geometry_.slot_record_offset(SlotNo{slot})));
}

bool LunWatch::vacant(std::uint16_t slot) const {
  const auto state = static_cast<SlotState>(record_of(slot).state);
  return state != SlotState::kActive && state != SlotState::kRecovering;
}

bool LunWatch::lives(NodeId node) const {
  return node.slot.value < kSlots && !vacant(node.slot.value) &&
         record_of(node.slot.value).incarnation.value() == node.incarnation.value;
}

bool LunWatch::all_clean_but(SlotNo own) const {
  for (std::uint16_t slot = 0; slot < geometry_.slots; ++slot) {
    if (slot != own.value && !vacant(slot)) return false;
  }
  return true;
}

bool LunWatch::none_recovering() const {
  for (std::uint16_t slot = 0; slot < geometry_.slots; ++slot) {
    if (static_cast<SlotState>(record_of(slot).state) == SlotState::kRecovering) return false;
  }
  return true;
}

// ---- commands ----

void LunWatch::before(const SimulatedRequest& request, SimulatedFate fate) {
  if (request.kind == Kind::kRead) settle(request);
  if (request.kind != Kind::kCaw) return;
  shadow_[request.offset] = peek(request.offset);
  if (fate == SimulatedFate::kLoseReply || fate == SimulatedFate::kLoseRequest) {
    lost_[{request.node, request.offset}] = {shadow_[request.offset], fate == SimulatedFate::kLoseReply, {}};
  }
}

void LunWatch::after(const SimulatedRequest& request, const Result<>& outcome) {
  const auto mix = [this](std::uint64_t value) { hash_ = std::rotl((hash_ ^ value) * 1099511628211U, 23); };
  mix(static_cast<std::uint64_t>(loop_.now().since_boot.count()));
  mix(static_cast<std::uint64_t>(request.kind));
  mix(request.offset);
  mix(request.length);
  for (const char c : request.node) mix(static_cast<std::uint8_t>(c));
  if (!outcome) return;

  if (const auto run = current_.find(request.node); changes(request.kind) && run != current_.end()) {
    if (fenced_.contains(run->second)) {
      complain(fmt::format("a write of {} at offset {} landed after it was fenced", request.node, request.offset));
    }
  }
  if (request.kind != Kind::kCaw) return;
  ++caws_;
  const std::vector<std::byte> now = peek(request.offset);
  if (const auto lost = lost_.find({request.node, request.offset}); lost != lost_.end()) lost->second.after = now;
  const std::vector<std::byte> was = std::exchange(shadow_[request.offset], now);
  if (was.empty()) return;
  if (const auto slot = slot_at(request.offset)) {
    slot_changed(*slot, as<SlotRecord>(was), as<SlotRecord>(now));
  } else if (as<format::CawHeader>(now).magic.value() == format::kLockMagic) {
    locks_changed(request.offset, as<LockBlock>(was), as<LockBlock>(now));
  }
}

// The node that has lost the reply of a CAW reads the block back: what will it find?
void LunWatch::settle(const SimulatedRequest& request) {
  const auto found = lost_.find({request.node, request.offset});
  if (found == lost_.end() || request.length != geometry_.logical_block) return;
  const std::vector<std::byte> now = peek(request.offset);
  if (now == found->second.before) {
    ++counts_["lost CAW reply settled: not run"];
  } else if (now == found->second.after) {
    ++counts_["lost CAW reply settled: ran"];
  } else {
    ++counts_["lost CAW reply settled: others changed the block"];
  }
  lost_.erase(found);
}

// ---- slots ----

void LunWatch::slot_changed(SlotNo slot, const SlotRecord& before, const SlotRecord& after) {
  count_states(before, after);
  const NodeId node{slot, Incarnation{after.incarnation.value()}};
  const auto state = static_cast<SlotState>(after.state);
  const auto& name = after.host_name;  // and its nexus
  if (state == SlotState::kActive && !nodes_.contains(node)) {
    const std::string nexus(name.data(), strnlen(name.data(), name.size()));
    nodes_[node] = {nexus, current_[nexus], caws_};
  }
  const bool newly =
      (before.flags & format::kSlotFenced) == 0 || before.incarnation.value() != after.incarnation.value();
  if (state == SlotState::kRecovering && (after.flags & format::kSlotFenced) != 0 && newly) fenced(node);
}

void LunWatch::count_states(const SlotRecord& before, const SlotRecord& after) {
  const auto from = static_cast<SlotState>(before.state);
  const auto to = static_cast<SlotState>(after.state);
  if (from == SlotState::kActive && to == SlotState::kRecovering) ++counts_["slot claimed for recovery"];
  if (from == SlotState::kRecovering && to == SlotState::kRecovering &&
      before.recoverer_key.value() != after.recoverer_key.value()) {
    ++counts_["recovery taken over from a dead recoverer"];
  }
  if (from == SlotState::kRecovering && to == SlotState::kClean) ++counts_["slot recovered by a survivor"];
  if (from == SlotState::kRecovering && to == SlotState::kActive &&
      before.incarnation.value() != after.incarnation.value()) {
    ++counts_["slot recovered by a joiner"];
  }
  if (from == SlotState::kActive && to == SlotState::kClean) ++counts_["slot left cleanly"];
}

void LunWatch::stood_still(Duration length) {
  for (auto& [nexus, when] : disturbed_) when = when + length;
}

void LunWatch::fenced(NodeId node) {
  const auto found = nodes_.find(node);
  if (found == nodes_.end() || !fenced_.insert(found->second.run).second) return;
  ++counts_["node fenced"];
  if (on_fenced_) on_fenced_(found->second.run);
  if (crashed_.contains(found->second.run)) return;
  const auto last = disturbed_.find(found->second.nexus);
  const Duration dead_time = std::chrono::milliseconds(record_of(node.slot.value).dead_time_ms.value());
  if (judge_fences_ && loop_.now() - last->second > kDisturbedDeadTimes * dead_time) {
    complain(fmt::format("{} was fenced although nothing had been done to it", found->second.nexus));
  }
}

// ---- locks ----

void LunWatch::locks_changed(std::uint64_t offset, const LockBlock& before, const LockBlock& after) {
  const NodeId writer{SlotNo{after.header.writer_slot.value()}, Incarnation{after.header.writer_incarnation.value()}};
  const std::uint64_t last_change = std::exchange(last_change_[offset], caws_);
  for (std::size_t i = 0; i < after.entries.size(); ++i) {
    entry_changed(offset, last_change, writer, before.entries[i], after.entries[i]);
  }
}

// A share's bit says nothing of the incarnation. But every grant is a COMPARE AND WRITE: where none of this block has
// run since the slot's node became one, the bit is an earlier node's, whose slot was vacant when the clearer looked.
bool LunWatch::may_hold(std::uint16_t slot, std::uint64_t last_change) const {
  if (vacant(slot)) return false;
  const auto node = nodes_.find({SlotNo{slot}, Incarnation{record_of(slot).incarnation.value()}});
  return node == nodes_.end() || node->second.since < last_change;
}

void LunWatch::entry_changed(std::uint64_t offset, std::uint64_t last_change, NodeId writer, const LockEntry& before,
                             const LockEntry& after) {
  const bool was_ex = mode_of(before) == LockModeOnDisk::kExclusive;
  const bool is_ex = mode_of(after) == LockModeOnDisk::kExclusive;
  const bool same_tenure =
      was_ex && is_ex && owner_of(before) == owner_of(after) && before.generation.value() == after.generation.value();
  if (is_ex && !same_tenure) {
    ++counts_["EX granted"];
    if (after.generation.value() <= before.generation.value()) {
      complain(fmt::format("lock block at {}: EX granted without a new generation", offset));
    }
  }
  if (was_ex && !same_tenure) {
    const NodeId owner = owner_of(before);
    if (owner != writer && lives(owner)) {
      complain(fmt::format("lock block at {}: slot {} took an entry that slot {} holds EX", offset, writer.slot.value,
                           owner.slot.value));
    }
    if (owner == writer && is_ex) ++counts_["EX handed over to EX"];
    if (owner == writer && shared(after)) ++counts_["EX given up for S"];
    if (owner != writer) ++counts_["EX of a dead node taken"];
  }
  if (!shared(before)) return;
  std::uint64_t gone = before.sharers.value() & ~(shared(after) ? after.sharers.value() : 0);
  gone &= ~(std::uint64_t{1} << writer.slot.value);
  if (is_ex) gone &= ~(std::uint64_t{1} << owner_of(after).slot.value);
  for (; gone != 0; gone &= gone - 1) {
    const auto slot = static_cast<std::uint16_t>(std::countr_zero(gone));
    if (may_hold(slot, last_change)) {
      complain(fmt::format("lock block at {}: slot {} cleared the share of slot {}, which lives", offset,
                           writer.slot.value, slot));
    }
    ++counts_["share of a dead node cleared"];
  }
}

}  // namespace cawfs::sim
