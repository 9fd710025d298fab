#include <algorithm>
#include <cstring>

#include "core/base/assert.h"
#include "disklock/caw.h"
#include "disklock/mailbox.h"

namespace cawfs {

namespace {

constexpr std::uint16_t kAllEntries = (1u << format::kEntriesPerLockBlock) - 1;

// A mailbox starts as a CawHeader does, with magic and checksum, and its checksum is the same.
static_assert(offsetof(format::Mailbox, magic) == offsetof(format::CawHeader, magic));
static_assert(offsetof(format::Mailbox, crc) == offsetof(format::CawHeader, crc));

Result<MailWant> parse_want(const format::Want& want, const Geometry& geometry) {
  const BlockNo block{want.lock_block.value()};
  if (block != geometry.global_lock && !geometry.in_groups(block)) {
    return fail(Errc::kBadValue, "mailbox's lock block", block.value);
  }
  const std::uint16_t entries = want.entries.value();
  if (entries == 0 || (entries & ~kAllEntries) != 0) return fail(Errc::kBadValue, "mailbox's entries", entries);
  const auto mode = static_cast<LockMode>(want.mode);
  if (mode == LockMode::kNone || mode > LockMode::kExclusive) {
    return fail(Errc::kBadValue, "mailbox's mode", want.mode);
  }
  return MailWant{block, mode, entries};
}

}  // namespace

void seal_mail(const Mail& mail, SlotNo to, SlotNo from, const Geometry& geometry, std::span<std::byte> block) {
  CAWFS_ASSERT(mail.wants.size() <= format::kWantsPerMailbox);
  std::ranges::fill(block, std::byte{0});
  auto& box = *reinterpret_cast<format::Mailbox*>(block.data());
  box.magic = format::kMailboxMagic;
  box.sequence = mail.sequence;
  box.from_incarnation = mail.from.value;
  box.to_incarnation = mail.to.value;
  box.ring = mail.ring;
  box.from = from.value;
  box.to = to.value;
  box.count = static_cast<std::uint16_t>(mail.wants.size());
  for (std::size_t i = 0; i < mail.wants.size(); ++i) {
    box.wants[i].lock_block = mail.wants[i].block.value;
    box.wants[i].mode = static_cast<std::uint8_t>(mail.wants[i].mode);
    box.wants[i].entries = mail.wants[i].entries;
  }
  seal_caw(block, geometry.mailbox_offset(to, from), geometry.fs_id);
}

Result<Mail> parse_mail(std::span<const std::byte> block, SlotNo to, SlotNo from, const Geometry& geometry) {
  const auto& box = *reinterpret_cast<const format::Mailbox*>(block.data());
  if (box.magic.value() == 0 && box.crc.value() == 0) return Mail{};
  const std::uint64_t offset = geometry.mailbox_offset(to, from);
  if (const auto ok = verify_caw(block, format::kMailboxMagic, offset, geometry.fs_id); !ok) return fail(ok.error());
  if (box.from.value() != from.value || box.to.value() != to.value) {
    return fail(Errc::kBadIdentity, "mailbox", offset);
  }
  if (box.count.value() > format::kWantsPerMailbox) return fail(Errc::kBadValue, "mailbox's count", box.count.value());
  Mail mail{.from = Incarnation{box.from_incarnation.value()},
            .to = Incarnation{box.to_incarnation.value()},
            .sequence = box.sequence.value(),
            .ring = box.ring.value(),
            .wants = {}};
  for (std::size_t i = 0; i < box.count.value(); ++i) {
    const Result<MailWant> want = parse_want(box.wants[i], geometry);
    if (!want) return fail(want.error());
    mail.wants.push_back(*want);
  }
  return mail;
}

}  // namespace cawfs
