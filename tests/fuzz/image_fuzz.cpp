// A whole file system, some of its structures edited, most with the checksum made right again. It is checked, mounted,
// read, changed, unmounted and checked again: each operation ends with an answer that is an errno, fsck with a verdict,
// and where it finds nothing, reading finds no damage either.
#include <cstring>
#include <vector>

#include "core/base/assert.h"
#include "mount/errno.h"
#include "tests/fuzz/image_base.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/mounted_lun.h"
#include "tests/support/corrupter.h"
#include "tests/support/tree_changer.h"
#include "tests/support/tree_reader.h"

namespace cawfs::fuzz {
namespace {

using testing::Structure;

constexpr std::uint8_t kDirty = 1;        // a node has died, and its journal is to be replayed
constexpr std::uint8_t kLocal = 2;        // mounted -o local, else as a member of a cluster
constexpr std::uint8_t kReadOnly = 4;     // mounted ro,norecovery
constexpr std::uint32_t kCheckOneIn = 4;  // by fsck, before and after
constexpr std::uint32_t kMostEdits = 12;

using Bytes = std::vector<std::byte>;

void change(const Structure& structure, FuzzInput& input, std::uint8_t how, std::span<std::byte> bytes) {
  const std::uint32_t place = input.take<std::uint16_t>();
  if ((how & 2) != 0 && !structure.fields.empty()) {
    const testing::Field field = structure.fields[place % structure.fields.size()];
    const auto value = input.take_bytes(field.width);
    std::ranges::copy(value, bytes.begin() + field.at);
    return;
  }
  const std::uint32_t from = structure.from + place % (structure.to - structure.from);
  const auto value = input.take_bytes(std::min<std::size_t>(1 + how / 8u, structure.to - from));
  std::ranges::copy(value, bytes.begin() + from);
}

// Two structures of the same kind may change places.
void copy_another(const std::vector<Structure>& all, const Structure& structure, FuzzInput& input, SimulatedLun& lun,
                  Bytes& bytes) {
  const Structure& other = all[input.below(static_cast<std::uint32_t>(all.size()))];
  if (other.sealing != structure.sealing || other.length != structure.length) return;
  Bytes whole((other.length + kBlockSize - 1) / kBlockSize * kBlockSize);
  const std::uint64_t start = other.offset / kBlockSize * kBlockSize;
  lun.peek(start, whole);
  std::memcpy(bytes.data(), whole.data() + (other.offset - start), bytes.size());
  if (structure.sealing == testing::Sealing::kCluster) return;
  const format::le64 address(structure.offset / kBlockSize);
  std::memcpy(bytes.data() + offsetof(format::BlockHeader, address), &address, sizeof(address));
}

void edit(const std::vector<Structure>& structures, const Geometry& geometry, FuzzInput& input, SimulatedLun& lun) {
  const Structure& structure = structures[input.below(static_cast<std::uint32_t>(structures.size()))];
  const std::uint8_t how = input.byte();
  Bytes whole((structure.length + kBlockSize - 1) / kBlockSize * kBlockSize);
  const std::uint64_t start = structure.offset / kBlockSize * kBlockSize;
  lun.peek(start, whole);
  Bytes bytes(structure.length);
  std::memcpy(bytes.data(), whole.data() + (structure.offset - start), bytes.size());
  if ((how & 4) != 0 && how / 8 % 4 == 3) copy_another(structures, structure, input, lun, bytes);
  change(structure, input, how, bytes);
  if ((how & 1) == 0) testing::seal_structure(structure, bytes, geometry.fs_id);
  std::memcpy(whole.data() + (structure.offset - start), bytes.data(), bytes.size());
  lun.poke(start, whole);
}

struct Use {
  bool write = false;
  SeededRandom random{1};
  testing::Seen seen;
};

template <class T>
void check_errno(const Result<T>& outcome) {
  if (!outcome) CAWFS_ASSERT(to_errno(outcome.error().code) > 0);
}

Task<void> use_it(FileSystem& fs, Use& use) {
  co_await testing::read_everything(fs, use.seen);
  if (!use.write) co_return;
  co_await testing::change_everything(fs, use.random);
  const auto space = co_await fs.space();
  check_errno(space);
  if (space) CAWFS_ASSERT(space->free_blocks <= space->blocks && space->free_inodes <= space->inodes);
}

// Does fsck find nothing?
bool is_clean(MountedLun& mounted) {
  const auto report = mounted.fsck();
  check_errno(report);
  if (report) CAWFS_ASSERT(report->clean() == report->text().empty());
  return report && report->clean();
}

void run(FuzzInput input) {
  const std::uint8_t flags = input.byte();
  const ImageBase& from = image_base();
  const bool dirty = (flags & kDirty) != 0;
  const bool check = input.one_in(kCheckOneIn);
  const bool read_only = (flags & kReadOnly) != 0;
  Use use;
  use.write = !read_only;
  use.random = SeededRandom(input.byte());

  MountedLun mounted(dirty ? from.image.dirty : from.image.clean, from.image.lun_options());
  for (std::uint32_t edits = 0; !input.empty() && edits < kMostEdits; ++edits) {
    edit(dirty ? from.dirty : from.clean, from.image.geometry, input, mounted.lun());
  }
  const bool clean = check && !dirty && is_clean(mounted);
  check_errno(
      mounted.mount({.host = "b", .uuid = 2, .local = (flags & kLocal) != 0, .no_recovery = read_only}, use_it, use));
  if (clean) CAWFS_ASSERT(use.seen.corrupt == 0);
  if (check) is_clean(mounted);
}

}  // namespace
}  // namespace cawfs::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  cawfs::fuzz::run({data, size});
  return 0;
}
