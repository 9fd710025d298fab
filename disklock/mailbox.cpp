#include "disklock/mailbox.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "core/base/assert.h"
#include "disklock/readable_blocks.h"

namespace cawfs {

namespace {

using namespace std::chrono_literals;

constexpr Duration kBadFor = 1s;                       // how long a wrong checksum may be a read that met a write
constexpr std::uint64_t kBytesPerSecond = 10'000'000;  // of polling, at most
constexpr int kManyNodes = 16;

}  // namespace

Mailboxes::Mailboxes(Membership& membership, const Geometry& geometry, Log& log, MailboxTuning tuning)
    : membership_(membership),
      geometry_(geometry),
      log_(log),
      tuning_(tuning),
      tasks_(membership.executor()),
      hurry_(membership.executor()),
      interval_(tuning.fastest),
      row_(std::size_t{kSlots} * geometry.logical_block) {}

Mailboxes::~Mailboxes() {
  CAWFS_ASSERT(sink_ == nullptr);
}

void Mailboxes::start(MailSink* sink) {
  sink_ = sink;
  membership_.add_observer(this);
  tasks_.spawn(poll());
}

Task<void> Mailboxes::stop() {
  if (sink_ == nullptr) co_return;
  stopping_ = true;
  hurry_.notify_all();
  co_await tasks_.join();
  membership_.remove_observer(this);
  sink_ = nullptr;
}

void Mailboxes::slot_changed(SlotNo slot, format::SlotState from, format::SlotState to, Incarnation incarnation) {
  Inbox& box = in_[slot.value];
  if (to == format::SlotState::kActive) {
    box.ended = std::min(box.ended, Incarnation{incarnation.value - 1});
    if (out_[slot.value]) write_soon(slot);  // to another incarnation now
    hurry();
  } else if (from == format::SlotState::kActive || from == format::SlotState::kRecovering) {
    box.ended = std::max({box.ended, incarnation, box.mail.from});
  }
}

// ---- Outgoing ----

void Mailboxes::want(NodeId to, LockName name, LockMode mode) {
  CAWFS_ASSERT(to.slot.value < kSlots && to.slot != membership_.self().slot && mode != LockMode::kNone);
  auto& box = out_[to.slot.value];
  if (!box) {
    box = std::make_unique<Outbox>();
    box->buffer = IoBuffer(geometry_.logical_block);
  }
  const bool new_node = to.incarnation > box->wanted_of;
  if (new_node) box->wanted_of = to.incarnation;
  const auto [at, added] = box->wants.try_emplace(name, mode);
  const bool changed = added || std::exchange(at->second, mode) != mode;
  if (changed || new_node) write_soon(to.slot);
}

void Mailboxes::unwant(SlotNo to, LockName name) {
  auto& box = out_[to.value];
  if (box && box->wants.erase(name) > 0) write_soon(to);
}

void Mailboxes::ring(SlotNo to) {
  auto& box = out_[to.value];
  if (!box) {
    box = std::make_unique<Outbox>();
    box->buffer = IoBuffer(geometry_.logical_block);
  }
  ++box->ring;
  write_soon(to);
}

void Mailboxes::write_soon(SlotNo to) {
  Outbox& box = *out_[to.value];
  box.dirty = true;
  if (box.writing || stopping_ || sink_ == nullptr) return;
  box.writing = true;
  tasks_.spawn(write_boxes(to));
}

Mail Mailboxes::pack(SlotNo to, Outbox& box) {
  Mail mail{.from = membership_.self().incarnation,
            .to = std::max(box.wanted_of, membership_.incarnation_of(to)),
            .sequence = box.last.sequence,
            .ring = box.ring,
            .wants = {}};
  box.full = false;
  auto at = box.wants.lower_bound(box.turn);
  for (std::size_t left = box.wants.size(); left > 0; --left, ++at) {
    if (at == box.wants.end()) at = box.wants.begin();
    const auto& [name, mode] = *at;
    const auto same = [&](const MailWant& want) { return want.block == name.block && want.mode == mode; };
    auto want = std::ranges::find_if(mail.wants, same);
    if (want == mail.wants.end()) {
      if (mail.wants.size() == format::kWantsPerMailbox) {
        box.full = true;
        box.next_turn = name;
        break;
      }
      want = mail.wants.insert(want, MailWant{name.block, mode, 0});
    }
    want->entries = static_cast<std::uint16_t>(want->entries | (1u << name.entry));
  }
  return mail;
}

Task<void> Mailboxes::write_boxes(SlotNo to) {
  Outbox& box = *out_[to.value];
  while (std::exchange(box.dirty, false) && !stopping_) {
    Mail mail = pack(to, box);
    ++mail.sequence;
    seal_mail(mail, to, membership_.self().slot, geometry_, box.buffer.bytes());
    box.last = std::move(mail);
    box.written_at = membership_.executor().now();
    ++written_;
    const std::uint64_t offset = geometry_.mailbox_offset(to, membership_.self().slot);
    Result<> done = co_await membership_.device().write(offset, box.buffer.bytes(), Durability::kCached);
    if (!done) break;  // written again with the next change, or after a second; a node that has ended wants nothing
  }
  box.writing = false;
}

void Mailboxes::tend_outboxes() {
  const Time now = membership_.executor().now();
  for (std::uint16_t slot = 0; slot < kSlots; ++slot) {
    if (!out_[slot] || out_[slot]->wants.empty()) continue;
    Outbox& box = *out_[slot];
    if (box.full && now - box.turn_at >= tuning_.take_turns) {
      box.turn = box.next_turn;
      box.turn_at = now;
      write_soon(SlotNo{slot});
    } else if (now - box.written_at >= tuning_.write_again) {
      write_soon(SlotNo{slot});
    }
  }
}

// ---- Incoming ----

void Mailboxes::hurry() {
  interval_ = fastest();
  hurry_.notify_all();
}

Duration Mailboxes::fastest() const {
  const auto nodes = std::popcount(membership_.active_slots());
  const std::uint64_t row_bytes = std::uint64_t{row_length()} * geometry_.logical_block;
  const Duration paced{row_bytes * 1'000'000'000 / kBytesPerSecond};
  return std::max({tuning_.fastest, nodes * tuning_.fastest_per_node, paced});
}

Duration Mailboxes::slowest() const {
  const bool many = std::popcount(membership_.active_slots()) > kManyNodes;
  return std::max(many ? tuning_.slowest_many : tuning_.slowest, fastest());
}

std::uint16_t Mailboxes::row_length() const {
  // One more than is known of: the next to join takes the first free slot.
  const auto known = static_cast<std::uint32_t>(std::bit_width(membership_.active_slots()));
  return static_cast<std::uint16_t>(std::min<std::uint32_t>(known + 1, geometry_.slots));
}

Task<void> Mailboxes::poll() {
  Executor& executor = membership_.executor();
  while (!stopping_ && !membership_.withdrawn()) {
    const Time began = executor.now();
    const bool moved = co_await poll_once();
    const Duration took = executor.now() - began;
    ++polls_;
    tend_outboxes();
    interval_ = moved ? fastest() : std::min(interval_ * 9 / 8, slowest());
    while (!stopping_) {
      const Time next = began + std::max(interval_, 2 * took);
      if (executor.now() >= next) break;
      co_await hurry_.wait_until(next);
    }
  }
}

Task<bool> Mailboxes::poll_once() {
  const SlotNo self = membership_.self().slot;
  const std::uint16_t length = row_length();
  const auto row = row_.bytes().first(std::size_t{length} * geometry_.logical_block);
  Result<> done = co_await read_readable_blocks(membership_.device(), geometry_.mailbox_offset(self, SlotNo{0}), row,
                                                geometry_.logical_block);
  if (!done) co_return false;
  bool moved = false;
  for (std::uint16_t from = 0; from < length; ++from) {
    if (from == self.value) continue;
    const auto block = row.subspan(std::size_t{from} * geometry_.logical_block, geometry_.logical_block);
    moved |= take_in(SlotNo{from}, block);
  }
  co_return moved;
}

bool Mailboxes::take_in(SlotNo from, std::span<const std::byte> block) {
  Inbox& box = in_[from.value];
  const NodeId self = membership_.self();
  Result<Mail> mail = parse_mail(block, self.slot, from, geometry_);
  if (!mail) {
    const Time now = membership_.executor().now();
    const bool first = !box.bad_since;
    if (first) box.bad_since = now;
    if (now - *box.bad_since < kBadFor) return true;
    if (!box.mail.wants.empty() || first)
      log_.warning("mailbox of slot {}: {}", from.value, describe(mail.error().code));
    box.mail = {};
    return false;
  }
  box.bad_since.reset();
  const bool counts =
      mail->to == self.incarnation && mail->from > box.ended && mail->from >= membership_.incarnation_of(from);
  if (!counts) *mail = {};
  const bool same = mail->from == box.mail.from && mail->sequence == box.mail.sequence;
  if (same) return false;
  const bool rang = mail->ring != 0 && (mail->from != box.mail.from || mail->ring != box.mail.ring);
  box.mail = std::move(*mail);
  if (sink_ != nullptr) sink_->mail_came(from);
  if (sink_ != nullptr && rang) sink_->rung(from);
  return true;
}

std::vector<Waiting> Mailboxes::waiting(LockName name) const {
  std::vector<Waiting> out;
  for (std::uint16_t from = 0; from < kSlots; ++from) {
    const Mail& mail = in_[from].mail;
    if (mail.from <= in_[from].ended) continue;
    LockMode mode = LockMode::kNone;
    for (const MailWant& want : mail.wants) {
      if (want.block == name.block && (want.entries >> name.entry) & 1) mode = std::max(mode, want.mode);
    }
    if (mode != LockMode::kNone) out.push_back({{SlotNo{from}, mail.from}, mode});
  }
  return out;
}

std::span<const MailWant> Mailboxes::wants_of(SlotNo from) const {
  const Inbox& box = in_[from.value];
  if (box.mail.from <= box.ended) return {};
  return box.mail.wants;
}

}  // namespace cawfs
