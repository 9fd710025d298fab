#include "core/device/file_device.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "core/device/commands_in_flight.h"
#include "core/device/file_locks.h"
#include "core/device/file_lun.h"
#include "core/device/file_reservations.h"
#include "core/device/io_buffer.h"
#include "core/runtime/sync.h"

namespace cawfs {
namespace {

using Attentions = ReservationTable::Attentions;

constexpr std::size_t kLargestRequest = 1 << 30;  // bytes; a multiple of every block
constexpr std::size_t kZeroes = 1 << 20;          // bytes at a time, where zeroes have to be written

class FileDevice final : public BlockDevice {
 public:
  FileDevice(Reactor& reactor, Log& log, FileLun lun, OpenOptions options);

  const DeviceFacts& facts() const override { return facts_; }
  Task<Result<>> read(std::uint64_t offset, std::span<std::byte> out) override;
  Task<Result<>> write(std::uint64_t offset, std::span<const std::byte> data, Durability durability) override;
  Task<Result<>> flush() override;
  Task<Result<>> unmap(std::uint64_t offset, std::uint64_t length) override;
  Task<Result<>> write_zeroes(std::uint64_t offset, std::uint64_t length) override;
  Task<Result<>> compare_and_write(std::uint64_t offset, std::span<const std::byte> expected,
                                   std::span<const std::byte> data) override;
  Task<Result<>> pr_register(PrKey current, PrKey key, Aptpl aptpl) override;
  Task<Result<>> pr_register_ignore(PrKey key, Aptpl aptpl) override;
  Task<Result<>> pr_reserve(PrKey key, ReservationType type) override;
  Task<Result<>> pr_release(PrKey key, ReservationType type) override;
  Task<Result<>> pr_clear(PrKey key) override;
  Task<Result<>> pr_preempt_and_abort(PrKey key, PrKey victim, ReservationType type) override;
  Task<Result<RegisteredKeys>> pr_read_keys() override;
  Task<Result<std::vector<Registrant>>> pr_read_full_status() override;
  Task<Result<ReservationState>> pr_read_reservation() override;
  Task<Result<ReservationCapabilities>> pr_report_capabilities() override;
  Task<Result<>> reset_lun() override;
  Task<Result<>> evict(std::string initiator_name, std::uint64_t isid) override;
  Task<void> close() override;

 private:
  bool in_bounds(std::uint64_t offset, std::uint64_t length) const;
  Task<Result<>> change(FileReservations::Change change);

  // The I/O itself, after all checks.
  Task<Result<>> read_all(const FileHandle& file, std::uint64_t offset, std::span<std::byte> out);
  Task<Result<>> write_all(FileChannel channel, std::uint64_t offset, std::span<const std::byte> data);
  Task<Result<>> write_aligned(FileChannel channel, std::uint64_t offset, std::span<const std::byte> data);
  Task<Result<>> allocate(int mode, std::uint64_t offset, std::uint64_t length);
  Task<Result<>> zero_by_writing(std::uint64_t offset, std::uint64_t length);
  Task<Result<>> compare_then_write(std::uint64_t offset, std::span<const std::byte> expected,
                                    std::span<const std::byte> data);
  // How much of a request went through, a whole number of blocks; 0: try again.
  Result<std::size_t> progress(int result, std::uint64_t offset) const;
  bool aligned(const void* memory) const {
    return !lun_.direct || reinterpret_cast<std::uintptr_t>(memory) % kBlockSize == 0;
  }

  Reactor& reactor_;
  FileLun lun_;
  DeviceFacts facts_;
  FileReservations reservations_;
  CommandsInFlight commands_;
  std::vector<std::unique_ptr<Mutex>> marks_;  // the marks' locks do not exclude within a description
};

FileDevice::FileDevice(Reactor& reactor, Log& log, FileLun lun, OpenOptions options)
    : reactor_(reactor),
      lun_(std::move(lun)),
      reservations_(reactor, log, lun_, std::chrono::milliseconds(options.timeout_ms)),
      commands_(reactor.executor()) {
  for (std::size_t i = 0; i < kCompareAndWriteMarks; ++i) marks_.push_back(std::make_unique<Mutex>(reactor.executor()));
  facts_.size_bytes = lun_.size_bytes;
  facts_.logical_block = lun_.logical_block;
  facts_.volatile_cache = true;
  facts_.fua = !lun_.read_only;
  facts_.compare_and_write = !lun_.read_only;
  facts_.reservations = static_cast<bool>(lun_.sidecar.file());
  facts_.write_protected = lun_.read_only;
  facts_.unmap_granularity = lun_.read_only ? 0 : kBlockSize;
  facts_.identity = lun_.path;
}

bool FileDevice::in_bounds(std::uint64_t offset, std::uint64_t length) const {
  return offset % facts_.logical_block == 0 && length % facts_.logical_block == 0 && offset <= facts_.size_bytes &&
         length <= facts_.size_bytes - offset;
}

Result<std::size_t> FileDevice::progress(int result, std::uint64_t offset) const {
  if (result == -EINTR || result == -EAGAIN) return 0;
  if (result <= 0) return fail(result < 0 ? errc_of_errno(-result) : Errc::kMedium, "file LUN", offset);
  return static_cast<std::size_t>(result) / facts_.logical_block * facts_.logical_block;
}

Task<Result<>> FileDevice::read_all(const FileHandle& file, std::uint64_t offset, std::span<std::byte> out) {
  IoBuffer bounce = aligned(out.data()) ? IoBuffer() : IoBuffer(out.size());
  const std::span<std::byte> target = bounce.data() ? bounce.bytes() : out;
  for (std::size_t done = 0; done < target.size();) {
    const std::size_t size = std::min(target.size() - done, kLargestRequest);
    int result =
        co_await reactor_.read(file.get(), target.subspan(done, size), static_cast<std::int64_t>(offset + done));
    const auto moved = progress(result, offset + done);
    if (!moved) co_return fail(moved.error());
    done += *moved;
  }
  if (bounce.data()) std::ranges::copy(target, out.begin());
  co_return Result<>();
}

Task<Result<>> FileDevice::write_aligned(FileChannel channel, std::uint64_t offset, std::span<const std::byte> data) {
  for (std::size_t done = 0; done < data.size();) {
    const std::size_t size = std::min(data.size() - done, kLargestRequest);
    const auto piece = data.subspan(done, size);
    const auto at = static_cast<std::int64_t>(offset + done);
    Task<int> write = channel == FileChannel::kFua ? reactor_.write_durable(lun_.fua.get(), piece, at)
                                                   : reactor_.write(lun_.cached.get(), piece, at);
    int result = co_await std::move(write);
    const auto moved = progress(result, offset + done);
    if (!moved) co_return fail(moved.error());
    done += *moved;
  }
  co_return Result<>();
}

Task<Result<>> FileDevice::write_all(FileChannel channel, std::uint64_t offset, std::span<const std::byte> data) {
  IoBuffer bounce;
  if (!aligned(data.data())) {
    bounce = IoBuffer(data.size());
    std::ranges::copy(data, bounce.data());
    data = bounce.bytes();
  }
  auto done = co_await write_aligned(channel, offset, data);
  co_return done;
}

Task<Result<>> FileDevice::read(std::uint64_t offset, std::span<std::byte> out) {
  if (!in_bounds(offset, out.size())) co_return fail(Errc::kBounds, "file LUN", offset);
  const CommandsInFlight::Command command(commands_);
  auto done = co_await read_all(lun_.cached, offset, out);
  co_return done;
}

Task<Result<>> FileDevice::write(std::uint64_t offset, std::span<const std::byte> data, Durability durability) {
  if (!in_bounds(offset, data.size())) co_return fail(Errc::kBounds, "file LUN", offset);
  const FileChannel channel = durability == Durability::kFua ? FileChannel::kFua : FileChannel::kCached;
  const CommandsInFlight::Command command(commands_);
  auto done = co_await reservations_.begin_write(channel);
  if (!done) co_return done;
  done = co_await write_all(channel, offset, data);
  reservations_.end_write(channel);
  co_return done;
}

Task<Result<>> FileDevice::flush() {
  const CommandsInFlight::Command command(commands_);
  auto done = co_await reservations_.check();
  if (!done) co_return done;
  int result = co_await reactor_.fdatasync(lun_.cached.get());
  if (result < 0) co_return fail(errc_of_errno(-result), "file LUN: fdatasync");
  co_return done;
}

Task<Result<>> FileDevice::allocate(int mode, std::uint64_t offset, std::uint64_t length) {
  int error = 0;
  co_await reactor_.run_blocking([&] {
    const auto at = static_cast<off_t>(offset);
    do {
      error =
          ::fallocate(lun_.cached.get(), mode | FALLOC_FL_KEEP_SIZE, at, static_cast<off_t>(length)) == 0 ? 0 : errno;
    } while (error == EINTR);
  });
  if (error != 0) co_return fail(errc_of_errno(error), "file LUN: fallocate", offset);
  co_return Result<>();
}

Task<Result<>> FileDevice::unmap(std::uint64_t offset, std::uint64_t length) {
  if (!in_bounds(offset, length)) co_return fail(Errc::kBounds, "file LUN", offset);
  const CommandsInFlight::Command command(commands_);
  auto done = co_await reservations_.begin_write(FileChannel::kCached);
  if (!done || length == 0) {
    if (done) reservations_.end_write(FileChannel::kCached);
    co_return done;
  }
  done = co_await allocate(FALLOC_FL_PUNCH_HOLE, offset, length);
  reservations_.end_write(FileChannel::kCached);
  if (!done && done.error() == Errc::kUnsupported) co_return Result<>();  // a hint
  co_return done;
}

Task<Result<>> FileDevice::zero_by_writing(std::uint64_t offset, std::uint64_t length) {
  const IoBuffer zeroes(std::min<std::uint64_t>(length, kZeroes));
  for (std::uint64_t done = 0; done < length;) {
    const std::uint64_t size = std::min<std::uint64_t>(length - done, zeroes.size());
    auto written = co_await write_aligned(FileChannel::kCached, offset + done, zeroes.bytes().first(size));
    if (!written) co_return written;
    done += size;
  }
  co_return Result<>();
}

Task<Result<>> FileDevice::write_zeroes(std::uint64_t offset, std::uint64_t length) {
  if (!in_bounds(offset, length)) co_return fail(Errc::kBounds, "file LUN", offset);
  const CommandsInFlight::Command command(commands_);
  auto done = co_await reservations_.begin_write(FileChannel::kCached);
  if (!done) co_return done;
  if (length > 0) done = co_await allocate(FALLOC_FL_ZERO_RANGE, offset, length);
  if (!done && done.error() == Errc::kUnsupported) done = co_await zero_by_writing(offset, length);
  reservations_.end_write(FileChannel::kCached);
  co_return done;
}

// The mark comes first: it may be long in coming, and no write may be in flight so long.
Task<Result<>> FileDevice::compare_and_write(std::uint64_t offset, std::span<const std::byte> expected,
                                             std::span<const std::byte> data) {
  const std::uint64_t block = facts_.logical_block;
  if (expected.size() != block || data.size() != block || !in_bounds(offset, block)) {
    co_return fail(Errc::kBounds, "file LUN: COMPARE AND WRITE", offset);
  }
  if (lun_.read_only) co_return fail(Errc::kReadOnly, "file LUN");
  const Mark mark = compare_and_write_mark(offset / block);
  const CommandsInFlight::Command command(commands_);
  auto alone = co_await marks_[offset / block % kCompareAndWriteMarks]->lock();
  auto done = co_await reservations_.locks().acquire(lun_.fua, mark, lun_.index);
  if (!done) co_return done;
  done = co_await reservations_.begin_write(FileChannel::kFua);
  if (done) {
    done = co_await compare_then_write(offset, expected, data);
    reservations_.end_write(FileChannel::kFua);
  }
  reservations_.locks().release(lun_.fua, mark, lun_.index);
  co_return done;
}

Task<Result<>> FileDevice::compare_then_write(std::uint64_t offset, std::span<const std::byte> expected,
                                              std::span<const std::byte> data) {
  IoBuffer present(facts_.logical_block);
  auto done = co_await read_all(lun_.fua, offset, present.bytes());
  if (!done) co_return done;
  if (!std::ranges::equal(present.bytes(), expected)) co_return fail(Errc::kMiscompare, "file LUN", offset);
  done = co_await write_all(FileChannel::kFua, offset, data);
  co_return done;
}

Task<Result<>> FileDevice::change(FileReservations::Change change) {
  const CommandsInFlight::Command command(commands_);
  auto done = co_await reservations_.change(std::move(change));
  co_return done;
}

Task<Result<>> FileDevice::pr_register(PrKey current, PrKey key, Aptpl aptpl) {
  return change([=, this](ReservationTable& table) { return table.register_key(lun_.nexus, current, key, aptpl); });
}

Task<Result<>> FileDevice::pr_register_ignore(PrKey key, Aptpl aptpl) {
  return change([=, this](ReservationTable& table) { return table.register_ignore(lun_.nexus, key, aptpl); });
}

Task<Result<>> FileDevice::pr_reserve(PrKey key, ReservationType type) {
  return change([=, this](ReservationTable& table) { return table.reserve(lun_.nexus, key, type); });
}

Task<Result<>> FileDevice::pr_release(PrKey key, ReservationType type) {
  return change([=, this](ReservationTable& table) { return table.release(lun_.nexus, key, type); });
}

Task<Result<>> FileDevice::pr_clear(PrKey key) {
  return change([=, this](ReservationTable& table) { return table.clear(lun_.nexus, key); });
}

Task<Result<>> FileDevice::pr_preempt_and_abort(PrKey key, PrKey victim, ReservationType type) {
  const CommandsInFlight::Command command(commands_);
  auto done = co_await reservations_.preempt(key, victim, type);
  co_return done;
}

Task<Result<RegisteredKeys>> FileDevice::pr_read_keys() {
  const CommandsInFlight::Command command(commands_);
  auto table = co_await reservations_.read();
  if (!table) co_return fail(table.error());
  co_return table->read_keys();
}

// Openers have no names by which they could be evicted.
Task<Result<std::vector<Registrant>>> FileDevice::pr_read_full_status() {
  co_return fail(Errc::kUnsupported, "READ FULL STATUS");
}

Task<Result<ReservationState>> FileDevice::pr_read_reservation() {
  const CommandsInFlight::Command command(commands_);
  auto table = co_await reservations_.read();
  if (!table) co_return fail(table.error());
  co_return table->read_reservation();
}

Task<Result<ReservationCapabilities>> FileDevice::pr_report_capabilities() {
  if (!facts_.reservations) co_return fail(Errc::kUnsupported, "file LUN: no sidecar");
  co_return ReservationCapabilities{
      .persist_through_power_loss = true, .all_registrants = true, .registrants_only = true};
}

Task<Result<>> FileDevice::reset_lun() {
  const CommandsInFlight::Command command(commands_);
  co_await commands_.wait_for_older(command);
  if (lun_.read_only) co_return fail(Errc::kReadOnly, "file LUN");
  auto done = co_await reservations_.wait_for_others();
  co_return done;
}

Task<Result<>> FileDevice::evict(std::string, std::uint64_t isid) {
  co_return fail(Errc::kUnsupported, "file LUN: no sessions", isid);
}

Task<void> FileDevice::close() {
  co_await commands_.wait_for_all();
  // With the descriptors go the locks: others see this opener no more.
  lun_.fua = FileHandle();
  lun_.cached = FileHandle();
  lun_.sidecar = FileSidecar();
}

}  // namespace

Task<Result<std::unique_ptr<BlockDevice>>> open_file_device(Reactor& reactor, Log& log, std::string path,
                                                            OpenOptions options) {
  auto lun = co_await open_file_lun(reactor, log, std::move(path), options);
  if (!lun) co_return fail(lun.error());
  co_return std::make_unique<FileDevice>(reactor, log, std::move(*lun), std::move(options));
}

}  // namespace cawfs
