#include "utils/mkfs/foreign.h"

#include <blkid/blkid.h>
#include <fmt/format.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

#include "core/device/io_buffer.h"
#include "core/format/superblock_io.h"
#include "utils/common/live_nodes.h"

namespace cawfs {
namespace {

constexpr std::uint64_t kLookAt = 1 << 20;  // bytes at either end

class MemoryFile {
 public:
  MemoryFile() : fd_(memfd_create("mkfs.cawfs", MFD_CLOEXEC)) {}
  ~MemoryFile() {
    if (fd_ >= 0) ::close(fd_);
  }
  MemoryFile(const MemoryFile&) = delete;
  int fd() const { return fd_; }
  bool resize(std::uint64_t size) { return fd_ >= 0 && ftruncate(fd_, static_cast<off_t>(size)) == 0; }
  bool write(std::uint64_t offset, std::span<const std::byte> data) {
    return pwrite(fd_, data.data(), data.size(), static_cast<off_t>(offset)) == static_cast<ssize_t>(data.size());
  }

 private:
  int fd_;
};

struct FreeProbe {
  void operator()(blkid_struct_probe* probe) const { blkid_free_probe(probe); }
};

std::optional<std::string> value_of(blkid_probe probe, const char* name) {
  const char* data = nullptr;
  if (blkid_probe_lookup_value(probe, name, &data, nullptr) != 0 || data == nullptr) return std::nullopt;
  return std::string(data);
}

Result<std::optional<std::string>> ask_libblkid(int fd) {
  const std::unique_ptr<blkid_struct_probe, FreeProbe> probe(blkid_new_probe());
  if (!probe || blkid_probe_set_device(probe.get(), fd, 0, 0) != 0) return fail(Errc::kNotSupported, "libblkid");
  blkid_probe_enable_superblocks(probe.get(), 1);
  blkid_probe_set_superblocks_flags(probe.get(), BLKID_SUBLKS_TYPE | BLKID_SUBLKS_USAGE | BLKID_SUBLKS_BADCSUM);
  blkid_probe_enable_partitions(probe.get(), 1);
  // 0: found, 1: nothing, -2: several that contradict each other, -1: error.
  const int found = blkid_do_safeprobe(probe.get());
  if (found == 1) return std::nullopt;
  if (found == -2) return "several signatures that contradict each other";
  if (found != 0) return fail(Errc::kNotSupported, "libblkid");
  if (const auto type = value_of(probe.get(), "TYPE")) return fmt::format("{} (a file system or volume)", *type);
  if (const auto table = value_of(probe.get(), "PTTYPE")) return fmt::format("a partition table ({})", *table);
  return "something that libblkid knows";
}

}  // namespace

Task<Result<std::optional<std::string>>> find_foreign(BlockDevice& device) {
  const std::uint64_t size = device.facts().size_bytes;
  const std::uint64_t length = std::min(kLookAt, size) / kBlockSize * kBlockSize;
  MemoryFile copy;
  if (!copy.resize(size)) co_return fail(Errc::kNotSupported, "memory file");
  IoBuffer buffer(length);
  for (const std::uint64_t offset : {std::uint64_t{0}, (size - length) / kBlockSize * kBlockSize}) {
    const Result<> done = co_await device.read(offset, buffer.bytes());
    if (!done) co_return fail(done.error());
    if (!copy.write(offset, buffer.bytes())) co_return fail(Errc::kNotSupported, "memory file");
  }
  co_return ask_libblkid(copy.fd());
}

Task<Result<std::optional<OldFileSystem>>> find_cawfs(Executor& executor, BlockDevice& device) {
  const Result<format::Superblock> superblock = co_await read_superblock(device);
  if (!superblock) {
    switch (superblock.error().code) {
      case Errc::kBadMagic:
        co_return std::nullopt;
      case Errc::kBadChecksum:
      case Errc::kBadIdentity:
      case Errc::kBadValue:
      case Errc::kBounds:
      case Errc::kBadVersion:
      case Errc::kBadFeature:
      case Errc::kBadBlockSize:
        co_return OldFileSystem{.text = fmt::format("a cawfs file system ({})", describe(superblock.error().code))};
      default:
        co_return fail(superblock.error());
    }
  }
  const auto& label = superblock->label;
  OldFileSystem old;
  old.text =
      fmt::format("the cawfs file system '{}'", std::string_view(label.data(), strnlen(label.data(), label.size())));
  const Result<LiveNodes> live = co_await find_live_nodes(executor, device, *superblock, LookFor::kAny);
  if (!live) co_return fail(live.error());
  old.live = live->any();
  for (std::size_t i = 0; i < live->slots.size(); ++i) {
    old.text +=
        fmt::format("{} host '{}' in slot {}", i == 0 ? ", mounted by" : " and", live->hosts[i], live->slots[i].value);
  }
  co_return old;
}

}  // namespace cawfs
