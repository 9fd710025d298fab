// The B+tree against std::map, from a seed: every lookup, every node's invariants, no node leaked or freed twice. Then
// damaged nodes with right checksums: an error, never a crash or a wrong walk.
#include "core/fs/btree.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>

#include "core/format/tree_records.h"
#include "tests/support/small_file_system.h"

namespace cawfs {
namespace {

using testing::SmallFileSystem;

using Payload = std::vector<std::byte>;

// Hands out blocks of a group's data area that mkfs left alone.
class Blocks final : public MetadataBlocks {
 public:
  Blocks(SmallFileSystem& fs, BlockNo first) : fs_(fs), next_(first) {}

  BlockNo take_metadata(TxHandle& /*tx*/) override {
    EXPECT_GT(reserved, 0u) << "more blocks taken than needed";
    --reserved;
    const BlockNo block = free_.empty() ? next_ : free_.back();
    if (free_.empty()) {
      ++next_.value;
    } else {
      free_.pop_back();
    }
    used.insert(block);
    return block;
  }
  void free_metadata(TxHandle& tx, BlockNo block) override {
    EXPECT_EQ(used.erase(block), 1u);
    EXPECT_EQ(announced.erase(block), 1u) << "a block freed without being announced";
    tx.revoke({block, 1});
    fs_.buffers->forget(block);
    free_.push_back(block);
  }

  std::uint32_t reserved = 0;
  std::set<BlockNo> announced;
  std::set<BlockNo> used;

 private:
  SmallFileSystem& fs_;
  BlockNo next_;
  std::vector<BlockNo> free_;
};

class TreeTest : public ::testing::Test {
 protected:
  // A root of `area` bytes in an inode that nothing else looks at.
  void start(std::size_t area, format::TreeKind kind = format::TreeKind::kDirectory) {
    const BlockNo block = fs.geometry.group_data(GroupNo{0}) + 2000 + 16 * started++;
    root_block = BlockNo{block.value / 16 * 16 + 1};
    lock = lock_of(InodeNo{root_block.value});
    hold = LockHold(nullptr, lock, LockMode::kExclusive, LocalUse::kExclusive, Generation{1});
    root = fs.buffers->make(root_block, format::BlockType::kInode, lock);
    place = TreePlace{root, offsetof(format::Inode, area), area, kind, lock};
    blocks.emplace(fs, fs.geometry.group_data(GroupNo{0}) + 3000);
  }

  BTree tree() { return BTree(*fs.buffers, place); }

  void apply(BTree& t) {
    const TreeNeeds needs = t.needs();
    blocks->reserved = needs.new_blocks;
    blocks->announced = {needs.freed.begin(), needs.freed.end()};
    EXPECT_EQ(blocks->announced.size(), needs.freed.size());
    TxHandle tx = fs.begin(needs.credits);
    t.apply(tx, hold, *blocks);
    EXPECT_EQ(blocks->reserved, 0u);
    EXPECT_TRUE(blocks->announced.empty());
  }

  Payload payload_of(std::size_t length, std::uint64_t fill) {
    return Payload(length, static_cast<std::byte>(fill % 255 + 1));
  }

  // Every node: level, owner, order, bounds, packing, zeros, not empty; and the set of nodes.
  void check() {
    std::set<BlockNo> seen;
    walk(root->bytes(), place.root_offset, place.area_bytes, 0, UINT64_MAX, true, seen);
    EXPECT_EQ(seen, blocks->used) << "nodes leaked or lost";
    if (model.empty()) EXPECT_TRUE(seen.empty());
  }

  void walk(std::span<const std::byte> bytes, std::size_t at, std::size_t area_bytes, std::uint64_t low,
            std::uint64_t high, bool is_root, std::set<BlockNo>& seen) {
    const auto node = format::load_at<format::TreeRoot>(bytes, at);
    const auto area = bytes.subspan(at + sizeof(format::TreeRoot), area_bytes);
    ASSERT_LE(node.used.value(), area_bytes);
    for (const std::byte b : area.subspan(node.used.value())) ASSERT_EQ(b, std::byte{0});
    const auto records = format::tree_records(node, area);
    if (!is_root || node.level.value() > 0) ASSERT_FALSE(records.empty());
    std::size_t used = 0;
    for (std::size_t i = 0; i < records.size(); ++i) {
      const std::uint64_t key = records[i].key;
      used += sizeof(format::TreeRecord) + records[i].payload.size();
      if (i > 0) ASSERT_GT(key, records[i - 1].key);
      if (node.level.value() == 0) {
        ASSERT_GE(key, low);
        ASSERT_LT(key, high);
        const auto expected = model.find(key);
        ASSERT_NE(expected, model.end());
        ASSERT_TRUE(std::ranges::equal(records[i].payload, expected->second));
        continue;
      }
      if (i == 0) ASSERT_EQ(key, 0u);
      const BlockNo child{format::load_at<format::le64>(records[i].payload, 0).value()};
      ASSERT_TRUE(seen.insert(child).second) << "two ways to a node";
      const BufferRef buffer = fs.buffers->find(child);
      ASSERT_TRUE(buffer);
      const auto& block = buffer->as<format::TreeNode>();
      ASSERT_EQ(block.root.level.value() + 1, node.level.value());
      ASSERT_EQ(block.owner.value(), root_block.value);
      levels = std::max<unsigned>(levels, node.level.value());
      walk(buffer->bytes(), offsetof(format::TreeNode, root), sizeof(block.area), i == 0 ? low : key,
           i + 1 < records.size() ? records[i + 1].key : high, false, seen);
    }
    ASSERT_EQ(used, node.used.value());
  }

  void expect_lookups(BTree& t, std::uint64_t key) {
    const auto found = fs.run(t.find(key));
    const auto model_exact = model.find(key);
    ASSERT_TRUE(found.has_value());
    ASSERT_EQ(found->has_value(), model_exact != model.end());
    if (*found) ASSERT_EQ((*found)->payload, model_exact->second);

    const auto before = fs.run(t.at_or_before(key));
    auto upper = model.upper_bound(key);
    ASSERT_TRUE(before.has_value());
    ASSERT_EQ(before->has_value(), upper != model.begin());
    if (*before) ASSERT_EQ((*before)->key, std::prev(upper)->first);

    const auto after = fs.run(t.at_or_after(key));
    const auto lower = model.lower_bound(key);
    ASSERT_TRUE(after.has_value());
    ASSERT_EQ(after->has_value(), lower != model.end());
    if (*after) {
      ASSERT_EQ((*after)->key, lower->first);
      ASSERT_EQ((*after)->payload, lower->second);
    }
  }

  void expect_whole_list() {
    BTree t = tree();
    const auto all = fs.run(t.list(0, SIZE_MAX));
    ASSERT_TRUE(all.has_value());
    ASSERT_EQ(all->size(), model.size());
    auto expected = model.begin();
    for (const auto& entry : *all) {
      ASSERT_EQ(entry.key, expected->first);
      ASSERT_EQ(entry.payload, expected->second);
      ++expected;
    }
  }

  // Random plans of one to five changes each, one in ten of them dropped; the balance of inserts and erases swings, so
  // that the tree grows and shrinks to nothing.
  void random_changes(std::uint64_t seed, std::size_t max_payload, std::uint64_t keys, int steps) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    SeededRandom random(seed);
    for (int step = 0; step < steps; ++step) {
      BTree t = tree();
      const auto before = model;
      const bool growing = (step / (steps / 4 + 1)) % 2 == 0;
      for (std::uint64_t n = 1 + random.below(5); n > 0; --n) {
        const std::uint64_t key = random.below(keys);
        const Payload payload = payload_of(random.below(max_payload + 1), random.next());
        const std::uint64_t what = random.below(10);
        if (what < (growing ? 7u : 2u)) {
          const auto done = fs.run(t.insert(key, payload));
          ASSERT_EQ(done.has_value(), model.emplace(key, payload).second);
          if (!done) ASSERT_EQ(done.error(), Errc::kExists);
        } else if (what == 9) {
          const auto done = fs.run(t.replace(key, payload));
          ASSERT_EQ(done.has_value(), model.contains(key));
          if (done) model[key] = payload;
        } else {
          const std::uint64_t near = erase_near(key);
          const auto done = fs.run(t.erase(near));
          ASSERT_EQ(done.has_value(), model.erase(near) == 1);
          if (!done) ASSERT_EQ(done.error(), Errc::kNotFound);
        }
        expect_lookups(t, random.below(keys));
        expect_lookups(t, key);
        if (HasFatalFailure()) return;
      }
      if (random.one_in(10)) {
        model = before;
      } else {
        apply(t);
      }
      if (random.one_in(50) || steps - step < 3) check();
      if (HasFatalFailure()) return;
    }
    check();
    expect_whole_list();
    erase_everything(random);
  }

  std::uint64_t erase_near(std::uint64_t key) const {
    const auto next = model.lower_bound(key);
    return next == model.end() ? key : next->first;
  }

  void erase_everything(SeededRandom& random) {
    while (!model.empty()) {
      BTree t = tree();
      const std::size_t limit = 1 + random.below(40);
      const auto erased = fs.run(t.erase_last(0, limit));
      ASSERT_TRUE(erased.has_value());
      ASSERT_EQ(erased->size(), std::min(limit, model.size()));
      for (const auto& entry : *erased) {
        ASSERT_EQ(entry.key, model.rbegin()->first);
        ASSERT_EQ(entry.payload, model.rbegin()->second);
        model.erase(entry.key);
      }
      apply(t);
    }
    check();
  }

  SmallFileSystem fs{{.size_bytes = 128 << 20}};
  std::uint64_t started = 0;
  BlockNo root_block;
  LockName lock;
  LockHold hold;
  BufferRef root;
  TreePlace place;
  std::optional<Blocks> blocks;
  std::map<std::uint64_t, Payload> model;
  unsigned levels = 0;  // the most seen
};

TEST_F(TreeTest, EmptyTreeHasNothing) {
  start(3832);
  BTree t = tree();
  expect_lookups(t, 0);
  expect_lookups(t, UINT64_MAX - 1);
  EXPECT_EQ(fs.run(t.erase(1)).error(), Errc::kNotFound);
  EXPECT_FALSE(t.has_changes());
  EXPECT_EQ(fs.run(t.erase_last(0, 5))->size(), 0u);
}

TEST_F(TreeTest, RandomSmallRecordsInAnInode) {
  start(3832);
  random_changes(11, 30, 2000, 2000);
}

TEST_F(TreeTest, RandomRecordsUnderASmallRoot) {
  start(480);
  random_changes(12, 264, 2000, 3000);
  EXPECT_GE(levels, 2u);
}

// Few records to a leaf, a root of two children: many levels' splits, merges and collapses.
TEST_F(TreeTest, RandomLargestRecordsUnderTheSmallestRoot) {
  start(40);
  random_changes(13, BTree::kMaxPayload, 6000, 6000);
  EXPECT_GE(levels, 3u);
}

TEST_F(TreeTest, RandomRecordsFromManySeeds) {
  for (std::uint64_t seed = 100; seed < 110; ++seed) {
    start(480);
    random_changes(seed, 700, 300, 300);
    ASSERT_FALSE(HasFailure());
  }
}

TEST_F(TreeTest, AscendingKeysLeaveFullNodes) {
  start(3832, format::TreeKind::kExtents);
  for (std::uint64_t key = 0; key < 5000; ++key) {
    BTree t = tree();
    const Payload payload = payload_of(16, key);
    ASSERT_TRUE(fs.run(t.insert(key, payload)).has_value());
    model.emplace(key, payload);
    apply(t);
  }
  check();
  // 155 records to a leaf.
  EXPECT_LE(blocks->used.size(), 5000 / 155 + 3);
}

TEST_F(TreeTest, APlanThatIsDroppedChangesNothing) {
  start(480);
  {
    BTree t = tree();
    for (std::uint64_t key = 0; key < 500; ++key) {
      ASSERT_TRUE(fs.run(t.insert(key, payload_of(20, key))).has_value());
    }
    EXPECT_TRUE(t.has_changes());
    EXPECT_GT(t.needs().new_blocks, 2u);
  }
  check();
  BTree t = tree();
  EXPECT_TRUE(fs.run(t.list(0, 10))->empty());
}

TEST_F(TreeTest, LocatedPayloadCanBeChangedInPlace) {
  start(480);
  BTree t = tree();
  for (std::uint64_t key = 0; key < 1000; ++key) ASSERT_TRUE(fs.run(t.insert(key, payload_of(2, key))).has_value());
  apply(t);
  for (const std::uint64_t key : {0u, 1u, 500u, 999u}) {
    BTree again = tree();
    const auto slot = fs.run(again.locate(key));
    ASSERT_TRUE(slot.has_value() && slot->has_value());
    EXPECT_TRUE(std::ranges::equal((*slot)->bytes(), payload_of(2, key)));
    (*slot)->bytes()[0] = std::byte{0xee};
    EXPECT_EQ((*fs.run(again.find(key)))->payload[0], std::byte{0xee});
  }
  BTree again = tree();
  EXPECT_FALSE(fs.run(again.locate(1000))->has_value());
}

// A tree on the device, read by a new cache after one byte range of a node has been changed and the node stamped again.
class DamagedTreeTest : public TreeTest {
 protected:
  void build() {
    start(480, format::TreeKind::kOrphans);
    BTree t = tree();
    for (std::uint64_t i = 0; i < 4000; ++i) {
      const std::uint64_t inode = (fs.geometry.group_data(GroupNo{0}).value / 16 + 1) * 16 + i;
      if (inode % 16 == 0 || model.contains(inode)) continue;
      model[inode] = {};
      ASSERT_TRUE(fs.run(t.insert(inode, {})).has_value());
    }
    apply(t);
    check();
    image.assign(root->bytes().begin(), root->bytes().end());
    place.buffer.reset();
    root.reset();
    // The root's block is no inode that could be written; only the nodes are.
    for (const BlockNo block : blocks->used) nodes.push_back(block);
    for (const BlockNo block : nodes) {
      const BufferRef buffer = fs.buffers->find(block);
      format::stamp_block(buffer->bytes());
      fs.lun.poke(block.offset_bytes(), buffer->bytes());
    }
  }

  // Reads and changes everything, with the nodes as they are on the device; says whether that was refused as damage. A
  // wrong answer is none.
  bool any_error() {
    fs.log = nullptr;
    fs.buffers = std::make_unique<BufferCache>(fs.executor, *fs.device, fs.geometry, 64 << 20);
    fs.log = std::make_unique<testing::MemoryLog>(*fs.buffers);
    root = fs.buffers->make(root_block, format::BlockType::kInode, lock);
    std::ranges::copy(image, root->bytes().begin());
    place.buffer = root;
    bool failed = false;
    {
      BTree t = tree();
      const auto all = fs.run(t.list(0, SIZE_MAX));
      failed = !all;
      for (std::uint64_t key = model.begin()->first; key < model.rbegin()->first; key += 97) {
        failed |= !fs.run(t.at_or_before(key));
        failed |= !fs.run(t.at_or_after(key));
      }
    }
    BTree t = tree();
    for (const auto& [key, payload] : model) {
      const auto erased = fs.run(t.erase(key));
      if (erased || erased.error() == Errc::kNotFound) continue;
      failed = true;
      break;
    }
    place.buffer.reset();
    root.reset();
    return failed;
  }

  format::TreeNode read(BlockNo block) {
    format::TreeNode node;
    fs.lun.peek(block.offset_bytes(), std::as_writable_bytes(std::span(&node, 1)));
    return node;
  }
  void write(BlockNo block, format::TreeNode node) {
    const auto bytes = std::as_writable_bytes(std::span(&node, 1));
    format::stamp_unverified(bytes);
    fs.lun.poke(block.offset_bytes(), bytes);
  }

  std::vector<std::byte> image;
  std::vector<BlockNo> nodes;
};

TEST_F(DamagedTreeTest, EachFieldOfANode) {
  build();
  ASSERT_FALSE(any_error());
  SeededRandom random(5);
  for (int round = 0; round < 60; ++round) {
    SCOPED_TRACE(round);
    const BlockNo victim = nodes[random.below(nodes.size())];
    const auto good = read(victim);
    auto bad = good;
    switch (round % 6) {
      case 0:
        bad.owner = bad.owner.value() + 1;
        break;
      case 1:
        bad.kind = static_cast<std::uint16_t>(format::TreeKind::kDirectory);
        break;
      case 2:
        bad.root.level = static_cast<std::uint16_t>(bad.root.level.value() + 1);
        break;
      case 3: {  // empty
        bad.root = format::TreeRoot{};
        bad.area = {};
        break;
      }
      case 4: {  // another node's contents
        const auto other = read(nodes[(random.below(nodes.size() - 1) + 1) % nodes.size()]);
        if (other.area == good.area) continue;
        bad.root = other.root;
        bad.area = other.area;
        break;
      }
      default:  // a key out of range
        format::le64 key;
        key = 16 * 5000000 + 1;
        std::memcpy(bad.area.data(), &key, sizeof(key));
        break;
    }
    write(victim, bad);
    EXPECT_TRUE(any_error());
    write(victim, good);
  }
  EXPECT_FALSE(any_error());
}

TEST_F(DamagedTreeTest, RandomBytesNeverCrash) {
  build();
  SeededRandom random(6);
  int errors = 0;
  for (int round = 0; round < 60; ++round) {
    const BlockNo victim = nodes[random.below(nodes.size())];
    const auto good = read(victim);
    auto bad = good;
    auto bytes = std::as_writable_bytes(std::span(&bad, 1));
    for (std::uint64_t n = 1 + random.below(4); n > 0; --n) {
      bytes[sizeof(format::BlockHeader) + random.below(200)] = static_cast<std::byte>(random.below(256));
    }
    write(victim, bad);
    // A key can change without becoming impossible, so an error is not certain; what is tested is that it returns.
    errors += any_error() ? 1 : 0;
    write(victim, good);
  }
  EXPECT_GT(errors, 30);
}

}  // namespace
}  // namespace cawfs
