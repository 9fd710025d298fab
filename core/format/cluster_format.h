// On-disk structures of the cluster: slot records, heartbeats, mailboxes and lock blocks. Each takes the first 512
// bytes of a logical block; the rest of a 4096-byte one is zero.
#pragma once

#include <array>

#include "core/format/block_header.h"

namespace cawfs::format {

inline constexpr std::size_t kClusterBlockBytes = 512;
inline constexpr std::size_t kEntriesPerLockBlock = 15;

enum class LockModeOnDisk : std::uint8_t { kNone = 0, kShared = 1, kDeferred = 2, kExclusive = 3 };

// Entry flags, meaningful in S and D: what the waiter named by the owner fields waits for (0: nobody waits).
inline constexpr std::uint8_t kWaiterNone = 0;
inline constexpr std::uint8_t kWaiterShared = 1;
inline constexpr std::uint8_t kWaiterDeferred = 2;
inline constexpr std::uint8_t kWaiterExclusive = 3;
inline constexpr std::uint8_t kWaiterMask = 3;

struct LockEntry {
  le8 mode;   // LockModeOnDisk
  le8 flags;  // kWaiter*
  le16 owner_slot;
  le32 owner_incarnation;  // EX: the holder; S, D: the one waiter for an incompatible mode
  le64 generation;         // grows with each grant of EX, and of D from another mode
  le64 sharers;            // S, D: bit per slot that holds it; EX: slots known to be waiting
  le64 openers;            // bit per slot that has the inode open while holding no lock on it
};
static_assert(sizeof(LockEntry) == 32);

struct LockBlock {
  CawHeader header;  // kLockMagic
  std::array<LockEntry, kEntriesPerLockBlock> entries;
};
static_assert(sizeof(LockBlock) == kClusterBlockBytes);

// Entries of the global lock block. A group's lock block uses entry 0; entry i of an inode chunk's covers its inode i.
inline constexpr std::uint8_t kEntrySuper = 0;
inline constexpr std::uint8_t kEntryRename = 1;
inline constexpr std::uint8_t kEntryNodes = 2;
inline constexpr std::uint8_t kEntryFreeze = 3;

enum class SlotState : std::uint8_t { kFree = 0, kClean = 1, kWantsJournal = 2, kActive = 3, kRecovering = 4 };

inline constexpr std::uint8_t kSlotLocal = 1;      // mounted -o local
inline constexpr std::uint8_t kSlotFsck = 2;       // taken by fsck
inline constexpr std::uint8_t kSlotFenced = 4;     // RECOVERING: the fence has ended
inline constexpr std::uint8_t kSlotTentative = 8;  // the journal extents are not settled yet
inline constexpr std::uint8_t kSlotDamaged = 16;   // RECOVERING: the journal cannot be replayed, see Recovery
// RECOVERING and fenced: initiator_name, isid and pr_key are not the node's any more but an earlier recoverer's, which
// had no slot of its own, may have begun to replay, and is to be fenced as well.
inline constexpr std::uint8_t kSlotFenceAgain = 32;

inline constexpr std::size_t kInitiatorNameBytes = 144;  // longer names are refused at join
inline constexpr std::size_t kJournalExtents = 4;

struct JournalExtent {
  le64 start;  // block
  le32 count;  // blocks; 0: unused
};
static_assert(sizeof(JournalExtent) == 12);

struct SlotRecord {
  CawHeader header;  // kSlotMagic
  le8 state;         // SlotState
  le8 flags;         // kSlot*
  le16 reserved0;
  le32 incarnation;
  std::array<std::uint8_t, 16> node_uuid;  // of the host
  std::array<std::uint8_t, 16> boot_id;
  std::array<char, 32> host_name;                        // padded with zeros
  std::array<char, kInitiatorNameBytes> initiator_name;  // padded with zeros; empty where there are no sessions
  le64 isid;
  le64 pr_key;
  std::array<JournalExtent, kJournalExtents> journal;
  // RECOVERING: who recovers it; else zero. Slot 0xffff: a joiner that took no slot of its own.
  le16 recoverer_slot;
  le16 reserved1;
  le32 recoverer_incarnation;
  le64 recoverer_key;
  le64 recoverer_isid;
  std::array<char, kInitiatorNameBytes> recoverer_name;
  le32 dead_time_ms;
  le32 heartbeat_ms;
  std::array<std::uint8_t, 24> reserved2;
};
static_assert(sizeof(SlotRecord) == kClusterBlockBytes);

struct Heartbeat {
  le32 magic;  // kHeartbeatMagic
  le32 crc;    // as CawHeader's
  le32 incarnation;
  le16 slot;
  le16 reserved0;
  le64 counter;  // changes with every heartbeat
  // Figures for `cawfs status`.
  le64 locks_held;
  le64 dirty_bytes;
  le64 operations;
  le32 journal_blocks;
  le32 journal_used;
  std::array<std::uint8_t, 456> reserved1;
};
static_assert(sizeof(Heartbeat) == kClusterBlockBytes);

inline constexpr std::size_t kWantsPerMailbox = 28;

struct Want {
  le64 lock_block;  // block number
  le8 mode;         // LockModeOnDisk
  le8 reserved0;
  le16 entries;  // 15-bit mask
  le32 reserved1;
};
static_assert(sizeof(Want) == 16);

struct Mailbox {
  le32 magic;  // kMailboxMagic
  le32 crc;    // as CawHeader's
  le64 sequence;
  le32 from_incarnation;
  le32 to_incarnation;
  le64 ring;  // counts rings
  le16 from;
  le16 to;
  le16 count;  // wants in use
  std::array<std::uint8_t, 26> reserved;
  std::array<Want, kWantsPerMailbox> wants;
};
static_assert(sizeof(Mailbox) == kClusterBlockBytes);

}  // namespace cawfs::format
