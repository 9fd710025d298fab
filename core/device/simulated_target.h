// The target behind SimulatedLun: the queue of commands it has accepted, its reservations, its medium and its faults.
// It has no task of its own: whoever looks at it first lets every command land whose moment has come, in the order of
// those moments, so that commands of killed nodes land as well.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/base/random.h"
#include "core/device/reservation_table.h"
#include "core/device/simulated_device.h"
#include "core/device/simulated_medium.h"
#include "core/runtime/executor.h"

namespace cawfs {

// One command, from its acceptance to its answer.
struct SimulatedCommand {
  using Kind = SimulatedRequest::Kind;

  SimulatedRequest request;
  bool durable = false;
  std::vector<std::byte> data;      // to write, or what has been read
  std::vector<std::byte> expected;  // COMPARE AND WRITE
  // kReservation: what it does to the table, or reads of it.
  std::function<Result<ReservationTable::Attentions>(ReservationTable&)> action;
  std::optional<std::string> evicted;    // kReset of one nexus only
  std::optional<std::uint64_t> session;  // the only one that it may go out on

  // The target's own.
  std::uint64_t sequence = 0;
  Time lands;
  Time answered;
  std::uint64_t sent_on = 0;  // session
  bool held = false;          // on its way
  bool ended = false;
  bool never_answered = false;
  std::optional<Errc> lost;  // answered with this instead of its outcome
  Result<> outcome;
};

class SimulatedTarget {
 public:
  using Kind = SimulatedRequest::Kind;
  using Command = std::shared_ptr<SimulatedCommand>;

  SimulatedTarget(const Clock& clock, Random& random, SimulatedLunOptions options);

  const SimulatedLunOptions& options() const { return options_; }
  Time now() const { return clock_.now(); }

  // Sets lands and answered; what is refused has ended already.
  void accept(const Command& command);
  // Lets land what is due.
  void advance();

  void log_in(const std::string& nexus);
  // As its node knows it: who is cut off cannot log in again, and does not learn that its session has been ended.
  std::uint64_t session(const std::string& nexus);
  void hold(const std::string& nexus);
  void let_go(const std::string& nexus);
  std::uint64_t refused_caws() const { return refused_caws_; }
  std::uint64_t caws_not_admitted() const { return caws_not_admitted_; }
  void set_hook(std::function<SimulatedFate(const SimulatedRequest&)> hook) { hook_ = std::move(hook); }
  void set_observer(std::function<void(const SimulatedRequest&, const Result<>&)> observer) {
    observer_ = std::move(observer);
  }
  void stall_writes_from(std::uint64_t offset) { stall_from_ = offset; }
  void power_cut(PowerCut kind);
  void cut_path(const std::string& nexus);
  void heal_path(const std::string& nexus);
  std::uint64_t executed(Kind kind);
  SimulatedMedium& medium();
  RegisteredKeys registered_keys();
  bool is_reserved();

 private:
  struct Nexus {
    std::uint64_t session = 0;
    std::uint64_t known_session = 0;
    bool path_cut = false;
    bool holds = false;
    bool attention_reset = false;
    bool attention_reservations = false;
  };
  using Key = std::pair<Time, std::uint64_t>;

  std::optional<Errc> refusal(const SimulatedCommand& command);
  bool writes(Kind kind) const;
  bool may_stall(const SimulatedRequest& request) const;
  Duration random_duration(Duration bound);
  // Accepted commands before `sequence`, of `nexus` or of all, resets excepted.
  std::vector<Command> in_flight(const std::optional<std::string>& nexus, std::uint64_t sequence) const;

  void arrive(const Command& command);
  void land(const Command& command);
  Result<> run(SimulatedCommand& command);
  Result<> execute(SimulatedCommand& command);
  Result<> run_reservation(SimulatedCommand& command);
  Result<> run_compare_and_write(SimulatedCommand& command);
  void end(SimulatedCommand& command, Result<> outcome);
  void postpone(const Command& command, Time until);
  // A reset or an eviction has been accepted: older commands are aborted, or will be waited for.
  void begin_reset(const SimulatedCommand& reset);
  void end_reset(const SimulatedCommand& reset);
  // What the nexus has in flight lands now or never.
  void land_or_end(const std::string& nexus);
  void abort_commands(const std::string& victim, std::uint64_t sequence);

  const Clock& clock_;
  Random& random_;
  SimulatedLunOptions options_;
  SimulatedMedium medium_;
  ReservationTable reservations_;
  std::function<SimulatedFate(const SimulatedRequest&)> hook_;
  std::function<void(const SimulatedRequest&, const Result<>&)> observer_;
  std::map<std::string, Nexus> nexuses_;
  std::map<Key, Command> pending_;
  std::vector<Command> held_;
  std::optional<std::uint64_t> stall_from_;
  std::uint64_t refused_caws_ = 0;
  std::uint64_t caws_not_admitted_ = 0;
  std::uint64_t sequence_ = 0;
  std::array<std::uint64_t, 8> executed_{};
  bool advancing_ = false;
};

}  // namespace cawfs
