// Inodes and their trees: extents, and directories as far as they can be judged alone.
#include <sys/stat.h>

#include <cstring>

#include "core/format/tree_records.h"
#include "core/format/verify.h"
#include "utils/fsck/check.h"

namespace cawfs {
namespace {

using namespace format;

constexpr std::uint64_t kLongestSymlink = 4095;

class ExtentVisitor final : public TreeVisitor {
 public:
  ExtentVisitor(Check& check, InodeNo number, const Inode& inode)
      : check_(check),
        number_(number),
        cutting_((inode.flags.value() & kInodeCutting) != 0),
        end_((inode.size.value() + kBlockSize - 1) / kBlockSize) {}

  void record(std::uint64_t key, std::span<const std::byte> payload) override {
    const auto extent = load_at<ExtentPayload>(payload, 0);
    const std::uint64_t count = extent.count.value();
    if (key < next_) check_.found(Problem::kExtentOverlap, number_.value, "two extents cover block {} of it", key);
    next_ = key + count;
    const bool unwritten = (extent.flags.value() & kExtentUnwritten) != 0;
    if (!unwritten && !cutting_ && next_ > end_ && !beyond_) {
      check_.found(Problem::kExtentBeyondEnd, number_.value, "written up to block {}, its size has {}", next_, end_);
      beyond_ = true;
    }
    check_.use({BlockNo{extent.start.value()}, count}, "inode", number_.value);
    blocks += count;
  }
  bool node(BlockNo block) override {
    ++blocks;
    return !check_.use({block, 1}, "the extent tree of inode", number_.value);
  }

  std::uint64_t blocks = 0;

 private:
  Check& check_;
  InodeNo number_;
  bool cutting_;
  std::uint64_t end_;
  std::uint64_t next_ = 0;
  bool beyond_ = false;
};

class EntryCounter final : public TreeVisitor {
 public:
  EntryCounter(Check& check, InodeNo number) : check_(check), number_(number) {}

  void record(std::uint64_t /*key*/, std::span<const std::byte> /*payload*/) override { ++entries; }
  bool node(BlockNo block) override {
    ++blocks;
    return !check_.use({block, 1}, "directory", number_.value);
  }

  std::uint64_t entries = 0;
  std::uint64_t blocks = 0;

 private:
  Check& check_;
  InodeNo number_;
};

}  // namespace

Task<Result<>> Check::check_file(InodeNo number, const Inode& inode) {
  std::uint64_t blocks_used = 0;
  if (static_cast<InodeContent>(inode.content) == InodeContent::kTree) {
    ExtentVisitor visitor(*this, number, inode);
    const Result<bool> sound = co_await walk_inode_tree(*this, number, inode, visitor);
    if (!sound) co_return fail(sound.error());
    if (!*sound) co_return Result<>{};
    blocks_used = visitor.blocks;
  }
  if (blocks_used != inode.blocks.value()) {
    found(Problem::kInodeBlocksWrong, number.value, "{} where it uses {}", inode.blocks.value(), blocks_used);
  }
  if (S_ISLNK(inode.mode.value()) && (inode.size.value() == 0 || inode.size.value() > kLongestSymlink)) {
    found(Problem::kSymlinkBad, number.value, "{} bytes", inode.size.value());
  }
  co_return Result<>{};
}

Task<Result<>> Check::check_directory_tree(InodeNo number, const Inode& inode) {
  ++report.directories;
  inodes.directories()[number].parent = InodeNo{inode.parent.value()};
  EntryCounter visitor(*this, number);
  const Result<bool> sound = co_await walk_inode_tree(*this, number, inode, visitor);
  if (!sound) co_return fail(sound.error());
  inodes.find(number)->sound = *sound;
  if (!*sound) co_return Result<>{};
  if (visitor.entries != inode.size.value()) {
    found(Problem::kDirectorySizeWrong, number.value, "{} where it has {} entries", inode.size.value(),
          visitor.entries);
  }
  if (visitor.blocks != inode.blocks.value()) {
    found(Problem::kInodeBlocksWrong, number.value, "{} where it uses {}", inode.blocks.value(), visitor.blocks);
  }
  co_return Result<>{};
}

Task<Result<>> Check::check_inode(InodeNo number, const Inode& inode) {
  InodeFacts& facts = *inodes.find(number);
  facts.state = InodeFacts::kInUse;
  facts.nlink = inode.nlink.value();
  facts.type = static_cast<std::uint8_t>((inode.mode.value() & S_IFMT) >> 12);
  facts.system = (inode.flags.value() & kInodeSystem) != 0;
  facts.orphan = (inode.flags.value() & kInodeOrphan) != 0;
  facts.orphan_slot = inode.orphan_slot.value();
  ++report.inodes;
  Result<> done;
  if (facts.system) co_return done;  // check_orphans() walks them
  if (S_ISDIR(inode.mode.value())) {
    done = co_await check_directory_tree(number, inode);
  } else {
    done = co_await check_file(number, inode);
  }
  co_return done;
}

Task<Result<>> Check::check_inodes(GroupNo group, BlockNo chunk, std::uint16_t free_mask) {
  IoBuffer buffer((kChunkBlocks - 1) * kBlockSize);
  const Result<> whole = co_await device.read((chunk + 1).offset_bytes(), buffer.bytes());
  if (!whole && whole.error().code != Errc::kMedium) co_return whole;
  for (std::uint64_t i = 0; i < kChunkBlocks - 1; ++i) {
    const InodeNo number{chunk.value + 1 + i};
    const auto bytes = buffer.bytes().subspan(i * kBlockSize, kBlockSize);
    if (!whole) {  // find out which of them cannot be read
      const Result<bool> one =
          co_await read(number.block().offset_bytes(), bytes, Problem::kInodeDamaged, number.value);
      if (!one) co_return fail(one.error());
      if (!*one) {
        inodes.find(number)->state = InodeFacts::kDamaged;
        continue;
      }
    }
    const Result<> ok = format::verify_block(bytes, BlockType::kInode, number.block(), geometry);
    if (!ok) {
      found(Problem::kInodeDamaged, number.value, "{}", describe(ok.error().code));
      inodes.find(number)->state = InodeFacts::kDamaged;
      continue;
    }
    const auto& inode = *reinterpret_cast<const Inode*>(bytes.data());
    const bool marked_free = (free_mask >> i & 1) != 0;
    const bool is_free = inode.mode.value() == 0;
    if (marked_free && !is_free) {
      found(Problem::kInodeUsedButFree, number.value, "in the chunk index of group {}", group.value);
    } else if (!marked_free && is_free) {
      found(Problem::kInodeFreeButTaken, number.value, "in the chunk index of group {}", group.value);
    }
    if (is_free) continue;
    const Result<> done = co_await check_inode(number, inode);
    if (!done) co_return done;
  }
  co_return Result<>{};
}

}  // namespace cawfs
