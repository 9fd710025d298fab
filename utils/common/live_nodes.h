// Is a file system mounted anywhere? For tools that must not touch, or cannot trust, one that is.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/base/types.h"
#include "core/device/device.h"
#include "core/format/disk_format.h"
#include "core/format/geometry.h"
#include "core/runtime/executor.h"
#include "core/runtime/task.h"

namespace cawfs {

// The slot records' states and incarnations; {0xff, 0} for one that does not verify.
struct SlotStates {
  struct One {
    std::uint8_t state = 0xff;
    std::uint32_t incarnation = 0;
    friend bool operator==(const One&, const One&) = default;
  };
  std::array<One, kSlots> slots;
  friend bool operator==(const SlotStates&, const SlotStates&) = default;
};
Task<Result<SlotStates>> read_slot_states(BlockDevice& device, const Geometry& geometry);

struct LiveNodes {
  std::vector<SlotNo> slots;
  std::vector<std::string> hosts;  // of the same slots
  bool any() const { return !slots.empty(); }
};

// kAny: is there any? Returns as soon as one shows life, and names no more than it has seen until then. kEach: who
// lives and who does not? Returns once all do.
enum class LookFor : std::uint8_t { kAny, kEach };

// Nodes in slots that are ACTIVE or RECOVERING whose heartbeats move. Returns at once where there are no such slots,
// and otherwise after the dead-time at the latest.
Task<Result<LiveNodes>> find_live_nodes(Executor& executor, BlockDevice& device, const format::Superblock& superblock,
                                        LookFor look_for);

}  // namespace cawfs
