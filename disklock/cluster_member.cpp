#include "disklock/cluster_member.h"

#include <algorithm>

#include "core/base/assert.h"
#include "core/base/planted_fault.h"

namespace cawfs {

namespace {

using namespace std::chrono_literals;

constexpr Duration kTryAgainAfter = 50ms;

}  // namespace

Duration heartbeat_interval(Duration dead_time) {
  return std::min<Duration>(dead_time / 10, 1s);
}

ClusterMember::ClusterMember(BlockDevice& raw, Executor& executor, Random& random, Log& log, const Geometry& geometry,
                             MemberOptions options)
    : raw_(raw),
      executor_(executor),
      random_(random),
      log_(log),
      geometry_(geometry),
      options_(std::move(options)),
      interval_(heartbeat_interval(options_.dead_time)),
      guard_(raw, executor),
      editor_(guard_, executor, random, geometry.fs_id, kForever),
      registration_(raw, guard_, executor, random, log, options_.no_aptpl ? Aptpl::kNo : Aptpl::kYes),
      fence_(guard_, registration_, executor, log),
      unasked_(guard_),
      unasked_editor_(unasked_, executor, random, geometry.fs_id, kForever),
      recovery_(guard_, editor_, unasked_editor_, geometry, executor, log, fence_),
      heart_(guard_, executor, geometry, interval_),
      table_(guard_, editor_, geometry),
      heartbeats_(guard_, geometry),
      silence_(interval_),
      lease_(planted(PlantedFault::kLeaseTooLong) ? options_.dead_time * 5 / 4 : options_.dead_time / 2),
      lease_condition_(executor),
      stop_(executor),
      tasks_(executor) {
  // The rest of the self-lease is for a new session, and a heartbeat on it.
  raw_.set_path_timeout(options_.dead_time / 3);
  guard_.set_keeper(this);
  heart_.set_observer([this](Time issued) { heartbeat_completed(issued); });
  fence_.set_reset_observer([this] { silence_.restart(); });
}

ClusterMember::~ClusterMember() = default;

// --- observers ------------------------------------------------------------------------------------------------------

void ClusterMember::add_observer(MembershipObserver* observer) {
  observers_.push_back(observer);
}

void ClusterMember::remove_observer(MembershipObserver* observer) {
  std::erase(observers_, observer);
}

// --- lease ----------------------------------------------------------------------------------------------------------

void ClusterMember::heartbeat_completed(Time issued) {
  const Time now = executor_.now();
  lease_.heartbeat(planted(PlantedFault::kLeaseFromCompletion) ? now : issued, now);
}

void ClusterMember::lease_changed() {
  const bool valid = lease_valid();
  if (valid == lease_was_valid_) return;
  lease_was_valid_ = valid;
  if (valid) {
    guard_.keeper_changed();
    lease_condition_.notify_all();
    notify([](MembershipObserver& o) { o.lease_returned(); });
  } else {
    if (!ending()) log_.warning("the self-lease has lapsed: operations wait");
    notify([](MembershipObserver& o) { o.lease_lapsed(); });
  }
}

// Tells the observers of a lapse as it happens.
Task<void> ClusterMember::lease_loop() {
  while (!ending()) {
    lease_changed();
    if (lease_valid()) {
      co_await stop_.sleep_until(lease_.end());
    } else {
      co_await lease_condition_.wait_until(executor_.now() + interval_);
    }
  }
}

Task<Result<>> ClusterMember::wait_for_lease() {
  while (!ending() && !lease_valid()) co_await lease_condition_.wait();
  if (withdrawn_) co_return fail(Errc::kFenced, "self-lease");
  if (stop_.requested()) co_return fail(Errc::kStopping, "self-lease");
  co_return Result<>{};
}

// --- this node's slot -----------------------------------------------------------------------------------------------

Task<Result<format::SlotRecord>> ClusterMember::read_slot(SlotNo slot) {
  if (slot.value >= geometry_.slots) co_return fail(Errc::kBadValue, "slot number", slot.value);
  Result<CawImage> image = co_await editor_.read(geometry_.slot_record_offset(slot), format::kSlotMagic);
  if (!image) co_return fail(image.error());
  co_return image->as<format::SlotRecord>();
}

ClusterMember::Own ClusterMember::judge_own(const SlotView& view) const {
  const PrKey key = registration_.key();
  if (view.state == format::SlotState::kActive && view.incarnation == self_.incarnation && view.key == key) {
    return Own::kMine;
  }
  if (view.state != format::SlotState::kRecovering) return Own::kLost;
  // A joiner that recovers the slot which it will take.
  if (view.recoverer == self_ && view.recoverer_key == key) return Own::kMine;
  const bool mine_until_fenced = view.incarnation == self_.incarnation && view.key == key && !view.fenced();
  return mine_until_fenced ? Own::kBeingRecovered : Own::kLost;
}

void ClusterMember::reset_seen() {
  silence_.restart();
  notify([](MembershipObserver& o) { o.reset_seen(); });
}

Task<Result<ClusterMember::Own>> ClusterMember::look_at_own_slot() {
  if (self_.incarnation.value == 0) co_return Own::kMine;  // joining: nobody else's
  Result<format::SlotRecord> record = co_await read_slot(self_.slot);
  if (!record) co_return fail(record.error());
  const Result<SlotView> view = view_slot(self_.slot, *record);
  co_return view ? judge_own(*view) : Own::kLost;
}

// Design §4 rule 7, in its order: the key first, then the reservation, then the slot record. But a node whose record is
// no longer its own to begin with does not even register: until it had unregistered again, the device would take what
// may still wait of its writes.
Task<Result<ClusterMember::Own>> ClusterMember::restore_registration() {
  Result<Own> own = co_await look_at_own_slot();
  if (!own || *own == Own::kLost) co_return own;
  const bool may_register = *own == Own::kMine;
  Result<Registration::State> found;
  if (may_register) {
    found = co_await registration_.restore();
  } else {
    found = co_await registration_.look();
  }
  if (!found) co_return fail(found.error());
  if (may_register) own = co_await look_at_own_slot();
  if (!own) co_return own;
  const bool was_missing = *found == Registration::State::kKeyMissing || registration_.registered_again();
  if (*own == Own::kBeingRecovered && was_missing) co_return Own::kLost;
  if (*own == Own::kMine) registration_.slot_seen();
  co_return own;
}

Task<Result<>> ClusterMember::regain(bool /*reset*/) {
  while (!withdrawn_) {
    if (registration_.key().value == 0 || !registered_) co_return Result<>{};  // joining: nothing to lose yet
    Result<Own> own = co_await restore_registration();
    if (own && *own == Own::kMine) co_return Result<>{};
    // Somebody suspects us, but has not fenced us yet: plain writes count until then.
    if (own && *own == Own::kBeingRecovered && settled_) {
      lease_.suspend();
      lease_changed();
      co_return Result<>{};
    }
    if (!own && is_passing_error(own.error().code)) {
      co_await executor_.sleep(kTryAgainAfter);
      continue;
    }
    withdraw(own ? Error{Errc::kFenced, "own slot", self_.slot.value} : own.error());
  }
  co_return fail(Errc::kFenced, "own slot", self_.slot.value);
}

// A node that joins or leaves has no lease: for it key and slot, seen in this session, have to do.
bool ClusterMember::may_compare_and_write() const {
  CAWFS_ASSERT(registered_);
  return !settled_ || lease_valid();
}

void ClusterMember::withdraw(Error reason) {
  if (withdrawn_) return;
  withdrawn_ = true;
  log_.error("slot {} (incarnation {}) is not ours any more: {} ({}); all operations fail from now on",
             self_.slot.value, self_.incarnation.value, describe(reason.code), reason.where);
  guard_.end(Error{Errc::kFenced, "withdrawn", self_.slot.value});
  stop_.request();
  heart_.request_stop();
  lease_changed();
  lease_condition_.notify_all();
  // Makes the device refuse what may still be under way; where it may not, whoever recovers the slot fences us.
  if (registered_) tasks_.spawn(unregister());
  notify([reason](MembershipObserver& o) { o.withdrawn(reason); });
}

}  // namespace cawfs
