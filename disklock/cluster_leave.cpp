// How a node leaves.
#include "disklock/cluster_member.h"

namespace cawfs {

using format::SlotRecord;

namespace {

using namespace std::chrono_literals;

constexpr Duration kTryAgainAfter = 50ms;
constexpr int kAttempts = 5;

}  // namespace

Task<Result<>> ClusterMember::leave() {
  co_await end_tasks();
  Result<> done;
  if (!withdrawn_ && !guard_.ended() && self_.incarnation.value != 0) {
    done = co_await vacate_slot();
    if (done) {
      co_await unregister();
      log_.info("left slot {}", self_.slot.value);
    }
  }
  guard_.end(Error{Errc::kStopping, "left"});
  co_await tasks_.join();
  co_await guard_.join();
  co_return done;
}

// Recoveries end as they would; the heartbeat goes on until then.
Task<void> ClusterMember::end_tasks() {
  settled_ = false;
  stop_.request();
  guard_.keeper_changed();
  lease_condition_.notify_all();
  co_await tasks_.join();
  heart_.request_stop();
  co_await heart_.join();
}

Task<Result<>> ClusterMember::vacate_slot() {
  Result<CawResult> edited = co_await editor_.edit(
      geometry_.slot_record_offset(self_.slot), format::kSlotMagic, [this](CawImage& image) -> Result<CawEditor::Plan> {
        auto& record = image.as<SlotRecord>();
        const Result<SlotView> view = view_slot(self_.slot, record);
        if (!view) return fail(view.error());
        if (view->incarnation == self_.incarnation && view->state == format::SlotState::kClean) {
          return CawEditor::Plan::kLeave;  // ran unseen
        }
        if (view->incarnation > self_.incarnation) return CawEditor::Plan::kLeave;  // and others have taken it since
        // Somebody suspects us: it finds our key, fences it, and replays an empty journal.
        if (judge_own(*view) != Own::kMine) return fail(Errc::kFenced, "own slot", self_.slot.value);
        vacate(record);
        return CawEditor::Plan::kWrite;
      });
  if (!edited) co_return fail(edited.error());
  co_return Result<>{};
}

// The last one's registration keeps the reservation, so that a node fenced long ago cannot write when it wakes. A key
// left behind is swept by the next to join: so all of this is tried a few times, on the raw device, and does not wait
// for a target that is gone.
Task<void> ClusterMember::unregister() {
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    Result<bool> may = co_await may_unregister();
    if (may && *may) co_await registration_.drop();
    if (may || !is_passing_error(may.error().code)) co_return;
    co_await executor_.sleep(kTryAgainAfter);
  }
}

Task<Result<bool>> ClusterMember::may_unregister() {
  CawEditor editor(raw_, executor_, random_, geometry_.fs_id, Duration{0});  // which only reads here
  SlotTable table(raw_, editor, geometry_);
  Result<> read = co_await table.read();
  if (!read) co_return fail(read.error());
  Result<RegisteredKeys> keys = co_await raw_.pr_read_keys();
  if (!keys) co_return fail(keys.error());
  co_return others_keep_the_reservation(table, *keys, registration_.key(), registration_.registered_again());
}

}  // namespace cawfs
