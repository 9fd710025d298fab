#include "core/device/simulated_target.h"

#include <algorithm>

#include "core/base/assert.h"

namespace cawfs {
namespace {

bool is_refusal(Errc code) {
  return code == Errc::kReservationConflict || code == Errc::kUnitAttentionReset ||
         code == Errc::kUnitAttentionReservations;
}

constexpr std::uint64_t kAllSequences = ~std::uint64_t{0};

std::unexpected<Error> failed(Errc code, const SimulatedCommand& command) {
  return fail(code, "simulated LUN", command.request.offset);
}

}  // namespace

SimulatedTarget::SimulatedTarget(const Clock& clock, Random& random, SimulatedLunOptions options)
    : clock_(clock),
      random_(random),
      options_(options),
      medium_(random, options.logical_block, options.volatile_cache) {
  CAWFS_ASSERT(options.size_bytes % options.logical_block == 0);
  CAWFS_ASSERT(options.latency_min <= options.latency_max);
}

Duration SimulatedTarget::random_duration(Duration bound) {
  if (bound <= Duration::zero()) return Duration::zero();
  return Duration(static_cast<std::int64_t>(random_.below(static_cast<std::uint64_t>(bound.count()) + 1)));
}

bool SimulatedTarget::writes(Kind kind) const {
  return kind == Kind::kWrite || kind == Kind::kFlush || kind == Kind::kUnmap || kind == Kind::kZero ||
         kind == Kind::kCaw;
}

bool SimulatedTarget::may_stall(const SimulatedRequest& request) const {
  if (options_.stall_one_in == 0 || !stall_from_) return options_.stall_one_in > 0;
  return request.kind == Kind::kWrite && request.offset >= *stall_from_;
}

// The order of the checks is SAM-5's: the path, a pending unit attention, the reservation, the command itself.
std::optional<Errc> SimulatedTarget::refusal(const SimulatedCommand& command) {
  const Kind kind = command.request.kind;
  Nexus& nexus = nexuses_[command.request.node];
  if (nexus.path_cut || command.sent_on != nexus.session) return Errc::kTransport;
  if (command.session && *command.session != nexus.session) return Errc::kTransport;
  if (kind == Kind::kReset) return std::nullopt;
  if (std::exchange(nexus.attention_reset, false)) return Errc::kUnitAttentionReset;
  if (std::exchange(nexus.attention_reservations, false)) return Errc::kUnitAttentionReservations;
  if (writes(kind) && !reservations_.may_write(command.request.node)) return Errc::kReservationConflict;
  if (writes(kind) && kind != Kind::kFlush && options_.write_protected) return Errc::kReadOnly;
  if (kind == Kind::kCaw && !options_.compare_and_write) return Errc::kUnsupported;
  if (kind == Kind::kReservation && !options_.reservations) return Errc::kUnsupported;

  const auto& [offset, length] = std::pair(command.request.offset, command.request.length);
  const std::uint64_t block = options_.logical_block;
  if (offset % block != 0 || length % block != 0 || offset > options_.size_bytes ||
      length > options_.size_bytes - offset) {
    return Errc::kBounds;
  }
  return std::nullopt;
}

void SimulatedTarget::accept(const Command& command) {
  advance();
  const Nexus& nexus = nexuses_[command->request.node];
  command->sent_on = nexus.session;
  command->held = nexus.holds;
  if (command->held) {
    held_.push_back(command);
  } else {
    arrive(command);
  }
}

void SimulatedTarget::arrive(const Command& command) {
  command->sequence = ++sequence_;
  const Duration latency = options_.latency_min + random_duration(options_.latency_max - options_.latency_min);
  command->lands = now() + random_duration(latency);
  command->answered = now() + latency;
  if (auto refused = refusal(*command)) {
    if (command->request.kind == Kind::kCaw && is_refusal(*refused)) ++refused_caws_;
    const bool by_reservation = *refused == Errc::kReservationConflict || *refused == Errc::kUnitAttentionReservations;
    if (command->request.kind == Kind::kCaw && by_reservation) ++caws_not_admitted_;
    end(*command, failed(*refused, *command));
    return;
  }
  if (may_stall(command->request) && random_.one_in(options_.stall_one_in)) {
    command->lands = now() + random_duration(options_.stall_max);
  }
  if (command->request.kind == Kind::kReset) begin_reset(*command);
  pending_.emplace(Key{command->lands, command->sequence}, command);
}

void SimulatedTarget::advance() {
  if (advancing_) return;  // a hook looks at the LUN
  advancing_ = true;
  while (!pending_.empty() && pending_.begin()->first.first <= now()) {
    const Command command = pending_.begin()->second;
    land(command);
  }
  advancing_ = false;
}

void SimulatedTarget::end(SimulatedCommand& command, Result<> outcome) {
  pending_.erase(Key{command.lands, command.sequence});
  command.ended = true;
  command.answered = std::max(command.answered, std::min(command.lands, now()));
  command.outcome = command.lost ? Result<>(failed(*command.lost, command)) : outcome;
}

void SimulatedTarget::postpone(const Command& command, Time until) {
  auto node = pending_.extract(Key{command->lands, command->sequence});
  CAWFS_ASSERT(!node.empty());
  command->lands = until;
  node.key().first = until;
  pending_.insert(std::move(node));
}

std::vector<SimulatedTarget::Command> SimulatedTarget::in_flight(const std::optional<std::string>& nexus,
                                                                 std::uint64_t sequence) const {
  std::vector<Command> commands;
  for (const auto& [key, command] : pending_) {
    const SimulatedRequest& request = command->request;
    const bool concerned = !nexus || request.node == *nexus;
    if (concerned && command->sequence < sequence && request.kind != Kind::kReset) commands.push_back(command);
  }
  return commands;
}

void SimulatedTarget::land(const Command& command) {
  if (command->request.kind == Kind::kReset) {
    const auto older = in_flight(command->evicted, command->sequence);
    if (!older.empty()) {
      postpone(command, older.back()->lands + Duration(1));
      return;
    }
  }
  const SimulatedFate fate = hook_ ? hook_(command->request) : SimulatedFate::kRun;
  if (command->ended) return;  // the hook has cut the power, or the path
  switch (fate) {
    case SimulatedFate::kLateReply:
      command->answered = now() + options_.late_min + random_duration(options_.late_max - options_.late_min);
      return end(*command, run(*command));
    case SimulatedFate::kLoseReply:
      command->lost = Errc::kTransport;
      [[fallthrough]];
    case SimulatedFate::kRun: {
      ++executed_.at(static_cast<std::size_t>(command->request.kind));
      const Result<> outcome = run(*command);
      end(*command, outcome);
      return;
    }
    case SimulatedFate::kRunTwice: {
      const Result<> first = run(*command);
      end(*command, first ? run(*command) : first);
      return;
    }
    case SimulatedFate::kMiscompare:
      return end(*command, failed(Errc::kMiscompare, *command));
    case SimulatedFate::kNeverReturn:
      command->never_answered = true;
      [[fallthrough]];
    case SimulatedFate::kLoseRequest:
      return end(*command, failed(Errc::kTransport, *command));
    case SimulatedFate::kMediumError:
      return end(*command, failed(Errc::kMedium, *command));
    case SimulatedFate::kThinFull:
      return end(*command, failed(Errc::kThinFull, *command));
  }
}

Result<> SimulatedTarget::run(SimulatedCommand& command) {
  const Result<> outcome = execute(command);
  if (observer_) observer_(command.request, outcome);
  return outcome;
}

Result<> SimulatedTarget::execute(SimulatedCommand& command) {
  const SimulatedRequest& request = command.request;
  switch (request.kind) {
    case Kind::kRead:
      medium_.read(request.offset, command.data);
      return {};
    case Kind::kWrite:
      medium_.write(request.offset, command.data, command.durable);
      return {};
    case Kind::kFlush:
      medium_.flush();
      return {};
    case Kind::kUnmap:
      medium_.unmap(request.offset, request.length);
      return {};
    case Kind::kZero:
      medium_.write_zeroes(request.offset, request.length);
      return {};
    case Kind::kCaw:
      return run_compare_and_write(command);
    case Kind::kReservation:
      return run_reservation(command);
    case Kind::kReset:
      end_reset(command);
      return {};
  }
  return failed(Errc::kUnsupported, command);
}

Result<> SimulatedTarget::run_compare_and_write(SimulatedCommand& command) {
  std::vector<std::byte> present(options_.logical_block);
  medium_.read(command.request.offset, present);
  if (present != command.expected) return failed(Errc::kMiscompare, command);
  medium_.write(command.request.offset, command.data, true);
  return {};
}

Result<> SimulatedTarget::run_reservation(SimulatedCommand& command) {
  auto attentions = command.action(reservations_);
  if (!attentions) return fail(attentions.error());
  for (const auto& [nexus, attention] : *attentions) {
    nexuses_[nexus].attention_reservations = true;
    if (attention == ReservationAttention::kRegistrationsPreempted) abort_commands(nexus, command.sequence);
  }
  return {};
}

// PREEMPT AND ABORT is not a fence: some commands stay in the backend and land later.
void SimulatedTarget::abort_commands(const std::string& victim, std::uint64_t sequence) {
  for (const Command& command : in_flight(victim, sequence)) {
    command->lost = Errc::kTransport;
    if (random_.one_in(2)) {
      end(*command, failed(Errc::kTransport, *command));
    } else {
      postpone(command, command->lands + random_duration(options_.straggler_max));
    }
  }
}

void SimulatedTarget::begin_reset(const SimulatedCommand& reset) {
  for (const Command& command : in_flight(reset.evicted, reset.sequence)) {
    command->lost = random_.one_in(2) ? Errc::kTransport : Errc::kUnitAttentionReset;
    if (random_.one_in(2)) end(*command, failed(*command->lost, *command));
  }
  if (!reset.evicted) return;
  // The connection goes at once; the login is answered when its commands have ended.
  Nexus& nexus = nexuses_[*reset.evicted];
  nexus.attention_reset = true;
  ++nexus.session;
}

void SimulatedTarget::end_reset(const SimulatedCommand& reset) {
  if (reset.evicted) return;
  for (auto& [name, nexus] : nexuses_) nexus.attention_reset = true;
}

// Session reinstatement.
void SimulatedTarget::log_in(const std::string& nexus) {
  advance();
  if (options_.sessions) ++nexuses_[nexus].session;
  land_or_end(nexus);
}

void SimulatedTarget::land_or_end(const std::string& nexus) {
  for (const Command& command : in_flight(nexus, kAllSequences)) {
    command->lost = Errc::kTransport;
    const Result<> outcome = random_.one_in(2) ? run(*command) : Result<>(failed(Errc::kTransport, *command));
    end(*command, outcome);
  }
}

std::uint64_t SimulatedTarget::session(const std::string& name) {
  Nexus& nexus = nexuses_[name];
  if (!nexus.path_cut) nexus.known_session = nexus.session;
  return nexus.known_session;
}

void SimulatedTarget::power_cut(PowerCut kind) {
  CAWFS_ASSERT(kind == PowerCut::kWithAttention || options_.sessions);
  advance();
  const std::map<Key, Command> lost = pending_;
  for (const auto& [key, command] : lost) {
    if (command->request.kind == Kind::kWrite) medium_.write_torn(command->request.offset, command->data);
    if (command->request.kind == Kind::kCaw && random_.one_in(2)) command->outcome = run(*command);
    end(*command, failed(Errc::kTransport, *command));
  }
  medium_.power_cut();
  reservations_.power_loss();
  for (auto& [name, nexus] : nexuses_) {
    nexus.attention_reset = kind == PowerCut::kWithAttention;
    nexus.attention_reservations = false;
    if (options_.sessions) ++nexus.session;
  }
}

void SimulatedTarget::hold(const std::string& nexus) {
  nexuses_[nexus].holds = true;
}

void SimulatedTarget::let_go(const std::string& nexus) {
  advance();
  nexuses_[nexus].holds = false;
  for (const Command& command : held_) {
    if (command->request.node != nexus) continue;
    command->held = false;
    arrive(command);
  }
  std::erase_if(held_, [](const Command& command) { return !command->held; });
}

void SimulatedTarget::cut_path(const std::string& nexus) {
  advance();
  nexuses_[nexus].path_cut = true;
  for (const Command& command : in_flight(nexus, kAllSequences)) {
    command->lost = Errc::kTransport;
    if (random_.one_in(2)) end(*command, failed(Errc::kTransport, *command));
  }
}

void SimulatedTarget::heal_path(const std::string& nexus) {
  advance();
  nexuses_[nexus].path_cut = false;
  if (!options_.sessions) land_or_end(nexus);  // an initiator without sessions aborts what it has lost
}

std::uint64_t SimulatedTarget::executed(Kind kind) {
  advance();
  return executed_.at(static_cast<std::size_t>(kind));
}

RegisteredKeys SimulatedTarget::registered_keys() {
  advance();
  return reservations_.read_keys();
}

bool SimulatedTarget::is_reserved() {
  advance();
  return reservations_.read_reservation().type != ReservationType::kNone;
}

SimulatedMedium& SimulatedTarget::medium() {
  advance();
  return medium_;
}

}  // namespace cawfs
