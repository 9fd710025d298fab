// Writes the first inputs of each target into DIR/TARGET: good structures, from which fuzzing goes on.
#include <fmt/format.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>

#include "core/format/cluster_format.h"
#include "disklock/mailbox.h"
#include "tests/fuzz/block_input.h"
#include "tests/fuzz/fresh_image.h"
#include "tests/fuzz/image_base.h"
#include "tests/fuzz/victim_image.h"

namespace cawfs::fuzz {
namespace {

using testing::Structure;
using testing::StructureKind;

constexpr std::uint8_t kRight = kRightChecksum | kRightHeader;

class Seed {
 public:
  Seed& byte(unsigned value) {
    bytes_ += static_cast<char>(value);
    return *this;
  }
  Seed& word(unsigned value) { return byte(value & 0xff).byte(value >> 8); }
  Seed& zeroes(std::size_t count) {
    bytes_.append(count, '\0');
    return *this;
  }
  Seed& text(std::string_view text) {
    bytes_ += text;
    return *this;
  }
  Seed& bytes(std::span<const std::byte> bytes) {
    for (const std::byte b : bytes) bytes_ += static_cast<char>(b);
    return *this;
  }
  template <class T>
  Seed& object(const T& value) {
    return bytes(std::as_bytes(std::span(&value, 1)));
  }
  // What is missing at an input's end is zero.
  std::string trimmed() const { return bytes_.substr(0, bytes_.find_last_not_of('\0') + 1); }

 private:
  std::string bytes_;
};

class Corpus {
 public:
  Corpus(const std::filesystem::path& folder, const char* target) : folder_(folder / target) {
    std::filesystem::create_directories(folder_);
  }
  void put(const Seed& seed) {
    const std::string bytes = seed.trimmed();
    if (!known_.insert(bytes).second) return;
    std::ofstream(folder_ / fmt::format("seed-{:02}", known_.size()), std::ios::binary) << bytes;
  }

 private:
  std::filesystem::path folder_;
  std::set<std::string> known_;
};

void make_superblocks(Corpus corpus) {
  for (const unsigned small : {0u, 4u}) {
    const FreshImage& fresh = fresh_image(small != 0 ? 512 : 4096);
    for (const unsigned copy : {0u, 8u}) {
      corpus.put(Seed().byte(kRight | small | copy).zeroes(4).object(fresh.superblock));
    }
    corpus.put(Seed().byte(small).zeroes(4).object(fresh.superblock));
  }
}

// The first few structures of the kinds on an image, as `head` and their bytes.
void put_structures(Corpus& corpus, const std::set<StructureKind>& kinds, std::size_t most, const Seed& head) {
  const ImageBase& base = image_base();
  for (const bool dirty : {true, false}) {
    std::map<StructureKind, std::size_t> count;
    for (const Structure& structure : dirty ? base.dirty : base.clean) {
      if (!kinds.contains(structure.kind) || ++count[structure.kind] > most) continue;
      std::vector<std::byte> bytes(structure.length);
      (dirty ? base.image.dirty : base.image.clean).read(structure.offset, bytes);
      corpus.put(Seed(head).bytes(bytes));
    }
  }
}

// One with as many wants as it takes.
Seed full_mailbox() {
  const Geometry& geometry = fresh_image(512).geometry;
  Mail mail{.from = Incarnation{1}, .to = Incarnation{1}, .sequence = 1, .ring = 0, .wants = {}};
  mail.wants.assign(format::kWantsPerMailbox, {geometry.global_lock, LockMode::kShared, 1});
  std::vector<std::byte> block(geometry.logical_block);
  seal_mail(mail, SlotNo{2}, SlotNo{0}, geometry, block);
  return Seed().byte(kRight | 4 | 8).bytes(block);
}

void make_cluster_blocks(const std::filesystem::path& folder) {
  Corpus slots(folder, "slot_record");
  put_structures(slots, {StructureKind::kSlotRecord}, 3, Seed().byte(kRight));
  for (std::uint16_t slot = 0; slot < 3; ++slot) {
    const FreshImage& fresh = fresh_image(512);
    slots.put(Seed()
                  .byte(kRight | 4)
                  .object(fresh.disk.load<format::SlotRecord>(fresh.geometry.slot_record_offset(SlotNo{slot}))));
  }
  Corpus locks(folder, "lock_block");
  for (const unsigned bits : {0u, 2u, 3u, 4u, 8u}) {
    const Seed asker = Seed().byte(kRight).zeroes(2).byte(bits).zeroes(6).zeroes(8).byte(1).byte(1).byte(2);
    put_structures(locks, {StructureKind::kGlobalLock, StructureKind::kGroupLock, StructureKind::kChunkLock}, 2, asker);
  }
  Corpus mail(folder, "mailbox");
  put_structures(mail, {StructureKind::kMailbox}, 4, Seed().byte(kRight | 8));
  mail.put(full_mailbox());
}

void make_inodes(Corpus corpus) {
  for (const unsigned change : {0u, 4u}) {
    for (const unsigned directory : {0u, 8u}) {
      const Seed head = Seed().byte(kRight | change | directory).object(std::uint64_t{4096}).object(5000u).byte(0x1b);
      put_structures(
          corpus,
          {StructureKind::kInode, StructureKind::kFreeInode, StructureKind::kInlineData, StructureKind::kInlineSymlink,
           StructureKind::kInlineExtents, StructureKind::kInlineDirectory, StructureKind::kOrphanList},
          2, head);
    }
  }
}

void pack(format::TreeRoot& root, std::span<std::byte> area, std::uint64_t key, std::span<const std::byte> payload) {
  format::TreeRecord record;
  record.key = key;
  record.length = static_cast<std::uint16_t>(payload.size());
  std::size_t at = root.used.value();
  std::memcpy(area.data() + at, &record, sizeof(record));
  at += sizeof(record);
  std::ranges::copy(payload, area.begin() + static_cast<std::ptrdiff_t>(at));
  root.used = static_cast<std::uint16_t>(at + payload.size());
  root.count = static_cast<std::uint16_t>(root.count.value() + 1);
}

void pack_name(format::TreeRoot& root, std::span<std::byte> area, std::uint64_t key, std::string_view name) {
  format::DirectoryPayload head;
  head.inode = victim_image().file.value;
  head.type = 8;
  std::vector<std::byte> payload(sizeof(head) + name.size());
  std::memcpy(payload.data(), &head, sizeof(head));
  std::memcpy(payload.data() + sizeof(head), name.data(), name.size());
  pack(root, area, key, payload);
}

void make_directories(Corpus corpus) {
  const VictimImage& image = victim_image();
  auto inode = image.disk.load<format::Inode>(image.directory.block().offset_bytes());
  for (const unsigned flags : {kRight + 0u, kRight + 4u}) {
    corpus.put(Seed().byte(flags).byte(3).zeroes(4).object(inode));
    auto small = inode;
    format::TreeRoot root{};
    auto area = std::as_writable_bytes(std::span(small.area)).subspan(sizeof(root));
    std::ranges::fill(area, std::byte{0});
    for (unsigned i = 0; i < 6; ++i) pack_name(root, area, (i + 1) << 20, std::string_view("a name").substr(i % 3));
    std::memcpy(small.area.data(), &root, sizeof(root));
    corpus.put(Seed().byte(flags).byte(0x55).zeroes(4).object(small));

    // Two leaves below the root.
    std::string nodes;
    std::array<std::size_t, 2> lengths{};
    for (std::size_t i = 0; i < 2; ++i) {
      format::TreeNode node{};
      for (unsigned j = 0; j < 5; ++j) {
        pack_name(node.root, std::as_writable_bytes(std::span(node.area)), (i << 24) + (j << 17) + 16, "in a node");
      }
      lengths[i] = offsetof(format::TreeNode, area) + node.root.used.value();
      nodes.append(reinterpret_cast<const char*>(&node), lengths[i]);
    }
    std::ranges::fill(area, std::byte{0});
    root = {};
    root.level = 1;
    for (std::size_t i = 0; i < 2; ++i) {
      const format::le64 child((image.free + i).value);
      pack(root, area, i << 24, std::as_bytes(std::span(&child, 1)));
    }
    std::memcpy(small.area.data(), &root, sizeof(root));
    Seed seed;
    seed.byte(flags).byte(0xaa);
    for (const std::size_t length : lengths) seed.word(static_cast<unsigned>(length));
    corpus.put(seed.text(nodes).object(small));
  }
}

// A node of the input: level, first key, number of records, and of each its step and what it holds.
Seed& add_node(Seed& seed, unsigned level, unsigned key, unsigned records, unsigned step, unsigned what) {
  seed.byte(level).word(key).byte(records);
  for (unsigned i = 0; i < records; ++i) seed.byte(step).byte(level > 0 ? what + i : what);
  return seed;
}

void make_trees(Corpus corpus) {
  constexpr unsigned kInsertRun = 6;
  constexpr unsigned kEraseRun = 7;
  const auto step = [](Seed& seed, unsigned what, unsigned key, unsigned length) {
    seed.byte(what).word(key).byte(length);
  };
  for (const unsigned length : {9u, 100u, 255u}) {
    Seed grow;
    add_node(grow, 0, 0, 0, 0, 0);
    for (unsigned i = 0; i < 12; ++i) step(grow, kInsertRun, i * 200, length);
    step(grow, 5, 0, 0);
    for (unsigned what = 0; what < 10; ++what) step(grow, what, 100 + what, length);
    for (unsigned i = 0; i < 12; ++i) step(grow, kEraseRun, (11 - i) * 200, length);
    step(grow, 4, 0, 63);
    step(grow, 8, 0, 31);
    corpus.put(grow);
  }
  for (const unsigned levels : {1u, 2u}) {
    // Nodes 0 to 2 are leaves or lead to leaves 4 to 6.
    Seed seed;
    add_node(seed, levels, 0, 3, 99, 0);
    for (unsigned i = 0; i < 16; ++i) {
      const bool leaf = levels == 1 || i >= 4;
      add_node(seed, leaf ? 0 : 1, leaf ? i % 4 * 100 : 0, leaf ? 5 : 1, 3, leaf ? 20 : 4 + i);
    }
    for (unsigned what = 0; what < 10; ++what) step(seed, what, 100, 30);
    corpus.put(seed);
  }
}

void make_journals(Corpus corpus) {
  const auto records = [](unsigned count) {
    Seed seed;
    seed.byte(count);
    for (unsigned i = 0; i < count; ++i) {
      seed.byte(2).byte(i).byte(i * 7).byte(i % 4).byte(i + 1).byte(i).byte(0);
      seed.byte(i % 3 == 2 ? 1 : 0);
      if (i % 3 == 2) seed.byte(i).byte(i);
    }
    return seed;
  };
  for (const unsigned count : {0u, 1u, 5u, 15u}) corpus.put(records(count));
  // Fields of the third record, with the checksum right and wrong; of a header; of any block.
  for (const unsigned what : {0x31u, 0x30u, 0x33u, 0x32u, 0x3du, 0x3cu}) {
    for (const unsigned at : {36u, 40u, 60u, 68u, 100u}) {
      corpus.put(records(5).byte(what).byte(2).word(at).text("\x01\x02\x03\x04"));
    }
  }
}

void make_images(Corpus corpus) {
  std::set<StructureKind> seen;
  const ImageBase& base = image_base();
  for (unsigned flags = 0; flags < 8; ++flags) corpus.put(Seed().byte(flags).byte(1));
  for (std::size_t i = 0; i < base.dirty.size(); ++i) {
    if (!seen.insert(base.dirty[i].kind).second) continue;
    const auto number = static_cast<unsigned>(i);
    corpus.put(Seed().byte(3).byte(2).word(number).byte(2).word(number * 5).text("\xff\xff\xff\x7f"));
    corpus.put(Seed().byte(1).byte(3).word(number).byte(8).word(number * 3).text("\x01\x02"));
  }
}

void make_scsi_answers(Corpus corpus) {
  const auto answer = [](Seed& seed, std::string data) {
    seed.byte(0).word(static_cast<unsigned>(data.size())).text(data);
  };
  for (const bool large : {false, true}) {
    Seed seed;
    answer(seed, std::string(8, '\0') + "LIO-ORG ");
    std::string capacity(15, '\0');
    capacity[6] = 1;
    capacity[10] = static_cast<char>(large ? 0x10 : 0x02);
    capacity[14] = static_cast<char>(0x80);
    answer(seed, capacity);
    std::string cache(11, '\0');
    cache[3] = large ? 0x10 : 0;
    cache[8] = 0x08;
    cache[10] = 0x04;
    answer(seed, cache);
    std::string limits(32, '\0');
    limits[5] = 1;
    limits[10] = 1;
    limits[31] = 8;
    answer(seed, limits);
    answer(seed, std::string("\0\0\0\7serial ", 11));
    answer(seed, std::string("\0\10\1\200\240\1", 6));
    corpus.put(seed);
    // Four times PERSISTENT RESERVE OUT, then IN: keys, full status, reservation, capabilities.
    seed.zeroes(4);
    answer(seed, std::string("\0\0\0\5\0\0\0\20\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\2", 24));
    std::string status("\0\0\0\5\0\0\0\70", 8);
    status += std::string(20, '\1') + std::string("\0\0\0\40\105\0\0\34", 8) + "iqn.a,i,0x00023d000001" +
              std::string(6, '\0');
    answer(seed, status);
    answer(seed, std::string("\0\0\0\5\0\0\0\20\0\0\0\0\0\0\0\1\0\0\0\0\0\7\0\0", 24));
    answer(seed, std::string("\0\10\1\200\240\1", 6));
    seed.zeroes(2);
    corpus.put(seed);
    // Then the medium: where, how much, and an answer.
    const auto place = [&](std::uint64_t block) { seed.object(block).byte(0).word(8).byte(0); };
    place(3);
    answer(seed, "what is read");
    for (const unsigned status_code : {0u, 1u, 2u, 3u, 4u, 5u}) {
      place(status_code);
      seed.byte(0xf1).byte(status_code).byte(status_code + 1).word(0x2900).byte(0).byte(0).byte(0);
    }
    corpus.put(seed);
  }
}

void make_options(Corpus corpus) {
  for (const unsigned sloppy : {0u, 1u}) {
    for (const char* words : {"ro,norecovery", "local,noaptpl,initiator=iqn.2026-11.org.example:a,poll=5",
                              "nosuid,suid,_netdev,x-systemd.automount,comment=x,,", "discard,nodiscard,sync,poll=1000",
                              "poll=", "bananas,defaults,rw"}) {
      corpus.put(Seed().byte(sloppy).text(words));
    }
  }
  const auto line = [&](unsigned what, std::initializer_list<std::string_view> words) {
    Seed seed;
    seed.byte(what);
    for (const std::string_view word : words) seed.text(word).byte(0);
    corpus.put(seed);
  };
  line(2, {"disk.img", "/", "-o", "ro,norecovery", "-f"});
  line(2, {"iscsi://192.0.2.1/iqn.2026-01.org.example:disk/0", "/tmp", "-v", "-s", "-n", "-t", "cawfs"});
  line(2, {"--help"});
  line(2, {"-V"});
  line(3, {"--size", "1G", "--slots", "4", "--journal-size=1M", "-L", "label", "disk.img"});
  line(3, {"--force", "--dead-time", "2.5", "--logical-block", "512", "-q", "--local", "--no-discard", "d"});
  line(3, {"-U", "01234567-89ab-cdef-0123-456789abcdef", "--initiator=iqn.x", "iscsi://san/iqn.x/0"});
  line(3, {"--help"});
}

void make_all(const std::filesystem::path& folder) {
  make_superblocks({folder, "superblock"});
  make_cluster_blocks(folder);
  make_inodes({folder, "inode"});
  make_directories({folder, "directory"});
  make_trees({folder, "btree"});
  make_journals({folder, "journal"});
  make_images({folder, "image"});
  make_scsi_answers({folder, "scsi"});
  make_options({folder, "options"});
}

}  // namespace
}  // namespace cawfs::fuzz

int main(int argc, char** argv) {
  if (argc != 2) {
    fmt::print(stderr, "Usage: fuzz_seeds DIR\nWrites the fuzzers' first inputs into DIR/TARGET.\n");
    return 2;
  }
  cawfs::fuzz::make_all(argv[1]);
  return 0;
}
