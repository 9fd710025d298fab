// Orphan lists; link counts, parents and reachability.
#include <sys/stat.h>

#include <algorithm>
#include <unordered_set>

#include "core/format/tree_records.h"
#include "utils/fsck/check.h"

namespace cawfs {
namespace {

using namespace format;

constexpr std::uint8_t kDirectoryType = S_IFDIR >> 12;

class OrphanVisitor final : public TreeVisitor {
 public:
  OrphanVisitor(Check& check, SlotNo slot) : check_(check), slot_(slot) {}

  void record(std::uint64_t key, std::span<const std::byte> /*payload*/) override {
    ++check_.report.orphans;
    ++entries;
    InodeFacts* facts = check_.inodes.find(InodeNo{key});
    if (facts == nullptr || facts->state == InodeFacts::kFree) {
      check_.found(Problem::kOrphanEntryBad, key, "it is free, and in the list of slot {}", slot_.value);
      return;
    }
    if (facts->state == InodeFacts::kDamaged) return;
    if (facts->in_orphan_list || !facts->orphan || facts->orphan_slot != slot_.value) {
      check_.found(Problem::kOrphanEntryBad, key, "it does not say that it is in the list of slot {}", slot_.value);
    }
    if (facts->nlink != 0 || facts->names != 0) {
      check_.found(Problem::kOrphanEntryBad, key, "it has links, and is in the list of slot {}", slot_.value);
    }
    facts->in_orphan_list = true;
  }
  bool node(BlockNo block) override {
    ++blocks;
    return !check_.use({block, 1}, "the orphan list of slot", slot_.value);
  }

  std::uint64_t entries = 0;
  std::uint64_t blocks = 0;

 private:
  Check& check_;
  SlotNo slot_;
};

}  // namespace

Task<Result<>> Check::check_orphan_list(SlotNo slot) {
  const InodeNo number = geometry.orphan_inodes[slot.value];
  const InodeFacts* facts = inodes.find(number);
  if (facts == nullptr || facts->state == InodeFacts::kFree || (facts->state == InodeFacts::kInUse && !facts->system)) {
    found(Problem::kSystemInodeBad, number.value, "the superblock names it as the orphan list of slot {}", slot.value);
    co_return Result<>{};
  }
  if (facts->state == InodeFacts::kDamaged) co_return Result<>{};
  IoBuffer block(kBlockSize);
  const Result<bool> loaded = co_await load(number.block(), BlockType::kInode, block.bytes(), Problem::kInodeDamaged);
  if (!loaded) co_return fail(loaded.error());
  if (!*loaded) co_return Result<>{};
  const auto& inode = *reinterpret_cast<const Inode*>(block.data());
  if (static_cast<InodeContent>(inode.content) != InodeContent::kTree) {
    found(Problem::kSystemInodeBad, number.value, "the orphan list of slot {} is no tree", slot.value);
    co_return Result<>{};
  }
  OrphanVisitor visitor(*this, slot);
  const Result<bool> sound = co_await walk_inode_tree(*this, number, inode, visitor);
  if (!sound) co_return fail(sound.error());
  co_return Result<>{};
}

Task<Result<>> Check::check_orphans() {
  for (std::uint16_t slot = 0; slot < geometry.slots; ++slot) {
    const Result<> done = co_await check_orphan_list(SlotNo{slot});
    if (!done) co_return done;
  }
  co_return Result<>{};
}

void Check::check_links(InodeNo number, const InodeFacts& facts) {
  if (facts.state != InodeFacts::kInUse) return;
  if (facts.system) {
    if (std::ranges::find(geometry.orphan_inodes, number) == geometry.orphan_inodes.end()) {
      found(Problem::kSystemInodeBad, number.value, "the superblock does not name it");
    }
    return;
  }
  if (facts.orphan && !facts.in_orphan_list) {
    found(Problem::kOrphanNotListed, number.value, "it says slot {}", facts.orphan_slot);
  }
  if (facts.in_orphan_list) return;
  if (number != geometry.root && facts.names == 0) {
    found(Problem::kInodeUnreachable, number.value, "type {}, link count {}", facts.type, facts.nlink);
    return;
  }
  std::uint32_t expected = facts.names;
  if (facts.type == kDirectoryType) {
    if (!facts.sound) return;  // what it holds is not known
    expected = 2 + inodes.directories()[number].subdirectories;
  }
  if (facts.nlink != expected) {
    found(Problem::kLinkCountWrong, number.value, "{} where it should be {}", facts.nlink, expected);
  }
}

// Each directory says who names it, and following that leads to the root or to a directory that nothing names (which
// has been reported), not in circles.
void Check::check_parents() {
  auto& directories = inodes.directories();
  const auto root = directories.find(geometry.root);
  if (root == directories.end() || root->second.parent != geometry.root) {
    found(Problem::kRootBad, geometry.root.value, "{}",
          root == directories.end() ? "it is no directory in use" : "it is not its own parent");
  }
  std::unordered_set<InodeNo> done{geometry.root};
  for (const auto& [number, facts] : directories) {
    if (number != geometry.root && facts.named_by.value != 0 && facts.parent != facts.named_by) {
      found(Problem::kDirectoryParentWrong, number.value, "it says {}, directory {} names it", facts.parent.value,
            facts.named_by.value);
    }
    std::vector<InodeNo> path;
    std::unordered_set<InodeNo> on_path;
    InodeNo at = number;
    while (at.value != 0 && !done.contains(at) && on_path.insert(at).second) {
      path.push_back(at);
      const auto next = directories.find(at);
      at = next == directories.end() ? InodeNo{} : next->second.named_by;
    }
    if (at.value != 0 && !done.contains(at)) {
      found(Problem::kDirectoryLoop, at.value, "following its parents leads back to it");
    }
    done.insert(path.begin(), path.end());
  }
}

void Check::check_connections() {
  std::vector<std::uint64_t> order;
  for (const auto& [chunk, facts] : inodes.chunks()) order.push_back(chunk);
  std::ranges::sort(order);
  for (const std::uint64_t chunk : order) {
    for (std::uint64_t i = 1; i < kChunkBlocks; ++i) {
      const InodeNo number{chunk + i};
      check_links(number, *inodes.find(number));
    }
  }
  check_parents();
}

}  // namespace cawfs
