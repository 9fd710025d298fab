// How a node becomes a member: see design §7, "Join", and join_plan.h for the choice of the slot.
#include <algorithm>
#include <utility>

#include "core/base/assert.h"
#include "disklock/cluster_member.h"

namespace cawfs {

using format::SlotRecord;
using format::SlotState;

namespace {

// A join that waits longer than so many dead-times for a slot to become free gives up.
constexpr int kWaitForSlotDeadTimes = 20;

}  // namespace

NodeCard ClusterMember::card(NodeId node) const {
  NodeCard card;
  card.node = node;
  card.key = registration_.key();
  card.identity.host_name = options_.host_name;
  card.identity.initiator_name = raw_.facts().initiator_name;
  card.identity.isid = raw_.facts().isid;
  card.identity.node_uuid = options_.node_uuid;
  card.identity.boot_id = options_.boot_id;
  card.identity.host_lock = options_.host_lock;
  card.identity.flags = options_.local ? format::kSlotLocal : std::uint8_t{0};
  const auto ms = [](Duration d) {
    return static_cast<std::uint32_t>(std::chrono::duration_cast<std::chrono::milliseconds>(d).count());
  };
  card.dead_time_ms = ms(options_.dead_time);
  card.heartbeat_ms = ms(interval_);
  return card;
}

Task<Result<>> ClusterMember::join() {
  if (raw_.facts().initiator_name.size() > format::kInitiatorNameBytes) {
    co_return fail(Errc::kNameTooLong, "initiator name");
  }
  Result<> done = co_await join_steps();
  if (done) co_return done;
  stop_.request();
  guard_.end(Error{Errc::kStopping, "join failed"});
  if (std::exchange(registered_, false)) co_await unregister();
  co_return done;
}

Task<Result<>> ClusterMember::join_steps() {
  const JoinerIdentity me = card(NodeId{}).identity;
  const Time give_up = executor_.now() + kWaitForSlotDeadTimes * options_.dead_time;
  while (true) {
    Result<> looked = co_await look_around();
    if (!looked) co_return looked;
    if (withdrawn_) co_return fail(Errc::kFenced, "join");
    const JoinPlan plan = plan_join(table_, silence_, me, options_.dead_time, interval_);
    if (plan.kind == JoinPlan::Kind::kRefuse) co_return fail(plan.error);
    if (plan.kind == JoinPlan::Kind::kWait) {
      if (executor_.now() >= give_up) co_return fail(Errc::kNoSlot, "waiting for a slot");
      co_await stop_.sleep(interval_);
      if (stop_.requested()) co_return fail(Errc::kStopping, "join");
      continue;
    }
    Result<> registered = co_await register_key();
    if (!registered) co_return registered;
    Result<> taken;
    if (plan.kind == JoinPlan::Kind::kTake) {
      taken = co_await take(plan.slot);
    } else {
      taken = co_await claim_and_recover(plan.slot);
    }
    if (taken) taken = co_await settle_in();
    if (taken || taken.error() != Errc::kAgain) co_return taken;
    self_ = NodeId{};
    co_await stop_.sleep(interval_);
    if (stop_.requested()) co_return fail(Errc::kStopping, "join");
  }
}

Task<Result<>> ClusterMember::look_around() {
  Result<> done = co_await table_.read();
  if (!done) co_return done;
  const Time issued = executor_.now();
  done = co_await heartbeats_.read();
  if (!done) co_return done;
  SilenceWatch::Values values;
  for (std::uint16_t i = 0; i < geometry_.slots; ++i) values[i] = heartbeats_.value(SlotNo{i});
  silence_.observe(issued, executor_.now(), subjects_of(table_), values);
  co_return done;
}

Task<Result<>> ClusterMember::register_key() {
  registered_ = false;
  registered_at_ = executor_.now();
  Result<> done = co_await registration_.establish(options_.dead_time);
  registered_ = done.has_value();
  co_return done;
}

void ClusterMember::set_writer(NodeId node) {
  editor_.set_writer(node);
  unasked_editor_.set_writer(node);
}

Task<Result<>> ClusterMember::take(SlotNo slot) {
  const SlotView* seen = table_.view(slot);
  CAWFS_ASSERT(seen);
  const NodeId node = seen->next();
  const NodeCard mine = card(node);
  const auto too_late = [this] { return executor_.now() - registered_at_ > options_.dead_time / 2; };
  set_writer(node);
  Result<CawResult> edited = co_await editor_.edit(geometry_.slot_record_offset(slot), format::kSlotMagic,
                                                   [&](CawImage& image) -> Result<CawEditor::Plan> {
                                                     auto& record = image.as<SlotRecord>();
                                                     const Result<SlotView> view = view_slot(slot, record);
                                                     if (!view) return fail(view.error());
                                                     if (view->stands_for(node) && view->key == mine.key)
                                                       return CawEditor::Plan::kLeave;  // ran unseen
                                                     // The key may have been swept as nobody's by now.
                                                     if (too_late())
                                                       return fail(Errc::kAgain, "joining took too long", slot.value);
                                                     if (view->state != SlotState::kClean || view->next() != node)
                                                       return fail(Errc::kAgain, "slot", slot.value);
                                                     occupy(record, mine);
                                                     return CawEditor::Plan::kWrite;
                                                   });
  if (!edited) co_return fail(edited.error());
  self_ = node;
  if (too_late()) {
    Result<> back = co_await give_back(Error{Errc::kAgain, "joining took too long", slot.value});
    co_return back;
  }
  heart_.start(self_);
  co_return Result<>{};
}

// The slot is left as it was; the error is returned.
Task<Result<>> ClusterMember::give_back(Error reason) {
  Result<> vacated = co_await vacate_slot();
  self_ = NodeId{};
  registered_ = false;
  co_await unregister();
  if (!vacated) co_return vacated;
  co_return fail(reason);
}

Task<Result<>> ClusterMember::claim_and_recover(SlotNo slot) {
  const SlotView* seen = table_.view(slot);
  CAWFS_ASSERT(seen);
  const NodeId node = seen->next();
  Suspect suspect = suspect_of(*seen);
  suspect.heartbeat = silence_.last(slot).value_or(HeartbeatValue{});
  suspect.silence = silence_.silence(slot);
  suspect.both_silent = both_silent(table_, silence_, *seen, options_.dead_time);
  log_.info("slot {} (host {}, incarnation {}) suspected: silent for {:.1f} s", slot.value, seen->host_name,
            seen->incarnation.value, std::chrono::duration<double>(suspect.silence).count());
  set_writer(node);
  Result<Recovery::Claimed> claimed = co_await recovery_.claim(suspect, card(node));
  if (!claimed) co_return fail(claimed.error());
  self_ = node;
  heart_.start(self_);
  Result<> done = co_await recovery_.complete(std::move(*claimed), Recovery::HandOver::kTake);
  if (!done && done.error() == Errc::kAgain) co_return fail(Errc::kFenced, "slot", slot.value);
  co_return done;
}

// The slot is ours: starts what a member does, and returns when the lease is valid.
Task<Result<>> ClusterMember::settle_in() {
  tasks_.spawn(watch_loop());
  tasks_.spawn(registration_loop());
  tasks_.spawn(lease_loop());
  Result<> lease = co_await wait_for_lease();
  if (!lease) co_return lease;
  settled_ = true;
  // Two joiners, one of which suffers nobody beside it, may have come at the same time: then both go.
  Result<> alone = co_await recover_all_others();
  if (alone) {
    log_.info("joined as slot {}, incarnation {}", self_.slot.value, self_.incarnation.value);
    co_return alone;
  }
  co_await end_tasks();
  co_await give_back(alone.error());
  co_return alone;
}

// Under -o local: waits until watch_loop() has recovered all dead nodes. kLocalMode where another lives.
Task<Result<>> ClusterMember::recover_all_others() {
  const Time give_up = executor_.now() + 2 * options_.dead_time;
  while (true) {
    bool others = false;
    bool local = false;
    for (std::uint16_t i = 0; i < geometry_.slots; ++i) {
      const SlotView* view = table_.view(SlotNo{i});
      if (!view || !view->in_use() || view->slot == self_.slot) continue;
      others = true;
      local = local || (view->flags & (format::kSlotLocal | format::kSlotFsck)) != 0;
      const bool moved = silence_.moved(view->slot) || silence_.moved(view->slot, SilenceWatch::Heart::kJoiner);
      if (options_.local && moved) co_return fail(Errc::kLocalMode, "another mount", i);
    }
    if (local) co_return fail(Errc::kLocalMode, "another mount");
    if (!options_.local || !others) co_return Result<>{};
    if (!recovering_ && executor_.now() >= give_up) co_return fail(Errc::kLocalMode, "another mount");
    co_await stop_.sleep(interval_);
    if (ending()) co_return fail(withdrawn_ ? Errc::kFenced : Errc::kStopping, "join");
  }
}

}  // namespace cawfs
