#include "core/device/file_lun.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <memory>

#include "core/base/random.h"
#include "core/device/io_buffer.h"

namespace cawfs {
namespace {

constexpr std::uint32_t kDefaultLogicalBlock = 4096;

struct FileFacts {
  SidecarHeader identity;  // without the logical block
  std::uint64_t size_bytes = 0;
};

// The steps below may block and run on a helper thread.

Result<std::string> real_path(const std::string& path) {
  const std::unique_ptr<char, decltype(&std::free)> resolved(::realpath(path.c_str(), nullptr), &std::free);
  if (!resolved) return fail(errc_of_errno(errno), "file LUN");
  return std::string(resolved.get());
}

Result<FileHandle> open_with(const std::string& path, int flags) {
  FileHandle file(::open(path.c_str(), flags | O_CLOEXEC, 0600));
  if (!file) return fail(errc_of_errno(errno), "file LUN");
  return file;
}

// Whether reads of one logical block work with O_DIRECT here; the file system may want more.
bool direct_io_works(const std::string& path, std::uint32_t logical_block) {
  const FileHandle file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT));
  if (!file) return false;
  IoBuffer block(logical_block);
  return ::pread(file.get(), block.data(), block.size(), logical_block) >= 0;
}

Result<FileFacts> look_at(const FileHandle& file) {
  struct statx facts{};
  if (::statx(file.get(), "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &facts) != 0) {
    return fail(errc_of_errno(errno), "file LUN");
  }
  if (!S_ISREG(facts.stx_mode)) return fail(Errc::kUnsupported, "file LUN: not a regular file");
  // Each name would have a sidecar of its own.
  if (facts.stx_nlink > 1) return fail(Errc::kUnsupported, "file LUN: a file with several names", facts.stx_nlink);
  FileFacts seen;
  seen.size_bytes = facts.stx_size;
  seen.identity.inode = facts.stx_ino;
  if ((facts.stx_mask & STATX_BTIME) != 0) {
    seen.identity.birth_ns = facts.stx_btime.tv_sec * 1'000'000'000 + facts.stx_btime.tv_nsec;
  }
  return seen;
}

Result<FileFacts> open_descriptors(FileLun& lun, const OpenOptions& options) {
  auto path = real_path(lun.path);
  if (!path) return fail(path.error());
  lun.path = *path;
  lun.read_only = options.read_only;
  auto probe = open_with(lun.path, (lun.read_only ? O_RDONLY : O_RDWR) | O_NONBLOCK);
  if (!probe) return fail(probe.error());
  auto facts = look_at(*probe);
  if (!facts) return facts;

  auto sidecar = open_with(lun.path + ".pr", lun.read_only ? O_RDONLY : O_RDWR | O_CREAT);
  if (!sidecar && lun.read_only) return facts;
  if (!sidecar) return fail(sidecar.error());
  lun.sidecar = FileSidecar(std::move(*sidecar));
  return facts;
}

// Once the logical block is known: the descriptors that I/O uses.
Result<> open_data(FileLun& lun, std::uint32_t logical_block) {
  lun.logical_block = logical_block;
  lun.direct = direct_io_works(lun.path, logical_block);
  const int flags = (lun.read_only ? O_RDONLY : O_RDWR) | (lun.direct ? O_DIRECT : 0);
  auto cached = open_with(lun.path, flags);
  if (!cached) return fail(cached.error());
  lun.cached = std::move(*cached);
  if (lun.read_only) return {};
  auto fua = open_with(lun.path, flags | O_DSYNC);
  if (!fua) return fail(fua.error());
  lun.fua = std::move(*fua);
  return {};
}

// Whether an earlier opener of this index still has I/O in flight: its process is gone, its descriptions are not yet.
Result<bool> lingers(const FileHandle& file, std::size_t index) {
  const auto alive = file.conflicting_lock(alive_lock(index));
  if (!alive) return fail(alive.error());
  const auto writing = file.conflicting_lock(write_locks(index));
  if (!writing) return fail(writing.error());
  return alive->has_value() || writing->has_value();
}

Result<> claim_index(FileLun& lun) {
  const ProcessIdentity process = current_process();
  const auto random = system_random();
  std::string boot;
  for (std::size_t i = 0; i < 4; ++i) boot += fmt::format("{:02x}", process.boot[i]);
  lun.nexus = fmt::format("file-{}-{}-{:016x}", process.pid, boot, random->next());
  const auto file = open_with(lun.path, O_RDWR);
  if (!file) return fail(file.error());
  for (lun.index = 0; lun.index < kMaxFileOpeners; ++lun.index) {
    const auto locked = lun.sidecar.file().try_lock(index_lock(lun.index));
    if (!locked) return fail(locked.error());
    if (!*locked) continue;
    const auto busy = lingers(*file, lun.index);
    if (!busy) return fail(busy.error());
    if (!*busy) return lun.sidecar.write_opener(lun.index, {.process = process, .nexus = lun.nexus});
    lun.sidecar.file().unlock(index_lock(lun.index));
  }
  return fail(Errc::kBusy, "file LUN: too many openers", kMaxFileOpeners);
}

bool is_removed(const FileHandle& file) {
  struct stat facts{};
  return ::fstat(file.get(), &facts) == 0 && facts.st_nlink == 0;
}

// Under the sidecar's lock: makes it, or sees that it is ours. Nobody else is alive: then nobody can still write by
// what a stale sidecar says, and it is made anew.
Result<SidecarHeader> settle_header(FileLun& lun, const SidecarHeader& file, const OpenOptions& options,
                                    bool& renewed) {
  if (is_removed(lun.sidecar.file())) return fail(Errc::kBusy, "sidecar: deleted while it was opened");
  const auto header = lun.sidecar.read_header();
  if (!header) return fail(header.error());
  const auto data = open_with(lun.path, O_RDWR);
  if (!data) return fail(data.error());
  const auto others = data->conflicting_lock(alive_locks());
  if (!others) return fail(others.error());

  SidecarHeader wanted = file;
  wanted.logical_block = options.file_logical_block != 0 ? options.file_logical_block : kDefaultLogicalBlock;
  if (*header && options.file_logical_block == 0) wanted.logical_block = (*header)->logical_block;
  if (*header && **header == wanted) return wanted;
  const bool same_file = *header && (*header)->inode == wanted.inode && (*header)->birth_ns == wanted.birth_ns;
  if (*others && same_file) return fail(Errc::kBusy, "another logical block size while the LUN is in use");
  if (*others) return fail(Errc::kBusy, *header ? "it is another file's" : "it was deleted while in use");
  renewed = *header && !same_file;
  if (auto done = lun.sidecar.format(wanted); !done) return fail(done.error());
  return wanted;
}

// A boot has passed: what was registered without APTPL is gone.
Result<> settle_table(FileLun& lun) {
  auto table = lun.sidecar.load();
  if (!table) return fail(table.error());
  const BootId boot = current_boot_id();
  if (table->boot == boot) return lun.sidecar.settle(*table);
  table->boot = boot;
  table->reservations.power_loss();
  return lun.sidecar.store(*table);
}

Result<> settle_sidecar(FileLun& lun, const SidecarHeader& file, const OpenOptions& options, bool& renewed) {
  const auto header = settle_header(lun, file, options, renewed);
  if (!header) return fail(header.error());
  if (auto done = settle_table(lun); !done) return done;
  if (auto done = open_data(lun, header->logical_block); !done) return done;
  const auto alive = lun.cached.try_lock(alive_lock(lun.index));
  if (!alive) return fail(alive.error());
  return *alive ? Result<>() : fail(Errc::kBusy, "file LUN: opener index", lun.index);
}

Result<> open_only_for_reading(FileLun& lun, const OpenOptions& options) {
  std::uint32_t logical_block = options.file_logical_block != 0 ? options.file_logical_block : kDefaultLogicalBlock;
  if (lun.sidecar.file()) {
    const auto header = lun.sidecar.read_header();
    if (!header) return fail(header.error());
    if (*header && options.file_logical_block == 0) logical_block = (*header)->logical_block;
    if (!*header) lun.sidecar = FileSidecar();
  }
  return open_data(lun, logical_block);
}

}  // namespace

Task<Result<FileLun>> open_file_lun(Reactor& reactor, Log& log, std::string path, OpenOptions options) {
  FileLun lun;
  lun.path = std::move(path);
  if (options.file_logical_block != 0 && options.file_logical_block != 512 && options.file_logical_block != 4096) {
    co_return fail(Errc::kInvalid, "logical block of a file LUN", options.file_logical_block);
  }
  Result<FileFacts> facts;
  co_await reactor.run_blocking([&] { facts = open_descriptors(lun, options); });
  if (!facts) co_return fail(facts.error());

  Result<> done;
  bool renewed = false;
  if (lun.read_only) {
    co_await reactor.run_blocking([&] { done = open_only_for_reading(lun, options); });
  } else {
    co_await reactor.run_blocking([&] { done = claim_index(lun); });
    if (!done) co_return fail(done.error());
    FileLocks locks(reactor, log, lun.sidecar, lun.index, std::chrono::milliseconds(options.timeout_ms));
    done = co_await locks.acquire(lun.sidecar.file(), sidecar_mark(), lun.index);
    if (!done) co_return fail(done.error());
    co_await reactor.run_blocking([&] { done = settle_sidecar(lun, facts->identity, options, renewed); });
    locks.release(lun.sidecar.file(), sidecar_mark(), lun.index);
  }
  if (!done) {
    log.error(
        "{}.pr, the sidecar of this file LUN, cannot be used: {} ({}). Once no node uses the file, the sidecar may "
        "be deleted.",
        lun.path, describe(done.error().code), done.error().where);
    co_return fail(done.error());
  }
  if (renewed) log.warning("{}.pr belonged to an earlier file of this name; it has been made anew", lun.path);
  lun.size_bytes = facts->size_bytes / lun.logical_block * lun.logical_block;
  if (lun.size_bytes == 0) co_return fail(Errc::kBounds, "a file shorter than one block");
  co_return lun;
}

}  // namespace cawfs
