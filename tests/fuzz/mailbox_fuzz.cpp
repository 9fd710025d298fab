// A mailbox: what is taken out of it can be put into one again, and lies where locks are.
#include <vector>

#include "core/base/assert.h"
#include "core/format/cluster_verify.h"
#include "disklock/mailbox.h"
#include "tests/fuzz/block_input.h"
#include "tests/fuzz/fresh_image.h"

namespace cawfs::fuzz {
namespace {

constexpr std::uint8_t kLogicalBlock512 = 4;
constexpr std::uint8_t kRightParties = 8;
constexpr SlotNo kTo{2};
constexpr SlotNo kFrom{0};

void check_mail(const Mail& mail, const Geometry& geometry) {
  CAWFS_ASSERT(mail.wants.size() <= format::kWantsPerMailbox);
  for (const MailWant& want : mail.wants) {
    CAWFS_ASSERT(want.block == geometry.global_lock || geometry.in_groups(want.block));
    CAWFS_ASSERT(want.entries != 0 && want.entries < 1u << format::kEntriesPerLockBlock);
    CAWFS_ASSERT(want.mode != LockMode::kNone && want.mode <= LockMode::kExclusive);
  }
  Block again{};
  const auto block = std::span(again).first(geometry.logical_block);
  seal_mail(mail, kTo, kFrom, geometry, block);
  CAWFS_ASSERT(format::verify_mailbox(block, geometry.mailbox_offset(kTo, kFrom), geometry.fs_id, kTo, kFrom));
  const auto parsed = parse_mail(block, kTo, kFrom, geometry);
  CAWFS_ASSERT(parsed && parsed->from == mail.from && parsed->to == mail.to && parsed->sequence == mail.sequence &&
               parsed->ring == mail.ring && parsed->wants == mail.wants);
}

void run(FuzzInput input) {
  const std::uint8_t flags = input.byte();
  const Geometry& geometry = fresh_image((flags & kLogicalBlock512) != 0 ? 512 : 4096).geometry;
  const std::uint64_t offset = geometry.mailbox_offset(kTo, kFrom);
  // No longer than on the device: what reads beyond it is seen.
  std::vector<std::byte> bytes(geometry.logical_block);
  const std::span block(bytes);
  input.fill(block);
  if ((flags & kRightParties) != 0) {
    auto& box = *reinterpret_cast<format::Mailbox*>(block.data());
    box.from = kFrom.value;
    box.to = kTo.value;
  }
  right_cluster_block(block, flags, format::kMailboxMagic, offset, geometry.fs_id);
  const bool good = format::verify_mailbox(block, offset, geometry.fs_id, kTo, kFrom).has_value();
  if (good) {
    auto again = bytes;
    format::seal_mailbox(again, offset, geometry.fs_id);
    CAWFS_ASSERT(again == bytes);
  }
  if (const auto mail = parse_mail(block, kTo, kFrom, geometry); mail) check_mail(*mail, geometry);
}

}  // namespace
}  // namespace cawfs::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  cawfs::fuzz::run({data, size});
  return 0;
}
