// The simulated LUN: memory, virtual time and faults. One SimulatedLun is shared by the devices of any number of nodes,
// each device being one I_T nexus. Its PR rules are the ones of core/device/reservation_table.h, which the file LUN
// uses too.
//
// Faults it must survive: a power cut loses or keeps each unflushed logical block on its own, or leaves an older
// unflushed image of it; a node's path is cut (requests end with kTransport, executed or not); a CAW runs and its reply
// is lost; a write stays in the target's backend past PREEMPT AND ABORT and lands later unless a LUN reset ended it.
//
// A request is checked (path, unit attention, reservation, bounds) when it is accepted, lands at a random moment of its
// latency, and is answered at the end of it. What has been accepted lands also if its node has been killed meanwhile. A
// write's buffer must stay as it is until it is answered (asserted).
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "core/base/random.h"
#include "core/device/device.h"
#include "core/runtime/executor.h"

namespace cawfs {

struct SimulatedLunOptions {
  std::uint64_t size_bytes = 64 << 20;
  std::uint32_t logical_block = 4096;
  bool volatile_cache = true;
  Duration latency_min = std::chrono::microseconds(50);
  Duration latency_max = std::chrono::microseconds(200);

  bool write_protected = false;      // writes and CAW end with kReadOnly
  bool compare_and_write = true;     // false: kUnsupported
  bool reservations = true;          // false: every PR action is kUnsupported
  bool persist_reservations = true;  // false: the target refuses APTPL with kUnsupported
  bool all_registrants = true;       // false: type 7 is kUnsupported
  bool sessions = false;             // nexus names are initiator names; evict() and a power cut end sessions

  // One request in so many (0: none) stays in the target's backend for up to stall_max before it lands.
  std::uint32_t stall_one_in = 0;
  Duration stall_max = std::chrono::seconds(5);
  // Of kLateReply: the answer comes so much later.
  Duration late_min = std::chrono::milliseconds(1400);
  Duration late_max = std::chrono::milliseconds(1550);
  // A command that PREEMPT AND ABORT finds in the backend is aborted, or lands up to so much later, at random.
  Duration straggler_max = std::chrono::seconds(3);
};

// What a hook sees before a request is executed.
struct SimulatedRequest {
  enum class Kind : std::uint8_t { kRead, kWrite, kFlush, kUnmap, kZero, kCaw, kReservation, kReset };
  Kind kind;
  std::string node;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
};

enum class SimulatedFate : std::uint8_t {
  kRun,
  kLoseRequest,  // not executed; kTransport
  kLoseReply,    // executed; kTransport
  kMediumError,  // not executed; kMedium
  kThinFull,     // not executed; kThinFull
  kMiscompare,   // CAW: not executed; kMiscompare although the block is as expected
  kRunTwice,     // CAW: executed, and sent again on its way: kMiscompare
  kLateReply,    // executed; answered late_min to late_max later
  kNeverReturn,  // not executed, never answered: the node is about to be killed
};

// How a nexus learns of a power cut: by 29/00, or, as with LIO after a crash, by its session's end alone.
enum class PowerCut : std::uint8_t { kWithAttention, kWithoutAttention };

class SimulatedTarget;

class SimulatedLun {
 public:
  SimulatedLun(const Clock& clock, Random& random, SimulatedLunOptions options);
  ~SimulatedLun();
  SimulatedLun(const SimulatedLun&) = delete;

  // An I_T nexus named `node`, its completions posted on `executor`. A name that has been used before is the same
  // nexus, with its registration, logged in again: what the old session still had in flight is ended first. The LUN
  // outlives the device.
  std::unique_ptr<BlockDevice> connect(Executor& executor, std::string node);

  // Asked about each request when it is about to run; it may call everything here.
  void set_hook(std::function<SimulatedFate(const SimulatedRequest&)> hook);
  // Told about each request that has been executed, with its outcome, right after it.
  void set_observer(std::function<void(const SimulatedRequest&, const Result<>&)> observer);

  // The target's power fails: each block in flight is lost or not, unflushed blocks are lost, kept or left at an older
  // unflushed image, each by itself. Registrations made with APTPL stay. Nexuses see 29/00 afterwards, or nothing where
  // there are sessions.
  void power_cut(PowerCut kind = PowerCut::kWithAttention);
  // From now on requests of `node` end with kTransport after their latency, until healed. What is in flight has reached
  // the target or not, at random, and is answered with kTransport.
  void cut_path(const std::string& node);
  void heal_path(const std::string& node);

  // From now on what `node` sends stays on its way, as on a host that stopped between a decision and its socket write,
  // until it is let go, or for ever where the session it was sent on has ended by then.
  void hold(const std::string& node);
  void let_go(const std::string& node);

  // COMPARE AND WRITEs that were refused for a reservation or a unit attention, which on LIO breaks all that follow:
  // see BlockDevice::session().
  std::uint64_t refused_caws() const;
  std::uint64_t caws_not_admitted() const;  // those refused for a reservation, or because it has changed

  // Of SimulatedLunOptions::stall_one_in: from now on only plain writes stall, and only from `offset` on.
  void stall_writes_from(std::uint64_t offset);

  // Requests that have been executed, by kind; for counting and for cutting "at the n-th write".
  std::uint64_t executed(SimulatedRequest::Kind kind) const;

  // Direct access for tests that corrupt or inspect.
  void peek(std::uint64_t offset, std::span<std::byte> out) const;
  void poke(std::uint64_t offset, std::span<const std::byte> data);
  RegisteredKeys registered_keys() const;
  bool is_reserved() const;

 private:
  std::shared_ptr<SimulatedTarget> target_;
};

}  // namespace cawfs
