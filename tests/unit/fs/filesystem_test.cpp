// What the random comparison with the model cannot see: what survives, what is reported, what is given back.
#include <sys/stat.h>

#include <cstring>
#include <set>

#include "tests/support/fs_fixture.h"

namespace cawfs::testing {
namespace {

class FileSystemTest : public ::testing::Test {
 protected:
  FileSystem& fs() { return mounted.fs(); }
  InodeNo root() { return fs().root(); }

  InodeNo create(const std::string& name) {
    auto made = mounted.run(fs().create(root(), name, {0644, 1, 2, 0}, true));
    EXPECT_TRUE(made.has_value());
    return made ? made->inode : InodeNo{};
  }
  Result<Written> write(InodeNo inode, std::uint64_t offset, const std::string& data, bool append = false,
                        bool direct = false) {
    return mounted.run(fs().write(inode, offset, std::as_bytes(std::span(data)), append, direct, false));
  }
  std::string read(InodeNo inode, std::uint64_t offset, std::size_t length) {
    std::string out(length, '?');
    auto got = mounted.run(fs().read(inode, offset, std::as_writable_bytes(std::span(out)), false));
    EXPECT_TRUE(got.has_value());
    out.resize(got.value_or(0));
    return out;
  }
  std::uint64_t free_blocks() {
    mounted.small.loop.run_for(std::chrono::seconds(5));  // the totals are that old at most
    auto space = mounted.run(fs().space());
    EXPECT_TRUE(space.has_value());
    return space->free_blocks;
  }
  void pass(Duration time) { mounted.small.loop.run_for(time); }
  static SimulatedFate no_data(const SimulatedRequest& request) {
    const bool data = request.kind == SimulatedRequest::Kind::kWrite && request.length > 90'000;
    return data ? SimulatedFate::kMediumError : SimulatedFate::kRun;
  }
  void lose_data_of(InodeNo file) {
    ASSERT_TRUE(write(file, 0, std::string(100'000, 'e')).has_value());
    mounted.small.lun.set_hook(no_data);
    pass(std::chrono::seconds(30));
    mounted.small.lun.set_hook({});
    EXPECT_EQ(mounted.messages.lines.size(), 1u);
    mounted.messages.lines.clear();
  }
  std::uint64_t device_writes() { return mounted.small.lun.executed(SimulatedRequest::Kind::kWrite); }

  MountedFileSystem mounted;
};

TEST_F(FileSystemTest, DataSurvivesUnmount) {
  const std::string large(3 << 20, 'x');
  const InodeNo a = create("a");
  const InodeNo b = create("b");
  ASSERT_TRUE(write(a, 0, "small").has_value());
  ASSERT_TRUE(write(b, 0, large).has_value());
  mounted.remount();
  auto found = mounted.run(fs().lookup(root(), "a"));
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(read(found->inode, 0, 100), "small");
  found = mounted.run(fs().lookup(root(), "b"));
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->size, large.size());
  EXPECT_TRUE(read(found->inode, 0, large.size() + 5) == large);
}

TEST_F(FileSystemTest, UnlinkedFileLivesUntilItsLastUserGoes) {
  const std::uint64_t before = free_blocks();
  const InodeNo file = create("file");
  ASSERT_TRUE(mounted.run(fs().open(file)).has_value());
  ASSERT_TRUE(write(file, 0, std::string(1 << 20, 'd')).has_value());
  ASSERT_TRUE(mounted.run(fs().sync(file, false)).has_value());
  ASSERT_TRUE(mounted.run(fs().unlink(root(), "file")).has_value());
  fs().forget(file, 1);
  pass(std::chrono::seconds(1));
  EXPECT_EQ(read(file, 100, 3), "ddd");
  EXPECT_LT(free_blocks() + 200, before);
  mounted.run(fs().close(file));
  EXPECT_GE(free_blocks() + 40, before);  // but for a chunk of inodes and blocks written ahead
  auto gone = mounted.run(fs().getattr(file));
  ASSERT_FALSE(gone.has_value());
  EXPECT_EQ(gone.error().code, Errc::kStale);
}

TEST_F(FileSystemTest, OrphansOfACrashAreFreedAtTheNextMount) {
  const InodeNo file = create("file");
  ASSERT_TRUE(mounted.run(fs().open(file)).has_value());
  ASSERT_TRUE(write(file, 0, std::string(1 << 20, 'd')).has_value());
  ASSERT_TRUE(mounted.run(fs().unlink(root(), "file")).has_value());
  ASSERT_TRUE(mounted.run(fs().sync_all()).has_value());
  ASSERT_TRUE(mounted.run(mounted.small.log->write_back_all()).has_value());
  mounted.check();
  EXPECT_EQ(mounted.last_orphans, 1u);
  // What the next mount does with the list, without the pause of a sweep.
  mounted.run(fs().close(file));
  fs().forget(file, 1);
  fs().slot_changed(SlotNo{0}, format::SlotState::kRecovering, format::SlotState::kClean);
  pass(std::chrono::seconds(2));
  ASSERT_TRUE(mounted.run(mounted.small.log->write_back_all()).has_value());
  mounted.check();
  EXPECT_EQ(mounted.last_orphans, 0u);
}

TEST_F(FileSystemTest, AReusedNumberIsStaleForWhoKnewTheOldInode) {
  const InodeNo old = create("old");
  auto before = mounted.run(fs().getattr(old));
  ASSERT_TRUE(mounted.run(fs().unlink(root(), "old")).has_value());
  fs().forget(old, 1);
  pass(std::chrono::seconds(1));
  for (int i = 0; i < 40; ++i) {
    const InodeNo other = create("new" + std::to_string(i));
    if (other != old) continue;
    auto after = mounted.run(fs().getattr(other));
    ASSERT_TRUE(before.has_value() && after.has_value());
    EXPECT_GT(after->generation, before->generation);
    return;
  }
}

TEST_F(FileSystemTest, NumbersThatAreNoInodesAreStale) {
  for (const std::uint64_t number :
       {std::uint64_t{0}, std::uint64_t{17}, root().value + 1, root().value / 16 * 16, std::uint64_t{1} << 60}) {
    auto got = mounted.run(fs().getattr(InodeNo{number}));
    ASSERT_FALSE(got.has_value()) << number;
    EXPECT_EQ(got.error().code, Errc::kStale) << number;
  }
}

TEST_F(FileSystemTest, AWriteErrorIsReportedOnceBySync) {
  const InodeNo file = create("file");
  ASSERT_TRUE(write(file, 0, std::string(100'000, 'e')).has_value());
  mounted.small.lun.set_hook([](const SimulatedRequest& request) {
    const bool data = request.kind == SimulatedRequest::Kind::kWrite && request.length > 90'000;
    return data ? SimulatedFate::kMediumError : SimulatedFate::kRun;
  });
  auto first = mounted.run(fs().sync(file, false));
  ASSERT_FALSE(first.has_value());
  EXPECT_EQ(first.error().code, Errc::kMedium);
  mounted.small.lun.set_hook({});
  EXPECT_TRUE(mounted.run(fs().sync(file, false)).has_value());
  EXPECT_EQ(mounted.messages.lines.size(), 1u);
  mounted.messages.lines.clear();
}

TEST_F(FileSystemTest, EachOpenIsToldOnceOfAWriteError) {
  const InodeNo file = create("file");
  const auto open = [&] {
    EXPECT_TRUE(mounted.run(fs().open(file)).has_value());
    return fs().write_errors(file);
  };
  const auto told = [&](WriteErrorMark& mark) { return !mounted.run(fs().sync(file, false, mark)).has_value(); };
  WriteErrorMark first = open();
  WriteErrorMark second = open();
  lose_data_of(file);
  WriteErrorMark third = open();  // after it happened, before anybody has been told
  EXPECT_TRUE(told(first));
  WriteErrorMark late = open();
  EXPECT_FALSE(told(late));
  for (WriteErrorMark* mark : {&second, &third}) EXPECT_TRUE(told(*mark));
  for (WriteErrorMark* mark : {&first, &second, &third, &late}) EXPECT_FALSE(told(*mark));
  EXPECT_EQ(fs().untold_losses(), 0u);
  for (int i = 0; i < 4; ++i) mounted.run(fs().close(file));
}

// Neither of the file that has the number next, nor a loss when all is unmounted.
TEST_F(FileSystemTest, AWriteErrorGoesWithItsFile) {
  const InodeNo file = create("file");
  lose_data_of(file);
  EXPECT_EQ(fs().untold_losses(), 1u);
  ASSERT_TRUE(mounted.run(fs().unlink(root(), "file")).has_value());
  fs().forget(file, 1);
  pass(std::chrono::seconds(1));
  EXPECT_EQ(fs().untold_losses(), 0u);
  InodeNo other;
  for (int i = 0; i < 200 && other != file; ++i) other = create("new" + std::to_string(i));
  ASSERT_EQ(other, file);
  EXPECT_TRUE(mounted.run(fs().sync(other, false)).has_value());
}

TEST_F(FileSystemTest, ALossThatNobodyWasToldOfIsToldAtUnmount) {
  const InodeNo file = create("file");
  lose_data_of(file);
  fs().forget(file, 1);
  EXPECT_EQ(fs().untold_losses(), 1u);
  mounted.stop();
  EXPECT_EQ(mounted.messages.lines,
            std::vector{"inode " + std::to_string(file.value) + ": no program was told of its loss"});
  mounted.messages.lines.clear();
  mounted.mount();
}

TEST_F(FileSystemTest, ADirectWriteIsToldOfItsOwnLossOnly) {
  const InodeNo file = create("file");
  lose_data_of(file);
  EXPECT_TRUE(write(file, 0, std::string(5000, 'd'), false, true).has_value());
  mounted.small.lun.set_hook(no_data);
  EXPECT_EQ(write(file, 0, std::string(100'000, 'd'), false, true).error().code, Errc::kMedium);
  mounted.small.lun.set_hook({});
  mounted.messages.lines.clear();
}

// The file's own metadata cannot be read when its lock has to go: that file's data is lost, which its fsync tells, and
// the lock goes.
TEST_F(FileSystemTest, ADamagedFileDoesNotKeepItsLock) {
  for (const bool inode_too : {false, true}) {
    const InodeNo file = create(inode_too ? "first" : "second");
    const InodeNo other = create(inode_too ? "third" : "fourth");
    for (std::uint64_t i = 1; i < 2000; i += 2) ASSERT_TRUE(write(file, i * kBlockSize, "x").has_value());
    ASSERT_TRUE(mounted.run(fs().sync(file, false)).has_value());
    ASSERT_TRUE(mounted.run(mounted.small.log->write_back_all()).has_value());
    ASSERT_TRUE(write(file, 0, std::string(100'000, 'd')).has_value());
    ASSERT_TRUE(write(other, 0, std::string(100'000, 'o')).has_value());

    const auto damage = [&](BlockNo block) {
      IoBuffer good(kBlockSize);
      mounted.small.lun.peek(block.offset_bytes(), good.bytes());
      const IoBuffer zeros(kBlockSize);
      mounted.small.lun.poke(block.offset_bytes(), zeros.bytes());
      mounted.small.buffers->forget(block);
      return good;
    };
    const BufferRef inode = mounted.small.buffers->find(file.block());
    const auto& raw = inode->as<format::Inode>();
    format::TreeRecord first;
    std::memcpy(&first, raw.area.data() + sizeof(format::TreeRoot), sizeof(first));
    format::le64 child;
    std::memcpy(&child, raw.area.data() + sizeof(format::TreeRoot) + sizeof(first), sizeof(child));
    const BlockNo node{child.value()};
    const IoBuffer good_node = damage(node);
    std::optional<IoBuffer> good_inode;
    if (inode_too) good_inode = damage(file.block());

    mounted.give_up(lock_of(file), LockMode::kNone);
    mounted.small.lun.poke(node.offset_bytes(), good_node.bytes());
    if (good_inode) mounted.small.lun.poke(file.block().offset_bytes(), good_inode->bytes());
    EXPECT_EQ(mounted.messages.lines.size(), 1u);
    mounted.messages.lines.clear();
    EXPECT_EQ(error_class(mounted.run(fs().sync(file, false)).error().code), ErrorClass::kCorrupt);
    EXPECT_TRUE(mounted.run(fs().sync(file, false)).has_value());
    EXPECT_TRUE(mounted.run(fs().sync(other, false)).has_value());
    EXPECT_EQ(read(other, 0, 10), std::string(10, 'o'));
    EXPECT_EQ(read(file, 0, 1), std::string(1, '\0'));
  }
}

// What would count below zero, or above the most that there can be, is refused: no verifier would let it to the disk.
TEST_F(FileSystemTest, ADirectoryThatCountsItsEntriesWrong) {
  const auto made = mounted.run(fs().mkdir(root(), "directory", {0755, 1, 2, 0}));
  ASSERT_TRUE(made.has_value());
  const InodeNo directory = made->inode;
  ASSERT_TRUE(mounted.run(fs().create(directory, "inside", {0644, 1, 2, 0}, true)).has_value());
  const auto set_size = [&](std::uint64_t size) {
    mounted.small.buffers->find(directory.block())->as<format::Inode>().size = size;
  };
  set_size(0);
  EXPECT_EQ(mounted.run(fs().unlink(directory, "inside")).error(), Errc::kBadValue);
  set_size(INT64_MAX);
  EXPECT_EQ(mounted.run(fs().create(directory, "another", {0644, 1, 2, 0}, true)).error(), Errc::kBadValue);
  set_size(1);
  EXPECT_TRUE(mounted.run(fs().create(directory, "another", {0644, 1, 2, 0}, true)).has_value());
  EXPECT_TRUE(mounted.run(fs().unlink(directory, "inside")).has_value());
}

TEST_F(FileSystemTest, WhatCannotBeLookedAtAfterItsCloseIsLookedAtAgain) {
  const std::uint64_t free = free_blocks();
  const InodeNo file = create("file");
  ASSERT_TRUE(write(file, 0, std::string(1 << 20, 'c')).has_value());
  ASSERT_TRUE(mounted.run(fs().open(file)).has_value());
  ASSERT_TRUE(mounted.run(fs().unlink(root(), "file")).has_value());
  mounted.give_up(lock_of(file), LockMode::kNone);
  mounted.small.lun.set_hook([&](const SimulatedRequest& request) {
    const bool his = request.kind == SimulatedRequest::Kind::kRead && request.offset == file.block().offset_bytes();
    return his ? SimulatedFate::kMediumError : SimulatedFate::kRun;
  });
  fs().forget(file, 1);
  mounted.run(fs().close(file));
  pass(std::chrono::seconds(5));
  EXPECT_THAT(mounted.messages.lines, ::testing::SizeIs(1));
  mounted.messages.lines.clear();
  EXPECT_LE(free_blocks(), free - 256);
  mounted.small.lun.set_hook({});
  pass(std::chrono::seconds(60));
  EXPECT_GE(free_blocks(), free - 64);
}

TEST_F(FileSystemTest, AcknowledgedWritesHaveTheirSpace) {
  const InodeNo file = create("file");
  const std::string megabyte(1 << 20, 'f');
  std::uint64_t written = 0;
  Errc why{};
  for (;;) {
    auto done = write(file, written, megabyte);
    if (!done) {
      why = done.error().code;
      break;
    }
    written += done->count;
    ASSERT_LT(written, std::uint64_t{128} << 20);
  }
  EXPECT_EQ(why, Errc::kNoSpace);
  EXPECT_GT(written, std::uint64_t{40} << 20);
  // What did not fit as a whole was written as far as it did.
  EXPECT_LT(free_blocks(), 32u);
  EXPECT_TRUE(mounted.run(fs().sync(file, false)).has_value());
  EXPECT_TRUE(read(file, written - megabyte.size(), megabyte.size()) == megabyte);
  ASSERT_TRUE(mounted.run(fs().unlink(root(), "file")).has_value());
  fs().forget(file, 1);
  pass(std::chrono::seconds(10));
  EXPECT_TRUE(write(create("again"), 0, megabyte).has_value());
}

TEST_F(FileSystemTest, DirtyDataIsWrittenAfterSomeSeconds) {
  const InodeNo file = create("file");
  ASSERT_TRUE(write(file, 0, std::string(200'000, 'g')).has_value());
  const std::uint64_t before = device_writes();
  pass(std::chrono::seconds(1));
  EXPECT_EQ(device_writes(), before);
  pass(std::chrono::seconds(9));
  EXPECT_GT(device_writes(), before);
}

TEST_F(FileSystemTest, DirectWritesGoInPlace) {
  const InodeNo file = create("file");
  ASSERT_TRUE(write(file, 0, std::string(64 << 10, 'h')).has_value());
  ASSERT_TRUE(mounted.run(fs().sync(file, false)).has_value());
  const std::uint64_t commits = mounted.small.log->commits();
  const std::uint64_t before = device_writes();
  ASSERT_TRUE(write(file, 8192, std::string(4096, 'i'), false, true).has_value());
  EXPECT_EQ(device_writes(), before + 1);
  EXPECT_EQ(mounted.small.log->commits(), commits);
  EXPECT_EQ(read(file, 8190, 4), "hhii");
}

TEST_F(FileSystemTest, WhatAMapWroteMakesNoFileLonger) {
  for (const std::uint64_t size : {std::uint64_t{100}, std::uint64_t{50'000}}) {  // in the inode; in blocks
    const InodeNo file = create("file" + std::to_string(size));
    ASSERT_TRUE(write(file, 0, std::string(size, 'x')).has_value());
    const std::string text(30, 'm');
    const auto bytes = std::as_bytes(std::span(text));
    for (const std::uint64_t offset : {std::uint64_t{0}, size - 10, size, size + 5000}) {
      ASSERT_TRUE(mounted.run(fs().write_within(file, offset, bytes)).has_value());
    }
    EXPECT_EQ(read(file, 0, 2 * size + 10'000), text + std::string(size - 40, 'x') + std::string(10, 'm'));
    EXPECT_EQ(mounted.run(fs().getattr(file))->size, size);
  }
}

TEST_F(FileSystemTest, GrowingShowsNoOldBytes) {
  const InodeNo file = create("file");
  ASSERT_TRUE(write(file, 0, std::string(10'000, 'j')).has_value());
  ASSERT_TRUE(mounted.run(fs().sync(file, false)).has_value());
  AttributeChange change;
  change.size = 5000;
  ASSERT_TRUE(mounted.run(fs().setattr(file, change)).has_value());
  ASSERT_TRUE(mounted.run(fs().sync(file, false)).has_value());
  change.size = 9000;
  ASSERT_TRUE(mounted.run(fs().setattr(file, change)).has_value());
  EXPECT_EQ(read(file, 4990, 20), std::string(10, 'j') + std::string(10, '\0'));
  EXPECT_EQ(read(file, 8995, 20), std::string(5, '\0'));
}

TEST_F(FileSystemTest, CookiesStayWhileTheDirectoryChanges) {
  std::set<std::string> stay;
  for (int i = 0; i < 300; ++i) create("stay" + std::to_string(i));
  for (int i = 0; i < 300; ++i) stay.insert("stay" + std::to_string(i));
  std::multiset<std::string> seen;
  std::uint64_t cookie = 0;
  for (int round = 0;; ++round) {
    auto some = mounted.run(fs().readdir(root(), cookie, 7));
    ASSERT_TRUE(some.has_value());
    if (some->empty()) break;
    cookie = some->back().cookie;
    for (const auto& entry : *some) {
      if (entry.name.starts_with("stay")) seen.insert(entry.name);
    }
    for (int i = 0; i < 8; ++i) create("come" + std::to_string(round * 8 + i));
    if (round % 2 == 1) EXPECT_TRUE(mounted.run(fs().unlink(root(), "come" + std::to_string(round))).has_value());
  }
  EXPECT_EQ(std::set<std::string>(seen.begin(), seen.end()), stay);
  EXPECT_EQ(seen.size(), stay.size());
}

TEST_F(FileSystemTest, ALockThatGoesTakesDirtyDataToTheDevice) {
  const InodeNo file = create("file");
  ASSERT_TRUE(write(file, 0, std::string(100'000, 'k')).has_value());
  auto before = mounted.run(fs().getattr(file));
  mounted.give_up(lock_of(file), LockMode::kNone);
  const std::uint64_t writes = device_writes();
  ASSERT_TRUE(mounted.run(fs().sync(file, false)).has_value());
  EXPECT_EQ(device_writes(), writes);
  auto after = mounted.run(fs().getattr(file));
  ASSERT_TRUE(before.has_value() && after.has_value());
  EXPECT_EQ(after->size, before->size);
  EXPECT_EQ(after->mtime_ns, before->mtime_ns);
  EXPECT_EQ(read(file, 99'998, 10), "kk");
}

TEST_F(FileSystemTest, ReadsAreDatedOnlyWhenDue) {
  const InodeNo file = create("file");
  pass(std::chrono::seconds(1));
  ASSERT_TRUE(write(file, 0, "data").has_value());
  pass(std::chrono::seconds(1));
  read(file, 0, 4);
  pass(std::chrono::seconds(1));
  auto first = mounted.run(fs().getattr(file));
  ASSERT_TRUE(first.has_value());
  EXPECT_GT(first->atime_ns, first->mtime_ns);
  read(file, 0, 4);
  pass(std::chrono::seconds(1));
  auto second = mounted.run(fs().getattr(file));
  ASSERT_TRUE(second.has_value());
  EXPECT_EQ(second->atime_ns, first->atime_ns);
}

TEST_F(FileSystemTest, LengthsThatCannotBe) {
  const InodeNo file = create("file");
  AttributeChange change;
  change.size = std::uint64_t{1} << 63;
  auto sized = mounted.run(fs().setattr(file, change));
  ASSERT_FALSE(sized.has_value());
  EXPECT_EQ(sized.error().code, Errc::kFileTooBig);
  auto written = write(file, INT64_MAX - 3, "12345");
  ASSERT_FALSE(written.has_value());
  EXPECT_EQ(written.error().code, Errc::kFileTooBig);
  change.size = INT64_MAX;
  EXPECT_TRUE(mounted.run(fs().setattr(file, change)).has_value());
  EXPECT_EQ(read(file, INT64_MAX - 10, 100), std::string(10, '\0'));
}

// As of a file of terabytes with a small journal.
TEST(FileSystemLargeGroups, AnExtentInMoreBitmapsThanATransactionTakesIsFreedInParts) {
  MountedFileSystem mounted({.size_bytes = 400 << 20, .slots = 1, .group_blocks = 97'536});
  FileSystem& fs = mounted.fs();
  auto file = mounted.run(fs.create(fs.root(), "file", {0644, 1, 2, 0}, true));
  ASSERT_TRUE(file.has_value());
  const std::vector<std::byte> piece(4 << 20);
  for (std::uint64_t at = 0; at < 260 << 20; at += piece.size()) {
    auto wrote = mounted.run(fs.write(file->inode, at, piece, false, false, false));
    ASSERT_TRUE(wrote.has_value());
  }
  ASSERT_TRUE(mounted.run(fs.sync(file->inode, false)).has_value());
  MemoryLog& log = *mounted.small.log;
  log.most_credits = 5;  // two bitmaps, and no third
  const std::uint64_t before = log.begun;
  AttributeChange change;
  change.size = 0;
  EXPECT_TRUE(mounted.run(fs.setattr(file->inode, change)).has_value());
  EXPECT_GT(log.begun, before + 1);
  log.most_credits = 512;
  auto now = mounted.run(fs.getattr(file->inode));
  EXPECT_TRUE(now && now->size == 0 && now->blocks_512 == 0);
  fs.forget(file->inode, 1);
}

TEST(FileSystemReadOnly, RefusesChanges) {
  SmallOptions small;
  MountedFileSystem mounted(small, {.read_only = true});
  auto made = mounted.run(mounted.fs().mkdir(mounted.fs().root(), "d", {0755, 0, 0, 0}));
  ASSERT_FALSE(made.has_value());
  EXPECT_EQ(made.error().code, Errc::kReadOnly);
  EXPECT_TRUE(mounted.run(mounted.fs().getattr(mounted.fs().root())).has_value());
}

}  // namespace
}  // namespace cawfs::testing
