#include "utils/fence/fence_slot.h"

#include <algorithm>

#include "core/format/superblock_io.h"
#include "disklock/caw.h"
#include "disklock/fence.h"
#include "disklock/guarded_device.h"
#include "disklock/recovery.h"
#include "disklock/registration_keeper.h"
#include "disklock/reservation.h"
#include "disklock/slot_table.h"
#include "utils/common/live_nodes.h"

namespace cawfs {

namespace {

using namespace std::chrono_literals;

constexpr Duration kPatience = 30s;
constexpr Duration kLookEvery = 50ms;

class SlotFencer {
 public:
  SlotFencer(Executor& executor, BlockDevice& device, Random& random, Log& log, const format::Superblock& superblock)
      : executor_(executor),
        device_(device),
        superblock_(superblock),
        geometry_(make_geometry(superblock)),
        guard_(device, executor),
        editor_(guard_, executor, random, geometry_.fs_id, kPatience),
        registration_(device, guard_, executor, random, log, Aptpl::kYes),
        fence_(guard_, registration_, executor, log),
        keeper_(registration_, executor),
        recovery_(guard_, editor_, editor_, geometry_, executor, log, fence_),
        table_(guard_, editor_, geometry_) {
    guard_.set_keeper(&keeper_);
  }

  Task<Result<>> run(SlotNo slot, FenceForce force) {
    Result<> done = co_await prepare(slot, force);
    if (done) {
      done = co_await registration_.establish(kPatience);
      if (done) done = co_await claim_and_fence();
      if (!done && done.error() == Errc::kAgain) done = co_await wait_for_another();
      co_await unregister();
    }
    guard_.end(Error{Errc::kStopping, "done"});
    co_await guard_.join();
    co_return done;
  }

 private:
  Task<Result<>> prepare(SlotNo slot, FenceForce force) {
    if (slot.value >= geometry_.slots) co_return fail(Errc::kNotFound, "slot", slot.value);
    if (force == FenceForce::kNo) {
      Result<LiveNodes> live = co_await find_live_nodes(executor_, device_, superblock_, LookFor::kEach);
      if (!live) co_return fail(live.error());
      const bool alive = std::ranges::find(live->slots, slot) != live->slots.end();
      if (alive) co_return fail(Errc::kLive, "slot", slot.value);
    }
    IoBuffer beat(geometry_.logical_block);
    Result<> done = co_await guard_.read(geometry_.heartbeat_offset(slot), beat.bytes());
    if (!done) co_return done;
    done = co_await table_.read();
    if (!done) co_return done;
    const SlotView* view = table_.view(slot);
    if (!view || !view->in_use()) co_return fail(Errc::kNotFound, "slot", slot.value);
    suspect_ = suspect_of(*view);
    suspect_.heartbeat = heartbeat_value(beat.bytes());
    suspect_.even_if_alive = force == FenceForce::kYes;
    co_return done;
  }

  Task<Result<>> claim_and_fence() {
    NodeCard card;
    card.node = {kNoSlotOfItsOwn, Incarnation{1}};
    card.key = registration_.key();
    card.identity.initiator_name = device_.facts().initiator_name;
    card.identity.isid = device_.facts().isid;
    Result<Recovery::Claimed> claimed = co_await recovery_.claim(suspect_, card);
    if (!claimed) co_return fail(claimed.error());
    if (claimed->may_be_replayed) co_return Result<>{};
    Result<> fenced = co_await recovery_.fence(*claimed);
    co_return fenced;
  }

  // Not where no node is left: without any registration there would be no reservation, and what was fenced could write.
  Task<void> unregister() {
    Result<> read = co_await table_.read();
    if (!read) co_return;
    Result<RegisteredKeys> keys = co_await registration_.read_keys();
    if (!keys || !others_keep_the_reservation(table_, *keys, registration_.key(), false)) co_return;
    co_await registration_.drop();
  }

  // A node that runs takes a claim over at once from a tool, which has no heartbeat to show: then it is the one that
  // fences.
  Task<Result<>> wait_for_another() {
    const Time end = executor_.now() + kPatience;
    while (executor_.now() < end) {
      const Result<> done = co_await table_.read();
      if (!done) co_return done;
      const SlotView* view = table_.view(suspect_.slot);
      if (view && !view->stands_for({suspect_.slot, suspect_.incarnation})) co_return Result<>{};
      if (view && view->fenced()) co_return Result<>{};
      if (view && view->state == format::SlotState::kActive) break;  // it was given its slot back
      co_await executor_.sleep(kLookEvery);
    }
    co_return fail(Errc::kAgain, "slot", suspect_.slot.value);
  }

  Executor& executor_;
  BlockDevice& device_;
  const format::Superblock& superblock_;
  Geometry geometry_;
  GuardedDevice guard_;
  CawEditor editor_;
  Registration registration_;
  Fence fence_;
  RegistrationKeeper keeper_;
  Recovery recovery_;
  SlotTable table_;
  Suspect suspect_;
};

}  // namespace

Task<Result<>> fence_slot(Executor& executor, BlockDevice& device, Random& random, Log& log, SlotNo slot,
                          FenceForce force) {
  Result<format::Superblock> superblock = co_await read_superblock(device);
  if (!superblock) co_return fail(superblock.error());
  SlotFencer fencer(executor, device, random, log, *superblock);
  Result<> done = co_await fencer.run(slot, force);
  co_return done;
}

}  // namespace cawfs
