// A node as a member of the cluster (design §7): joins, keeps its heartbeat and lease, watches the others, fences and
// recovers those that have died, leaves or withdraws. Everything lives on the node's executor.
//
// What may crash under it: the node itself at any moment (others recover its slot), the target, other nodes in the
// middle of recovering. While the storage is gone everything here waits, and resumes.
//
// Life: join() once; then leave() in any case before the object goes, also when join() has failed or the node has
// withdrawn.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "core/base/log.h"
#include "core/base/random.h"
#include "core/format/geometry.h"
#include "core/runtime/sync.h"
#include "core/runtime/task_group.h"
#include "disklock/caw.h"
#include "disklock/fence.h"
#include "disklock/guarded_device.h"
#include "disklock/heartbeat.h"
#include "disklock/join_plan.h"
#include "disklock/lease.h"
#include "disklock/membership.h"
#include "disklock/recovery.h"
#include "disklock/recovery_client.h"
#include "disklock/reservation.h"
#include "disklock/slot_table.h"
#include "disklock/suspicion.h"

namespace cawfs {

struct MemberOptions {
  std::string host_name;
  std::array<std::uint8_t, 16> node_uuid{};  // of the host
  std::array<std::uint8_t, 16> boot_id{};
  bool host_lock = false;  // see JoinerIdentity
  bool local = false;      // -o local
  bool no_aptpl = false;   // -o noaptpl
  Duration dead_time{};    // the superblock's
};

// A tenth of the dead-time, at most a second.
Duration heartbeat_interval(Duration dead_time);

class ClusterMember final : public Membership, private NexusKeeper {
 public:
  // All parameters outlive it. `raw` is used by nobody else from now on; closing it stays the caller's.
  ClusterMember(BlockDevice& raw, Executor& executor, Random& random, Log& log, const Geometry& geometry,
                MemberOptions options);
  ~ClusterMember() override;

  // Both before join(). The recovery client may use device() from the start.
  void set_recovery_client(RecoveryClient* client) { recovery_.set_client(client); }
  void set_figures(std::function<void(HeartbeatFigures&)> figures) { heart_.set_figures(std::move(figures)); }

  // Returns once the slot is ACTIVE and the lease valid. Recovers the own old slot, or a dead one where all are, first:
  // so it may take the dead-time and a replay. Errors: kUnsupported, kForeignReservation, kNameInUse, kNameTooLong,
  // kLocalMode, kLive, kNoSlot (each with a line in the log where there is more to say), those of the device.
  Task<Result<>> join();
  // The caller has everything in place and its journal empty. After withdrawal, or a join that failed, it only ends the
  // tasks. An error means that the slot is still ACTIVE on the disk, for others to recover.
  Task<Result<>> leave();

  Executor& executor() const override { return executor_; }
  NodeId self() const override { return self_; }
  BlockDevice& device() override { return guard_; }
  Time lease_end() const override { return withdrawn_ ? Time{} : lease_.end(); }
  Task<Result<>> wait_for_lease() override;
  Task<Result<format::SlotRecord>> read_slot(SlotNo slot) override;
  std::uint64_t active_slots() const override { return active_slots_; }
  Incarnation incarnation_of(SlotNo slot) const override { return seen_[slot.value].incarnation; }
  bool withdrawn() const override { return withdrawn_; }
  void withdraw(Error reason) override;
  void add_observer(MembershipObserver* observer) override;
  void remove_observer(MembershipObserver* observer) override;

 private:
  struct Seen {
    format::SlotState state = format::SlotState::kFree;
    Incarnation incarnation;
  };
  enum class Own : std::uint8_t { kMine, kBeingRecovered, kLost };

  // NexusKeeper.
  Task<Result<>> regain(bool reset) override;
  bool may_compare_and_write() const override;
  void reset_seen() override;

  // cluster_join.cpp
  Task<Result<>> join_steps();
  Task<Result<>> look_around();
  Task<Result<>> register_key();
  Task<Result<>> take(SlotNo slot);
  Task<Result<>> claim_and_recover(SlotNo slot);
  Task<Result<>> settle_in();
  Task<Result<>> give_back(Error reason);
  Task<Result<>> recover_all_others();
  NodeCard card(NodeId node) const;

  // cluster_leave.cpp
  Task<Result<>> vacate_slot();
  Task<void> unregister();
  Task<Result<bool>> may_unregister();
  Task<void> end_tasks();

  // cluster_watch.cpp
  Task<void> watch_loop();
  Task<void> watch_once();
  Task<void> check_own_slot();
  void note_slots();
  std::optional<Suspect> find_suspect() const;
  std::optional<Suspect> suspect_in(const SlotView& view) const;
  bool recoverer_has_ended(const SlotView& view) const;
  void set_writer(NodeId node);
  Task<void> recover(Suspect suspect);
  void recovery_failed(const Suspect& suspect, const Error& error);
  Task<void> registration_loop();
  Task<void> sweep(RegisteredKeys keys);

  Task<void> lease_loop();
  void heartbeat_completed(Time issued);
  void lease_changed();
  Own judge_own(const SlotView& view) const;
  Task<Result<Own>> look_at_own_slot();
  Task<Result<Own>> restore_registration();
  bool ending() const { return withdrawn_ || stop_.requested(); }
  template <class Call>
  void notify(Call call) {
    for (std::size_t i = 0; i < observers_.size(); ++i) call(*observers_[i]);
  }

  BlockDevice& raw_;
  Executor& executor_;
  Random& random_;
  Log& log_;
  Geometry geometry_;
  MemberOptions options_;
  Duration interval_;

  GuardedDevice guard_;
  CawEditor editor_;
  Registration registration_;
  Fence fence_;
  UnaskedDevice unasked_;
  CawEditor unasked_editor_;
  Recovery recovery_;
  HeartbeatWriter heart_;
  SlotTable table_;
  HeartbeatTable heartbeats_;
  SilenceWatch silence_;
  Lease lease_;

  NodeId self_;  // incarnation 0: none yet
  bool withdrawn_ = false;
  bool registered_ = false;
  bool settled_ = false;  // joined, and not leaving yet
  Time registered_at_;
  bool lease_was_valid_ = false;
  bool recovering_ = false;
  std::array<Time, kSlots> try_again_at_{};  // recovering each slot
  std::array<Seen, kSlots> seen_{};
  std::uint64_t active_slots_ = 0;
  std::map<PrKey, Time> unknown_keys_;  // and since when

  std::vector<MembershipObserver*> observers_;
  Condition lease_condition_;
  StopSource stop_;
  TaskGroup tasks_;
};

}  // namespace cawfs
