#include "disklock/recovery.h"

#include <utility>

#include "core/base/assert.h"
#include "core/base/planted_fault.h"
#include "disklock/readable_blocks.h"

namespace cawfs {

namespace {

using format::SlotRecord;
using format::SlotState;

double seconds(Duration d) {
  return std::chrono::duration<double>(d).count();
}

bool recovers(const SlotView& view, const NodeCard& card) {
  return view.state == SlotState::kRecovering && view.recoverer == card.node && view.recoverer_key == card.key;
}

void clear_recoverer(SlotRecord& record) {
  record.recoverer_slot = 0;
  record.recoverer_incarnation = 0;
  record.recoverer_key = 0;
  record.recoverer_isid = 0;
  record.recoverer_name.fill('\0');
}

void set_recoverer(SlotRecord& record, const NodeCard& card) {
  record.recoverer_slot = card.node.slot.value;
  record.recoverer_incarnation = card.node.incarnation.value;
  record.recoverer_key = card.key.value;
  record.recoverer_isid = card.identity.isid;
  set_field_text(record.recoverer_name, card.identity.initiator_name);
}

// The recoverer takes the place of the node, which is out.
void fence_recoverer_too(SlotRecord& record) {
  record.flags = static_cast<std::uint8_t>(record.flags | format::kSlotFenceAgain);
  record.initiator_name = record.recoverer_name;
  record.isid = record.recoverer_isid;
  record.pr_key = record.recoverer_key;
}

}  // namespace

Suspect suspect_of(const SlotView& view) {
  Suspect suspect;
  suspect.slot = view.slot;
  suspect.incarnation = view.incarnation;
  suspect.state = view.state;
  suspect.recoverer = view.recoverer;
  return suspect;
}

void occupy(SlotRecord& record, const NodeCard& card) {
  clear_recoverer(record);
  record.state = static_cast<std::uint8_t>(SlotState::kActive);
  record.flags = card.identity.flags;
  record.incarnation = card.node.incarnation.value;
  record.node_uuid = card.identity.node_uuid;
  record.boot_id = card.identity.boot_id;
  set_field_text(record.host_name, card.identity.host_name);
  set_field_text(record.initiator_name, card.identity.initiator_name);
  record.isid = card.identity.isid;
  record.pr_key = card.key.value;
  record.dead_time_ms = card.dead_time_ms;
  record.heartbeat_ms = card.heartbeat_ms;
}

// Host, uuid and boot id stay: the host looks for its own old slot first.
void vacate(SlotRecord& record) {
  clear_recoverer(record);
  record.state = static_cast<std::uint8_t>(SlotState::kClean);
  record.flags = 0;
  record.pr_key = 0;
}

// A recoverer that has a slot of its own is fenced through that one's record.
Task<Result<>> Recovery::recoverer_has_ended(const Suspect& suspect, const NodeCard& card) {
  const SlotNo slot = suspect.recoverer.slot;
  const bool own_record = suspect.state == SlotState::kRecovering && slot != suspect.slot && slot != kNoSlotOfItsOwn;
  if (!own_record || suspect.both_silent || suspect.recoverer == card.node) co_return Result<>{};
  Result<CawImage> image = co_await editor_.read(geometry_.slot_record_offset(slot), format::kSlotMagic);
  if (!image) co_return fail(image.error());
  const Result<SlotView> view = view_slot(slot, image->as<SlotRecord>());
  if (!view) co_return fail(view.error());
  if (!view->may_write(suspect.recoverer)) co_return Result<>{};
  log_.info("slot {} is being recovered by slot {}, which has to be recovered first", suspect.slot.value, slot.value);
  co_return fail(Errc::kAgain, "the recoverer's slot", slot.value);
}

Task<Result<Recovery::Claimed>> Recovery::claim(Suspect suspect, NodeCard card) {
  Claimed claimed;
  claimed.suspect = suspect;
  claimed.card = card;
  claimed.started = executor_.now();
  Result<> ended = co_await recoverer_has_ended(suspect, card);
  if (!ended) co_return fail(ended.error());
  Result<CawResult> edited = co_await editor_.edit(
      geometry_.slot_record_offset(suspect.slot), format::kSlotMagic, [&](CawImage& image) -> Result<CawEditor::Plan> {
        auto& record = image.as<SlotRecord>();
        const Result<SlotView> view = view_slot(suspect.slot, record);
        if (!view) return fail(view.error());
        if (view->incarnation != suspect.incarnation) return fail(Errc::kAgain, "slot", suspect.slot.value);
        // Ran unseen, or an earlier attempt of ours went no further.
        if (recovers(*view, claimed.card)) return CawEditor::Plan::kLeave;
        const bool as_seen = view->state == suspect.state &&
                             (suspect.state == SlotState::kActive || view->recoverer == suspect.recoverer);
        // Its recoverer has woken, and may replay by now.
        const bool wrote = suspect.both_silent && view->fenced();
        if (!as_seen || wrote) return fail(Errc::kAgain, "slot", suspect.slot.value);

        claimed.before = record;
        if (view->recovered_from_within() && view->may_be_replayed()) fence_recoverer_too(record);
        record.state = static_cast<std::uint8_t>(SlotState::kRecovering);
        set_recoverer(record, claimed.card);
        return CawEditor::Plan::kWrite;
      });
  if (!edited) co_return fail(edited.error());
  const Result<SlotView> now = view_slot(suspect.slot, edited->image.as<SlotRecord>());
  if (!now) co_return fail(now.error());
  claimed.victim = {now->key, std::string(now->initiator_name), now->isid};
  claimed.node_fenced = now->fenced();
  claimed.may_be_replayed = now->may_be_replayed();

  const bool ordered =
      suspect.even_if_alive || (suspect.state == SlotState::kRecovering && suspect.recoverer.slot == kNoSlotOfItsOwn);
  if (!claimed.node_fenced && !ordered) {
    Result<bool> silent = co_await still_silent(suspect);
    if (!silent) co_return fail(silent.error());
    if (!*silent) {
      Result<> back = co_await give_back(claimed);
      if (!back) co_return fail(back.error());
      log_.info("slot {} lives after all", suspect.slot.value);
      co_return fail(Errc::kAgain, "slot", suspect.slot.value);
    }
  }
  co_return claimed;
}

// The joiner sleeps, or is dead. It was to recover the slot from within, and has not fenced the node yet.
Task<Result<>> Recovery::shut_out_joiner(const Suspect& suspect, const NodeCard& card) {
  std::vector<FenceVictim> joiner;
  Result<CawResult> edited = co_await editor_.edit(
      geometry_.slot_record_offset(suspect.slot), format::kSlotMagic, [&](CawImage& image) -> Result<CawEditor::Plan> {
        auto& record = image.as<SlotRecord>();
        const Result<SlotView> view = view_slot(suspect.slot, record);
        if (!view) return fail(view.error());
        if (view->incarnation != suspect.incarnation) return fail(Errc::kAgain, "slot", suspect.slot.value);
        if (recovers(*view, card)) return CawEditor::Plan::kLeave;  // ran unseen
        const bool as_seen =
            view->state == SlotState::kRecovering && view->recoverer == suspect.recoverer && !view->fenced();
        if (!as_seen) return fail(Errc::kAgain, "slot", suspect.slot.value);
        joiner = {{view->recoverer_key, std::string(field_text(record.recoverer_name)), record.recoverer_isid.value()}};
        set_recoverer(record, card);
        return CawEditor::Plan::kWrite;
      });
  if (!edited) co_return fail(edited.error());
  Result<> fenced = co_await fence_.run(std::move(joiner));
  co_return fenced;
}

Task<Result<>> Recovery::see_no_unknown_key() {
  SlotTable table(device_, editor_, geometry_);
  Result<> read = co_await table.read();
  if (!read) co_return read;
  Result<RegisteredKeys> keys = co_await device_.pr_read_keys();
  if (!keys) co_return fail(keys.error());
  for (const PrKey key : keys->keys) {
    if (!key_is_known(table, key)) co_return fail(Errc::kAgain, "registered key", key.value);
  }
  co_return Result<>{};
}

// If its recoverer had already preempted the node's key, the node finds out, and registers again.
Task<Result<>> Recovery::revive(Suspect suspect, NodeCard card) {
  if (suspect.recoverer.slot == suspect.slot) {
    Result<> out = co_await shut_out_joiner(suspect, card);
    if (!out) co_return out;
    suspect.recoverer = card.node;
  }
  Result<> all_known = co_await see_no_unknown_key();
  if (!all_known) co_return all_known;
  Result<CawResult> edited = co_await editor_.edit(
      geometry_.slot_record_offset(suspect.slot), format::kSlotMagic, [&](CawImage& image) -> Result<CawEditor::Plan> {
        auto& record = image.as<SlotRecord>();
        const Result<SlotView> view = view_slot(suspect.slot, record);
        if (!view) return fail(view.error());
        if (view->incarnation != suspect.incarnation) return fail(Errc::kAgain, "slot", suspect.slot.value);
        if (view->state == SlotState::kActive) return CawEditor::Plan::kLeave;
        const bool as_seen =
            view->state == SlotState::kRecovering && view->recoverer == suspect.recoverer && !view->fenced();
        if (!as_seen) return fail(Errc::kAgain, "slot", suspect.slot.value);
        clear_recoverer(record);
        record.state = static_cast<std::uint8_t>(SlotState::kActive);
        return CawEditor::Plan::kWrite;
      });
  if (!edited) co_return fail(edited.error());
  log_.info("slot {} lives after all; who was to recover it has died", suspect.slot.value);
  co_return Result<>{};
}

Task<Result<bool>> Recovery::still_silent(const Suspect& suspect) {
  IoBuffer block(geometry_.logical_block);
  Result<> done =
      co_await read_readable_blocks(device_, geometry_.heartbeat_offset(suspect.slot), block.bytes(), block.size());
  if (!done) co_return fail(done.error());
  co_return heartbeat_value(block.bytes()) == suspect.heartbeat;
}

Task<Result<CawImage>> Recovery::step(const Claimed& claimed, std::function<bool(const SlotView&)> done,
                                      Change change) {
  return step(editor_, claimed, std::move(done), std::move(change));
}

Task<Result<CawImage>> Recovery::step(CawEditor& editor, const Claimed& claimed,
                                      std::function<bool(const SlotView&)> done, Change change) {
  const SlotNo slot = claimed.suspect.slot;
  Result<CawResult> edited = co_await editor.edit(geometry_.slot_record_offset(slot), format::kSlotMagic,
                                                  [&](CawImage& image) -> Result<CawEditor::Plan> {
                                                    auto& record = image.as<SlotRecord>();
                                                    const Result<SlotView> view = view_slot(slot, record);
                                                    if (!view) return fail(view.error());
                                                    if (done(*view)) return CawEditor::Plan::kLeave;
                                                    if (!recovers(*view, claimed.card))
                                                      return fail(Errc::kAgain, "slot", slot.value);
                                                    change(record);
                                                    return CawEditor::Plan::kWrite;
                                                  });
  if (!edited) co_return fail(edited.error());
  co_return std::move(edited->image);
}

// As it was: its node's own, or left by another recoverer, who may not have ended for good (see revive()).
Task<Result<>> Recovery::give_back(const Claimed& claimed) {
  if (!claimed.before) co_return Result<>{};
  const SlotRecord& before = *claimed.before;
  Result<CawImage> done = co_await step(
      unasked_, claimed, [&](const SlotView& view) { return !recovers(view, claimed.card); },
      [&](SlotRecord& record) {
        record.state = before.state;
        record.recoverer_slot = before.recoverer_slot.value();
        record.recoverer_incarnation = before.recoverer_incarnation.value();
        record.recoverer_key = before.recoverer_key.value();
        record.recoverer_isid = before.recoverer_isid.value();
        record.recoverer_name = before.recoverer_name;
      });
  if (!done) co_return fail(done.error());
  co_return Result<>{};
}

// The node that has just been fenced had claimed this one.
Task<Result<>> Recovery::stand_up(const Claimed& claimed) {
  const NodeId self = claimed.card.node;
  if (self.slot == kNoSlotOfItsOwn || self.slot == claimed.suspect.slot) co_return Result<>{};
  bool stood_up = false;
  Result<CawResult> edited = co_await unasked_.edit(
      geometry_.slot_record_offset(self.slot), format::kSlotMagic, [&](CawImage& image) -> Result<CawEditor::Plan> {
        auto& record = image.as<SlotRecord>();
        const Result<SlotView> view = view_slot(self.slot, record);
        if (!view) return fail(view.error());
        const NodeId victim{claimed.suspect.slot, claimed.suspect.incarnation};
        const bool claimed_by_victim = view->state == SlotState::kRecovering && view->may_write(self) &&
                                       view->key == claimed.card.key && view->recoverer == victim;
        if (!claimed_by_victim) return CawEditor::Plan::kLeave;
        clear_recoverer(record);
        record.state = static_cast<std::uint8_t>(SlotState::kActive);
        stood_up = true;
        return CawEditor::Plan::kWrite;
      });
  if (!edited) co_return fail(edited.error());
  if (stood_up)
    log_.info("slot {}, which had claimed this one, is fenced: it is ours again", claimed.suspect.slot.value);
  co_return Result<>{};
}

Task<Result<>> Recovery::fence(const Claimed& claimed) {
  const Time started = executor_.now();
  std::vector<FenceVictim> victims{claimed.victim};
  if (planted(PlantedFault::kReplayWithoutFence)) victims.clear();
  Result<> fenced = co_await fence_.run(std::move(victims));
  if (fenced) fenced = co_await stand_up(claimed);
  if (!fenced) co_return fenced;
  Result<CawImage> marked = co_await step(
      claimed, [&claimed](const SlotView& view) { return recovers(view, claimed.card) && view.may_be_replayed(); },
      [](SlotRecord& record) {
        const bool joiner = (record.flags & format::kSlotFenceAgain) != 0;
        record.flags = static_cast<std::uint8_t>((record.flags | format::kSlotFenced) & ~format::kSlotFenceAgain);
        if (!joiner) return;
        // It has nothing to do with the slot any more, and may come back.
        record.initiator_name.fill('\0');
        record.isid = 0;
        record.pr_key = 0;
      });
  if (!marked) co_return fail(marked.error());
  log_.info("slot {} fenced in {:.1f} s", claimed.suspect.slot.value, seconds(executor_.now() - started));
  co_return Result<>{};
}

// Where trying again will not help, those who wait for what the dead node owned are told, on every node. A joiner has
// ended what it wrote, so that nobody needs to fence it; it leaves its name, for its host may come back with it.
Task<void> Recovery::replay_failed(const Claimed& claimed, const Error& error, HandOver hand_over) {
  const SlotNo slot = claimed.suspect.slot;
  log_.error(
      "the journal of slot {} cannot be replayed: {} ({}). What its node had locked stays locked until it can; "
      "cawfs-replay --slot {} shows what is wrong with it",
      slot.value, describe(error.code), error.where, slot.value);
  const bool damaged = is_damage(error.code);
  const bool leaves = hand_over == HandOver::kTake;
  if (!damaged && !leaves) co_return;
  const Result<CawImage> marked = co_await step(
      claimed,
      [&](const SlotView& view) { return leaves ? !recovers(view, claimed.card) : !damaged || view.damaged(); },
      [&](SlotRecord& record) {
        if (damaged) record.flags = static_cast<std::uint8_t>(record.flags | format::kSlotDamaged);
        if (!leaves) return;
        clear_recoverer(record);
        record.recoverer_slot = kNoSlotOfItsOwn.value;
      });
  if (!marked) log_.warning("slot {} could not be marked: {}", slot.value, describe(marked.error().code));
}

Task<Result<>> Recovery::complete(Claimed claimed, HandOver hand_over) {
  const SlotNo slot = claimed.suspect.slot;
  if (!claimed.may_be_replayed) {
    Result<> fenced = co_await fence(claimed);
    if (!fenced) co_return fenced;
  }

  const Time started = executor_.now();
  Result<CawImage> image = co_await editor_.read(geometry_.slot_record_offset(slot), format::kSlotMagic);
  if (!image) co_return fail(image.error());
  const Result<SlotView> view = view_slot(slot, image->as<SlotRecord>());
  if (!view) co_return fail(view.error());
  if (!recovers(*view, claimed.card) || !view->may_be_replayed()) co_return fail(Errc::kAgain, "slot", slot.value);
  CAWFS_ASSERT(client_);
  Result<> replayed = co_await client_->replay(image->as<SlotRecord>(), view->node());
  if (!replayed) {
    co_await replay_failed(claimed, replayed.error(), hand_over);
    co_return replayed;
  }
  Result<> flushed;
  if (!planted(PlantedFault::kReplayNotFlushed)) flushed = co_await device_.flush();
  if (!flushed) co_return flushed;
  const Duration took = executor_.now() - started;

  // Where it ran unseen and others have used the slot since, the record is theirs: that is "done" too.
  Result<CawImage> done = co_await step(
      claimed,
      [&](const SlotView& now) {
        if (hand_over == HandOver::kTake) return now.state == SlotState::kActive && now.key == claimed.card.key;
        return now.state == SlotState::kClean || now.incarnation != claimed.suspect.incarnation;
      },
      [&](SlotRecord& record) {
        if (hand_over == HandOver::kTake) {
          occupy(record, claimed.card);
        } else {
          vacate(record);
        }
      });
  if (!done) co_return fail(done.error());
  log_.info("slot {} replayed in {:.1f} s; recovered {:.1f} s after it was claimed", slot.value, seconds(took),
            seconds(executor_.now() - claimed.started));
  co_return Result<>{};
}

}  // namespace cawfs
