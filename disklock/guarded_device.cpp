#include "disklock/guarded_device.h"

#include <algorithm>
#include <utility>

#include "core/base/planted_fault.h"

namespace cawfs {

namespace {

using namespace std::chrono_literals;

constexpr Duration kSendAgainAfter = 100ms;
// More than this kept, and the device is flushed.
constexpr std::uint64_t kUnflushedLimit = 64 << 20;

bool is_attention(Errc code) {
  return code == Errc::kUnitAttentionReset || code == Errc::kUnitAttentionReservations ||
         code == Errc::kUnitAttentionOther;
}

}  // namespace

GuardedDevice::GuardedDevice(BlockDevice& raw, Executor& executor)
    : raw_(raw), executor_(executor), session_(raw.session()), changed_(executor), tasks_(executor) {}

void GuardedDevice::set_keeper(NexusKeeper* keeper) {
  keeper_ = keeper;
  raw_.bind(session_);
}

void GuardedDevice::end(Error reason) {
  if (ended_) return;
  ended_ = reason;
  changed_.notify_all();
}

Task<void> GuardedDevice::join() {
  return tasks_.join();
}

// --- the gate -------------------------------------------------------------------------------------------------------

Task<Result<>> GuardedDevice::pass_gate() {
  note_session();
  while (!ended_ && !open_) {
    co_await changed_.wait();
    note_session();
  }
  if (ended_) co_return fail(*ended_);
  co_return Result<>{};
}

Task<Result<>> GuardedDevice::pass_gate_for_heartbeat() {
  note_session();
  while (!ended_ && !open_ && !writing_again_) {
    co_await changed_.wait();
    note_session();
  }
  if (ended_) co_return fail(*ended_);
  co_return Result<>{};
}

Task<Result<>> GuardedDevice::pass_gate_for_caw(Asks asks) {
  while (!ended_) {
    note_session();
    if (open_ && !admitted_) close_gate(false, 0);
    if (open_ && (asks == Asks::kNo || !keeper_ || keeper_->may_compare_and_write())) co_return Result<>{};
    co_await changed_.wait();
  }
  co_return fail(*ended_);
}

bool GuardedDevice::note(const Error& error, std::uint64_t sequence) {
  if (is_attention(error.code)) {
    close_gate(error.code == Errc::kUnitAttentionReset, sequence);
    return true;
  }
  if (error.code == Errc::kReservationConflict) {
    close_gate(false, sequence);
    return true;
  }
  return error.code == Errc::kTransport;
}

// All that is in flight goes out on the old session or not at all, so all of it is waited for.
void GuardedDevice::note_session() {
  if (session_ == raw_.session()) return;
  session_ = raw_.session();
  admitted_ = false;
  attention_at_ = 0;
  close_gate(!planted(PlantedFault::kNewSessionUnnoticed), 0);
}

void GuardedDevice::close_gate(bool reset, std::uint64_t sequence) {
  if (ended_) return;
  reset_ = reset_ || reset;
  resets_ += reset ? 1 : 0;
  attention_at_ = std::max(attention_at_, sequence);
  ++attentions_;
  writing_again_ = false;
  if (reset && keeper_) keeper_->reset_seen();
  if (!open_) return;
  open_ = false;
  tasks_.spawn(reopen());
}

bool GuardedDevice::later_change_in_flight() const {
  return std::ranges::any_of(in_flight_, [this](const InFlight& r) { return r.changes && r.sequence > attention_at_; });
}

bool GuardedDevice::older_in_flight(std::uint64_t sequence) const {
  return std::ranges::any_of(in_flight_, [sequence](const InFlight& r) { return r.sequence < sequence; });
}

void GuardedDevice::start(InFlight& request) {
  request.sequence = ++sequence_;
  in_flight_.push_back(request);
}

void GuardedDevice::finish(InFlight& request) {
  request.unlink();
  changed_.notify_all();
}

Task<void> GuardedDevice::drain_attentions() {
  IoBuffer block(facts().logical_block);
  while (!ended_) {
    Result<> done = co_await raw_.read(0, block.bytes());
    if (done || !note(done.error(), ++sequence_)) co_return;
    if (done.error() == Errc::kTransport) co_await executor_.sleep(kSendAgainAfter);
  }
}

Task<void> GuardedDevice::reopen() {
  while (!ended_) {
    note_session();
    if (later_change_in_flight()) {
      co_await changed_.wait();
      continue;
    }
    // Of one session: what is found out here counts for no other.
    const std::uint64_t session = session_;
    co_await drain_attentions();
    const std::uint64_t seen = attentions_;
    const bool reset = reset_;
    if (keeper_) {
      Result<> mine = co_await keeper_->regain(reset);
      if (!mine) end(mine.error());
    }
    if (ended_) break;
    if (session != raw_.session()) continue;
    if (keeper_) raw_.bind(session);
    if (reset) {
      writing_again_ = seen == attentions_;
      changed_.notify_all();
      Result<> rewritten;
      if (!planted(PlantedFault::kUnflushedNotWrittenAgain)) rewritten = co_await write_unflushed_again();
      writing_again_ = false;
      if (!rewritten) {
        co_await executor_.sleep(kSendAgainAfter);
        continue;
      }
    }
    if (seen != attentions_) continue;
    // A conflict that persists although key and slot stand must not spin.
    if (!reset) co_await executor_.sleep(1ms);
    if (seen != attentions_ || session != raw_.session()) continue;
    admitted_ = true;
    raw_.admit(session);
    reset_ = false;
    attention_at_ = 0;
    open_ = true;
    break;
  }
  changed_.notify_all();
}

// --- requests -------------------------------------------------------------------------------------------------------

Task<Result<>> GuardedDevice::read(std::uint64_t offset, std::span<std::byte> out) {
  while (true) {
    if (ended_) co_return fail(*ended_);
    InFlight request;
    request.changes = false;
    start(request);
    Result<> done = co_await raw_.read(offset, out);
    finish(request);
    note_session();
    if (ended_) co_return fail(*ended_);
    if (done && !may_be_undone(offset, out.size())) co_return done;
    if (done) {
      while (!ended_ && may_be_undone(offset, out.size())) co_await changed_.wait();
      continue;
    }
    if (!note(done.error(), request.sequence)) co_return done;
    if (done.error() == Errc::kTransport) co_await executor_.sleep(kSendAgainAfter);
  }
}

Task<Result<>> GuardedDevice::send(const Change& change) {
  switch (change.kind) {
    case Change::Kind::kWrite:
      return raw_.write(change.offset, change.data, change.durability);
    case Change::Kind::kFlush:
      return raw_.flush();
    case Change::Kind::kUnmap:
      return raw_.unmap(change.offset, change.length);
    case Change::Kind::kZero:
      return raw_.write_zeroes(change.offset, change.length);
  }
  std::unreachable();
}

Task<Result<>> GuardedDevice::change(Change change) {
  while (true) {
    Result<> open = co_await pass_gate();
    if (!open) co_return open;
    const std::uint64_t resets = resets_;
    InFlight request;
    start(request);
    Result<> done = co_await send(change);
    finish(request);
    note_session();
    if (ended_) co_return fail(*ended_);
    if (done) {
      // A reset whose unit attention an older request is about to bring may have emptied the cache before this flush.
      const bool flushes = change.kind == Change::Kind::kFlush && facts().volatile_cache;
      while (flushes && !ended_ && older_in_flight(request.sequence)) co_await changed_.wait();
      if (ended_) co_return fail(*ended_);
      if (resets != resets_) continue;  // the reset may have undone it
      if (flushes) unflushed_.flushed(request.sequence);
      remember(change);
      co_return done;
    }
    if (!note(done.error(), request.sequence)) co_return done;
    if (done.error() == Errc::kTransport) co_await executor_.sleep(kSendAgainAfter);
  }
}

Task<Result<>> GuardedDevice::write(std::uint64_t offset, std::span<const std::byte> data, Durability durability) {
  Result<> done = co_await change({Change::Kind::kWrite, offset, data.size(), data, durability});
  if (!done || unflushed_.bytes() <= kUnflushedLimit) co_return done;
  Result<> flushed = co_await flush();
  co_return flushed;
}

Task<Result<>> GuardedDevice::flush() {
  return change({Change::Kind::kFlush, 0, 0, {}, Durability::kCached});
}

Task<Result<>> GuardedDevice::unmap(std::uint64_t offset, std::uint64_t length) {
  return change({Change::Kind::kUnmap, offset, length, {}, Durability::kCached});
}

Task<Result<>> GuardedDevice::write_zeroes(std::uint64_t offset, std::uint64_t length) {
  return change({Change::Kind::kZero, offset, length, {}, Durability::kCached});
}

Task<Result<>> GuardedDevice::write_once(std::uint64_t offset, std::span<const std::byte> data, Durability durability) {
  Result<> open = co_await pass_gate_for_heartbeat();
  if (!open) co_return open;
  InFlight request;
  start(request);
  Result<> done = co_await raw_.write(offset, data, durability);
  finish(request);
  if (!done && !ended_) note(done.error(), request.sequence);
  co_return done;
}

Task<Result<>> GuardedDevice::compare_and_write(std::uint64_t offset, std::span<const std::byte> expected,
                                                std::span<const std::byte> data) {
  return compare_and_write(offset, expected, data, Asks::kYes);
}

Task<Result<>> GuardedDevice::compare_and_write_unasked(std::uint64_t offset, std::span<const std::byte> expected,
                                                        std::span<const std::byte> data) {
  return compare_and_write(offset, expected, data, Asks::kNo);
}

Task<Result<>> GuardedDevice::compare_and_write(std::uint64_t offset, std::span<const std::byte> expected,
                                                std::span<const std::byte> data, Asks asks) {
  while (true) {
    Result<> open = co_await pass_gate_for_caw(asks);
    if (!open) co_return open;
    InFlight request;
    start(request);
    Result<> done = co_await raw_.compare_and_write(offset, expected, data);
    finish(request);
    if (ended_) co_return fail(*ended_);
    if (done || done.error() == Errc::kMiscompare) co_return done;
    const Error error = done.error();
    if (!note(error, request.sequence)) co_return done;
    if (error == Errc::kReservationConflict) continue;  // refused, so it did not run
    Result<> again = co_await pass_gate();
    if (!again) co_return again;
    co_return fail(Errc::kTransport, "COMPARE AND WRITE", offset);
  }
}

// --- what a loss of the cache would undo ----------------------------------------------------------------------------

void GuardedDevice::remember(const Change& change) {
  if (!facts().volatile_cache) return;
  switch (change.kind) {
    case Change::Kind::kWrite:
      if (change.durability == Durability::kFua) return unflushed_.drop(change.offset, change.length);
      return unflushed_.keep(change.offset, change.data, ++sequence_);
    case Change::Kind::kZero:
      return unflushed_.keep_zeroes(change.offset, change.length, ++sequence_);
    case Change::Kind::kUnmap:
      return unflushed_.drop(change.offset, change.length);
    case Change::Kind::kFlush:
      return;
  }
}

// A reset has been seen, and not everything kept has been written again.
bool GuardedDevice::may_be_undone(std::uint64_t offset, std::uint64_t length) const {
  return !open_ && reset_ && unflushed_.keeps(offset, length);
}

// The gate is closed: nothing else changes what is kept.
Task<Result<>> GuardedDevice::write_unflushed_again() {
  for (const auto& [offset, range] : unflushed_.ranges()) {
    if (ended_) co_return fail(*ended_);
    const bool zeroes = range.data.size() == 0;
    auto again =
        zeroes ? raw_.write_zeroes(offset, range.length) : raw_.write(offset, range.data.bytes(), Durability::kCached);
    Result<> done = co_await std::move(again);
    if (done) continue;
    note(done.error(), sequence_);
    co_return done;
  }
  co_return Result<>{};
}

// --- passed on ------------------------------------------------------------------------------------------------------

template <class Request>
auto GuardedDevice::pass(Request request) -> decltype(request()) {
  while (true) {
    if (ended_) co_return fail(*ended_);
    const std::uint64_t sequence = ++sequence_;
    auto done = co_await request();
    if (ended_) co_return fail(*ended_);
    if (done || !is_attention(done.error().code)) co_return done;
    note(done.error(), sequence);
  }
}

Task<Result<>> GuardedDevice::pr_register(PrKey current, PrKey key, Aptpl aptpl) {
  return pass([=, this] { return raw_.pr_register(current, key, aptpl); });
}
Task<Result<>> GuardedDevice::pr_register_ignore(PrKey key, Aptpl aptpl) {
  return pass([=, this] { return raw_.pr_register_ignore(key, aptpl); });
}
Task<Result<>> GuardedDevice::pr_reserve(PrKey key, ReservationType type) {
  return pass([=, this] { return raw_.pr_reserve(key, type); });
}
Task<Result<>> GuardedDevice::pr_release(PrKey key, ReservationType type) {
  return pass([=, this] { return raw_.pr_release(key, type); });
}
Task<Result<>> GuardedDevice::pr_clear(PrKey key) {
  return pass([=, this] { return raw_.pr_clear(key); });
}
Task<Result<>> GuardedDevice::pr_preempt_and_abort(PrKey key, PrKey victim, ReservationType type) {
  return pass([=, this] { return raw_.pr_preempt_and_abort(key, victim, type); });
}
Task<Result<RegisteredKeys>> GuardedDevice::pr_read_keys() {
  return pass([=, this] { return raw_.pr_read_keys(); });
}
Task<Result<std::vector<Registrant>>> GuardedDevice::pr_read_full_status() {
  return pass([=, this] { return raw_.pr_read_full_status(); });
}
Task<Result<ReservationState>> GuardedDevice::pr_read_reservation() {
  return pass([=, this] { return raw_.pr_read_reservation(); });
}
Task<Result<ReservationCapabilities>> GuardedDevice::pr_report_capabilities() {
  return pass([=, this] { return raw_.pr_report_capabilities(); });
}
Task<Result<>> GuardedDevice::reset_lun() {
  return pass([=, this] { return raw_.reset_lun(); });
}
Task<Result<>> GuardedDevice::evict(std::string initiator_name, std::uint64_t isid) {
  return pass([=, this] { return raw_.evict(initiator_name, isid); });
}
Task<void> GuardedDevice::close() {
  co_return;
}

}  // namespace cawfs
