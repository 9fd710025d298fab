// What happens to a simulated cluster, and when.
#include <algorithm>
#include <utility>

#include "tests/sim/simulation.h"

namespace cawfs::sim {

using namespace std::chrono_literals;

namespace {

using Kind = SimulatedRequest::Kind;

constexpr Duration kTick = 10ms;
// The dead-time is 2 s, the self-lease 1 s.
constexpr Duration kShortest = 300ms;
constexpr Duration kShorterThanDeadTime = 1800ms;
constexpr Duration kLongerThanDeadTime = 2500ms;
constexpr Duration kLongest = 6s;
constexpr Duration kNearDeadTimeLeast = 2s;
constexpr Duration kNearDeadTimeMost = 3200ms;
constexpr Duration kLateLeast = 3s;  // heartbeats are answered late for so long before the cut
constexpr Duration kLateMost = 5s;
constexpr Duration kShortestSilence = 20ms;
constexpr Duration kUnevenAtMost = 1s;  // from when the device answers one host to when it answers another
constexpr Duration kUnreservedAtMost = 2s;
constexpr std::uint64_t kRequestsToCrash = 300;

Duration between(Random& random, Duration least, Duration most) {
  return least + Duration(static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>((most - least).count()))));
}

}  // namespace

FaultRates Simulation::choose_faults(Random& random, const SimulationOptions& options) {
  if (options.profile != nullptr) return options.profile->rates;
  FaultRates rates;
  if (!options.faults) return rates;
  const auto perhaps = [&random] { return random.one_in(2); };
  rates.crashes = perhaps();
  rates.pauses = perhaps();
  rates.cut_paths = perhaps();
  rates.resets = perhaps();
  rates.power_cuts = random.one_in(3);
  rates.unmounts = perhaps();
  rates.lost_caws = perhaps() ? 40 : 0;
  rates.lost_others = random.one_in(3) ? 400 : 0;
  rates.stalls = random.one_in(4) ? 2000 : 0;
  rates.medium_caws = options.seed % 4 == 2 ? 300 : 0;
  rates.clock_drift = options.seed % 8 == 4;
  rates.odd_caws = options.seed % 8 == 0 ? 30 : 0;
  rates.silences = options.seed % 16 == 15;
  return rates;
}

// Runs beside the nodes, as the world does.
Task<void> Simulation::direct() {
  outside_ = lun_.connect(director_, "outside");
  const Time end = director_.now() + options_.busy_time;
  Time next = director_.now() + between(random_, 100ms, rates_.longest_quiet);
  while (director_.now() < end) {
    co_await director_.sleep(kTick);
    end_planned(director_.now());
    mount_again();
    look_at_reservation();
    if (director_.now() < next) continue;
    next = director_.now() + between(random_, 50ms, rates_.longest_quiet);
    strike();
    if (rates_.resets && random_.one_in(6)) co_await reset_lun();
  }
  // Everything is healed.
  healed_ = true;
  workload_.stopping = true;
  end_planned(Time{Duration::max()});
  // A node that was claimed, and woke when its recoverer had died, waits until somebody comes.
  for (Host& host : hosts_) {
    if (host.life && host.life->ended) bury(host);
    if (!host.life) mount(host);
  }
  co_await outside_->close();
}

void Simulation::strike() {
  const std::size_t index = random_.below(rates_.only_first ? 1 : hosts_.size());
  Host& host = hosts_[index];
  if (rates_.outages) {
    const bool all_up = std::ranges::all_of(hosts_, [](const Host& one) { return one.life && one.life->up; });
    if (!all_up) return;
    outage_at_flush_ = random_.one_in(2);
    if (!outage_at_flush_) everything_loses_power();
    return;
  }
  if (rates_.holds) return hold_commands(index);
  if (rates_.late_heartbeats) return answer_heartbeats_late(index);
  if (rates_.restarts && random_.one_in(3)) return target_loses_power();
  if (rates_.silences && later_random_.one_in(4)) return silence_device();
  const std::uint64_t choice = random_.below(12);
  if (choice == 0 && rates_.power_cuts) return cut_power();
  if (!host.life || host.life->ended) return;
  if (choice <= 3 && rates_.crashes) {
    host.requests_to_crash = 1 + random_.below(kRequestsToCrash);
  } else if (choice <= 6 && rates_.pauses) {
    pause(index);
  } else if (choice <= 9 && rates_.cut_paths) {
    cut_path(index);
  } else if (choice == 10 && rates_.unmounts) {
    unmount(host);
  }
}

void Simulation::crash(Host& host) {
  ++counts_["fault: node crashed"];
  if (!host.life->up) ++counts_["fault: node crashed while mounting or unmounting"];
  host.requests_to_crash = 0;
  host.life->node.log().note("--- crashes");
  host.life->node.crash();
  watch_->node_crashes(host.name);
  if (host.paused) loop_.resume(host.life->node.executor());
  host.paused = false;
  const auto index = static_cast<std::size_t>(&host - hosts_.data());
  std::erase_if(resumes_, [&](const Planned& planned) { return planned.host == index; });
  bury(host);
  host.back_at = loop_.now() + between(random_, 100ms, rates_.longest_absence);
  if (random_.one_in(2)) ++host.boot;  // the host, not only the daemon
}

Duration Simulation::quiet_time(bool beyond) {
  if (rates_.near_dead_time) return between(random_, kNearDeadTimeLeast, kNearDeadTimeMost);
  return beyond ? between(random_, kLongerThanDeadTime, kLongest) : between(random_, kShortest, kShorterThanDeadTime);
}

void Simulation::pause(std::size_t index) {
  Host& host = hosts_[index];
  if (host.paused || (rates_.one_at_a_time && std::ranges::any_of(hosts_, &Host::paused))) return;
  const bool beyond = rates_.one_at_a_time || random_.one_in(2);
  ++counts_[beyond ? "fault: pause longer than the dead-time" : "fault: pause shorter than the dead-time"];
  const Duration length = quiet_time(beyond);
  host.paused = true;
  host.life->node.log().note("--- stands still");
  loop_.pause(host.life->node.executor());
  watch_->disturbed(host.name);
  resumes_.push_back({loop_.now() + length, index});
}

void Simulation::cut_path(std::size_t index) {
  Host& host = hosts_[index];
  if (host.cut || (rates_.one_at_a_time && std::ranges::any_of(hosts_, &Host::cut))) return;
  const bool beyond = rates_.one_at_a_time || random_.one_in(2);
  ++counts_[beyond ? "fault: path cut longer than the dead-time" : "fault: path cut shorter than the dead-time"];
  const Duration length = quiet_time(beyond);
  host.cut = true;
  host.life->node.log().note("--- its path is cut");
  lun_.cut_path(host.name);
  watch_->disturbed(host.name);
  heals_.push_back({loop_.now() + length, index});
}

void Simulation::unmount(Host& host) {
  if (!host.life->up) return;
  ++counts_["fault: node unmounts"];
  host.life->node.log().note("--- unmounts");
  for (const auto& client : host.life->clients) client->stop();
}

// Of the target alone, now or when the next flush reaches it, or of all hosts too.
void Simulation::cut_power() {
  if (random_.one_in(2)) {
    power_cut_at_flush_ = later_random_.one_in(2);
    if (!power_cut_at_flush_) target_loses_power();
    return;
  }
  everything_loses_power();
}

void Simulation::everything_loses_power() {
  ++counts_["fault: everything loses power"];
  for (Host& host : hosts_) {
    if (host.life && !host.life->ended) crash(host);
  }
  lun_.power_cut();
  disturb_all();
}

// They reach the target, but the node hears of each later than its lease is long. When it has its lease back all the
// same, or after a while, its path is cut.
void Simulation::answer_heartbeats_late(std::size_t index) {
  Host& host = hosts_[index];
  const bool others = std::ranges::any_of(hosts_, [](const Host& one) { return one.late || one.cut; });
  if (!host.life || !host.life->up || others) return;
  ++counts_["fault: heartbeats answered late"];
  host.late = true;
  host.returns_before = host.life->node.lease_returns();
  host.life->node.log().note("--- its heartbeats are answered late");
  watch_->disturbed(host.name);
  late_cuts_.push_back({loop_.now() + between(random_, kLateLeast, kLateMost), index});
}

void Simulation::target_loses_power() {
  ++counts_["fault: target loses power"];
  const bool silent = later_random_.one_in(2);
  if (silent) ++counts_["fault: power cut without unit attention"];
  lun_.power_cut(silent ? PowerCut::kWithoutAttention : PowerCut::kWithAttention);
  disturb_all();
}

Task<void> Simulation::reset_lun() {
  ++counts_["fault: LUN reset from outside"];
  disturb_all();
  co_await outside_->reset_lun();
}

void Simulation::disturb_all() {
  for (const Host& host : hosts_) watch_->disturbed(host.name);
}

void Simulation::hold_commands(std::size_t index) {
  Host& host = hosts_[index];
  if (!host.life || !host.life->up || std::ranges::any_of(hosts_, &Host::held)) return;
  ++counts_["fault: commands held on their way"];
  host.held = true;
  host.life->node.log().note("--- what it sends stays on its way");
  lun_.hold(host.name);
  watch_->disturbed(host.name);
  lets_go_.push_back({loop_.now() + quiet_time(true), index});
}

// Storage that answers nobody is no reason to fence anybody, however long it takes, nor is it when it has answered one
// host for a while.
void Simulation::silence_device() {
  if (silence_) return;
  const bool beyond = later_random_.one_in(2);
  ++counts_[beyond ? "fault: device silent for longer than the dead-time" : "fault: device silent for a moment"];
  const Duration length = beyond ? between(later_random_, kLongerThanDeadTime, kLongest)
                                 : between(later_random_, kShortestSilence, kShorterThanDeadTime);
  silence_ = Silence{.since = loop_.now(), .ends = {}};
  for (std::size_t i = 0; i < hosts_.size(); ++i) {
    lun_.hold(hosts_[i].name);
    silence_->ends.push_back({loop_.now() + length + between(later_random_, 0ms, kUnevenAtMost), i});
  }
}

void Simulation::end_silence(Time until) {
  if (!silence_) return;
  std::erase_if(silence_->ends, [&](const Planned& planned) {
    if (planned.when > until) return false;
    const Host& host = hosts_[planned.host];
    if (host.life) host.life->node.log().note("--- the device, which was silent, answers");
    lun_.let_go(host.name);
    return true;
  });
  if (!silence_->ends.empty()) return;
  watch_->stood_still(loop_.now() - silence_->since);
  silence_.reset();
}

// The worst moment for what is on its way to arrive: the key of its node has just been taken away.
void Simulation::let_go_if_preempted() {
  const std::size_t before = std::exchange(keys_, lun_.registered_keys().keys.size());
  if (keys_ >= before) return;
  for (Planned& planned : lets_go_) {
    lun_.let_go(hosts_[planned.host].name);
    planned.when = loop_.now();
  }
}

void Simulation::end_planned(Time until) {
  end_silence(until);
  std::erase_if(late_cuts_, [&](const Planned& planned) {
    Host& host = hosts_[planned.host];
    const bool has_lease = host.life && host.life->node.lease_returns() > host.returns_before;
    if (planned.when > until && !has_lease) return false;
    if (healed_ || !host.life || host.life->ended) {
      host.late = false;
    } else {
      cut_path(planned.host);
    }
    return true;
  });
  std::erase_if(resumes_, [&](const Planned& planned) {
    if (planned.when > until) return false;
    Host& host = hosts_[planned.host];
    host.paused = false;
    watch_->disturbed(host.name);
    if (host.life) host.life->node.log().note("--- goes on");
    if (host.life) loop_.resume(host.life->node.executor());
    return true;
  });
  std::erase_if(lets_go_, [&](const Planned& planned) {
    if (planned.when > until) return false;
    Host& host = hosts_[planned.host];
    host.held = false;
    watch_->disturbed(host.name);
    if (host.life) host.life->node.log().note("--- what it has sent goes on");
    lun_.let_go(host.name);
    return true;
  });
  std::erase_if(heals_, [&](const Planned& planned) {
    if (planned.when > until) return false;
    Host& host = hosts_[planned.host];
    host.cut = false;
    host.late = false;
    watch_->disturbed(host.name);
    if (host.life) host.life->node.log().note("--- its path is back");
    lun_.heal_path(host.name);
    return true;
  });
}

// Without it a fenced node could write.
void Simulation::look_at_reservation() {
  const bool could = !silence_ && std::ranges::any_of(hosts_, [](const Host& one) {
    return one.life && one.life->up && !one.paused && !one.cut;
  });
  if (lun_.is_reserved() || !could) {
    unreserved_since_.reset();
  } else if (!unreserved_since_) {
    unreserved_since_ = loop_.now();
  } else if (loop_.now() - *unreserved_since_ > kUnreservedAtMost) {
    workload_.complain("nobody makes the reservation again");
  }
}

void Simulation::mount_again() {
  for (Host& host : hosts_) {
    if (host.life && host.life->ended) {
      bury(host);
      host.back_at = loop_.now() + between(random_, 50ms, 3s);
    }
    if (!host.life && loop_.now() >= host.back_at) mount(host);
  }
}

SimulatedFate Simulation::fate_of(const SimulatedRequest& request) {
  const auto found = std::ranges::find(hosts_, request.node, &Host::name);
  if (found == hosts_.end() || !found->life || healed_ || !prepared_) return SimulatedFate::kRun;
  if (found->requests_to_crash > 0 && --found->requests_to_crash == 0) {
    const bool runs = random_.one_in(2);
    crash(*found);
    return runs ? SimulatedFate::kRun : SimulatedFate::kNeverReturn;
  }
  if (request.kind == Kind::kFlush && std::exchange(power_cut_at_flush_, false)) {
    ++counts_["fault: target loses power before a flush"];
    target_loses_power();
    return SimulatedFate::kRun;  // it has ended
  }
  if (request.kind == Kind::kFlush && std::exchange(outage_at_flush_, false)) {
    everything_loses_power();
    return SimulatedFate::kRun;
  }
  const std::uint64_t first_beat = geometry_.heartbeat_offset(SlotNo{0});
  const bool beat = request.kind == Kind::kWrite && request.offset >= first_beat &&
                    request.offset < first_beat + std::uint64_t{geometry_.slots} * kBlockSize;
  if (beat && found->late) return SimulatedFate::kLateReply;
  const bool caw = request.kind == Kind::kCaw;
  const bool lock_of_group = caw && request.offset >= geometry_.first_group.offset_bytes();
  if (lock_of_group && rates_.medium_caws != 0 && later_random_.one_in(rates_.medium_caws)) {
    ++counts_["fault: CAW ended with a medium error"];
    return SimulatedFate::kMediumError;
  }
  if (caw && rates_.odd_caws != 0 && later_random_.one_in(rates_.odd_caws)) {
    const bool twice = later_random_.one_in(2);
    ++counts_[twice ? "fault: CAW ran twice" : "fault: CAW miscompared with nothing"];
    return twice ? SimulatedFate::kRunTwice : SimulatedFate::kMiscompare;
  }
  const std::uint64_t rate = caw ? rates_.lost_caws : rates_.lost_others;
  if (rate == 0 || request.kind == Kind::kReset) return SimulatedFate::kRun;
  const std::uint64_t choice = random_.below(rate);
  if (choice > 1) return SimulatedFate::kRun;
  ++counts_[choice == 0 ? (caw ? "fault: CAW ran, reply lost" : "fault: command ran, reply lost")
                        : (caw ? "fault: CAW lost" : "fault: command lost")];
  if (!caw) watch_->disturbed(found->name);
  return choice == 0 ? SimulatedFate::kLoseReply : SimulatedFate::kLoseRequest;
}

}  // namespace cawfs::sim
