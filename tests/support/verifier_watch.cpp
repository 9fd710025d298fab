#include "tests/support/verifier_watch.h"

#include "core/base/assert.h"
#include "core/format/cluster_verify.h"
#include "core/format/journal_verify.h"
#include "core/format/verify.h"
#include "disklock/mailbox.h"

namespace cawfs::testing {
namespace {

using Bytes = std::span<const std::byte>;

constexpr std::uint64_t kNowhere = UINT64_MAX;

VerifierWatch* watch = nullptr;
// A record's crc and contents are looked at right after its start, which is told the address.
std::uint64_t record_offset = 0;

const char* name_of(format::BlockType type) {
  switch (type) {
    case format::BlockType::kSuperblock:
      return "superblock";
    case format::BlockType::kGroupHeader:
      return "group header";
    case format::BlockType::kBitmap:
      return "bitmap";
    case format::BlockType::kTreeNode:
      return "tree node";
    case format::BlockType::kInode:
      return "inode";
    case format::BlockType::kJournalHeader:
    case format::BlockType::kJournalRecord:
      break;
  }
  return "other block";
}

const char* name_of(format::TreeKind kind) {
  switch (kind) {
    case format::TreeKind::kExtents:
      return "tree of extents";
    case format::TreeKind::kDirectory:
      return "tree of names";
    case format::TreeKind::kChunkIndex:
      return "tree of chunks";
    case format::TreeKind::kOrphans:
      return "tree of orphans";
    case format::TreeKind::kXattrs:
      break;
  }
  return "other tree";
}

template <class Outcome>
Outcome noted(const char* verifier, std::uint64_t offset, Outcome outcome) {
  VerifierWatch::note(verifier, offset, outcome.has_value());
  return outcome;
}

}  // namespace

VerifierWatch::VerifierWatch(std::uint64_t offset) : offset_(offset) {
  CAWFS_ASSERT(watch == nullptr);
  watch = this;
}

VerifierWatch::~VerifierWatch() {
  watch = nullptr;
}

void VerifierWatch::note(const char* verifier, std::uint64_t offset, bool good) {
  if (watch == nullptr) return;
  watch->all[verifier].add(good);
  if (offset == watch->offset_) watch->here.add(good);
}

// The linker sends callers of a wrapped symbol to __wrap_SYMBOL, and __real_SYMBOL to the function itself. A symbol
// that CMakeLists.txt does not name, or one that has changed, fails to link or is never called, which the test finds.
Result<> real_block(Bytes bytes, format::BlockType type, BlockNo address, const Geometry& geometry) __asm__(
    "__real__ZN5cawfs6format12verify_blockESt4spanIKSt4byteLm18446744073709551615EENS0_9BlockTypeENS_7BlockNoERKNS_"
    "8GeometryE");
Result<> watched_block(Bytes bytes, format::BlockType type, BlockNo address, const Geometry& geometry) __asm__(
    "__wrap__ZN5cawfs6format12verify_blockESt4spanIKSt4byteLm18446744073709551615EENS0_9BlockTypeENS_7BlockNoERKNS_"
    "8GeometryE");
Result<> watched_block(Bytes bytes, format::BlockType type, BlockNo address, const Geometry& geometry) {
  return noted(name_of(type), address.offset_bytes(), real_block(bytes, type, address, geometry));
}

Result<> real_block_of(Bytes bytes, format::BlockType type, BlockNo address, std::uint64_t fs_id) __asm__(
    "__real__ZN5cawfs6format12verify_blockESt4spanIKSt4byteLm18446744073709551615EENS0_9BlockTypeENS_7BlockNoEm");
Result<> watched_block_of(Bytes bytes, format::BlockType type, BlockNo address, std::uint64_t fs_id) __asm__(
    "__wrap__ZN5cawfs6format12verify_blockESt4spanIKSt4byteLm18446744073709551615EENS0_9BlockTypeENS_7BlockNoEm");
Result<> watched_block_of(Bytes bytes, format::BlockType type, BlockNo address, std::uint64_t fs_id) {
  return noted(name_of(type), address.offset_bytes(), real_block_of(bytes, type, address, fs_id));
}

Result<> real_tree(const format::TreeRoot& root, Bytes area, format::TreeKind kind, const Geometry* geometry) __asm__(
    "__real__ZN5cawfs6format11verify_treeERKNS0_8TreeRootESt4spanIKSt4byteLm18446744073709551615EENS0_8TreeKindEPKNS_"
    "8GeometryE");
Result<>
watched_tree(const format::TreeRoot& root, Bytes area, format::TreeKind kind, const Geometry* geometry) __asm__(
    "__wrap__ZN5cawfs6format11verify_treeERKNS0_8TreeRootESt4spanIKSt4byteLm18446744073709551615EENS0_8TreeKindEPKNS_"
    "8GeometryE");
Result<> watched_tree(const format::TreeRoot& root, Bytes area, format::TreeKind kind, const Geometry* geometry) {
  return noted(name_of(kind), kNowhere, real_tree(root, area, kind, geometry));
}

Result<> real_lock_block(Bytes bytes, std::uint64_t offset, std::uint64_t fs_id) __asm__(
    "__real__ZN5cawfs6format17verify_lock_blockESt4spanIKSt4byteLm18446744073709551615EEmm");
Result<> watched_lock_block(Bytes bytes, std::uint64_t offset, std::uint64_t fs_id) __asm__(
    "__wrap__ZN5cawfs6format17verify_lock_blockESt4spanIKSt4byteLm18446744073709551615EEmm");
Result<> watched_lock_block(Bytes bytes, std::uint64_t offset, std::uint64_t fs_id) {
  return noted("lock block", offset, real_lock_block(bytes, offset, fs_id));
}

Result<> real_slot_record(Bytes bytes, std::uint64_t offset, std::uint64_t fs_id) __asm__(
    "__real__ZN5cawfs6format18verify_slot_recordESt4spanIKSt4byteLm18446744073709551615EEmm");
Result<> watched_slot_record(Bytes bytes, std::uint64_t offset, std::uint64_t fs_id) __asm__(
    "__wrap__ZN5cawfs6format18verify_slot_recordESt4spanIKSt4byteLm18446744073709551615EEmm");
Result<> watched_slot_record(Bytes bytes, std::uint64_t offset, std::uint64_t fs_id) {
  return noted("slot record", offset, real_slot_record(bytes, offset, fs_id));
}

Result<> real_heartbeat(Bytes bytes, std::uint64_t offset, std::uint64_t fs_id, SlotNo slot) __asm__(
    "__real__ZN5cawfs6format16verify_heartbeatESt4spanIKSt4byteLm18446744073709551615EEmmNS_6StrongINS_9SlotNoTagEtEE");
Result<> watched_heartbeat(Bytes bytes, std::uint64_t offset, std::uint64_t fs_id, SlotNo slot) __asm__(
    "__wrap__ZN5cawfs6format16verify_heartbeatESt4spanIKSt4byteLm18446744073709551615EEmmNS_6StrongINS_9SlotNoTagEtEE");
Result<> watched_heartbeat(Bytes bytes, std::uint64_t offset, std::uint64_t fs_id, SlotNo slot) {
  return noted("heartbeat", offset, real_heartbeat(bytes, offset, fs_id, slot));
}

Result<> real_mailbox(Bytes bytes, std::uint64_t offset, std::uint64_t fs_id, SlotNo to, SlotNo from) __asm__(
    "__real__ZN5cawfs6format14verify_mailboxESt4spanIKSt4byteLm18446744073709551615EEmmNS_6StrongINS_"
    "9SlotNoTagEtEES7_");
Result<> watched_mailbox(Bytes bytes, std::uint64_t offset, std::uint64_t fs_id, SlotNo to, SlotNo from) __asm__(
    "__wrap__ZN5cawfs6format14verify_mailboxESt4spanIKSt4byteLm18446744073709551615EEmmNS_6StrongINS_"
    "9SlotNoTagEtEES7_");
Result<> watched_mailbox(Bytes bytes, std::uint64_t offset, std::uint64_t fs_id, SlotNo to, SlotNo from) {
  return noted("mailbox", offset, real_mailbox(bytes, offset, fs_id, to, from));
}

Result<Mail> real_mail(Bytes bytes, SlotNo to, SlotNo from, const Geometry& geometry) __asm__(
    "__real__ZN5cawfs10parse_mailESt4spanIKSt4byteLm18446744073709551615EENS_6StrongINS_9SlotNoTagEtEES6_RKNS_"
    "8GeometryE");
Result<Mail> watched_mail(Bytes bytes, SlotNo to, SlotNo from, const Geometry& geometry) __asm__(
    "__wrap__ZN5cawfs10parse_mailESt4spanIKSt4byteLm18446744073709551615EENS_6StrongINS_9SlotNoTagEtEES6_RKNS_"
    "8GeometryE");
Result<Mail> watched_mail(Bytes bytes, SlotNo to, SlotNo from, const Geometry& geometry) {
  return noted("mail", geometry.mailbox_offset(to, from), real_mail(bytes, to, from, geometry));
}

Result<format::JournalHeaderInfo>
real_journal_header(Bytes bytes, BlockNo address, const Geometry& geometry, SlotNo slot, std::uint32_t ring_blocks) __asm__(
    "__real__ZN5cawfs6format21verify_journal_headerESt4spanIKSt4byteLm18446744073709551615EENS_7BlockNoERKNS_"
    "8GeometryENS_6StrongINS_9SlotNoTagEtEEj");
Result<format::JournalHeaderInfo>
watched_journal_header(Bytes bytes, BlockNo address, const Geometry& geometry, SlotNo slot, std::uint32_t ring_blocks) __asm__(
    "__wrap__ZN5cawfs6format21verify_journal_headerESt4spanIKSt4byteLm18446744073709551615EENS_7BlockNoERKNS_"
    "8GeometryENS_6StrongINS_9SlotNoTagEtEEj");
Result<format::JournalHeaderInfo> watched_journal_header(Bytes bytes, BlockNo address, const Geometry& geometry,
                                                         SlotNo slot, std::uint32_t ring_blocks) {
  return noted("journal header", address.offset_bytes(),
               real_journal_header(bytes, address, geometry, slot, ring_blocks));
}

Result<format::JournalRecordInfo>
real_record_start(Bytes bytes, BlockNo address, const Geometry& geometry, SlotNo slot, std::uint32_t ring_blocks) __asm__(
    "__real__ZN5cawfs6format27verify_journal_record_startESt4spanIKSt4byteLm18446744073709551615EENS_7BlockNoERKNS_"
    "8GeometryENS_6StrongINS_9SlotNoTagEtEEj");
Result<format::JournalRecordInfo>
watched_record_start(Bytes bytes, BlockNo address, const Geometry& geometry, SlotNo slot, std::uint32_t ring_blocks) __asm__(
    "__wrap__ZN5cawfs6format27verify_journal_record_startESt4spanIKSt4byteLm18446744073709551615EENS_7BlockNoERKNS_"
    "8GeometryENS_6StrongINS_9SlotNoTagEtEEj");
Result<format::JournalRecordInfo> watched_record_start(Bytes bytes, BlockNo address, const Geometry& geometry,
                                                       SlotNo slot, std::uint32_t ring_blocks) {
  record_offset = address.offset_bytes();
  return noted("journal record", record_offset, real_record_start(bytes, address, geometry, slot, ring_blocks));
}

Result<> real_record_crc(Bytes record) __asm__(
    "__real__ZN5cawfs6format25verify_journal_record_crcESt4spanIKSt4byteLm18446744073709551615EE");
Result<> watched_record_crc(Bytes record) __asm__(
    "__wrap__ZN5cawfs6format25verify_journal_record_crcESt4spanIKSt4byteLm18446744073709551615EE");
Result<> watched_record_crc(Bytes record) {
  return noted("journal record's crc", record_offset, real_record_crc(record));
}

Result<format::JournalContents>
real_record_contents(Bytes record, const format::JournalRecordInfo& info, const Geometry& geometry) __asm__(
    "__real__ZN5cawfs6format20parse_journal_recordESt4spanIKSt4byteLm18446744073709551615EERKNS0_"
    "17JournalRecordInfoERKNS_8GeometryE");
Result<format::JournalContents>
watched_record_contents(Bytes record, const format::JournalRecordInfo& info, const Geometry& geometry) __asm__(
    "__wrap__ZN5cawfs6format20parse_journal_recordESt4spanIKSt4byteLm18446744073709551615EERKNS0_"
    "17JournalRecordInfoERKNS_8GeometryE");
Result<format::JournalContents> watched_record_contents(Bytes record, const format::JournalRecordInfo& info,
                                                        const Geometry& geometry) {
  return noted("journal record's contents", record_offset, real_record_contents(record, info, geometry));
}

}  // namespace cawfs::testing
