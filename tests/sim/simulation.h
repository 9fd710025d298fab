// A whole cluster in one process: hosts that mount one simulated LUN, with clients and faults, from one seed. It ends
// with everything healed: all nodes unmount, one mounts again, recovers what is left and reads everything; then fsck
// must find nothing, and the history must be explicable.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/device/simulated_device.h"
#include "core/format/geometry.h"
#include "core/runtime/virtual_loop.h"
#include "tests/sim/counts.h"
#include "tests/sim/fault_rates.h"
#include "tests/sim/lun_watch.h"
#include "tests/sim/profile.h"
#include "tests/sim/sim_node.h"
#include "tests/sim/workload.h"

namespace cawfs::sim {

struct SimulationOptions {
  std::uint64_t seed = 1;
  unsigned nodes = 2;
  Duration busy_time = std::chrono::seconds(20);  // simulated; then everything is healed
  bool faults = true;
  const Profile* profile = nullptr;  // null: the seed chooses the faults
};

struct SimulationResult {
  std::optional<std::string> failure;
  std::uint64_t trace_hash = 0;
  Duration simulated{};
  Counts counts;
};

class Simulation {
 public:
  explicit Simulation(SimulationOptions options);
  SimulationResult run();

 private:
  struct Host;
  // One mount of a host's.
  struct Life {
    Life(Simulation& sim, Run number, const Host& host, std::uint64_t seed);

    Run run;
    SimNode node;
    TaskGroup tasks;
    std::vector<std::unique_ptr<Client>> clients;
    bool up = false;
    bool ended = false;
  };
  struct Host {
    std::string name;
    std::uint8_t boot = 1;
    int clock_percent = 100;  // its clock's speed
    std::unique_ptr<Life> life;
    Time back_at;  // when it is mounted again, if it is down
    bool paused = false;
    bool cut = false;
    bool held = false;                    // what it sends stays on its way
    std::size_t returns_before = 0;       // of its lease, when its heartbeats became late
    bool late = false;                    // its heartbeats are answered late
    std::uint64_t requests_to_crash = 0;  // 0: does not crash
  };
  struct Planned {  // the end of a pause, of a cut or of a silence
    Time when;
    std::size_t host = 0;
  };

  struct Silence {  // of the device
    Time since;
    std::vector<Planned> ends;  // of the hosts that it does not answer yet
  };

  static FaultRates choose_faults(Random& random, const SimulationOptions& options);
  static SimulatedLunOptions lun_options(Random& random, const FaultRates& rates, const Profile* profile);
  static std::vector<std::unique_ptr<Life>>& graveyard();
  void format();

  // A host's life.
  void mount(Host& host);
  Task<void> live(Life& life);
  Task<void> work(Life& life);
  Task<void> last_words(Life& life);
  void bury(Host& host);
  // What injected medium errors explain.
  bool may_be(const Error& error) const { return error == Errc::kMedium && workload_.medium_errors; }

  // No COMPARE AND WRITE may be refused (docs/design.md). That rests on sessions, and on registrations that last.
  bool judges_caws() const {
    return options_.profile == nullptr || (options_.profile->sessions && !options_.profile->forgets_power);
  }

  // faults.cpp
  Task<void> direct();
  void strike();
  void crash(Host& host);
  void pause(std::size_t host);
  void cut_path(std::size_t host);
  void unmount(Host& host);
  void cut_power();
  void everything_loses_power();
  void answer_heartbeats_late(std::size_t host);
  void hold_commands(std::size_t host);
  void silence_device();
  void end_silence(Time until);
  Duration quiet_time(bool beyond);
  void target_loses_power();
  Task<void> reset_lun();
  void let_go_if_preempted();
  void end_planned(Time until);
  void look_at_reservation();
  void mount_again();
  void disturb_all();
  SimulatedFate fate_of(const SimulatedRequest& request);

  bool run_to(Duration limit, const std::function<bool()>& done);
  bool in_trouble() const { return watch_->trouble() || workload_.trouble || start_error_; }
  std::optional<std::string> failure(const std::string& what) const;
  std::optional<std::string> run_all();
  std::optional<std::string> fsck();
  std::string hanging() const;
  void gather_counts();

  SimulationOptions options_;
  SeededRandom random_;
  // Of faults thought of later, a stream of their own: seeds without them do what they always did.
  SeededRandom later_random_;
  FaultRates rates_;
  VirtualLoop loop_;
  SimulatedLun lun_;
  Executor& director_;
  Geometry geometry_;
  std::unique_ptr<LunWatch> watch_;
  Workload workload_;
  Counts counts_;
  std::vector<Host> hosts_;
  std::vector<Planned> resumes_;
  std::vector<Planned> heals_;
  std::vector<Planned> lets_go_;
  std::vector<Planned> late_cuts_;  // of those whose heartbeats are answered late
  std::optional<Silence> silence_;
  std::size_t buried_ = 0;  // of this simulation, at the graveyard's end
  Run last_run_ = 0;
  bool prepared_ = false;
  bool power_cut_at_flush_ = false;  // the next one
  bool outage_at_flush_ = false;
  std::size_t keys_ = 0;                  // registered, when that was last looked at
  std::optional<Time> unreserved_since_;  // and some node could have changed that
  bool healed_ = false;                   // faults have ended
  bool last_mount_ = false;               // the one that reads everything
  std::optional<std::string> start_error_;
  std::unique_ptr<BlockDevice> outside_;
  TaskGroup director_tasks_;
};

}  // namespace cawfs::sim
