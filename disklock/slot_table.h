// The node table (64 slot records) and the heartbeats, each read at once. What they say is checked here, once.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string_view>

#include "core/base/error.h"
#include "core/base/types.h"
#include "core/device/device.h"
#include "core/device/io_buffer.h"
#include "core/format/cluster_format.h"
#include "core/format/geometry.h"
#include "core/runtime/task.h"
#include "disklock/caw.h"

namespace cawfs {

// A recoverer that took no slot, such as the cawfs-fence tool: it has always ended already.
inline constexpr SlotNo kNoSlotOfItsOwn{0xffff};

// A slot record with its numbers decoded and checked.
struct SlotView {
  SlotNo slot;
  format::SlotState state = format::SlotState::kFree;
  std::uint8_t flags = 0;
  Incarnation incarnation;
  PrKey key;
  std::string_view host_name;       // into the record
  std::string_view initiator_name;  // into the record
  std::uint64_t isid = 0;
  NodeId recoverer;  // RECOVERING only
  PrKey recoverer_key;
  const format::SlotRecord* record = nullptr;

  NodeId node() const { return {slot, incarnation}; }
  // RECOVERING, by a joiner that will take it.
  bool recovered_from_within() const { return state == format::SlotState::kRecovering && recoverer.slot == slot; }
  bool in_use() const { return state == format::SlotState::kActive || state == format::SlotState::kRecovering; }
  // The node is out for good.
  bool fenced() const { return (flags & format::kSlotFenced) != 0; }
  // And so is everybody who has replayed its journal before the present recoverer.
  bool may_be_replayed() const { return fenced() && (flags & format::kSlotFenceAgain) == 0; }
  // Its recovery has failed, and what it owns stays owned until one succeeds.
  bool damaged() const { return (flags & format::kSlotDamaged) != 0; }
  // Is (slot, incarnation) still a node, alive or not yet recovered (design §6.2 rule 2)?
  bool stands_for(NodeId node) const { return in_use() && node.slot == slot && node.incarnation == incarnation; }
  // It stands here, and has not been fenced: what it recovers is still its own.
  bool may_write(NodeId node) const { return stands_for(node) && !fenced(); }
  // The highest that anybody had here. After the last possible one nobody takes the slot any more.
  Incarnation highest() const {
    return recovered_from_within() ? std::max(incarnation, recoverer.incarnation) : incarnation;
  }
  bool used_up() const { return highest().value == std::numeric_limits<std::uint32_t>::max(); }
  // Of whoever takes the slot, which is not used_up().
  NodeId next() const { return {slot, Incarnation{highest().value + 1}}; }
};

// Of a record that has been verified (format::verify_slot_record()). kBadValue where its fields do not fit its state.
// The record must outlive the view.
Result<SlotView> view_slot(SlotNo slot, const format::SlotRecord& record);

// A text field padded with zeros.
template <std::size_t N>
std::string_view field_text(const std::array<char, N>& field) {
  const std::string_view all(field.data(), N);
  return all.substr(0, all.find('\0'));
}
template <std::size_t N>
void set_field_text(std::array<char, N>& field, std::string_view text) {
  field.fill('\0');
  text.copy(field.data(), N);
}

// What a heartbeat block says, good or bad: two reads with equal values saw no heartbeat in between.
struct HeartbeatValue {
  std::uint64_t counter = 0;
  std::uint32_t incarnation = 0;
  std::uint32_t crc = 0;
  friend bool operator==(const HeartbeatValue&, const HeartbeatValue&) = default;
};

HeartbeatValue heartbeat_value(std::span<const std::byte> logical_block);

// The slots' records as of one read. Records that do not verify, or cannot be read, have no view; read() has read such
// a one again for a second, once: while its bytes stay the same it is known to be corrupt, and does not hold up every
// further read.
class SlotTable {
 public:
  // `device` etc. outlive the table. Memory is allocated here, once.
  SlotTable(BlockDevice& device, CawEditor& editor, const Geometry& geometry);

  // Reads all records. On an error the views are unchanged. One read at a time.
  Task<Result<>> read();

  std::uint16_t slots() const { return geometry_.slots; }
  // Null where the record is corrupt, or nothing was read yet. Valid until the next read() ends.
  const SlotView* view(SlotNo slot) const;
  // Bits of the slots that are ACTIVE or RECOVERING; a corrupt record's slot counts as in use.
  std::uint64_t in_use() const { return in_use_; }

 private:
  BlockDevice& device_;
  CawEditor& editor_;
  Geometry geometry_;
  IoBuffer incoming_;
  std::array<format::SlotRecord, kSlots> records_{};
  std::array<bool, kSlots> corrupt_{};  // then the record is here as it was read
  std::array<std::optional<SlotView>, kSlots> views_;
  std::uint64_t in_use_ = 0;
};

// May whoever has registered `own` unregister, without the reservation's ending with the last key? `keys` were read
// after the table. Only the keys of nodes count: who is ACTIVE, or recovers from within a slot. A node asks this after
// its own record has ceased to name it, so that of several which go at once the last to be named stays; and while it is
// named others count on its key, so that it may not. Nor while it is claimed and not fenced, for its claimer may give
// the slot back, and be gone; but one that found its key gone (`had_gone`), and registered it again, has been fenced.
bool others_keep_the_reservation(const SlotTable& table, const RegisteredKeys& keys, PrKey own, bool had_gone);

// Does the key stand in a record, as a node's or a recoverer's? A damaged record may hold any.
bool key_is_known(const SlotTable& table, PrKey key);

// All heartbeats in one read. One that cannot be read says zeros.
class HeartbeatTable {
 public:
  HeartbeatTable(BlockDevice& device, const Geometry& geometry);
  Task<Result<>> read();
  HeartbeatValue value(SlotNo slot) const;
  // The block as it was read, verified; kBadMagic, kBadChecksum.
  Result<format::Heartbeat> heartbeat(SlotNo slot) const;

 private:
  BlockDevice& device_;
  Geometry geometry_;
  IoBuffer buffer_;
};

}  // namespace cawfs
