#include "core/format/cluster_verify.h"

#include <cstring>

#include "core/base/assert.h"
#include "core/format/checksums.h"
#include "core/format/verify_internal.h"

namespace cawfs::format {
namespace {

constexpr std::size_t kMagicAt = 0;
constexpr std::size_t kCrcAt = offsetof(CawHeader, crc);

void put32(std::span<std::byte> block, std::size_t at, std::uint32_t value) {
  le32 out;
  out = value;
  std::memcpy(block.data() + at, &out, sizeof(out));
}

std::uint32_t get32(std::span<const std::byte> block, std::size_t at) {
  le32 in;
  std::memcpy(&in, block.data() + at, sizeof(in));
  return in.value();
}

void seal(std::span<std::byte> block, std::uint32_t magic, std::uint64_t offset, std::uint64_t fs_id) {
  put32(block, kMagicAt, magic);
  put32(block, kCrcAt, cluster_crc(block, offset, fs_id));
}

// Magic, checksum, and zeros behind the first 512 bytes.
Result<> verify_outside(std::span<const std::byte> block, std::uint32_t magic, std::uint64_t offset,
                        std::uint64_t fs_id, const char* name) {
  CAWFS_ASSERT(block.size() >= kClusterBlockBytes);
  if (get32(block, kMagicAt) != magic) return fail(Errc::kBadMagic, name, offset / kBlockSize);
  if (get32(block, kCrcAt) != cluster_crc(block, offset, fs_id)) {
    return fail(Errc::kBadChecksum, name, offset / kBlockSize);
  }
  if (!all_zero(block.subspan(kClusterBlockBytes))) return fail(Errc::kBadValue, name, offset / kBlockSize);
  return {};
}

template <class T>
T copy_of(std::span<const std::byte> block) {
  static_assert(sizeof(T) == kClusterBlockBytes);
  T value;
  std::memcpy(&value, block.data(), sizeof(value));
  return value;
}

bool entry_is_possible(const LockEntry& entry) {
  if (entry.mode > static_cast<std::uint8_t>(LockModeOnDisk::kExclusive) || (entry.flags & ~kWaiterMask) != 0) {
    return false;
  }
  return entry.owner_incarnation.value() == 0 || entry.owner_slot.value() < kSlots;
}

bool record_is_possible(const SlotRecord& record) {
  constexpr std::uint8_t kFlags =
      kSlotLocal | kSlotFsck | kSlotFenced | kSlotTentative | kSlotDamaged | kSlotFenceAgain;
  if (record.state > static_cast<std::uint8_t>(SlotState::kRecovering) || (record.flags & ~kFlags) != 0) return false;
  const std::uint16_t recoverer = record.recoverer_slot.value();
  return record.header.reserved.value() == 0 && record.reserved0.value() == 0 && record.reserved1.value() == 0 &&
         all_zero(record.reserved2) && padded_with_zeros(record.host_name) &&
         padded_with_zeros(record.initiator_name) && padded_with_zeros(record.recoverer_name) &&
         (recoverer < kSlots || recoverer == 0xffff);
}

bool mailbox_is_possible(const Mailbox& mailbox) {
  if (mailbox.count.value() > kWantsPerMailbox || !all_zero(mailbox.reserved)) return false;
  for (std::size_t i = 0; i < kWantsPerMailbox; ++i) {
    const Want& want = mailbox.wants[i];
    if (want.reserved0 != 0 || want.reserved1.value() != 0 || want.entries.value() >= 1u << kEntriesPerLockBlock ||
        want.mode > static_cast<std::uint8_t>(LockModeOnDisk::kExclusive)) {
      return false;
    }
  }
  return true;
}

}  // namespace

Result<> verify_lock_block(std::span<const std::byte> block, std::uint64_t offset, std::uint64_t fs_id) {
  constexpr const char* kName = "lock block";
  if (const auto ok = verify_outside(block, kLockMagic, offset, fs_id, kName); !ok) return ok;
  const auto lock = copy_of<LockBlock>(block);
  if (lock.header.reserved.value() != 0 || !std::ranges::all_of(lock.entries, entry_is_possible)) {
    return fail(Errc::kBadValue, kName, offset / kBlockSize);
  }
  return {};
}

Result<> verify_slot_record(std::span<const std::byte> block, std::uint64_t offset, std::uint64_t fs_id) {
  constexpr const char* kName = "slot record";
  if (const auto ok = verify_outside(block, kSlotMagic, offset, fs_id, kName); !ok) return ok;
  if (!record_is_possible(copy_of<SlotRecord>(block))) return fail(Errc::kBadValue, kName, offset / kBlockSize);
  return {};
}

Result<> verify_heartbeat(std::span<const std::byte> block, std::uint64_t offset, std::uint64_t fs_id, SlotNo slot) {
  constexpr const char* kName = "heartbeat";
  if (const auto ok = verify_outside(block, kHeartbeatMagic, offset, fs_id, kName); !ok) return ok;
  const auto heartbeat = copy_of<Heartbeat>(block);
  if (heartbeat.slot.value() != slot.value) return fail(Errc::kBadIdentity, kName, offset / kBlockSize);
  if (heartbeat.reserved0.value() != 0 || !all_zero(heartbeat.reserved1)) {
    return fail(Errc::kBadValue, kName, offset / kBlockSize);
  }
  return {};
}

Result<> verify_mailbox(std::span<const std::byte> block, std::uint64_t offset, std::uint64_t fs_id, SlotNo to,
                        SlotNo from) {
  constexpr const char* kName = "mailbox";
  if (const auto ok = verify_outside(block, kMailboxMagic, offset, fs_id, kName); !ok) return ok;
  const auto mailbox = copy_of<Mailbox>(block);
  if (mailbox.to.value() != to.value || mailbox.from.value() != from.value) {
    return fail(Errc::kBadIdentity, kName, offset / kBlockSize);
  }
  if (!mailbox_is_possible(mailbox)) return fail(Errc::kBadValue, kName, offset / kBlockSize);
  return {};
}

void seal_lock_block(std::span<std::byte> block, std::uint64_t offset, std::uint64_t fs_id) {
  seal(block, kLockMagic, offset, fs_id);
  CAWFS_ASSERT(verify_lock_block(block, offset, fs_id));
}

void seal_slot_record(std::span<std::byte> block, std::uint64_t offset, std::uint64_t fs_id) {
  seal(block, kSlotMagic, offset, fs_id);
  CAWFS_ASSERT(verify_slot_record(block, offset, fs_id));
}

void seal_heartbeat_block(std::span<std::byte> block, std::uint64_t offset, std::uint64_t fs_id) {
  seal(block, kHeartbeatMagic, offset, fs_id);
}

void seal_mailbox(std::span<std::byte> block, std::uint64_t offset, std::uint64_t fs_id) {
  seal(block, kMailboxMagic, offset, fs_id);
}

}  // namespace cawfs::format
