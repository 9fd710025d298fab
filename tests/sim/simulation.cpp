#include "tests/sim/simulation.h"

#include <algorithm>
#include <map>

#include "core/format/make_file_system.h"
#include "core/format/superblock_io.h"
#include "utils/fsck/fsck.h"

namespace cawfs::sim {

using namespace std::chrono_literals;

namespace {

constexpr std::uint64_t kLunBytes = 64 << 20;
constexpr unsigned kClients = 2;                 // of each node
constexpr std::uint64_t kStepsAtOnce = 200'000;  // so many in no time at all are an endless loop
constexpr Duration kPatience = 90s;              // with everything healed, all ends by then

std::string text_of(const Error& error) {
  return fmt::format("{} ({}, {})", cawfs::describe(error.code), error.where, error.address);
}

}  // namespace

Simulation::Life::Life(Simulation& sim, Run number, const Host& host, std::uint64_t seed)
    : run(number), node(sim.loop_, sim.lun_, host.name, host.boot, host.clock_percent, seed), tasks(node.executor()) {
  const Profile* profile = sim.options_.profile;
  if (profile != nullptr && profile->forgets_power) node.accept_no_aptpl();
}

Simulation::Simulation(SimulationOptions options)
    : options_(options),
      random_(options.seed),
      later_random_(~options.seed),
      rates_(choose_faults(random_, options)),
      lun_(loop_.clock(), random_, lun_options(random_, rates_, options.profile)),
      director_(loop_.add_executor()),
      director_tasks_(director_) {
  workload_.medium_errors = rates_.medium_caws != 0;
  if (options.profile != nullptr) workload_.mix = options.profile->mix;
  format();
  if (rates_.only_writes_stall) lun_.stall_writes_from(geometry_.first_group.offset_bytes());
  watch_ = std::make_unique<LunWatch>(loop_, lun_, geometry_);
  watch_->judge_fences(rates_.stalls == 0);
  watch_->on_fenced([this](Run run) { workload_.history.fenced(run); });
  for (unsigned i = 0; i < options_.nodes; ++i) {
    hosts_.emplace_back();
    hosts_.back().name = fmt::format("n{}", i);
    if (!rates_.clock_drift) continue;
    hosts_.back().clock_percent = 90 + static_cast<int>(later_random_.below(21));
    ++counts_["fault: clock drifts"];
  }
}

SimulatedLunOptions Simulation::lun_options(Random& random, const FaultRates& rates, const Profile* profile) {
  SimulatedLunOptions options;
  options.size_bytes = profile != nullptr ? profile->lun_bytes : kLunBytes;
  options.logical_block = random.one_in(2) ? 512 : 4096;
  if (profile != nullptr && profile->logical_block != 0) options.logical_block = profile->logical_block;
  options.volatile_cache = !random.one_in(4);
  options.sessions = profile == nullptr || profile->sessions;
  options.stall_one_in = rates.stalls;
  options.stall_max = rates.longest_stall;
  options.persist_reservations = profile == nullptr || !profile->forgets_power;
  options.straggler_max = 1s;
  return options;
}

// For ever: what runs in them has not ended.
std::vector<std::unique_ptr<Simulation::Life>>& Simulation::graveyard() {
  static auto& lives = *new std::vector<std::unique_ptr<Life>>;
  return lives;
}

void Simulation::format() {
  auto device = lun_.connect(director_, "mkfs");
  MakeOptions make;
  make.slots = std::max(options_.nodes, 2U);
  make.journal_blocks = 256;
  make.dead_time_ms = 2'000;
  make.discard = false;
  const auto made = loop_.run(director_, make_file_system(*device, random_, make));
  CAWFS_ASSERT(made.has_value());
  geometry_ = make_geometry(*made);
  loop_.run(director_, device->close());
}

// ---- a host's life ----

void Simulation::mount(Host& host) {
  host.life = std::make_unique<Life>(*this, ++last_run_, host, random_.next());
  watch_->node_starts(host.name, last_run_);
  host.life->node.log().note(fmt::format("--- run {}", last_run_));
  host.life->tasks.spawn(live(*host.life));
}

Task<void> Simulation::live(Life& life) {
  auto started = co_await life.node.start();
  if (started) {
    life.up = true;
    ++counts_["node mounted"];
    if (last_mount_) {
      co_await last_words(life);
    } else {
      co_await work(life);
    }
  } else if (started.error() == Errc::kFenced || started.error() == Errc::kNameInUse || may_be(started.error())) {
    ++counts_["mount failed"];
  } else if (!start_error_) {
    start_error_ = fmt::format("{} cannot mount: {}", life.node.name(), text_of(started.error()));
  }
  life.up = false;
  const bool out = life.node.withdrawn();
  auto stopped = co_await life.node.stop();
  if (started && !stopped && !out && !life.node.withdrawn() && !may_be(stopped.error())) {
    workload_.complain(fmt::format("{} cannot unmount: {}", life.node.name(), text_of(stopped.error())));
  }
  if (started) ++counts_[out ? "node withdrew" : "node unmounted"];
  life.ended = true;
}

Task<void> Simulation::work(Life& life) {
  if (!prepared_) {
    auto done = co_await prepare(life.node.fs(), workload_);
    if (!done) workload_.complain("prepare: " + text_of(done.error()));
    prepared_ = true;
  }
  if (workload_.mix == Mix::kHot && life.node.name() == hosts_[0].name) workload_.readers.insert(life.run);
  TaskGroup group(life.node.executor());
  for (unsigned i = 0; i < kClients; ++i) {
    life.clients.push_back(std::make_unique<Client>(workload_, life.node.fs(), life.node.executor(), life.run,
                                                    options_.seed * 1'000'003 + life.run * kClients + i));
    group.spawn(life.clients.back()->run());
  }
  co_await group.join();
  // Others may wait for this node to give them their slots back.
  while (healed_ && !life.node.withdrawn() && !watch_->none_recovering()) {
    co_await life.node.executor().sleep(50ms);
  }
}

// Once all the others' slots have been recovered.
Task<void> Simulation::last_words(Life& life) {
  while (!watch_->all_clean_but(life.node.self().slot)) co_await life.node.executor().sleep(50ms);
  life.clients.push_back(
      std::make_unique<Client>(workload_, life.node.fs(), life.node.executor(), life.run, options_.seed));
  co_await life.clients.back()->read_all();
  if (life.clients.back()->failed()) workload_.complain("the last mount failed its reader");
}

void Simulation::bury(Host& host) {
  graveyard().push_back(std::move(host.life));
  ++buried_;
}

// ---- the whole ----

bool Simulation::run_to(Duration limit, const std::function<bool()>& done) {
  const Time end = loop_.now() + limit;
  Time last;
  std::uint64_t steps = 0;
  loop_.run_until([&] {
    steps = loop_.now() == last ? steps + 1 : 0;
    last = loop_.now();
    return in_trouble() || done() || last >= end || steps == kStepsAtOnce;
  });
  if (steps == kStepsAtOnce) workload_.complain("somebody runs on without ever waiting");
  return done();
}

SimulationResult Simulation::run() {
  SimulationResult result;
  result.failure = run_all();
  lun_.set_hook({});
  lun_.set_observer({});
  gather_counts();
  result.trace_hash = watch_->trace_hash();
  result.simulated = loop_.now().since_boot;
  result.counts = std::move(counts_);
  // What a failed run leaves is in the middle of something.
  for (Host& host : hosts_) {
    if (!host.life) continue;
    if (!host.life->ended) host.life->node.crash();
    bury(host);
  }
  if (result.failure) director_.kill();
  return result;
}

std::optional<std::string> Simulation::run_all() {
  lun_.set_hook([this](const SimulatedRequest& request) {
    const SimulatedFate fate = fate_of(request);
    watch_->before(request, fate);
    return fate;
  });
  lun_.set_observer([this](const SimulatedRequest& request, const Result<>& done) {
    watch_->after(request, done);
    if (request.kind == SimulatedRequest::Kind::kReservation) let_go_if_preempted();
  });
  mount(hosts_[0]);
  if (!run_to(kPatience, [this] { return prepared_; })) return failure("the first mount hangs");
  for (std::size_t i = 1; i < hosts_.size(); ++i) mount(hosts_[i]);

  director_tasks_.spawn(direct());
  const auto all_down = [this] {
    return director_tasks_.running() == 0 &&
           std::ranges::all_of(hosts_, [](const Host& host) { return !host.life || host.life->ended; });
  };
  if (!run_to(options_.busy_time + kPatience, all_down)) return failure("somebody hangs");

  last_mount_ = true;
  for (Host& host : hosts_) {
    if (host.life) bury(host);
  }
  mount(hosts_[0]);
  if (!run_to(kPatience, [this] { return hosts_[0].life->ended; })) return failure("the last mount hangs");
  if (in_trouble()) return failure("");
  if (!watch_->all_clean()) return failure("a slot is left in use");
  if (judges_caws() && lun_.caws_not_admitted() > 0) return failure("a COMPARE AND WRITE was refused");
  if (auto found = fsck()) return failure("fsck: " + *found);
  if (auto wrong = workload_.history.check()) return failure("history: " + *wrong);
  return std::nullopt;
}

std::optional<std::string> Simulation::fsck() {
  auto device = lun_.connect(director_, "fsck");
  const auto report = loop_.run(director_, check_file_system(director_, *device, FsckOptions{}));
  loop_.run(director_, device->close());
  if (!report) return text_of(report.error());
  if (report->clean()) return std::nullopt;
  return report->text();
}

// ---- reports ----

std::string Simulation::hanging() const {
  std::string text;
  for (const Host& host : hosts_) {
    if (!host.life || host.life->ended) continue;
    text += fmt::format("{}: {}{}{}", host.name, host.life->up ? "up" : "mounting or unmounting",
                        host.paused ? ", paused" : "", host.cut ? ", path cut" : "");
    for (const auto& client : host.life->clients) {
      text += fmt::format(", {} since {:.4f}", client->doing(),
                          std::chrono::duration<double>(client->since().since_boot).count());
    }
    text += "\n";
  }
  return text;
}

std::optional<std::string> Simulation::failure(const std::string& what) const {
  std::string text = what;
  if (watch_->trouble()) text = *watch_->trouble();
  if (workload_.trouble) text = *workload_.trouble;
  if (start_error_) text = *start_error_;
  text += fmt::format("\nat {:.4f}; to see it again: cluster_sim --seed {} --nodes {}{}\n",
                      std::chrono::duration<double>(loop_.now().since_boot).count(), options_.seed, options_.nodes,
                      options_.profile ? fmt::format(" --profile {}", options_.profile->name) : std::string());
  text += hanging();
  std::multimap<std::string, std::string> lines;  // by time
  const auto take = [&](const Life& life) {
    for (const std::string& line : life.node.log().lines()) lines.emplace(line.substr(0, 9), line);
  };
  const auto& lives = graveyard();
  for (std::size_t i = lives.size() - buried_; i < lives.size(); ++i) take(*lives[i]);
  for (const Host& host : hosts_) {
    if (host.life) take(*host.life);
  }
  for (const auto& [time, line] : lines) text += line + "\n";
  return text;
}

void Simulation::gather_counts() {
  add(counts_, workload_.counts);
  add(counts_, watch_->counts());
  counts_["operations"] = workload_.history.calls();
  counts_["changes that a fence may have undone"] = workload_.history.lost_writes();
  const auto& lives = graveyard();
  const auto count = [&](const Life& life) {
    counts_["self-lease lapsed"] += life.node.lapses();
    counts_["suspect lived after all"] += life.node.log().count("lives after all");
  };
  for (std::size_t i = lives.size() - buried_; i < lives.size(); ++i) count(*lives[i]);
  for (const Host& host : hosts_) {
    if (host.life) count(*host.life);
  }
}

}  // namespace cawfs::sim
