// Sees every command that the simulated LUN executes, and what it leaves on the medium:
// - lock entries change hands only as they may (design §10, invariant 1): nobody takes an entry from a live owner,
// nobody
//   but himself clears the bit of a live sharer, and each grant of EX raises the generation;
// - no write of a node lands once its slot is marked as fenced (invariant 2);
// - a node that nothing was done to is not fenced (invariant 6).
// It also tells when a node is fenced, hashes the trace, and counts what became of CAWs whose reply was lost.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/device/simulated_device.h"
#include "core/format/cluster_format.h"
#include "core/format/geometry.h"
#include "core/runtime/virtual_loop.h"
#include "tests/sim/counts.h"
#include "tests/sim/history.h"

namespace cawfs::sim {

class LunWatch {
 public:
  LunWatch(const VirtualLoop& loop, SimulatedLun& lun, const Geometry& geometry);

  // From now on the nexus belongs to another run.
  void node_starts(const std::string& nexus, Run run);
  void node_crashes(const std::string& nexus) { crashed_.insert(current_[nexus]); }
  // Something has been done to the node that may keep it from its heartbeat.
  void disturbed(const std::string& nexus) { disturbed_[nexus] = loop_.now(); }
  // For so long nobody has heard from the device: nothing can have come of what was done to a node before.
  void stood_still(Duration length);
  // Not where a heartbeat may be delayed.
  void judge_fences(bool judge) { judge_fences_ = judge; }
  void on_fenced(std::function<void(Run)> told) { on_fenced_ = std::move(told); }

  // The hook's part: before the command runs, and what will become of it.
  void before(const SimulatedRequest& request, SimulatedFate fate);
  // The observer's.
  void after(const SimulatedRequest& request, const Result<>& outcome);

  const std::optional<std::string>& trouble() const { return trouble_; }
  std::uint64_t trace_hash() const { return hash_; }
  Counts& counts() { return counts_; }
  bool all_clean() const { return all_clean_but(SlotNo{kSlots}); }
  bool all_clean_but(SlotNo own) const;
  bool none_recovering() const;

 private:
  struct LostCaw {
    std::vector<std::byte> before;
    bool ran = false;
    std::vector<std::byte> after;
  };

  void complain(const std::string& what);
  std::optional<SlotNo> slot_at(std::uint64_t offset) const;
  format::SlotRecord record_of(std::uint16_t slot) const;
  bool lives(NodeId node) const;
  bool vacant(std::uint16_t slot) const;
  bool may_hold(std::uint16_t slot, std::uint64_t last_change) const;
  std::vector<std::byte> peek(std::uint64_t offset) const;
  void slot_changed(SlotNo slot, const format::SlotRecord& before, const format::SlotRecord& after);
  void count_states(const format::SlotRecord& before, const format::SlotRecord& after);
  void fenced(NodeId node);
  void locks_changed(std::uint64_t offset, const format::LockBlock& before, const format::LockBlock& after);
  void entry_changed(std::uint64_t offset, std::uint64_t last_change, NodeId writer, const format::LockEntry& before,
                     const format::LockEntry& after);
  void settle(const SimulatedRequest& request);

  const VirtualLoop& loop_;
  SimulatedLun& lun_;
  const Geometry& geometry_;
  std::map<std::uint64_t, std::vector<std::byte>> shadow_;  // of blocks that are changed by CAW
  struct Node {
    std::string nexus;
    Run run = 0;
    std::uint64_t since = 0;  // the COMPARE AND WRITE that made it one
  };
  std::map<NodeId, Node> nodes_;
  std::uint64_t caws_ = 0;                              // so many have run
  std::map<std::uint64_t, std::uint64_t> last_change_;  // of each lock block: the number of that COMPARE AND WRITE
  std::map<std::string, Run> current_;                  // by nexus
  std::set<Run> fenced_;
  std::map<std::string, Time> disturbed_;
  std::set<Run> crashed_;
  std::map<std::pair<std::string, std::uint64_t>, LostCaw> lost_;
  std::function<void(Run)> on_fenced_;
  std::optional<std::string> trouble_;
  bool judge_fences_ = true;
  std::uint64_t hash_ = 14695981039346656037U;
  Counts counts_;
};

}  // namespace cawfs::sim
