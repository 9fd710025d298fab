// A B+tree that begins as nodes of any shape, each good in itself, and a script of lookups and changes. Where a walk
// over all of it finds no damage the tree is sound, and from then on does what std::map does; else each step ends with
// an answer.
#include <array>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "core/format/verify.h"
#include "core/fs/btree.h"
#include "core/runtime/virtual_loop.h"
#include "tests/fuzz/abort_on_failure.h"
#include "tests/fuzz/block_input.h"
#include "tests/fuzz/fresh_image.h"
#include "tests/support/memory_log.h"

namespace cawfs::fuzz {
namespace {

using Payload = std::vector<std::byte>;

constexpr std::size_t kNodes = 16;
constexpr std::uint32_t kMostSteps = 80;
constexpr std::uint32_t kRun = 24;  // records that one step puts in or takes out
constexpr std::size_t kRootArea = format::kInodeContent - sizeof(format::TreeRoot);

// Of a directory's record: what else is said of it does not matter to a tree.
Payload payload_of(InodeNo inode, std::uint8_t length) {
  format::DirectoryPayload head;
  head.inode = inode.value;
  head.type = 8;
  Payload payload(sizeof(head) + std::max<std::size_t>(length, 1), std::byte{'n'});
  std::memcpy(payload.data(), &head, sizeof(head));
  return payload;
}

// Everything that is the same for all inputs, and a LUN whose nodes are written anew for each.
struct World {
  World() : lun(loop.clock(), random, fresh.lun_options()), device(lun.connect(executor, "node")) {}

  const FreshImage& fresh = fresh_image(4096);
  const Geometry& geometry = fresh.geometry;
  const BlockNo free = geometry.group_data(GroupNo{geometry.group_count - 1}) + 200;
  const BlockNo root_block{free.value / format::kChunkBlocks * format::kChunkBlocks + 1};
  const BlockNo first_node = root_block + format::kChunkBlocks;
  const BlockNo first_new = first_node + 2 * kNodes;
  VirtualLoop loop;
  SeededRandom random{1};
  Executor& executor = loop.add_executor();
  SimulatedLun lun;
  std::unique_ptr<BlockDevice> device;
};

// Hands out blocks that no node of the input has.
class Blocks final : public MetadataBlocks {
 public:
  Blocks(BufferCache& buffers, BlockNo first) : buffers_(buffers), next_(first) {}
  BlockNo take_metadata(TxHandle& /*tx*/) override {
    CAWFS_ASSERT(reserved > 0);
    --reserved;
    const BlockNo block = next_;
    ++next_.value;
    return block;
  }
  void free_metadata(TxHandle& tx, BlockNo block) override {
    CAWFS_ASSERT(announced.erase(block) == 1);
    tx.revoke({block, 1});
    buffers_.forget(block);
  }

  std::uint32_t reserved = 0;
  std::set<BlockNo> announced;

 private:
  BufferCache& buffers_;
  BlockNo next_;
};

// Packs records from the input into `area` until one does not fit.
void take_records(FuzzInput& input, const World& world, format::TreeRoot& root, std::span<std::byte> area) {
  const unsigned level = input.byte() % 4;
  std::uint64_t key = input.take<std::uint16_t>();
  std::size_t used = 0;
  std::uint16_t count = 0;
  for (unsigned left = input.byte() % 64; left > 0; --left) {
    const std::uint8_t step = input.byte();
    const std::uint8_t what = input.byte();
    Payload payload;
    if (level > 0) {
      const format::le64 child((world.first_node + what % kNodes).value);
      payload.resize(sizeof(child));
      std::memcpy(payload.data(), &child, sizeof(child));
    } else {
      payload = payload_of(world.geometry.root, what);
    }
    format::TreeRecord record;
    record.key = key;
    record.length = static_cast<std::uint16_t>(payload.size());
    if (used + sizeof(record) + payload.size() > area.size()) break;
    std::memcpy(area.data() + used, &record, sizeof(record));
    std::ranges::copy(payload, area.begin() + static_cast<std::ptrdiff_t>(used + sizeof(record)));
    used += sizeof(record) + payload.size();
    ++count;
    key += step + 1u;
  }
  root.level = static_cast<std::uint16_t>(count == 0 ? 0 : level);
  root.count = count;
  root.used = static_cast<std::uint16_t>(used);
}

class Script {
 public:
  Script(World& world, FuzzInput& input)
      : world_(world),
        input_(input),
        buffers_(world.executor, *world.device, world.geometry, 1 << 20),
        log_(buffers_),
        blocks_(buffers_, world.first_new),
        lock_(lock_of(InodeNo{world.root_block.value})),
        hold_(nullptr, lock_, LockMode::kExclusive, LocalUse::kExclusive, Generation{1}) {
    root_ = buffers_.make(world.root_block, format::BlockType::kInode, lock_);
    log_.most_credits = 100'000;
  }

  void run() {
    write_nodes();
    tree_.emplace(buffers_, place());
    learn();
    for (std::uint32_t steps = 0; !input_.empty() && steps < kMostSteps; ++steps) {
      if (!step()) return;
    }
    if (model_) check_all();
    apply();
    if (model_) check_all();
  }

 private:
  TreePlace place() const {
    return {root_, offsetof(format::Inode, area), kRootArea, format::TreeKind::kDirectory, lock_};
  }
  template <class T>
  T wait(Task<T> task) {
    return world_.loop.run(world_.executor, std::move(task));
  }

  void write_nodes() {
    auto& inode = root_->as<format::Inode>();
    format::TreeRoot root{};
    const auto area = std::as_writable_bytes(std::span(inode.area));
    take_records(input_, world_, root, area.subspan(sizeof(root)));
    std::memcpy(area.data(), &root, sizeof(root));
    const std::size_t nodes = root.level.value() == 0 ? 0 : kNodes;
    for (std::size_t i = 0; i < nodes; ++i) {
      const BlockNo address = world_.first_node + i;
      Block block{};
      format::start_block(block, format::BlockType::kTreeNode, address, world_.geometry.fs_id);
      auto& node = *reinterpret_cast<format::TreeNode*>(block.data());
      node.owner = world_.root_block.value;
      node.kind = static_cast<std::uint16_t>(format::TreeKind::kDirectory);
      take_records(input_, world_, node.root, std::as_writable_bytes(std::span(node.area)));
      format::stamp_block(block);
      world_.lun.poke(address.offset_bytes(), block);
    }
  }

  // If all of it can be read, what it holds.
  void learn() {
    const auto all = wait(tree_->list(0, SIZE_MAX));
    if (!all) {
      CAWFS_ASSERT(error_class(all.error().code) == ErrorClass::kCorrupt);
      return;
    }
    model_.emplace();
    for (const TreeEntry& entry : *all) CAWFS_ASSERT(model_->emplace(entry.key, entry.payload).second);
    applied_ = *model_;
  }

  // Whether the plan may be gone on with.
  bool step() {
    const std::uint8_t what = input_.byte() % 10;
    const std::uint64_t key = input_.take<std::uint16_t>();
    const std::uint8_t length = input_.byte();
    switch (what) {
      case 0:
        return insert(key, length);
      case 1:
        return erase(key);
      case 2:
        return replace(key, length);
      case 3:
        look_up(key);
        return true;
      case 4:
        return erase_last(key, length % 64);
      case 5:
        apply();
        return true;
      case 6:
        for (std::uint32_t i = 0; i < kRun; ++i) {
          if (!insert(key + std::uint64_t{i} * (length % 8 + 1u), length)) return false;
        }
        return true;
      case 7:
        for (std::uint32_t i = 0; i < kRun; ++i) {
          if (!erase(key + std::uint64_t{i} * (length % 8 + 1u))) return false;
        }
        return true;
      case 8:
        return erase_from(key, length % 32);
      default:
        drop();
        return true;
    }
  }

  // An error: which one, and does the model agree?
  bool failed(const Error& error, std::optional<Errc> expected) {
    if (error.code == Errc::kExists || error.code == Errc::kNotFound) {
      CAWFS_ASSERT(!model_ || expected == error.code);
      return true;
    }
    CAWFS_ASSERT(!model_ && error_class(error.code) == ErrorClass::kCorrupt);
    return false;
  }
  bool insert(std::uint64_t key, std::uint8_t length) {
    const Payload payload = payload_of(world_.geometry.root, length);
    const auto done = wait(tree_->insert(key, payload));
    if (!done)
      return failed(done.error(), model_ && model_->contains(key) ? std::optional(Errc::kExists) : std::nullopt);
    if (model_) CAWFS_ASSERT(model_->emplace(key, payload).second);
    return true;
  }
  bool replace(std::uint64_t key, std::uint8_t length) {
    const Payload payload = payload_of(world_.geometry.root, length);
    const auto done = wait(tree_->replace(key, payload));
    if (!done)
      return failed(done.error(), model_ && !model_->contains(key) ? std::optional(Errc::kNotFound) : std::nullopt);
    if (model_) model_->at(key) = payload;
    return true;
  }
  bool erase(std::uint64_t key) {
    const auto done = wait(tree_->erase(key));
    if (!done)
      return failed(done.error(), model_ && !model_->contains(key) ? std::optional(Errc::kNotFound) : std::nullopt);
    if (model_) CAWFS_ASSERT(model_->erase(key) == 1);
    return true;
  }
  bool erase_last(std::uint64_t from, std::size_t limit) {
    const auto erased = wait(tree_->erase_last(from, limit));
    if (!erased) return failed(erased.error(), std::nullopt);
    CAWFS_ASSERT(erased->size() <= limit);
    if (!model_) return true;
    for (const TreeEntry& entry : *erased) {
      CAWFS_ASSERT(entry.key == model_->rbegin()->first && entry.payload == model_->rbegin()->second);
      model_->erase(entry.key);
    }
    CAWFS_ASSERT(erased->size() == limit || model_->empty() || model_->rbegin()->first < from);
    return true;
  }
  // Those that are there, from `key` on.
  bool erase_from(std::uint64_t key, unsigned count) {
    for (; count > 0; --count) {
      const auto next = wait(tree_->at_or_after(key));
      if (!next) return failed(next.error(), std::nullopt);
      if (!*next) return true;
      if (!erase((*next)->key)) return false;
    }
    return true;
  }

  void look_up(std::uint64_t key) {
    const auto found = wait(tree_->find(key));
    const auto before = wait(tree_->at_or_before(key));
    const auto after = wait(tree_->at_or_after(key));
    const auto some = wait(tree_->list(key, 20));
    if (before && *before) CAWFS_ASSERT((*before)->key <= key);
    if (after && *after) CAWFS_ASSERT((*after)->key >= key);
    if (!model_) return;
    CAWFS_ASSERT(found && before && after && some);
    const auto exact = model_->find(key);
    CAWFS_ASSERT(found->has_value() == (exact != model_->end()));
    if (*found) CAWFS_ASSERT((*found)->payload == exact->second);
    const auto upper = model_->upper_bound(key);
    CAWFS_ASSERT(before->has_value() == (upper != model_->begin()));
    if (*before) CAWFS_ASSERT((*before)->key == std::prev(upper)->first);
    check_list(*some, model_->lower_bound(key), 20);
    CAWFS_ASSERT(after->has_value() == !some->empty());
    if (*after) CAWFS_ASSERT((*after)->key == some->front().key);
  }
  void check_list(const std::vector<TreeEntry>& entries, std::map<std::uint64_t, Payload>::const_iterator expected,
                  std::size_t limit) {
    for (const TreeEntry& entry : entries) {
      CAWFS_ASSERT(expected != model_->end() && entry.key == expected->first && entry.payload == expected->second);
      ++expected;
    }
    CAWFS_ASSERT(entries.size() == limit || expected == model_->end());
  }
  void check_all() {
    const auto all = wait(tree_->list(0, SIZE_MAX));
    CAWFS_ASSERT(all);
    check_list(*all, model_->begin(), SIZE_MAX);
  }

  void apply() {
    const TreeNeeds needs = tree_->needs();
    blocks_.reserved = needs.new_blocks;
    blocks_.announced = {needs.freed.begin(), needs.freed.end()};
    CAWFS_ASSERT(blocks_.announced.size() == needs.freed.size());
    {
      TxHandle tx = std::move(*wait(log_.begin(needs.credits)));
      tree_->apply(tx, hold_, blocks_);
    }
    CAWFS_ASSERT(blocks_.reserved == 0 && blocks_.announced.empty());
    if (model_) applied_ = *model_;
  }
  // The plan is thrown away: the tree is as it was.
  void drop() {
    tree_.emplace(buffers_, place());
    if (model_) model_ = applied_;
  }

  World& world_;
  FuzzInput& input_;
  BufferCache buffers_;
  cawfs::testing::MemoryLog log_;
  Blocks blocks_;
  LockName lock_;
  LockHold hold_;
  BufferRef root_;
  std::optional<BTree> tree_;
  std::optional<std::map<std::uint64_t, Payload>> model_;  // none: the tree is damaged
  std::map<std::uint64_t, Payload> applied_;
};

}  // namespace
}  // namespace cawfs::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  cawfs::fuzz::abort_on_failure();
  static auto& world = *new cawfs::fuzz::World;
  cawfs::fuzz::FuzzInput input(data, size);
  cawfs::fuzz::Script(world, input).run();
  return 0;
}
