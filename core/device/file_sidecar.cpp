#include "core/device/file_sidecar.h"

#include <unistd.h>

#include <algorithm>
#include <boost/endian/buffers.hpp>
#include <cerrno>
#include <cstring>
#include <vector>

#include "core/base/checksum.h"

namespace cawfs {
namespace {

using boost::endian::little_int64_buf_t;
using boost::endian::little_uint32_buf_t;
using boost::endian::little_uint64_buf_t;

constexpr char kHeaderMagic[8] = {'c', 'a', 'w', 'f', 's', '-', 's', 'c'};
constexpr char kImageMagic[8] = {'c', 'a', 'w', 'f', 's', '-', 'i', 'm'};
constexpr char kOpenerMagic[8] = {'c', 'a', 'w', 'f', 's', '-', 'o', 'p'};
constexpr std::uint32_t kVersion = 1;
constexpr std::uint64_t kSequenceOffset = 512;
constexpr std::uint64_t kOpenersOffset = 4096;
constexpr std::uint64_t kImageSize = 192 << 10;
constexpr std::uint64_t kImageOffsets[2] = {64 << 10, (64 << 10) + kImageSize};

struct HeaderRecord {
  char magic[8];
  little_uint32_buf_t version;
  little_uint32_buf_t crc;  // of this record with the field zero, as in the others
  little_uint64_buf_t inode;
  little_int64_buf_t birth_ns;
  little_uint32_buf_t logical_block;
  std::uint8_t reserved[28];
};
static_assert(sizeof(HeaderRecord) == 64);

// Followed by the table's own bytes, whose crc it seals together with its own.
struct ImageRecord {
  char magic[8];
  little_uint32_buf_t length;  // of the table
  little_uint32_buf_t crc;
  little_uint64_buf_t sequence;
  std::uint8_t boot[16];
};
static_assert(sizeof(ImageRecord) == 40);

struct OpenerRecord {
  char magic[8];
  little_uint32_buf_t crc;
  little_uint32_buf_t pid;
  little_uint64_buf_t start_time;
  std::uint8_t boot[16];
  std::uint8_t nexus_length;
  char nexus[ReservationTable::kMaxNexusName];
  std::uint8_t reserved[96];
};
static_assert(sizeof(OpenerRecord) == 256);
static_assert(kOpenersOffset + kMaxFileOpeners * sizeof(OpenerRecord) <= kImageOffsets[0]);

template <class Record>
std::span<const std::byte> bytes_of(const Record& record) {
  return std::as_bytes(std::span(&record, 1));
}

template <class Record>
std::uint32_t crc_of(Record record, std::span<const std::byte> rest = {}) {
  record.crc = 0;
  return crc32c(rest, crc32c(bytes_of(record)));
}

}  // namespace

Result<std::optional<SidecarHeader>> FileSidecar::read_header() const {
  HeaderRecord record;
  const ssize_t n = ::pread(file_.get(), &record, sizeof record, 0);
  if (n < 0) return fail(errc_of_errno(errno), "sidecar");
  const auto read = bytes_of(record).first(static_cast<std::size_t>(n));
  if (std::ranges::all_of(read, [](std::byte b) { return b == std::byte{0}; })) return std::nullopt;
  if (read.size() != sizeof record || std::memcmp(record.magic, kHeaderMagic, sizeof kHeaderMagic) != 0) {
    return fail(Errc::kBadMagic, "sidecar");
  }
  if (record.version.value() != kVersion) return fail(Errc::kBadVersion, "sidecar", record.version.value());
  if (record.crc.value() != crc_of(record)) return fail(Errc::kBadChecksum, "sidecar");
  const std::uint32_t logical_block = record.logical_block.value();
  if (logical_block != 512 && logical_block != 4096) return fail(Errc::kBadValue, "sidecar", logical_block);
  return SidecarHeader{
      .inode = record.inode.value(), .birth_ns = record.birth_ns.value(), .logical_block = logical_block};
}

Result<> FileSidecar::format(const SidecarHeader& header) {
  HeaderRecord record{};
  // The header is the last to be written, so that what is cut short here is seen as never begun.
  if (auto done = file_.write_exactly(bytes_of(record), 0); !done) return done;
  const std::vector<std::byte> zeroes(kImageSize);
  for (std::uint64_t offset : kImageOffsets) {
    if (auto done = file_.write_exactly(zeroes, offset); !done) return done;
  }
  SidecarTable table{.sequence = 0, .boot = current_boot_id(), .reservations = {}};
  if (auto done = store(table); !done) return done;

  std::memcpy(record.magic, kHeaderMagic, sizeof kHeaderMagic);
  record.version = kVersion;
  record.inode = header.inode;
  record.birth_ns = header.birth_ns;
  record.logical_block = header.logical_block;
  record.crc = crc_of(record);
  if (auto done = file_.write_exactly(bytes_of(record), 0); !done) return done;
  if (::fdatasync(file_.get()) != 0) return fail(errc_of_errno(errno), "sidecar");
  return {};
}

Result<SidecarTable> FileSidecar::read_image(std::uint64_t offset) const {
  ImageRecord record;
  if (auto done = file_.read_exactly({reinterpret_cast<std::byte*>(&record), sizeof record}, offset); !done) {
    return fail(done.error());
  }
  const std::uint32_t length = record.length.value();
  if (std::memcmp(record.magic, kImageMagic, sizeof kImageMagic) != 0 || length > kImageSize - sizeof record) {
    return fail(Errc::kBadMagic, "sidecar image", offset);
  }
  std::vector<std::byte> bytes(length);
  if (auto done = file_.read_exactly(bytes, offset + sizeof record); !done) return fail(done.error());
  if (record.crc.value() != crc_of(record, bytes)) return fail(Errc::kBadChecksum, "sidecar image", offset);
  auto reservations = ReservationTable::deserialize(bytes);
  if (!reservations) return fail(reservations.error());
  SidecarTable table{.sequence = record.sequence.value(), .boot = {}, .reservations = std::move(*reservations)};
  std::ranges::copy(record.boot, table.boot.begin());
  return table;
}

Result<SidecarTable> FileSidecar::load() const {
  // Without the lock, two changes during the call may tear both images as they are read; and where somebody died in
  // store() one of them stays torn. But a table that was ever present is never given up for an older one.
  Error problem{.code = Errc::kBusy};
  for (int attempt = 0; attempt < 100; ++attempt) {
    auto at_least = sequence();
    if (!at_least) return fail(at_least.error());
    auto first = read_image(kImageOffsets[0]);
    auto second = read_image(kImageOffsets[1]);
    auto& newest = first && (!second || first->sequence > second->sequence) ? first : second;
    if (newest && newest->sequence >= *at_least) return newest;
    problem = first ? second ? Error{Errc::kBadChecksum} : second.error() : first.error();
  }
  return fail(problem.code, "sidecar: its reservation table is damaged", problem.address);
}

Result<> FileSidecar::store(SidecarTable& table) {
  auto first = read_image(kImageOffsets[0]);
  auto second = read_image(kImageOffsets[1]);
  const bool replace_first = !first || (second && first->sequence < second->sequence);
  const std::uint64_t offset = kImageOffsets[replace_first ? 0 : 1];

  ++table.sequence;
  const auto reservations = table.reservations.serialize();
  ImageRecord record{};
  std::memcpy(record.magic, kImageMagic, sizeof kImageMagic);
  record.length = static_cast<std::uint32_t>(reservations.size());
  record.sequence = table.sequence;
  std::ranges::copy(table.boot, record.boot);
  record.crc = crc_of(record, reservations);

  std::vector<std::byte> image(bytes_of(record).begin(), bytes_of(record).end());
  image.insert(image.end(), reservations.begin(), reservations.end());
  if (auto done = file_.write_exactly(image, offset); !done) return done;
  if (::fdatasync(file_.get()) != 0) return fail(errc_of_errno(errno), "sidecar");
  return settle(table);
}

Result<> FileSidecar::settle(const SidecarTable& table) {
  const little_uint64_buf_t sequence(table.sequence);
  return file_.write_exactly(bytes_of(sequence), kSequenceOffset);
}

Result<std::uint64_t> FileSidecar::sequence() const {
  little_uint64_buf_t sequence;
  auto done = file_.read_exactly({reinterpret_cast<std::byte*>(&sequence), sizeof sequence}, kSequenceOffset);
  if (!done) return fail(done.error());
  return sequence.value();
}

std::optional<SidecarOpener> FileSidecar::read_opener(std::size_t index) const {
  OpenerRecord record;
  const std::uint64_t offset = kOpenersOffset + index * sizeof record;
  if (!file_.read_exactly({reinterpret_cast<std::byte*>(&record), sizeof record}, offset)) return std::nullopt;
  if (std::memcmp(record.magic, kOpenerMagic, sizeof kOpenerMagic) != 0 || record.crc.value() != crc_of(record) ||
      record.nexus_length > sizeof record.nexus) {
    return std::nullopt;
  }
  SidecarOpener opener;
  opener.process.pid = static_cast<pid_t>(record.pid.value());
  opener.process.start_time = record.start_time.value();
  std::ranges::copy(record.boot, opener.process.boot.begin());
  opener.nexus.assign(record.nexus, record.nexus_length);
  return opener;
}

Result<> FileSidecar::write_opener(std::size_t index, const SidecarOpener& opener) {
  OpenerRecord record{};
  std::memcpy(record.magic, kOpenerMagic, sizeof kOpenerMagic);
  record.pid = static_cast<std::uint32_t>(opener.process.pid);
  record.start_time = opener.process.start_time;
  std::ranges::copy(opener.process.boot, record.boot);
  record.nexus_length = static_cast<std::uint8_t>(opener.nexus.size());
  std::memcpy(record.nexus, opener.nexus.data(), opener.nexus.size());
  record.crc = crc_of(record);
  return file_.write_exactly(bytes_of(record), kOpenersOffset + index * sizeof record);
}

}  // namespace cawfs
