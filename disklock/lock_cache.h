// What a node remembers of lock blocks: the locks it holds, their local users, and what is under way. Only LockManager
// and its worker tasks touch these.
#pragma once

#include <algorithm>
#include <array>
#include <boost/intrusive/list.hpp>
#include <cstdint>
#include <optional>

#include "core/base/types.h"
#include "core/format/cluster_format.h"
#include "core/fs/lock_service.h"
#include "core/runtime/sync.h"
#include "disklock/caw.h"
#include "disklock/lock_entry.h"

namespace cawfs {

// A local user in the queue of a lock; stands in the frame of the coroutine that waits.
struct LockUser : boost::intrusive::list_base_hook<boost::intrusive::link_mode<boost::intrusive::auto_unlink>> {
  LockUser(Executor& executor, LockMode wanted, LocalUse wanted_use, Pressed when_pressed)
      : mode(wanted), use(wanted_use), pressed(when_pressed), granted(executor) {}
  LockMode mode;
  LocalUse use;
  Pressed pressed;
  Completion<Result<LockHold>> granted;
};
using LockUsers = boost::intrusive::list<LockUser, boost::intrusive::constant_time_size<false>>;

// How far giving the lock up has come.
enum class GiveUp : std::uint8_t {
  kNo,
  kAsked,    // another node wants it; users come and go, the kernel's caches are being dropped
  kClosing,  // new users wait; those there finish, what it covers is settled
  kReady,    // settled: the next CAW of the block lets it go
};

struct CachedLock {
  LockMode held = LockMode::kNone;
  GiveUp give_up = GiveUp::kNo;
  LockMode keep = LockMode::kNone;  // kReady: what may stay
  // Stood in a full mailbox when the give-up began. That node's wants take turns: not seeing this one now means
  // nothing.
  Waiting in_turns;
  bool exclusive_user = false;
  std::uint32_t shared_users = 0;
  Generation generation;
  Time since;  // when `held` was had
  LockUsers queue;
  Condition* drained = nullptr;  // kClosing: told when the last user leaves

  std::uint64_t openers = 0;    // other slots', as of the grant
  bool opener_on_disk = false;  // our own bit may be set
  bool check_opener = false;    // closed() waits for it to be cleared
  bool disown = false;          // asked about while we hold nothing: the entry may name us all the same
  bool handover = false;        // see AcquireRequest
  bool my_turn = false;         // the entry names us as its waiter
  std::uint32_t pressed = 0;    // see LockService::press()
  bool overtook = false;        // while pressed, this node has put itself before another waiter
  bool ahead = false;           // S is wanted though nobody here asks yet, until then:
  Time ahead_until;
  std::uint64_t asked = 0;     // slots in whose mailboxes our want stands
  std::uint64_t expected = 0;  // EX: slots that waited when we were granted, whose wants are on their way until then:
  Time expected_until;

  bool users() const { return exclusive_user || shared_users > 0; }
  LockMode wanted() const {
    LockMode mode = ahead ? LockMode::kShared : LockMode::kNone;
    for (const LockUser& user : queue) mode = std::max(mode, user.mode);
    return mode;
  }
  bool presses() const { return pressed > 0 && give_up == GiveUp::kAsked && held == LockMode::kShared; }
  bool needs_acquire() const { return (give_up == GiveUp::kNo || presses()) && wanted() > held; }
  // The entry names us as its waiter though those who waited for more have been told of an error: it keeps out others.
  bool waits_for_nobody() const {
    return my_turn && held != LockMode::kNone && give_up == GiveUp::kNo && !needs_acquire();
  }
  bool idle() const {
    return held == LockMode::kNone && queue.empty() && !users() && !opener_on_disk && !check_opener && !disown &&
           !ahead && asked == 0 && pressed == 0;
  }
};

struct CachedBlock {
  CachedBlock(Executor& executor, BlockNo number) : block(number), wake(executor), worked(executor) {}

  BlockNo block;
  std::array<CachedLock, format::kEntriesPerLockBlock> locks;

  // One task works on a block at a time: it alone reads and writes it.
  bool working = false;
  std::uint64_t resets_checked = 0;  // of the resets seen, those after which held entries were compared with the disk
  Condition wake;                    // there is something new to work on
  Condition worked;                  // the worker has done a round, or has ended

  // While working: what the block holds as far as we know, and slot records read since.
  CawImage image;
  SlotLives lives;
  Time read_at;                     // when the image was read
  Time lives_at;                    // when slot records were last read on behalf of this block
  Duration interval{0};             // of polling while waiting
  std::optional<Time> ready_since;  // the first lock waits to be let go
  std::uint32_t misses = 0;         // entries to be read here that another node held EX
  bool failing = false;             // the last round could not read or write the block
  // While not working: the last image in short, so that letting a lock go needs no read.
  std::optional<format::LockBlock> remembered;

  bool idle() const {
    if (working) return false;
    for (const CachedLock& lock : locks) {
      if (!lock.idle()) return false;
    }
    return true;
  }
};

}  // namespace cawfs
