// docs/format.md against the C++ structures: every structure is described, and every name, offset and size is right.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "core/format/cluster_format.h"
#include "core/format/disk_format.h"
#include "core/format/journal_format.h"

namespace cawfs::format {
namespace {

struct Field {
  std::string name;
  std::size_t offset = 0;
  std::size_t size = 0;
  friend bool operator==(const Field&, const Field&) = default;
};

void PrintTo(const Field& field, std::ostream* out) {
  *out << field.name << " at " << field.offset << ", " << field.size << " bytes";
}

struct Structure {
  std::size_t size = 0;
  std::vector<Field> fields;
};
using Structures = std::map<std::string, Structure>;

// Lives on disk as it is in memory, at any address.
template <class T>
consteval bool is_plain() {
  return std::is_trivially_copyable_v<T> && std::is_standard_layout_v<T> && alignof(T) == 1;
}

// clang-format off
#define FIELD(type, field) Field{#field, offsetof(type, field), sizeof(type::field)}
#define STRUCTURE(type, ...) {#type, (check_plain<type>(), Structure{sizeof(type), {__VA_ARGS__}})}
// clang-format on

template <class T>
void check_plain() {
  static_assert(is_plain<T>());
}

Structures structures_of_the_code() {
  // clang-format off
  return {
      STRUCTURE(BlockHeader, FIELD(BlockHeader, magic), FIELD(BlockHeader, crc), FIELD(BlockHeader, address), FIELD(BlockHeader, fs_id), FIELD(BlockHeader, type), FIELD(BlockHeader, version), FIELD(BlockHeader, reserved)),
      STRUCTURE(CawHeader, FIELD(CawHeader, magic), FIELD(CawHeader, crc), FIELD(CawHeader, sequence), FIELD(CawHeader, writer_slot), FIELD(CawHeader, reserved), FIELD(CawHeader, writer_incarnation), FIELD(CawHeader, nonce)),
      STRUCTURE(Superblock, FIELD(Superblock, header), FIELD(Superblock, compat), FIELD(Superblock, ro_compat), FIELD(Superblock, incompat), FIELD(Superblock, uuid), FIELD(Superblock, label), FIELD(Superblock, block_count), FIELD(Superblock, logical_block), FIELD(Superblock, slots), FIELD(Superblock, dead_time_ms), FIELD(Superblock, journal_blocks), FIELD(Superblock, group_count), FIELD(Superblock, group_blocks), FIELD(Superblock, sip_key), FIELD(Superblock, node_table), FIELD(Superblock, heartbeats), FIELD(Superblock, mailboxes), FIELD(Superblock, global_lock), FIELD(Superblock, scratch), FIELD(Superblock, first_group), FIELD(Superblock, root_inode), FIELD(Superblock, orphan_inodes), FIELD(Superblock, sequence), FIELD(Superblock, created_ns), FIELD(Superblock, reserved)),
      STRUCTURE(TreeRoot, FIELD(TreeRoot, level), FIELD(TreeRoot, count), FIELD(TreeRoot, used), FIELD(TreeRoot, reserved)),
      STRUCTURE(GroupHeader, FIELD(GroupHeader, header), FIELD(GroupHeader, group), FIELD(GroupHeader, free_blocks), FIELD(GroupHeader, free_inodes), FIELD(GroupHeader, chunks), FIELD(GroupHeader, bitmap_blocks), FIELD(GroupHeader, reserved0), FIELD(GroupHeader, chunk_index), FIELD(GroupHeader, chunk_index_area), FIELD(GroupHeader, summary), FIELD(GroupHeader, reserved1)),
      STRUCTURE(Bitmap, FIELD(Bitmap, header), FIELD(Bitmap, bits)),
      STRUCTURE(TreeRecord, FIELD(TreeRecord, key), FIELD(TreeRecord, length)),
      STRUCTURE(TreeNode, FIELD(TreeNode, header), FIELD(TreeNode, owner), FIELD(TreeNode, kind), FIELD(TreeNode, reserved), FIELD(TreeNode, root), FIELD(TreeNode, area)),
      STRUCTURE(ExtentPayload, FIELD(ExtentPayload, start), FIELD(ExtentPayload, count), FIELD(ExtentPayload, flags)),
      STRUCTURE(DirectoryPayload, FIELD(DirectoryPayload, inode), FIELD(DirectoryPayload, type)),
      STRUCTURE(Inode, FIELD(Inode, header), FIELD(Inode, mode), FIELD(Inode, nlink), FIELD(Inode, uid), FIELD(Inode, gid), FIELD(Inode, size), FIELD(Inode, blocks), FIELD(Inode, atime_ns), FIELD(Inode, mtime_ns), FIELD(Inode, ctime_ns), FIELD(Inode, btime_ns), FIELD(Inode, generation), FIELD(Inode, version), FIELD(Inode, parent), FIELD(Inode, rdev), FIELD(Inode, flags), FIELD(Inode, tree_kind), FIELD(Inode, content), FIELD(Inode, reserved0), FIELD(Inode, content_bytes), FIELD(Inode, xattr_bytes), FIELD(Inode, orphan_slot), FIELD(Inode, reserved1), FIELD(Inode, area)),
      STRUCTURE(LockEntry, FIELD(LockEntry, mode), FIELD(LockEntry, flags), FIELD(LockEntry, owner_slot), FIELD(LockEntry, owner_incarnation), FIELD(LockEntry, generation), FIELD(LockEntry, sharers), FIELD(LockEntry, openers)),
      STRUCTURE(LockBlock, FIELD(LockBlock, header), FIELD(LockBlock, entries)),
      STRUCTURE(JournalExtent, FIELD(JournalExtent, start), FIELD(JournalExtent, count)),
      STRUCTURE(SlotRecord, FIELD(SlotRecord, header), FIELD(SlotRecord, state), FIELD(SlotRecord, flags), FIELD(SlotRecord, reserved0), FIELD(SlotRecord, incarnation), FIELD(SlotRecord, node_uuid), FIELD(SlotRecord, boot_id), FIELD(SlotRecord, host_name), FIELD(SlotRecord, initiator_name), FIELD(SlotRecord, isid), FIELD(SlotRecord, pr_key), FIELD(SlotRecord, journal), FIELD(SlotRecord, recoverer_slot), FIELD(SlotRecord, reserved1), FIELD(SlotRecord, recoverer_incarnation), FIELD(SlotRecord, recoverer_key), FIELD(SlotRecord, recoverer_isid), FIELD(SlotRecord, recoverer_name), FIELD(SlotRecord, dead_time_ms), FIELD(SlotRecord, heartbeat_ms), FIELD(SlotRecord, reserved2)),
      STRUCTURE(Heartbeat, FIELD(Heartbeat, magic), FIELD(Heartbeat, crc), FIELD(Heartbeat, incarnation), FIELD(Heartbeat, slot), FIELD(Heartbeat, reserved0), FIELD(Heartbeat, counter), FIELD(Heartbeat, locks_held), FIELD(Heartbeat, dirty_bytes), FIELD(Heartbeat, operations), FIELD(Heartbeat, journal_blocks), FIELD(Heartbeat, journal_used), FIELD(Heartbeat, reserved1)),
      STRUCTURE(Want, FIELD(Want, lock_block), FIELD(Want, mode), FIELD(Want, reserved0), FIELD(Want, entries), FIELD(Want, reserved1)),
      STRUCTURE(Mailbox, FIELD(Mailbox, magic), FIELD(Mailbox, crc), FIELD(Mailbox, sequence), FIELD(Mailbox, from_incarnation), FIELD(Mailbox, to_incarnation), FIELD(Mailbox, ring), FIELD(Mailbox, from), FIELD(Mailbox, to), FIELD(Mailbox, count), FIELD(Mailbox, reserved), FIELD(Mailbox, wants)),
      STRUCTURE(JournalHeader, FIELD(JournalHeader, header), FIELD(JournalHeader, slot), FIELD(JournalHeader, reserved0), FIELD(JournalHeader, incarnation), FIELD(JournalHeader, writes), FIELD(JournalHeader, tail_sequence), FIELD(JournalHeader, tail), FIELD(JournalHeader, ring_blocks), FIELD(JournalHeader, reserved1)),
      STRUCTURE(JournalRecord, FIELD(JournalRecord, header), FIELD(JournalRecord, slot), FIELD(JournalRecord, flags), FIELD(JournalRecord, incarnation), FIELD(JournalRecord, sequence), FIELD(JournalRecord, durable_sequence), FIELD(JournalRecord, ring_block), FIELD(JournalRecord, blocks), FIELD(JournalRecord, length_bytes), FIELD(JournalRecord, entry_count), FIELD(JournalRecord, revoke_count), FIELD(JournalRecord, reserved0), FIELD(JournalRecord, reserved1)),
      STRUCTURE(JournalEntry, FIELD(JournalEntry, block), FIELD(JournalEntry, lock_block), FIELD(JournalEntry, generation), FIELD(JournalEntry, lock_entry), FIELD(JournalEntry, reserved0), FIELD(JournalEntry, used_bytes), FIELD(JournalEntry, reserved1)),
      STRUCTURE(JournalRevoke, FIELD(JournalRevoke, start), FIELD(JournalRevoke, count)),
  };
  // clang-format on
}

std::filesystem::path project() {
  return CAWFS_SOURCE_DIRECTORY;
}

std::string text_of(const std::filesystem::path& path) {
  std::ifstream file(path);
  EXPECT_TRUE(file) << path;
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

Structures structures_of_the_document() {
  const std::regex heading(R"(### (\w+): (\d+) bytes)");
  const std::regex row(R"(\| (\d+) \| (\d+) \| (\w+) \| .+ \|)");
  Structures found;
  Structure* open = nullptr;
  std::istringstream lines(text_of(project() / "docs/format.md"));
  for (std::string line; std::getline(lines, line);) {
    std::smatch match;
    if (std::regex_match(line, match, heading)) {
      open = &found[match[1]];
      EXPECT_TRUE(open->fields.empty()) << match[1] << " is described twice";
      open->size = std::stoul(match[2]);
    } else if (open != nullptr && std::regex_match(line, match, row)) {
      open->fields.push_back({match[3], std::stoul(match[1]), std::stoul(match[2])});
    } else if (line.starts_with("#")) {
      open = nullptr;
    }
  }
  return found;
}

TEST(FormatDocument, DescribesEveryStructureAsItIs) {
  const Structures code = structures_of_the_code();
  const Structures document = structures_of_the_document();
  for (const auto& [name, structure] : code) {
    const auto described = document.find(name);
    ASSERT_NE(described, document.end()) << name << " is not described";
    EXPECT_EQ(described->second.size, structure.size) << name;
    EXPECT_EQ(described->second.fields, structure.fields) << name;
  }
  for (const auto& [name, structure] : document) EXPECT_TRUE(code.contains(name)) << name << " does not exist";
}

TEST(FormatDocument, StructuresHaveNoPadding) {
  for (const auto& [name, structure] : structures_of_the_code()) {
    std::size_t end = 0;
    for (const Field& field : structure.fields) {
      EXPECT_EQ(field.offset, end) << name << "::" << field.name;
      end = field.offset + field.size;
    }
    EXPECT_EQ(end, structure.size) << name;
  }
}

// The list above is all there is.
TEST(FormatDocument, NoStructureIsForgotten) {
  std::set<std::string> defined;
  for (const char* header : {"block_header.h", "disk_format.h", "cluster_format.h", "journal_format.h"}) {
    const std::string text = text_of(project() / "core/format" / header);
    const std::regex definition(R"((?:^|\n)struct (\w+) \{)");
    for (std::sregex_iterator it(text.begin(), text.end(), definition), end; it != end; ++it) {
      defined.insert((*it)[1]);
    }
  }
  std::set<std::string> listed;
  for (const auto& [name, structure] : structures_of_the_code()) listed.insert(name);
  EXPECT_EQ(defined, listed);
}

}  // namespace
}  // namespace cawfs::format
