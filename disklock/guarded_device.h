// The device that everything above membership uses: data, journal, locks, and the heartbeat. It keeps design §4 rules
// 5, 7 and 8 on their behalf:
//
// - A unit attention or a RESERVATION CONFLICT closes the gate: no write of any kind (write, flush, unmap, write
//   zeroes, COMPARE AND WRITE) is sent any more; those sent after the command that met it are waited for, those sent
//   before it count as ended. Then the NexusKeeper looks for this node's key and slot. If the node is still one, the
//   gate opens and the writes go out again; else the device ends.
// - A plain write, flush, unmap or write_zeroes whose outcome is unknown (a reset, a unit attention, a transport error)
//   is sent again until it has been answered. A device ends what it had in flight before it serves a request after a
//   transport error (an iSCSI session is reinstated), so no older copy of it can land later.
// - A new session counts as a reset: the target may have crashed and come back, and LIO raises no unit attention for
//   that. After each login the gate is closed before anything is changed, until unit attentions are drained and the
//   keeper has found key and slot; only then do changes go out on it, first those that the reset may have undone.
// - COMPARE AND WRITE is sent only where it will not be refused (see BlockDevice::session()): never before the session,
//   the first one included, has been looked after so. And right before each the keeper is asked whether its lease
//   allows it.
// - COMPARE AND WRITE is not sent again here: where it may have run the answer is kTransport, with the gate open again,
//   and CawEditor settles it.
// - Reads pass a closed gate and are sent again after unit attentions and transport errors. Only a read of what a reset
//   may have undone waits until that has been written again.
// - A cached write is kept until a flush has followed it, and is written again after a reset, before any other write: a
//   target that lost its power has lost its cache, and the flush after that would know nothing of it. A change that was
//   in flight at a reset is sent again whatever its answer.
//
// So callers see kMiscompare, kMedium, kThinFull, kBounds, kUnsupported, kTransport from compare_and_write() only, and,
// once the device has ended, the error it was ended with (kFenced, kStopping). While the storage is gone, requests
// wait.
//
// A lapsed self-lease does not stop plain writes: what makes a dead node's writes harmless is the fence, which the
// device itself enforces. The lease guards what is served from memory, and those who serve ask Membership.
//
// Reservation actions, reset_lun() and evict() pass a closed gate too; those that meet a unit attention are sent again,
// and it is noted as above.
#pragma once

#include <boost/intrusive/list.hpp>
#include <cstdint>
#include <optional>

#include "core/device/device.h"
#include "core/device/forwarding_device.h"
#include "core/runtime/executor.h"
#include "core/runtime/sync.h"
#include "core/runtime/task_group.h"
#include "disklock/unflushed_writes.h"

namespace cawfs {

// Knows whether this node still is one. The cluster member is its own keeper.
class NexusKeeper {
 public:
  virtual ~NexusKeeper() = default;
  // All writes are stopped. Returns ok once the key is registered, the reservation exists and the slot is ours; an
  // error ends the device for good. Waits out transport errors; uses the raw device. `reset`: there may have been one.
  virtual Task<Result<>> regain(bool reset) = 0;
  // May a COMPARE AND WRITE go out now? Where not, it waits for GuardedDevice::keeper_changed().
  virtual bool may_compare_and_write() const { return true; }
  // 29/xx or a new session was seen just now: called before any request is answered after it. Must not wait.
  virtual void reset_seen() {}
};

class GuardedDevice final : public BlockDevice {
 public:
  // `raw` and `executor` outlive it. join() before it is destroyed.
  GuardedDevice(BlockDevice& raw, Executor& executor);
  // Without a keeper a unit attention or conflict only has the request sent again, conflicts after a while.
  void set_keeper(NexusKeeper* keeper);
  // What may_compare_and_write() says may have changed.
  void keeper_changed() { changed_.notify_all(); }

  // Every request from now on, and those that wait for the gate, fail with `reason`. Only the first call counts.
  void end(Error reason);
  bool ended() const { return ended_.has_value(); }
  // Waits until the gate's own task has ended.
  Task<void> join();

  // Something of this node's registration was found missing: closes the gate and has the keeper look.
  void doubt() { close_gate(false, 0); }
  // A write that is sent once, for heartbeats: waits until the keeper has found this node to be one, but not for the
  // cached writes that a reset has undone, and leaves its outcome to the caller. It must be durable: nothing of it is
  // kept.
  Task<Result<>> write_once(std::uint64_t offset, std::span<const std::byte> data, Durability durability);
  // As compare_and_write(), but the keeper is not asked.
  Task<Result<>> compare_and_write_unasked(std::uint64_t offset, std::span<const std::byte> expected,
                                           std::span<const std::byte> data);

  const DeviceFacts& facts() const override { return raw_.facts(); }
  Task<Result<>> read(std::uint64_t offset, std::span<std::byte> out) override;
  Task<Result<>> write(std::uint64_t offset, std::span<const std::byte> data, Durability durability) override;
  Task<Result<>> flush() override;
  Task<Result<>> unmap(std::uint64_t offset, std::uint64_t length) override;
  Task<Result<>> write_zeroes(std::uint64_t offset, std::uint64_t length) override;
  Task<Result<>> compare_and_write(std::uint64_t offset, std::span<const std::byte> expected,
                                   std::span<const std::byte> data) override;
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
  // The raw device is the owner's to close.
  Task<void> close() override;

 private:
  // A request that changes the medium.
  struct Change {
    enum class Kind : std::uint8_t { kWrite, kFlush, kUnmap, kZero };
    Kind kind;
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    std::span<const std::byte> data;
    Durability durability = Durability::kCached;
  };
  struct InFlight : boost::intrusive::list_base_hook<boost::intrusive::link_mode<boost::intrusive::auto_unlink>> {
    std::uint64_t sequence = 0;
    bool changes = true;  // no read
  };
  Task<Result<>> change(Change change);
  // Sends what `request` makes until it meets no unit attention any more.
  template <class Request>
  auto pass(Request request) -> decltype(request());
  Task<Result<>> send(const Change& change);
  // Waits until the gate is open; the error that the device has ended with.
  Task<Result<>> pass_gate();
  // The same, or open for heartbeats alone.
  Task<Result<>> pass_gate_for_heartbeat();
  // The same, until a COMPARE AND WRITE sent without waiting any more will not be refused. kYes: and the keeper allows
  // it.
  enum class Asks : bool { kNo, kYes };
  Task<Result<>> pass_gate_for_caw(Asks asks);
  Task<Result<>> compare_and_write(std::uint64_t offset, std::span<const std::byte> expected,
                                   std::span<const std::byte> data, Asks asks);
  // Reads until no unit attention waits.
  Task<void> drain_attentions();
  // Notes an error's meaning for the nexus; true if the request may be sent again.
  bool note(const Error& error, std::uint64_t sequence);
  // To be called before whatever depends on which session this is.
  void note_session();
  void close_gate(bool reset, std::uint64_t sequence);
  Task<void> reopen();
  bool later_change_in_flight() const;
  bool older_in_flight(std::uint64_t sequence) const;
  void start(InFlight& request);
  void finish(InFlight& request);
  bool may_be_undone(std::uint64_t offset, std::uint64_t length) const;
  Task<Result<>> write_unflushed_again();
  void remember(const Change& change);

  BlockDevice& raw_;
  Executor& executor_;
  NexusKeeper* keeper_ = nullptr;
  std::optional<Error> ended_;

  std::uint64_t sequence_ = 0;
  boost::intrusive::list<InFlight, boost::intrusive::constant_time_size<false>> in_flight_;
  bool open_ = true;
  bool writing_again_ = false;      // closed but for heartbeats: the node is one still
  std::uint64_t session_;           // the latest that was noted
  bool admitted_ = false;           // it has been looked after
  bool reset_ = false;              // a reset was seen since the gate closed
  std::uint64_t resets_ = 0;        // counts them
  std::uint64_t attention_at_ = 0;  // requests sent before this one count as ended
  std::uint64_t attentions_ = 0;    // counts them; a new one restarts what the gate's task does
  Condition changed_;               // gate opened, request ended, device ended
  TaskGroup tasks_;

  UnflushedWrites unflushed_;
};

// The same device for who must not wait until the keeper allows a COMPARE AND WRITE.
class UnaskedDevice final : public ForwardingDevice {
 public:
  explicit UnaskedDevice(GuardedDevice& device) : ForwardingDevice(device), device_(device) {}
  Task<Result<>> compare_and_write(std::uint64_t offset, std::span<const std::byte> expected,
                                   std::span<const std::byte> data) override {
    return device_.compare_and_write_unasked(offset, expected, data);
  }

 private:
  GuardedDevice& device_;
};

}  // namespace cawfs
