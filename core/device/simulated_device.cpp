#include "core/device/simulated_device.h"

#include <algorithm>
#include <coroutine>
#include <utility>
#include <vector>

#include "core/base/assert.h"
#include "core/device/simulated_target.h"
#include "core/runtime/sync.h"

namespace cawfs {
namespace {

using Kind = SimulatedRequest::Kind;
using Command = SimulatedTarget::Command;
using Attentions = ReservationTable::Attentions;
using namespace std::chrono_literals;

constexpr Duration kLookAfterHeld = 10ms;

// Never goes on. The frames stay reachable for leak checkers.
struct Unanswered {
  std::vector<std::coroutine_handle<>>& all;
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) const { all.push_back(handle); }
  void await_resume() const noexcept {}
};

// One nexus. Keeps the target alive, so that a killed node's device may outlive the LUN.
class SimulatedDevice final : public BlockDevice {
 public:
  SimulatedDevice(std::shared_ptr<SimulatedTarget> target, Executor& executor, std::string nexus);

  const DeviceFacts& facts() const override { return facts_; }
  Task<Result<>> read(std::uint64_t offset, std::span<std::byte> out) override;
  Task<Result<>> write(std::uint64_t offset, std::span<const std::byte> data, Durability durability) override;
  Task<Result<>> flush() override;
  Task<Result<>> unmap(std::uint64_t offset, std::uint64_t length) override;
  Task<Result<>> write_zeroes(std::uint64_t offset, std::uint64_t length) override;
  Task<Result<>> compare_and_write(std::uint64_t offset, std::span<const std::byte> expected,
                                   std::span<const std::byte> data) override;
  std::uint64_t session() const override { return target_->session(nexus_); }
  void admit(std::uint64_t session) override { admitted_ = session; }
  void bind(std::uint64_t session) override { bound_ = session; }
  Task<Result<>> pr_register(PrKey current, PrKey key, Aptpl aptpl) override;
  Task<Result<>> pr_register_ignore(PrKey key, Aptpl aptpl) override;
  Task<Result<>> pr_reserve(PrKey key, ReservationType type) override;
  Task<Result<>> pr_release(PrKey key, ReservationType type) override;
  Task<Result<>> pr_clear(PrKey key) override;
  Task<Result<>> pr_preempt_and_abort(PrKey key, PrKey victim, ReservationType type) override;
  Task<Result<RegisteredKeys>> pr_read_keys() override;
  Task<Result<std::vector<Registrant>>> pr_read_full_status() override;
  Task<Result<ReservationState>> pr_read_reservation() override;
  Task<Result<ReservationCapabilities>> pr_report_capabilities() override;
  Task<Result<>> reset_lun() override;
  Task<Result<>> evict(std::string initiator_name, std::uint64_t isid) override;
  Task<void> close() override;

 private:
  Command command(Kind kind, std::uint64_t offset = 0, std::uint64_t length = 0) const;
  template <class Action>
  Command reservation(Action action) const;
  // Sends the command and waits for its answer.
  Task<Result<>> perform(Command command);
  bool refuses(Aptpl aptpl) const { return aptpl == Aptpl::kYes && !target_->options().persist_reservations; }
  bool refuses(ReservationType type) const {
    return type == ReservationType::kWriteExclusiveAllRegistrants && !target_->options().all_registrants;
  }

  std::shared_ptr<SimulatedTarget> target_;
  Executor& executor_;
  std::string nexus_;
  DeviceFacts facts_;
  std::uint64_t admitted_;
  std::optional<std::uint64_t> bound_;
  std::size_t in_flight_ = 0;
  Condition idle_;
  std::vector<std::coroutine_handle<>> unanswered_;
};

SimulatedDevice::SimulatedDevice(std::shared_ptr<SimulatedTarget> target, Executor& executor, std::string nexus)
    : target_(std::move(target)), executor_(executor), nexus_(std::move(nexus)), admitted_(session()), idle_(executor) {
  const SimulatedLunOptions& options = target_->options();
  facts_.size_bytes = options.size_bytes;
  facts_.logical_block = options.logical_block;
  facts_.volatile_cache = options.volatile_cache;
  facts_.fua = true;
  facts_.compare_and_write = options.compare_and_write;
  facts_.reservations = options.reservations;
  facts_.write_protected = options.write_protected;
  facts_.unmap_granularity = kBlockSize;
  facts_.identity = "simulated";
  if (options.sessions) facts_.initiator_name = nexus_;
}

Command SimulatedDevice::command(Kind kind, std::uint64_t offset, std::uint64_t length) const {
  auto made = std::make_shared<SimulatedCommand>();
  made->request = {.kind = kind, .node = nexus_, .offset = offset, .length = length};
  const bool changes = kind == Kind::kWrite || kind == Kind::kFlush || kind == Kind::kUnmap || kind == Kind::kZero;
  if (changes) made->session = bound_;
  return made;
}

template <class Action>
Command SimulatedDevice::reservation(Action action) const {
  Command made = command(Kind::kReservation);
  made->action = std::move(action);
  return made;
}

Task<Result<>> SimulatedDevice::perform(Command command) {
  ++in_flight_;
  target_->accept(command);
  while (!command->ended) {
    const Duration wait = command->held ? kLookAfterHeld : command->lands - target_->now();
    co_await executor_.sleep(wait);
    target_->advance();
  }
  if (command->never_answered) co_await Unanswered{unanswered_};
  co_await executor_.sleep(command->answered - target_->now());
  if (--in_flight_ == 0) idle_.notify_all();
  co_return command->outcome;
}

Task<Result<>> SimulatedDevice::read(std::uint64_t offset, std::span<std::byte> out) {
  Command sent = command(Kind::kRead, offset, out.size());
  sent->data.resize(out.size());
  auto done = co_await perform(sent);
  if (done) std::ranges::copy(sent->data, out.begin());
  co_return done;
}

Task<Result<>> SimulatedDevice::write(std::uint64_t offset, std::span<const std::byte> data, Durability durability) {
  Command sent = command(Kind::kWrite, offset, data.size());
  sent->data.assign(data.begin(), data.end());
  sent->durable = durability == Durability::kFua;
  auto done = co_await perform(sent);
  CAWFS_ASSERT(std::ranges::equal(sent->data, data));  // nobody touches a buffer in flight
  co_return done;
}

Task<Result<>> SimulatedDevice::flush() {
  return perform(command(Kind::kFlush));
}

Task<Result<>> SimulatedDevice::unmap(std::uint64_t offset, std::uint64_t length) {
  return perform(command(Kind::kUnmap, offset, length));
}

Task<Result<>> SimulatedDevice::write_zeroes(std::uint64_t offset, std::uint64_t length) {
  return perform(command(Kind::kZero, offset, length));
}

Task<Result<>> SimulatedDevice::compare_and_write(std::uint64_t offset, std::span<const std::byte> expected,
                                                  std::span<const std::byte> data) {
  if (expected.size() != facts_.logical_block || data.size() != facts_.logical_block) {
    co_return fail(Errc::kBounds, "COMPARE AND WRITE", offset);
  }
  Command sent = command(Kind::kCaw, offset, data.size());
  sent->data.assign(data.begin(), data.end());
  sent->expected.assign(expected.begin(), expected.end());
  sent->session = admitted_;
  auto done = co_await perform(sent);
  co_return done;
}

Task<Result<>> SimulatedDevice::pr_register(PrKey current, PrKey key, Aptpl aptpl) {
  const bool refused = refuses(aptpl);
  return perform(reservation([=, nexus = nexus_](ReservationTable& table) -> Result<Attentions> {
    if (refused) return fail(Errc::kUnsupported, "APTPL");
    return table.register_key(nexus, current, key, aptpl);
  }));
}

Task<Result<>> SimulatedDevice::pr_register_ignore(PrKey key, Aptpl aptpl) {
  const bool refused = refuses(aptpl);
  return perform(reservation([=, nexus = nexus_](ReservationTable& table) -> Result<Attentions> {
    if (refused) return fail(Errc::kUnsupported, "APTPL");
    return table.register_ignore(nexus, key, aptpl);
  }));
}

Task<Result<>> SimulatedDevice::pr_reserve(PrKey key, ReservationType type) {
  const bool refused = refuses(type);
  return perform(reservation([=, nexus = nexus_](ReservationTable& table) -> Result<Attentions> {
    if (refused) return fail(Errc::kUnsupported, "reservation type");
    return table.reserve(nexus, key, type);
  }));
}

Task<Result<>> SimulatedDevice::pr_release(PrKey key, ReservationType type) {
  return perform(reservation([=, nexus = nexus_](ReservationTable& table) { return table.release(nexus, key, type); }));
}

Task<Result<>> SimulatedDevice::pr_clear(PrKey key) {
  return perform(reservation([=, nexus = nexus_](ReservationTable& table) { return table.clear(nexus, key); }));
}

Task<Result<>> SimulatedDevice::pr_preempt_and_abort(PrKey key, PrKey victim, ReservationType type) {
  return perform(
      reservation([=, nexus = nexus_](ReservationTable& table) { return table.preempt(nexus, key, victim, type); }));
}

Task<Result<RegisteredKeys>> SimulatedDevice::pr_read_keys() {
  auto keys = std::make_shared<RegisteredKeys>();
  auto done = co_await perform(reservation([keys](ReservationTable& table) -> Result<Attentions> {
    *keys = table.read_keys();
    return Attentions{};
  }));
  if (!done) co_return fail(done.error());
  co_return *keys;
}

Task<Result<std::vector<Registrant>>> SimulatedDevice::pr_read_full_status() {
  if (!target_->options().sessions) co_return fail(Errc::kUnsupported, "READ FULL STATUS");
  auto found = std::make_shared<std::vector<Registrant>>();
  auto done = co_await perform(reservation([found](ReservationTable& table) -> Result<Attentions> {
    *found = table.read_full_status();
    return Attentions{};
  }));
  if (!done) co_return fail(done.error());
  co_return *found;
}

Task<Result<ReservationState>> SimulatedDevice::pr_read_reservation() {
  auto state = std::make_shared<ReservationState>();
  auto done = co_await perform(reservation([state](ReservationTable& table) -> Result<Attentions> {
    *state = table.read_reservation();
    return Attentions{};
  }));
  if (!done) co_return fail(done.error());
  co_return *state;
}

Task<Result<ReservationCapabilities>> SimulatedDevice::pr_report_capabilities() {
  auto done = co_await perform(reservation([](ReservationTable&) -> Result<Attentions> { return Attentions{}; }));
  if (!done) co_return fail(done.error());
  const SimulatedLunOptions& options = target_->options();
  co_return ReservationCapabilities{.persist_through_power_loss = options.persist_reservations,
                                    .all_registrants = options.all_registrants,
                                    .registrants_only = true};
}

Task<Result<>> SimulatedDevice::reset_lun() {
  return perform(command(Kind::kReset));
}

Task<Result<>> SimulatedDevice::evict(std::string initiator_name, std::uint64_t isid) {
  if (!target_->options().sessions) co_return fail(Errc::kUnsupported, "eviction", isid);
  Command sent = command(Kind::kReset);
  sent->evicted = std::move(initiator_name);
  auto done = co_await perform(sent);
  co_return done;
}

Task<void> SimulatedDevice::close() {
  while (in_flight_ > 0) co_await idle_.wait();
}

}  // namespace

SimulatedLun::SimulatedLun(const Clock& clock, Random& random, SimulatedLunOptions options)
    : target_(std::make_shared<SimulatedTarget>(clock, random, options)) {}

SimulatedLun::~SimulatedLun() = default;

std::unique_ptr<BlockDevice> SimulatedLun::connect(Executor& executor, std::string node) {
  target_->log_in(node);
  return std::make_unique<SimulatedDevice>(target_, executor, std::move(node));
}

void SimulatedLun::set_hook(std::function<SimulatedFate(const SimulatedRequest&)> hook) {
  target_->set_hook(std::move(hook));
}

void SimulatedLun::set_observer(std::function<void(const SimulatedRequest&, const Result<>&)> observer) {
  target_->set_observer(std::move(observer));
}

void SimulatedLun::power_cut(PowerCut kind) {
  target_->power_cut(kind);
}

void SimulatedLun::cut_path(const std::string& node) {
  target_->cut_path(node);
}

void SimulatedLun::heal_path(const std::string& node) {
  target_->heal_path(node);
}

void SimulatedLun::hold(const std::string& node) {
  target_->hold(node);
}

void SimulatedLun::let_go(const std::string& node) {
  target_->let_go(node);
}

std::uint64_t SimulatedLun::refused_caws() const {
  return target_->refused_caws();
}

std::uint64_t SimulatedLun::caws_not_admitted() const {
  return target_->caws_not_admitted();
}

void SimulatedLun::stall_writes_from(std::uint64_t offset) {
  target_->stall_writes_from(offset);
}

std::uint64_t SimulatedLun::executed(SimulatedRequest::Kind kind) const {
  return target_->executed(kind);
}

void SimulatedLun::peek(std::uint64_t offset, std::span<std::byte> out) const {
  target_->medium().read(offset, out);
}

RegisteredKeys SimulatedLun::registered_keys() const {
  return target_->registered_keys();
}

bool SimulatedLun::is_reserved() const {
  return target_->is_reserved();
}

void SimulatedLun::poke(std::uint64_t offset, std::span<const std::byte> data) {
  target_->medium().write(offset, data, true);
}

}  // namespace cawfs
