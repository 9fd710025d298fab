// Mailboxes (design §6.3): what this node wants from others, and they from it, as state on the disk. mailbox[to][from]
// is a plain-written logical block of `from`; nothing in it is acknowledged, a want stands until its writer takes it
// out.
//
// - Outgoing: want() and unwant() change what this node wants of another; a box is written when it has changed, one
// write
//   of it in flight, and once a second while anything stands in it (a target that lost its cache may have lost it). Up
//   to 28 wants fit; what does not takes turns, so that no want waits for another's being served. Who is asked by a
//   full box gives up what it has begun to give up, though the want's turn may have ended meanwhile.
// - Incoming: one read of this node's row, up to one past the highest slot in use, in a rhythm that adapts: fast while
//   something moves, slow when idle. A box counts if it was written to this incarnation by a node that has not ended;
//   one whose checksum is wrong (a read that met a write) keeps its former state and is read again, for a second.
//
// A mailbox may be late, lost, or out of date at any time: it only ever asks. Nothing relies on it but speed and
// fairness.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/base/log.h"
#include "core/base/types.h"
#include "core/device/io_buffer.h"
#include "core/format/geometry.h"
#include "core/fs/lock_service.h"
#include "core/runtime/sync.h"
#include "core/runtime/task_group.h"
#include "disklock/lock_entry.h"
#include "disklock/membership.h"

namespace cawfs {

struct MailboxTuning {
  Duration fastest = std::chrono::microseconds(500);
  Duration fastest_per_node = std::chrono::microseconds(50);
  Duration slowest = std::chrono::milliseconds(20);
  Duration slowest_many = std::chrono::milliseconds(50);  // above 16 nodes
  Duration write_again = std::chrono::seconds(1);
  Duration take_turns = std::chrono::milliseconds(20);  // where more is wanted than fits
};

// What stands in a mailbox.
struct MailWant {
  BlockNo block;
  LockMode mode = LockMode::kNone;
  std::uint16_t entries = 0;  // mask
  friend bool operator==(const MailWant&, const MailWant&) = default;
};
struct Mail {
  Incarnation from;
  Incarnation to;
  std::uint64_t sequence = 0;
  std::uint64_t ring = 0;
  std::vector<MailWant> wants;
};

// `block`: one logical block, at mailbox[to][from]. seal fills in the checksum; at most 28 wants.
void seal_mail(const Mail& mail, SlotNo to, SlotNo from, const Geometry& geometry, std::span<std::byte> block);
// An empty Mail for a block of zeroes. kBadMagic, kBadChecksum, kBadIdentity, kBadValue.
Result<Mail> parse_mail(std::span<const std::byte> block, SlotNo to, SlotNo from, const Geometry& geometry);

// Called from the poll; must not wait.
class MailSink {
 public:
  virtual ~MailSink() = default;
  // What `from` wants has been written anew (the same wants, maybe).
  virtual void mail_came(SlotNo from) = 0;
  virtual void rung(SlotNo from) = 0;
};

class Mailboxes final : private MembershipObserver {
 public:
  // All outlive it.
  Mailboxes(Membership& membership, const Geometry& geometry, Log& log, MailboxTuning tuning);
  ~Mailboxes() override;

  // Starts to poll. `sink` outlives stop().
  void start(MailSink* sink);
  // Ends polling and writing.
  Task<void> stop();

  // Asks `to` for `name` in `mode`, until unwant(). `to.incarnation` may be 0: the one that the node table shows.
  void want(NodeId to, LockName name, LockMode mode);
  void unwant(SlotNo to, LockName name);
  void ring(SlotNo to);
  // Something is awaited: polls fast for a while.
  void hurry();

  // The nodes that want `name`, with the modes they want.
  std::vector<Waiting> waiting(LockName name) const;
  // What `from` wants.
  std::span<const MailWant> wants_of(SlotNo from) const;
  // Its mailbox is full: what it does not show now may be wanted all the same, and take turns with the rest.
  bool takes_turns(SlotNo from) const { return wants_of(from).size() == format::kWantsPerMailbox; }
  // Polls ended, for "by its next poll".
  std::uint64_t polls() const { return polls_; }
  std::uint64_t boxes_written() const { return written_; }

 private:
  struct Outbox {
    std::map<LockName, LockMode> wants;
    Mail last;  // as last written
    Incarnation wanted_of;
    std::uint64_t ring = 0;
    LockName turn;       // where packing starts
    LockName next_turn;  // the first that did not fit
    Time turn_at;        // when the turn began
    bool full = false;   // more is wanted than fits
    bool dirty = false;
    bool writing = false;
    Time written_at;
    IoBuffer buffer;
  };
  struct Inbox {
    Mail mail;
    Incarnation ended;  // highest incarnation of the slot known to have ended
    std::optional<Time> bad_since;
  };

  void slot_changed(SlotNo slot, format::SlotState from, format::SlotState to, Incarnation incarnation) override;

  void write_soon(SlotNo to);
  Task<void> write_boxes(SlotNo to);
  Mail pack(SlotNo to, Outbox& box);
  void tend_outboxes();

  Task<void> poll();
  Task<bool> poll_once();
  bool take_in(SlotNo from, std::span<const std::byte> block);
  Duration fastest() const;
  Duration slowest() const;
  std::uint16_t row_length() const;

  Membership& membership_;
  const Geometry& geometry_;
  Log& log_;
  MailboxTuning tuning_;
  MailSink* sink_ = nullptr;
  TaskGroup tasks_;
  Condition hurry_;
  bool stopping_ = false;
  Duration interval_;
  std::uint64_t polls_ = 0;
  std::uint64_t written_ = 0;
  IoBuffer row_;
  std::array<std::unique_ptr<Outbox>, kSlots> out_;
  std::array<Inbox, kSlots> in_;
};

}  // namespace cawfs
