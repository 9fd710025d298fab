// fsck.cawfs -n against file systems built by hand: it accepts the good one, and finds each planted fault. All faults
// have right checksums but where the checksum is the fault.
#include "utils/fsck/fsck.h"

#include <gtest/gtest.h>

#include <set>

#include "core/format/journal_verify.h"
#include "core/runtime/task_group.h"
#include "tests/unit/utils/image.h"

namespace cawfs {
namespace {

using namespace format;
using testing::extent_payload;
using testing::Image;
using testing::Record;

constexpr std::uint32_t kFile = S_IFREG | 0644;
constexpr std::uint32_t kDir = S_IFDIR | 0755;

// A little of everything.
struct Tree {
  explicit Tree(std::uint32_t logical_block = 512) : image({}, logical_block) {
    root = image.geometry.root;
    home = image.add(kDir, root, "home");
    user = image.add(kDir, home, "user");
    file = image.add_file(user, "file", 10);
    other = image.add_file(root, "other", 3);
    link = image.add(S_IFLNK | 0777, user, "link");
    small = image.add(kFile, user, "small");
    big = image.add(kFile, root, "big");
    make_big();
    add_second_name();
    orphan = image.add(kFile);
    make_orphan();
  }

  // An extent tree of two leaves.
  void make_big() {
    left = image.allocate();
    right = image.allocate();
    image.add_node(left, big.block(), TreeKind::kExtents, {{0, extent_payload(image.allocate(4), 4)}});
    image.add_node(right, big.block(), TreeKind::kExtents, {{100, extent_payload(image.allocate(2), 2)}});
    point_big(0, 50);
    image.inode(big).blocks = 8;
    image.inode(big).size = 102 * kBlockSize;
  }
  void point_big(std::uint64_t left_key, std::uint64_t right_key) {
    le64 child;
    child = left.value;
    const Record first{left_key, testing::bytes_of(child)};
    child = right.value;
    const Record second{right_key, testing::bytes_of(child)};
    Image::set_tree(image.inode(big), TreeKind::kExtents, 1, {first, second});
  }
  void add_second_name() {
    image.add_entry(root, "hard", file, kFile);
    image.inode(file).nlink = 2;
  }
  void make_orphan() {
    image.inode(orphan).nlink = 0;
    image.inode(orphan).flags = kInodeOrphan;
    image.inode(orphan).orphan_slot = 1;
    Image::set_tree(image.inode(image.geometry.orphan_inodes[1]), TreeKind::kOrphans, 0, {{orphan.value, {}}});
  }

  Image image;
  InodeNo root, home, user, file, other, link, small, big, orphan;
  BlockNo left, right;
};

TEST(Fsck, ANewFileSystemIsClean) {
  for (const std::uint32_t logical : {512u, 4096u}) {
    Image image({}, logical);
    const auto report = image.fsck();
    ASSERT_TRUE(report);
    EXPECT_TRUE(report->clean()) << report->text();
    EXPECT_EQ(report->inodes, 1 + image.geometry.slots);
    EXPECT_EQ(report->directories, 1u);
  }
}

TEST(Fsck, AFileSystemWithContentsIsClean) {
  for (const std::uint32_t logical : {512u, 4096u}) {
    Tree tree(logical);
    const auto report = tree.image.fsck();
    ASSERT_TRUE(report);
    EXPECT_TRUE(report->clean()) << report->text();
    EXPECT_EQ(report->directories, 3u);
    EXPECT_EQ(report->orphans, 1u);
  }
}

struct Fault {
  const char* name;
  Problem expected;
  std::function<void(Tree&)> plant;
};

void PrintTo(const Fault& fault, std::ostream* out) {
  *out << fault.name;
}

JournalHeaderInfo journal_of(Tree& t, std::uint16_t slot, BlockNo& start) {
  const auto extents = journal_extents(t.image.slot(slot), t.image.geometry);
  start = extents->front().start;
  JournalHeaderInfo info;
  info.slot = SlotNo{slot};
  info.ring_blocks = ring_blocks(*extents);
  return info;
}

// In the header alone the verifier compares it with the tree's own count: the index gets a node below its root.
void count_a_chunk_too_many(Tree& t) {
  const BlockNo node = t.image.allocate();
  GroupHeader& header = t.image.header();
  le16 mask;
  mask = t.image.free_mask();
  t.image.add_node(node, t.image.geometry.group_header(GroupNo{0}), TreeKind::kChunkIndex,
                   {{t.image.chunk().value, testing::bytes_of(mask)}});
  le64 child;
  child = node.value;
  TreeRecord record;
  record.key = 0;
  record.length = sizeof(child);
  header.chunk_index.level = 1;
  header.chunk_index.used = static_cast<std::uint16_t>(sizeof(record) + sizeof(child));
  header.chunk_index_area = {};
  std::memcpy(header.chunk_index_area.data(), &record, sizeof(record));
  std::memcpy(header.chunk_index_area.data() + sizeof(record), &child, sizeof(child));
  header.chunks = 2;
}

const std::vector<Fault>& faults() {
  static const std::vector<Fault> all = {
      {"SuperblockDamaged", Problem::kSuperblockDamaged,
       [](Tree& t) { t.image.flip(kSuperblockBlock * kBlockSize + 100); }},
      {"SuperblockCopyDamaged", Problem::kSuperblockCopyDamaged,
       [](Tree& t) { t.image.flip(last_superblock_copy(t.image.geometry).offset_bytes() + 100); }},
      {"SuperblockCopyDiffers", Problem::kSuperblockCopyDiffers,
       [](Tree& t) { t.image.edit<Superblock>(first_superblock_copy(t.image.geometry)).sequence = 5; }},
      {"SlotRecordDamaged", Problem::kSlotRecordDamaged,
       [](Tree& t) { t.image.flip(t.image.geometry.slot_record_offset(SlotNo{2}) + 40); }},
      {"SlotBeyondLimit", Problem::kSlotUnexpected,
       [](Tree& t) {
         auto record = t.image.slot(60);
         record.state = static_cast<std::uint8_t>(SlotState::kClean);
         t.image.set_slot(60, record);
       }},
      {"FreeSlotWithJournal", Problem::kSlotUnexpected,
       [](Tree& t) {
         auto record = t.image.slot(2);
         record.state = static_cast<std::uint8_t>(SlotState::kFree);
         t.image.set_slot(2, record);
       }},
      {"SlotNeedsRecovery", Problem::kSlotNeedsRecovery,
       [](Tree& t) {
         auto record = t.image.slot(2);
         record.state = static_cast<std::uint8_t>(SlotState::kActive);
         record.incarnation = 7;
         t.image.set_slot(2, record);
       }},
      {"HeartbeatDamaged", Problem::kHeartbeatDamaged,
       [](Tree& t) { t.image.flip(t.image.geometry.heartbeat_offset(SlotNo{3}) + 16); }},
      {"MailboxDamaged", Problem::kMailboxDamaged,
       [](Tree& t) { t.image.flip(t.image.geometry.mailbox_offset(SlotNo{3}, SlotNo{9}) + 16); }},
      {"GlobalLockDamaged", Problem::kLockBlockDamaged,
       [](Tree& t) { t.image.flip(t.image.geometry.global_lock.offset_bytes() + 40); }},
      {"LockOfASlotThatIsNotThere", Problem::kLockBlockDamaged,
       [](Tree& t) {
         LockEntry entry{};
         entry.openers = std::uint64_t{1} << 60;
         t.image.set_lock(t.image.chunk(), 3, entry);
       }},
      {"LockOwnedByASlotThatIsNotThere", Problem::kLockBlockDamaged,
       [](Tree& t) {
         LockEntry entry{};
         entry.mode = static_cast<std::uint8_t>(LockModeOnDisk::kExclusive);
         entry.owner_slot = 60;
         entry.owner_incarnation = 1;
         t.image.set_lock(t.image.chunk(), 3, entry);
       }},
      {"ChunkLockDamaged", Problem::kLockBlockDamaged,
       [](Tree& t) { t.image.flip(t.image.chunk().offset_bytes() + 40); }},
      {"JournalExtentOutside", Problem::kJournalExtentsBad,
       [](Tree& t) {
         auto record = t.image.slot(0);
         record.journal[0].start = 5;
         t.image.set_slot(0, record);
       }},
      {"JournalOverAGroupsOwnBlocks", Problem::kJournalExtentsBad,
       [](Tree& t) {
         auto record = t.image.slot(0);
         record.journal[0].start = t.image.geometry.group_header(GroupNo{1}).value;
         t.image.set_slot(0, record);
       }},
      {"JournalHeadersDamaged", Problem::kJournalHeaderDamaged,
       [](Tree& t) {
         BlockNo start;
         journal_of(t, 0, start);
         t.image.flip(start.offset_bytes() + 50);
         t.image.flip((start + 1).offset_bytes() + 50);
       }},
      {"JournalHeaderCopyDamaged", Problem::kJournalHeaderDamaged,
       [](Tree& t) {
         BlockNo start;
         journal_of(t, 1, start);
         t.image.flip((start + 1).offset_bytes() + 40);
       }},
      {"JournalNotEmpty", Problem::kJournalNotEmpty,
       [](Tree& t) {
         BlockNo start;
         auto info = journal_of(t, 0, start);
         info.writes = 8;
         info.incarnation = Incarnation{3};
         std::vector<std::byte> block(kBlockSize);
         make_journal_header(block, start, t.image.geometry.fs_id, info);
         t.image.lun.poke(start.offset_bytes(), block);
       }},
      {"JournalsOverlap", Problem::kBlockUsedTwice,
       [](Tree& t) {
         auto record = t.image.slot(1);
         record.journal = t.image.slot(0).journal;
         t.image.set_slot(1, record);
       }},
      {"GroupHeaderOfAnotherPlace", Problem::kGroupHeaderDamaged, [](Tree& t) { t.image.header(1).group = 0; }},
      {"GroupFreeCountWrong", Problem::kGroupHeaderDamaged,
       [](Tree& t) { t.image.header(1).free_blocks = t.image.header(1).free_blocks.value() + 1; }},
      {"SummaryWrong", Problem::kGroupFreeCountWrong,
       [](Tree& t) {
         t.image.header().free_blocks = t.image.header().free_blocks.value() - 1;
         t.image.header().summary[0] = t.image.header().summary[0].value() - 1;
       }},
      {"BitmapTailNotSet", Problem::kBitmapDamaged,
       [](Tree& t) { t.image.edit<Bitmap>(t.image.geometry.group_bitmap(GroupNo{1}, 0)).bits.back() = 0x7f; }},
      {"UsedBlockFree", Problem::kBlockUsedButFree, [](Tree& t) { t.image.set_bit(t.left, false); }},
      {"UnusedBlockTaken", Problem::kBlockUnusedButTaken, [](Tree& t) { t.image.allocate(); }},
      {"ChunkCountWrong", Problem::kGroupChunkCountWrong, count_a_chunk_too_many},
      {"FreeInodeCountWrong", Problem::kGroupFreeInodesWrong,
       [](Tree& t) { t.image.header().free_inodes = t.image.header().free_inodes.value() - 1; }},
      {"InodeInUseMarkedFree", Problem::kInodeUsedButFree,
       [](Tree& t) {
         const auto bit = t.small.value - t.image.chunk().value - 1;
         t.image.set_free_mask(static_cast<std::uint16_t>(t.image.free_mask() | 1u << bit));
         t.image.header().free_inodes = t.image.header().free_inodes.value() + 1;
       }},
      {"FreeInodeMarkedInUse", Problem::kInodeFreeButTaken,
       [](Tree& t) {
         const std::uint16_t mask = t.image.free_mask();
         t.image.set_free_mask(static_cast<std::uint16_t>(mask & (mask - 1)));
         t.image.header().free_inodes = t.image.header().free_inodes.value() - 1;
       }},
      {"ChunkOfAnotherGroup", Problem::kChunkMisplaced,
       [](Tree& t) {
         TreeRecord record;
         record.key = t.image.geometry.group_start(GroupNo{1}).value + 16;
         record.length = sizeof(le16);
         std::memcpy(t.image.header().chunk_index_area.data(), &record, sizeof(record));
       }},
      {"TreeNodeDamaged", Problem::kTreeNodeDamaged,
       [](Tree& t) {
         t.image.write();
         t.image.flip(t.left.offset_bytes() + 60);
       }},
      {"TreeNodeNotPacked", Problem::kTreeNodeDamaged, [](Tree& t) { t.image.edit<TreeNode>(t.left).area.back() = 1; }},
      {"TreeNodeOfAnotherOwner", Problem::kTreeNodeMisplaced,
       [](Tree& t) { t.image.edit<TreeNode>(t.left).owner = t.file.value; }},
      {"TreeNodeEmpty", Problem::kTreeNodeMisplaced,
       [](Tree& t) { t.image.add_node(t.left, t.big.block(), TreeKind::kExtents, {}); }},
      {"TreeKeyOutOfRange", Problem::kTreeKeyOutOfRange, [](Tree& t) { t.point_big(0, 101); }},
      {"TreeNodeUsedTwice", Problem::kBlockUsedTwice,
       [](Tree& t) {
         t.right = t.left;
         t.point_big(0, 50);
       }},
      {"InodeDamaged", Problem::kInodeDamaged,
       [](Tree& t) {
         t.image.write();
         t.image.flip(t.small.block().offset_bytes() + 60);
       }},
      {"InodeModeImpossible", Problem::kInodeDamaged, [](Tree& t) { t.image.inode(t.small).mode = 0070644; }},
      {"InlineDataBehindEnd", Problem::kInodeDamaged, [](Tree& t) { t.image.inode(t.small).area[100] = 1; }},
      {"FilesShareABlock", Problem::kBlockUsedTwice,
       [](Tree& t) { t.image.set_records(t.other, {{0, t.image.records_of(t.file)[0].payload}}); }},
      {"FileUsesAJournal", Problem::kBlockUsedTwice,
       [](Tree& t) {
         const BlockNo journal{t.image.slot(1).journal[0].start.value() + 5};
         t.image.set_extents(t.other, {{0, extent_payload(journal, 3)}});
       }},
      {"ExtentsOverlapInANode", Problem::kInodeDamaged,
       [](Tree& t) {
         t.image.set_extents(
             t.other, {{0, extent_payload(t.image.allocate(2), 2)}, {1, extent_payload(t.image.allocate(1), 1)}});
       }},
      {"ExtentsOverlapAcrossNodes", Problem::kExtentOverlap,
       [](Tree& t) {
         t.image.add_node(t.left, t.big.block(), TreeKind::kExtents, {{0, extent_payload(t.image.allocate(101), 101)}});
       }},
      {"ExtentOutsideItsGroup", Problem::kInodeDamaged,
       [](Tree& t) {
         const BlockNo end{t.image.geometry.group_start(GroupNo{1}).value - 1};
         t.image.set_extents(t.other, {{0, extent_payload(end, 3)}});
       }},
      {"WrittenBehindTheEnd", Problem::kExtentBeyondEnd, [](Tree& t) { t.image.inode(t.file).size = 9 * kBlockSize; }},
      {"BlockCountWrong", Problem::kInodeBlocksWrong, [](Tree& t) { t.image.inode(t.file).blocks = 11; }},
      {"DirectoryBlockCountWrong", Problem::kInodeBlocksWrong, [](Tree& t) { t.image.inode(t.user).blocks = 1; }},
      {"SymlinkEmpty", Problem::kSymlinkBad,
       [](Tree& t) {
         t.image.inode(t.link).size = 0;
         t.image.inode(t.link).area = {};
       }},
      {"OrphanListIsAFile", Problem::kSystemInodeBad,
       [](Tree& t) {
         Inode& list = t.image.inode(t.image.geometry.orphan_inodes[2]);
         list.flags = 0;
         list.tree_kind = static_cast<std::uint16_t>(TreeKind::kExtents);
       }},
      {"SystemInodeOfNobody", Problem::kSystemInodeBad,
       [](Tree& t) {
         const InodeNo extra = t.image.add(kFile);
         t.image.inode(extra).flags = kInodeSystem;
         Image::set_tree(t.image.inode(extra), TreeKind::kOrphans, 0, {});
       }},
      {"RootIsNotItsParent", Problem::kRootBad, [](Tree& t) { t.image.inode(t.root).parent = t.home.value; }},
      {"RootIsAFile", Problem::kRootBad,
       [](Tree& t) {
         t.image.inode(t.root).mode = kFile;
         t.image.inode(t.root).size = 0;
         t.image.set_extents(t.root, {});
       }},
      {"EntryHashWrong", Problem::kEntryHashWrong,
       [](Tree& t) {
         auto records = t.image.records_of(t.user);
         records.back().key += 1u << 16;
         t.image.set_records(t.user, records);
       }},
      {"EntriesOutOfOrder", Problem::kInodeDamaged,
       [](Tree& t) {
         auto records = t.image.records_of(t.user);
         std::swap(records[0], records[1]);
         t.image.set_records(t.user, records);
       }},
      {"EntryTwice", Problem::kEntryDuplicate,
       [](Tree& t) {
         t.image.add_record(t.user, {t.image.key_of("small") + 1, Image::entry_payload("small", t.small, kFile)});
         t.image.inode(t.small).nlink = 2;
       }},
      {"EntryOfAFreeInode", Problem::kEntryTargetFree,
       [](Tree& t) { t.image.add_entry(t.root, "ghost", InodeNo{t.image.chunk().value + 15}, kFile); }},
      {"EntryOfNoInode", Problem::kEntryTargetFree,
       [](Tree& t) { t.image.add_entry(t.root, "ghost", InodeNo{t.image.chunk().value + 17}, kFile); }},
      {"EntryOfASystemInode", Problem::kEntryTargetSystem,
       [](Tree& t) { t.image.add_entry(t.root, "list", t.image.geometry.orphan_inodes[0], kFile); }},
      {"EntryTypeWrong", Problem::kEntryTypeWrong,
       [](Tree& t) {
         t.image.add_entry(t.root, "fifo", t.small, S_IFIFO);
         t.image.inode(t.small).nlink = 2;
       }},
      {"EntryNameWithSlash", Problem::kInodeDamaged,
       [](Tree& t) {
         t.image.add_entry(t.root, "a/b", t.small, kFile);
         t.image.inode(t.small).nlink = 2;
       }},
      {"DirectorySizeWrong", Problem::kDirectorySizeWrong, [](Tree& t) { t.image.inode(t.user).size = 9; }},
      {"DirectoryWithTwoParents", Problem::kDirectoryTwoParents,
       [](Tree& t) { t.image.add_entry(t.root, "user2", t.user, kDir); }},
      {"RootInADirectory", Problem::kDirectoryTwoParents,
       [](Tree& t) { t.image.add_entry(t.user, "up", t.root, kDir); }},
      {"ParentPointerWrong", Problem::kDirectoryParentWrong,
       [](Tree& t) { t.image.inode(t.user).parent = t.root.value; }},
      {"DirectoryLoop", Problem::kDirectoryLoop,
       [](Tree& t) {
         const InodeNo a = t.image.add(kDir);
         const InodeNo b = t.image.add(kDir, a, "b");
         t.image.add_entry(b, "a", a, kDir);
         t.image.inode(a).parent = b.value;
         t.image.inode(b).nlink = 3;
       }},
      {"UnreachableFile", Problem::kInodeUnreachable, [](Tree& t) { t.image.add(kFile); }},
      {"UnreachableDirectory", Problem::kInodeUnreachable,
       [](Tree& t) { t.image.inode(t.image.add(kDir)).parent = t.root.value; }},
      {"LinkCountWrong", Problem::kLinkCountWrong, [](Tree& t) { t.image.inode(t.file).nlink = 1; }},
      {"DirectoryLinkCountWrong", Problem::kLinkCountWrong, [](Tree& t) { t.image.inode(t.home).nlink = 2; }},
      {"OrphanListNamesAFreeInode", Problem::kOrphanEntryBad,
       [](Tree& t) {
         Image::set_tree(t.image.inode(t.image.geometry.orphan_inodes[0]), TreeKind::kOrphans, 0,
                         {{t.image.chunk().value + 15, {}}});
       }},
      {"OrphanWithLinks", Problem::kOrphanEntryBad,
       [](Tree& t) {
         t.image.add_entry(t.root, "back", t.orphan, kFile);
         t.image.inode(t.orphan).nlink = 1;
       }},
      {"OrphanInAnotherList", Problem::kOrphanEntryBad, [](Tree& t) { t.image.inode(t.orphan).orphan_slot = 2; }},
      {"OrphanNotListed", Problem::kOrphanNotListed,
       [](Tree& t) { Image::set_tree(t.image.inode(t.image.geometry.orphan_inodes[1]), TreeKind::kOrphans, 0, {}); }},
  };
  return all;
}

struct FsckFault : ::testing::TestWithParam<Fault> {};

TEST_P(FsckFault, IsFound) {
  Tree tree;
  tree.image.write();
  GetParam().plant(tree);
  const auto report = tree.image.fsck();
  ASSERT_TRUE(report) << describe(report.error().code);
  EXPECT_TRUE(report->has(GetParam().expected)) << report->text();
}

INSTANTIATE_TEST_SUITE_P(Faults, FsckFault, ::testing::ValuesIn(faults()),
                         [](const auto& fault) { return std::string(fault.param.name); });

TEST(Fsck, EveryProblemIsPlanted) {
  std::set<Problem> planted;
  for (const Fault& fault : faults()) planted.insert(fault.expected);
  for (const ProblemInfo& problem : all_problems()) EXPECT_TRUE(planted.contains(problem.problem)) << problem.name;
}

TEST(Fsck, ProblemsHaveDistinctNames) {
  std::set<std::string_view> names;
  for (const ProblemInfo& problem : all_problems()) {
    EXPECT_TRUE(names.insert(problem.name).second) << problem.name;
    EXPECT_FALSE(problem.meaning.empty());
  }
}

TEST(Fsck, DeadSlotsEndTheCheckOrAreTolerated) {
  Tree tree;
  auto record = tree.image.slot(2);
  record.state = static_cast<std::uint8_t>(SlotState::kActive);
  record.incarnation = 7;
  tree.image.set_slot(2, record);
  const auto report = tree.image.fsck();
  ASSERT_TRUE(report);
  EXPECT_EQ(report->problem_count, 1u);
  EXPECT_EQ(report->inodes, 0u);
  FsckOptions options;
  options.tolerate_dirty_journals = true;
  const auto tolerant = tree.image.fsck(options);
  ASSERT_TRUE(tolerant);
  EXPECT_TRUE(tolerant->clean()) << tolerant->text();
  EXPECT_EQ(tolerant->slots_to_recover, 1u);
  EXPECT_GT(tolerant->inodes, 0u);
}

Task<void> beat(Image& image, std::uint16_t slot, StopSource& stop) {
  for (std::uint64_t counter = 1; !stop.requested(); ++counter) {
    Heartbeat heartbeat{};
    heartbeat.slot = slot;
    heartbeat.counter = counter;
    std::vector<std::byte> block(image.geometry.logical_block);
    std::memcpy(block.data(), &heartbeat, sizeof(heartbeat));
    const std::uint64_t offset = image.geometry.heartbeat_offset(SlotNo{slot});
    seal_heartbeat_block(block, offset, image.geometry.fs_id);
    image.lun.poke(offset, block);
    co_await stop.sleep(std::chrono::seconds(3));
  }
}

TEST(Fsck, RefusesALiveFileSystem) {
  Tree tree;
  auto record = tree.image.slot(2);
  record.state = static_cast<std::uint8_t>(SlotState::kActive);
  record.incarnation = 7;
  tree.image.set_slot(2, record);
  StopSource stop(tree.image.executor);
  TaskGroup group(tree.image.executor);
  group.spawn(beat(tree.image, 2, stop));
  const auto report = tree.image.fsck();
  stop.request();
  tree.image.loop.run(tree.image.executor, group.join());
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code, Errc::kLive);
}

TEST(Fsck, FindingsAreLimitedAndCounted) {
  Tree tree;
  tree.image.inode(tree.file).nlink = 9;
  tree.image.inode(tree.home).nlink = 9;
  tree.image.inode(tree.other).nlink = 9;
  FsckOptions options;
  options.max_findings = 2;
  const auto report = tree.image.fsck(options);
  EXPECT_EQ(report->problem_count, 3u);
  EXPECT_EQ(report->findings.size(), 2u);
}

TEST(Fsck, AMediumErrorIsAFinding) {
  Tree tree;
  tree.image.write();
  tree.image.lun.set_hook([&](const SimulatedRequest& request) {
    const std::uint64_t bad = tree.small.block().offset_bytes();
    const bool hit =
        request.kind == SimulatedRequest::Kind::kRead && request.offset <= bad && bad < request.offset + request.length;
    return hit ? SimulatedFate::kMediumError : SimulatedFate::kRun;
  });
  const auto report = tree.image.fsck();
  ASSERT_TRUE(report);
  EXPECT_EQ(report->problem_count, 1u) << report->text();
  EXPECT_TRUE(report->has(Problem::kInodeDamaged));
}

// Whatever stands in a block whose checksum is right: a report or an error, never a crash.
TEST(Fsck, RandomDamageWithRightChecksums) {
  for (std::uint64_t seed = 1; seed <= 120; ++seed) {
    SCOPED_TRACE(seed);
    SeededRandom random(seed);
    Tree tree;
    const Geometry& g = tree.image.geometry;
    const std::array targets{BlockNo{kSuperblockBlock},
                             g.group_header(GroupNo{0}),
                             g.group_bitmap(GroupNo{0}, 0),
                             tree.root.block(),
                             tree.user.block(),
                             tree.big.block(),
                             tree.left,
                             tree.right,
                             g.orphan_inodes[1].block()};
    auto& block = tree.image.edit<std::array<std::byte, kBlockSize>>(targets[random.below(targets.size())]);
    for (std::uint64_t i = 0, n = 1 + random.below(8); i < n; ++i) {
      const std::uint64_t from = random.one_in(2) ? sizeof(BlockHeader) + random.below(300) : random.below(kBlockSize);
      if (from >= 8) block[from] = static_cast<std::byte>(random.next());
    }
    const auto report = tree.image.fsck();
    EXPECT_TRUE(report || error_class(report.error().code) == ErrorClass::kCorrupt ||
                error_class(report.error().code) == ErrorClass::kUsage);
  }
}

}  // namespace
}  // namespace cawfs
