#include "tests/support/corrupter.h"

#include <fmt/format.h>

#include <array>
#include <cstring>

#include "core/base/assert.h"
#include "core/format/checksums.h"
#include "core/format/journal_verify.h"
#include "core/format/verify.h"

namespace cawfs::testing {
namespace {

constexpr std::size_t kCrcAt = 4;
constexpr std::size_t kAddressAt = 8;

template <class T>
void put(std::span<std::byte> bytes, std::size_t at, T value) {
  std::memcpy(bytes.data() + at, &value, sizeof(value));
}

std::string flip_bits(const Structure& structure, std::vector<std::byte>& bytes, Random& random) {
  const std::uint64_t count = 1 + random.below(4);
  std::string what = "bits flipped at";
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint64_t at = structure.from + random.below(structure.to - structure.from);
    bytes[at] ^= static_cast<std::byte>(1u << random.below(8));
    what += fmt::format(" {}", at);
  }
  return what;
}

std::string scribble(const Structure& structure, std::vector<std::byte>& bytes, Random& random) {
  const std::uint64_t from = structure.from + random.below(structure.to - structure.from);
  const std::uint64_t length = 1 + random.below(std::min<std::uint64_t>(structure.to - from, 64));
  for (std::uint64_t i = 0; i < length; ++i) bytes[from + i] = static_cast<std::byte>(random.next());
  return fmt::format("random bytes from {} on, {}", from, length);
}

}  // namespace

void seal_structure(const Structure& structure, std::span<std::byte> bytes, std::uint64_t fs_id) {
  switch (structure.sealing) {
    case Sealing::kBlock:
      format::stamp_unverified(bytes);
      break;
    case Sealing::kCluster:
      put(bytes, kCrcAt, format::cluster_crc(bytes, structure.offset, fs_id));
      break;
    case Sealing::kJournalRecord:
      format::stamp_journal_record(bytes);
      break;
  }
}

Damage Corrupter::damage(SimulatedLun& lun, StructureKind kind, bool sealed, Random& random) const {
  std::vector<const Structure*> candidates;
  for (const Structure& structure : structures_) {
    if (structure.kind == kind) candidates.push_back(&structure);
  }
  CAWFS_ASSERT(!candidates.empty());
  const Structure& structure = *candidates[random.below(candidates.size())];
  Bytes good(structure.length);
  image_.read(structure.offset, good);
  while (true) {
    Bytes bytes = good;
    const std::string what = apply(structure, sealed, bytes, random);
    if (what.empty()) continue;
    if (sealed) seal_structure(structure, bytes, geometry_.fs_id);
    if (bytes == good) continue;
    // What was a structure of a cluster's logical block may be shorter than the block.
    Bytes whole((bytes.size() + kBlockSize - 1) / kBlockSize * kBlockSize);
    const std::uint64_t start = structure.offset / kBlockSize * kBlockSize;
    image_.read(start, whole);
    std::memcpy(whole.data() + (structure.offset - start), bytes.data(), bytes.size());
    lun.poke(start, whole);
    return {structure, sealed,
            fmt::format("{} at byte {:#x}, {}: {}", name_of(kind), structure.offset,
                        sealed ? "checksum right" : "checksum wrong", what)};
  }
}

std::string Corrupter::apply(const Structure& structure, bool sealed, Bytes& bytes, Random& random) const {
  switch (random.below(10)) {
    case 0:
    case 1:
      return flip_bits(structure, bytes, random);
    case 2:
      return scribble(structure, bytes, random);
    case 3:
      std::fill(bytes.begin() + structure.from, bytes.begin() + structure.to, std::byte{0});
      return "zeroed";
    case 4:
      return copy_from_another(structure, true, sealed, bytes, random);
    case 5:
      return copy_from_another(structure, false, sealed, bytes, random);
    case 6:
      // An older image has a right checksum.
      if (!sealed) return {};
      older_.read(structure.offset, bytes);
      return "an older image";
    default:
      return set_field(structure, bytes, random);
  }
}

std::string Corrupter::set_field(const Structure& structure, Bytes& bytes, Random& random) const {
  if (structure.fields.empty()) return {};
  const Field field = structure.fields[random.below(structure.fields.size())];
  std::uint64_t old = 0;
  std::memcpy(&old, bytes.data() + field.at, field.width);
  const std::uint64_t value = extreme(structure, old, random);
  std::memcpy(bytes.data() + field.at, &value, field.width);
  return fmt::format("{} bytes at {} set to {:#x}", field.width, field.at, value);
}

// What a count, size, offset or address may be wrong by, to hurt.
std::uint64_t Corrupter::extreme(const Structure& structure, std::uint64_t old, Random& random) const {
  const std::array<std::uint64_t, 18> values{0,
                                             1,
                                             0x7f,
                                             0xff,
                                             0x7fff,
                                             0xffff,
                                             0x7fffffff,
                                             0xffffffff,
                                             INT64_MAX,
                                             UINT64_MAX,
                                             std::uint64_t{1} << 52,
                                             geometry_.block_count,
                                             geometry_.block_count - 1,
                                             geometry_.first_group.value,
                                             structure.offset / kBlockSize,
                                             old + 1,
                                             old - 1,
                                             random.below(geometry_.block_count)};
  const std::uint64_t choice = random.below(values.size() + 2);
  if (choice < values.size()) return values[choice];
  return structures_[random.below(structures_.size())].offset / kBlockSize;
}

std::string Corrupter::copy_from_another(const Structure& structure, bool same_kind, bool sealed, Bytes& bytes,
                                         Random& random) const {
  const Structure& other = structures_[random.below(structures_.size())];
  if (other.sealing != structure.sealing || other.length != structure.length || other.offset == structure.offset) {
    return {};
  }
  if ((other.kind == structure.kind) != same_kind) return {};
  image_.read(other.offset, bytes);
  // With its own address it is known to be misplaced; with this place's, only by what it says.
  if (sealed && structure.sealing != Sealing::kCluster && random.one_in(2)) {
    put<std::uint64_t>(bytes, kAddressAt, structure.offset / kBlockSize);
  }
  return fmt::format("a copy of the {} at byte {:#x}", name_of(other.kind), other.offset);
}

}  // namespace cawfs::testing
