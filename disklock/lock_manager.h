// The cluster's locks (design §6): LockService over on-disk lock blocks.
//
// Each lock block with something to do has one worker task, which reads it, plans the changes of all its entries
// (disklock/lock_entry.h), writes them with one COMPARE AND WRITE, and judges entry by entry where others came in
// between. Locks stay held without users until another node asks. A give-up runs on its own: the client drops the
// kernel's caches, the gate closes, users leave, the client settles; then the worker lets go, together with what else
// of the block is ready.
//
//   lock_manager.cpp  users, queues, asks, life and death
//   lock_worker.cpp   a block's worker: read, plan, write, wait
//   lock_round.cpp    one round of changes: planning, and what has become of them
//   lock_give_up.cpp  giving up
//
// Rules that users keep: never acquire a lock while holding the same one (an upgrade lets go first, and revalidates);
// LockService's order; nothing that waits for a remote lock is called from LockClient.
//
// LockMode::kDeferred is not used between nodes yet: it is served by EX.
//
// Crash, fencing: an entry held by a node that ended is free once its slot is CLEAN; nobody visits lock blocks for
// that. After a reset of the LUN every held entry is read again before it is served from; one that is lost ends the
// node.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <unordered_map>

#include "core/base/log.h"
#include "core/base/random.h"
#include "core/format/geometry.h"
#include "core/fs/lock_service.h"
#include "core/runtime/sync.h"
#include "core/runtime/task_group.h"
#include "disklock/caw.h"
#include "disklock/lock_cache.h"
#include "disklock/mailbox.h"
#include "disklock/membership.h"

namespace cawfs {

struct LockTuning {
  Duration minimum_hold = std::chrono::milliseconds(2);  // before a lock is given up again
  Duration expect_mail = std::chrono::milliseconds(25);  // how long a known waiter's want may take to reach a new owner
  Duration record_check = std::chrono::milliseconds(100);  // the records of those in the way are read at least so often
  Duration poll_fastest = std::chrono::microseconds(500);  // of a lock block waited for
  Duration poll_slowest = std::chrono::milliseconds(20);
  // Two entries of an inode chunk missed, or one soon after another chunk: S of all that their owner has is asked for.
  Duration ahead_again = std::chrono::milliseconds(100);
  Duration ahead_for = std::chrono::milliseconds(200);  // and not waited for longer
  Duration openers_answer = std::chrono::seconds(1);    // verify_openers(): for the others to look
  Duration gather = std::chrono::milliseconds(2);       // a give-up that is ready waits so long for others of its block
};

struct LockCounts {
  std::uint64_t held = 0;
  std::uint64_t reads = 0;         // of lock blocks
  std::uint64_t writes = 0;        // CAWs
  std::uint64_t given_up = 0;      // locks
  std::uint64_t record_reads = 0;  // of slot records, for staleness
};

class LockManager final : public LockService, private MailSink, private MembershipObserver {
 public:
  // All outlive it. Its I/O goes to membership.device().
  LockManager(Membership& membership, Mailboxes& mailboxes, const Geometry& geometry, Random& random, Log& log,
              LockTuning tuning);
  ~LockManager() override;

  void start();
  // Waiting users get kStopping; holds must have gone, or go soon. What is held stays on the disk: the slot's becoming
  // CLEAN frees it. The caller has everything under the locks in place.
  Task<void> stop();

  NodeId self() const override { return membership_.self(); }
  void set_client(LockClient* client) override { client_ = client; }
  Task<Result<LockHold>> acquire(LockName name, LockMode mode, LocalUse use,
                                 Pressed pressed = Pressed::kWaits) override;
  std::optional<LockHold> try_acquire(LockName name, LockMode mode, LocalUse use) override;
  Task<Result<>> adopt_chunk(BlockNo lock_block) override;
  bool yielding(LockName name) const override;
  std::uint64_t openers(LockName name) const override;
  Task<Result<>> check_openers(LockName name) override;
  Task<Result<>> verify_openers(std::vector<LockName> names) override;
  Task<Result<>> closed(LockName name) override;
  void press(LockName name) override;
  void unpress(LockName name) override;
  Time lease_end() const override { return membership_.lease_end(); }
  Task<Result<>> wait_for_lease() override { return membership_.wait_for_lease(); }

  // For status and tests.
  LockCounts counts() const;
  LockMode held(LockName name) const;
  // Called for each ring from another node.
  void on_ring(std::function<void(SlotNo)> callback) { on_ring_ = std::move(callback); }

 private:
  struct Round;

  void release(LockName name, LocalUse use) override;
  void mail_came(SlotNo from) override;
  void rung(SlotNo from) override;
  void reset_seen() override;
  void withdrawn(Error reason) override;

  CachedBlock& block_of(BlockNo number);
  const CachedLock* find(LockName name) const;
  bool may_use(const CachedBlock& block, const CachedLock& lock, LockMode mode, LocalUse use) const;
  bool at_once(const CachedBlock& block, const CachedLock& lock, LockMode mode, LocalUse use) const;
  static bool may_be_passed(const CachedLock& lock, const LockUser& user);
  LockHold use(LockName name, CachedLock& lock, LockMode mode, LocalUse use);
  void admit(CachedBlock& block, std::size_t entry);
  Task<Result<>> read_openers(LockName name);
  void fail_users(CachedLock& lock, const Error& error);
  // Another node goes first: refuses the users who do not wait for that.
  void yield(CachedLock& lock, LockName name);
  void fail_all(const Error& error);
  bool ended() const { return stopping_ || membership_.withdrawn(); }
  Error end_error() const;
  bool is_open(LockName name) const { return client_ != nullptr && client_->is_open(name); }

  // lock_give_up.cpp
  void consider(CachedBlock& block, std::size_t entry);
  LockMode conflicting_want(const std::vector<Waiting>& waiting, LockMode held) const;
  Waiting want_in_turns(const std::vector<Waiting>& waiting, LockMode held) const;
  std::vector<Waiting> waiting_for(LockName name, const CachedLock& lock) const;
  Task<void> give_up(CachedBlock& block, std::size_t entry);
  void let_go(CachedBlock& block, std::size_t entry, LockMode now_held, bool opener_on_disk);
  void keep_it(CachedBlock& block, std::size_t entry);

  // lock_worker.cpp
  void start_work(CachedBlock& block);
  Task<void> work(CachedBlock& block);
  Task<Result<>> work_once(CachedBlock& block);
  bool has_work(const CachedBlock& block) const;
  Task<Result<>> read_image(CachedBlock& block);
  Task<Result<>> read_records(CachedBlock& block, std::uint64_t slots);
  Task<Result<>> take_handed(CachedBlock& block, std::vector<std::size_t> entries);
  Task<Result<>> write_round(CachedBlock& block, Round round);
  Task<void> wait_for_change(CachedBlock& block, bool waiting, std::optional<Time> until);
  void end_work(CachedBlock& block);
  void slot_unknown(CachedBlock& block, SlotNo slot, const Error& error);
  void block_failed(CachedBlock& block, const Error& error);
  bool still_held(const CachedBlock& block) const;

  // lock_round.cpp
  Round plan(CachedBlock& block);
  void plan_entry(CachedBlock& block, std::size_t entry, Round& round);
  void plan_acquiring(CachedBlock& block, std::size_t entry, const LockEntry& now, Round& round);
  void plan_releasing(CachedBlock& block, std::size_t entry, const LockEntry& now, Round& round);
  void plan_cleaning(CachedBlock& block, std::size_t entry, const LockEntry& now, Round& round);
  void plan_waiting_no_more(CachedBlock& block, std::size_t entry, const LockEntry& now, Round& round);
  std::uint64_t records_to_read(const CachedBlock& block, std::uint64_t doubt, const LockEntry& now) const;
  bool seems_ended(SlotNo slot, const LockEntry& now) const;
  void ran(CachedBlock& block, const Round& round);
  void judge(CachedBlock& block, const Round& round);
  void granted(CachedBlock& block, std::size_t entry, const LockEntry& now, LockMode mode);
  void ask_ahead(CachedBlock& block, NodeId owner);
  void ask(CachedLock& lock, LockName name, std::uint64_t slots, LockMode mode, const LockEntry& now);
  void check_held(CachedBlock& block);
  void lost(LockName name);

  Executor& executor_;
  Membership& membership_;
  Mailboxes& mailboxes_;
  const Geometry& geometry_;
  Random& random_;
  Log& log_;
  LockTuning tuning_;
  CawEditor editor_;
  LockClient* client_ = nullptr;
  TaskGroup tasks_;
  StopSource stop_;
  Semaphore checks_;  // bounds the blocks compared at once after a reset
  std::uint64_t resets_ = 0;
  Time ahead_until_;  // a miss leads to asking for the chunk
  bool started_ = false;
  bool stopping_ = false;
  LockCounts counts_;
  std::unordered_map<BlockNo, std::unique_ptr<CachedBlock>> blocks_;
  // The last reading of each slot's record: a hint only.
  struct Seen {
    Time at;
    std::optional<Incarnation> live;
    bool unknown = false;  // the record is damaged
  };
  std::array<std::optional<Seen>, kSlots> seen_;
  std::function<void(SlotNo)> on_ring_;
};

}  // namespace cawfs
