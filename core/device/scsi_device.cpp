#include "core/device/scsi_device.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <optional>
#include <string_view>
#include <vector>

#include "core/device/io_buffer.h"
#include "core/device/scsi_patience.h"

namespace cawfs {
namespace {

using namespace std::chrono_literals;

// Operation codes.
constexpr std::uint8_t kInquiry = 0x12;
constexpr std::uint8_t kModeSense10 = 0x5a;
constexpr std::uint8_t kReadCapacity16 = 0x9e;  // service action 10h
constexpr std::uint8_t kRead16 = 0x88;
constexpr std::uint8_t kWrite16 = 0x8a;
constexpr std::uint8_t kCompareAndWrite = 0x89;
constexpr std::uint8_t kSynchronizeCache16 = 0x91;
constexpr std::uint8_t kUnmap = 0x42;
constexpr std::uint8_t kWriteSame16 = 0x93;
constexpr std::uint8_t kPersistentReserveIn = 0x5e;
constexpr std::uint8_t kPersistentReserveOut = 0x5f;

constexpr std::uint8_t kFuaBit = 0x08;
constexpr std::size_t kReplyBytes = 4096;
constexpr std::size_t kFullStatusBytes = 32768;
constexpr std::string_view kLinuxTarget = "LIO-ORG";
constexpr int kUnitAttentionsAtOpen = 16;

template <class Bytes>
void put(Bytes& bytes, std::size_t offset, std::uint64_t value, std::size_t length) {
  for (std::size_t i = 0; i < length; ++i) {
    bytes[offset + i] = static_cast<std::uint8_t>(value >> (8 * (length - 1 - i)));
  }
}

std::uint64_t get(std::span<const std::byte> bytes, std::size_t offset, std::size_t length) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < length; ++i) value = value << 8 | std::to_integer<std::uint64_t>(bytes[offset + i]);
  return value;
}

// Text of a device ends with spaces or zeros.
std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kPadding(" \0", 2);
  return text.substr(0, text.find_last_not_of(kPadding) + 1);
}

class ScsiDevice final : public BlockDevice {
 public:
  ScsiDevice(Executor& executor, Log& log, std::unique_ptr<ScsiTransport> transport)
      : executor_(executor), log_(log), transport_(std::move(transport)), patience_(log) {}

  Task<Result<>> discover();

  const DeviceFacts& facts() const override { return facts_; }
  Task<Result<>> read(std::uint64_t offset, std::span<std::byte> out) override;
  Task<Result<>> write(std::uint64_t offset, std::span<const std::byte> data, Durability durability) override;
  Task<Result<>> flush() override;
  Task<Result<>> unmap(std::uint64_t offset, std::uint64_t length) override;
  Task<Result<>> write_zeroes(std::uint64_t offset, std::uint64_t length) override;
  Task<Result<>> compare_and_write(std::uint64_t offset, std::span<const std::byte> expected,
                                   std::span<const std::byte> data) override;
  std::uint64_t session() const override { return transport_->session(); }
  void admit(std::uint64_t session) override { admitted_ = session; }
  void bind(std::uint64_t session) override { bound_ = session; }
  void set_path_timeout(Duration timeout) override { transport_->set_path_timeout(timeout); }
  Task<Result<>> pr_register(PrKey current, PrKey key, Aptpl aptpl) override {
    return reserve_out(0x00, 0, current, key, aptpl);
  }
  Task<Result<>> pr_register_ignore(PrKey key, Aptpl aptpl) override { return reserve_out(0x06, 0, {}, key, aptpl); }
  Task<Result<>> pr_reserve(PrKey key, ReservationType type) override {
    return reserve_out(0x01, static_cast<std::uint8_t>(type), key, {}, Aptpl::kNo);
  }
  Task<Result<>> pr_release(PrKey key, ReservationType type) override {
    return reserve_out(0x02, static_cast<std::uint8_t>(type), key, {}, Aptpl::kNo);
  }
  Task<Result<>> pr_clear(PrKey key) override { return reserve_out(0x03, 0, key, {}, Aptpl::kNo); }
  Task<Result<>> pr_preempt_and_abort(PrKey key, PrKey victim, ReservationType type) override {
    return reserve_out(0x05, static_cast<std::uint8_t>(type), key, victim, Aptpl::kNo);
  }
  Task<Result<RegisteredKeys>> pr_read_keys() override;
  Task<Result<std::vector<Registrant>>> pr_read_full_status() override;
  Task<Result<ReservationState>> pr_read_reservation() override;
  Task<Result<ReservationCapabilities>> pr_report_capabilities() override;
  Task<Result<>> reset_lun() override { return transport_->reset_lun(); }
  Task<Result<>> evict(std::string initiator_name, std::uint64_t isid) override {
    return transport_->evict(std::move(initiator_name), isid);
  }
  Task<void> close() override { return transport_->close(); }

 private:
  // Runs a command; BUSY and TASK SET FULL mean that it was not begun, and it is sent again after a while.
  Task<Result<ScsiStatus>> execute(ScsiCommand& command);
  // Sends a command that returns data, padded with zeros to `bytes`; asks again past unit attentions while opening.
  Task<Result<IoBuffer>> ask(ScsiCommand command, std::size_t bytes = kReplyBytes);
  Task<Result<>> reserve_out(std::uint8_t action, std::uint8_t type, PrKey key, PrKey service_key, Aptpl aptpl);
  Task<Result<IoBuffer>> reserve_in(std::uint8_t action, std::size_t bytes);
  Task<Result<>> flush_on(std::optional<std::uint64_t> session);
  Task<Result<>> transfer(std::uint8_t operation, std::uint64_t offset, iovec data, std::uint8_t flags);
  Task<Result<>> discover_capacity();
  Task<Result<>> discover_cache();
  Task<Result<>> discover_limits();
  Task<Result<>> discover_vendor();
  Task<Result<IoBuffer>> inquiry_page(std::uint8_t page);
  // What the answer to a command that reads or changes the medium means.
  Result<> judge(const ScsiCommand& command, const ScsiStatus& status) {
    return patience_.judge(command, status, executor_.now());
  }
  void complain_of_refusal(const Error& refusal);

  bool inside(std::uint64_t offset, std::uint64_t length) const {
    return offset % facts_.logical_block == 0 && length % facts_.logical_block == 0 && offset <= facts_.size_bytes &&
           length <= facts_.size_bytes - offset;
  }
  std::uint64_t lba(std::uint64_t offset) const { return offset / facts_.logical_block; }

  Executor& executor_;
  Log& log_;
  std::unique_ptr<ScsiTransport> transport_;
  ScsiPatience patience_;
  DeviceFacts facts_;
  std::uint64_t admitted_ = 0;          // the session on which COMPARE AND WRITE may go out
  std::optional<std::uint64_t> bound_;  // and the one for all other changes; none: any
  bool opening_ = true;
  bool write_same_ = true;
};

Task<Result<ScsiStatus>> ScsiDevice::execute(ScsiCommand& command) {
  Duration pause = 1ms;
  for (;;) {
    auto status = co_await transport_->execute(command);
    if (!status || (status->status != kScsiBusy && status->status != kScsiTaskSetFull)) co_return status;
    co_await executor_.sleep(pause);
    pause = std::min<Duration>(pause * 2, 100ms);
  }
}

Task<Result<IoBuffer>> ScsiDevice::ask(ScsiCommand command, std::size_t bytes) {
  for (int attempt = 0;; ++attempt) {
    IoBuffer reply(bytes);
    iovec data{reply.data(), reply.size()};
    command.direction = ScsiDirection::kIn;
    command.data = {&data, 1};
    auto status = co_await execute(command);
    if (!status) co_return fail(status.error());
    if (opening_ && is_absence(*status)) co_return fail(Errc::kNotFound, "logical unit", status->sense_code);
    auto result = scsi_result(*status);
    if (result) co_return reply;
    const bool attention = error_class(result.error().code) == ErrorClass::kRetry;
    if (!opening_ || !attention || attempt == kUnitAttentionsAtOpen) co_return fail(result.error());
  }
}

Task<Result<IoBuffer>> ScsiDevice::inquiry_page(std::uint8_t page) {
  ScsiCommand command;
  command.cdb_length = 6;
  command.cdb[0] = kInquiry;
  command.cdb[1] = 1;  // EVPD
  command.cdb[2] = page;
  put(command.cdb, 3, kReplyBytes, 2);
  return ask(command);
}

Task<Result<>> ScsiDevice::discover_vendor() {
  ScsiCommand command;
  command.cdb_length = 6;
  command.cdb[0] = kInquiry;
  put(command.cdb, 3, kReplyBytes, 2);
  auto reply = co_await ask(command);
  if (!reply) co_return fail(reply.error());
  facts_.vendor = trimmed({reinterpret_cast<const char*>(reply->data()) + 8, 8});
  co_return Result<>{};
}

Task<Result<>> ScsiDevice::discover_capacity() {
  ScsiCommand command;
  command.cdb[0] = kReadCapacity16;
  command.cdb[1] = 0x10;
  put(command.cdb, 10, kReplyBytes, 4);
  auto reply = co_await ask(command);
  if (!reply) co_return fail(reply.error());
  const std::uint64_t last = get(reply->bytes(), 0, 8);
  const std::uint64_t block = get(reply->bytes(), 8, 4);
  if (block != 512 && block != 4096) co_return fail(Errc::kBadBlockSize, "logical block", block);
  if (last >= (std::uint64_t{1} << 63) / block) co_return fail(Errc::kBadValue, "READ CAPACITY", last);
  facts_.logical_block = static_cast<std::uint32_t>(block);
  facts_.size_bytes = (last + 1) * block;
  if (get(reply->bytes(), 14, 1) & 0x80) facts_.unmap_granularity = kBlockSize;  // LBPME
  co_return Result<>{};
}

Task<Result<>> ScsiDevice::discover_cache() {
  ScsiCommand command;
  command.cdb_length = 10;
  command.cdb[0] = kModeSense10;
  command.cdb[1] = 0x08;  // DBD: no block descriptors
  command.cdb[2] = 0x08;  // the caching page
  put(command.cdb, 7, kReplyBytes, 2);
  auto reply = co_await ask(command);
  if (!reply) co_return fail(reply.error());
  const auto device_specific = get(reply->bytes(), 3, 1);
  facts_.write_protected = (device_specific & 0x80) != 0;
  facts_.fua = (device_specific & 0x10) != 0;  // DPOFUA
  const std::uint64_t page = 8 + get(reply->bytes(), 6, 2);
  if (page + 3 > kReplyBytes || (get(reply->bytes(), page, 1) & 0x3f) != 0x08) {
    co_return fail(Errc::kUnsupported, "caching mode page");
  }
  facts_.volatile_cache = (get(reply->bytes(), page + 2, 1) & 0x04) != 0;  // WCE
  co_return Result<>{};
}

Task<Result<>> ScsiDevice::discover_limits() {
  auto limits = co_await inquiry_page(0xb0);
  if (!limits) co_return fail(limits.error());
  facts_.compare_and_write = get(limits->bytes(), 5, 1) >= 1;
  const std::uint64_t longest = get(limits->bytes(), 8, 4) * facts_.logical_block;
  if (longest >= kBlockSize) facts_.max_transfer = std::min(facts_.max_transfer, longest);
  const std::uint64_t granularity = get(limits->bytes(), 28, 4) * facts_.logical_block;
  if (facts_.unmap_granularity > 0) facts_.unmap_granularity = std::max<std::uint64_t>(granularity, kBlockSize);

  auto serial = co_await inquiry_page(0x80);
  if (!serial) co_return fail(serial.error());
  const std::size_t length = std::min<std::uint64_t>(get(serial->bytes(), 2, 2), 256);
  facts_.identity = trimmed({reinterpret_cast<const char*>(serial->data()) + 4, length});
  co_return Result<>{};
}

Task<Result<>> ScsiDevice::discover() {
  facts_.initiator_name = transport_->initiator_name();
  facts_.isid = transport_->isid();
  admitted_ = transport_->session();
  auto vendor = co_await discover_vendor();
  if (!vendor) co_return fail(vendor.error());
  auto capacity = co_await discover_capacity();
  if (!capacity) co_return fail(capacity.error());
  auto cache = co_await discover_cache();
  if (!cache) co_return fail(cache.error());
  auto limits = co_await discover_limits();
  if (!limits) co_return fail(limits.error());
  auto capabilities = co_await pr_report_capabilities();
  facts_.reservations = capabilities.has_value();
  opening_ = false;
  co_return Result<>{};
}

Task<Result<>> ScsiDevice::transfer(std::uint8_t operation, std::uint64_t offset, iovec data, std::uint8_t flags) {
  auto* bytes = static_cast<std::byte*>(data.iov_base);
  const auto session = bound_;
  for (std::size_t done = 0; done < data.iov_len;) {
    const std::size_t length = std::min<std::size_t>(data.iov_len - done, facts_.max_transfer);
    iovec piece{bytes + done, length};
    ScsiCommand command;
    command.cdb[0] = operation;
    command.cdb[1] = flags;
    put(command.cdb, 2, lba(offset + done), 8);
    put(command.cdb, 10, length / facts_.logical_block, 4);
    command.direction = operation == kRead16 ? ScsiDirection::kIn : ScsiDirection::kOut;
    command.data = {&piece, 1};
    if (operation == kWrite16) command.session = session;
    auto status = co_await execute(command);
    if (!status) co_return fail(status.error());
    auto result = judge(command, *status);
    if (!result) co_return result;
    if (status->residual > 0) co_return fail(Errc::kTransport, "short transfer at byte", offset + done);
    done += length;
  }
  co_return Result<>{};
}

Task<Result<>> ScsiDevice::read(std::uint64_t offset, std::span<std::byte> out) {
  if (!inside(offset, out.size())) co_return fail(Errc::kBounds, "read at byte", offset);
  auto result = co_await transfer(kRead16, offset, iovec{out.data(), out.size()}, 0);
  co_return result;
}

Task<Result<>> ScsiDevice::write(std::uint64_t offset, std::span<const std::byte> data, Durability durability) {
  if (!inside(offset, data.size())) co_return fail(Errc::kBounds, "write at byte", offset);
  const auto session = bound_;
  const bool through = durability == Durability::kFua && facts_.volatile_cache;
  const std::uint8_t flags = through && facts_.fua ? kFuaBit : 0;
  // The transport reads what it sends; iovec has no const.
  auto result = co_await transfer(kWrite16, offset, iovec{const_cast<std::byte*>(data.data()), data.size()}, flags);
  if (result && through && !facts_.fua) result = co_await flush_on(session);
  co_return result;
}

Task<Result<>> ScsiDevice::flush() {
  return flush_on(bound_);
}

// The flush after a write or COMPARE AND WRITE goes out on the same session: another one's target may know nothing of
// it.
Task<Result<>> ScsiDevice::flush_on(std::optional<std::uint64_t> session) {
  if (!facts_.volatile_cache) co_return Result<>{};
  ScsiCommand command;
  command.cdb[0] = kSynchronizeCache16;
  command.session = session;
  auto status = co_await execute(command);
  if (!status) co_return fail(status.error());
  co_return judge(command, *status);
}

Task<Result<>> ScsiDevice::unmap(std::uint64_t offset, std::uint64_t length) {
  if (!inside(offset, length)) co_return fail(Errc::kBounds, "unmap at byte", offset);
  if (facts_.unmap_granularity == 0) co_return fail(Errc::kUnsupported, "unmap");
  constexpr std::uint64_t kMostBlocks = 0x00400000;
  const auto session = bound_;
  while (length > 0) {
    const std::uint64_t blocks = std::min(length / facts_.logical_block, kMostBlocks);
    std::array<std::uint8_t, 24> list{};
    put(list, 0, list.size() - 2, 2);
    put(list, 2, 16, 2);
    put(list, 8, lba(offset), 8);
    put(list, 16, blocks, 4);
    iovec data{list.data(), list.size()};
    ScsiCommand command;
    command.cdb_length = 10;
    command.cdb[0] = kUnmap;
    put(command.cdb, 7, list.size(), 2);
    command.session = session;
    command.direction = ScsiDirection::kOut;
    command.data = {&data, 1};
    auto status = co_await execute(command);
    if (!status) co_return fail(status.error());
    auto result = judge(command, *status);
    if (!result) co_return result;
    offset += blocks * facts_.logical_block;
    length -= blocks * facts_.logical_block;
  }
  co_return Result<>{};
}

Task<Result<>> ScsiDevice::write_zeroes(std::uint64_t offset, std::uint64_t length) {
  if (!inside(offset, length)) co_return fail(Errc::kBounds, "write zeroes at byte", offset);
  const IoBuffer zeroes(std::min<std::size_t>(length, facts_.max_transfer));
  const auto session = bound_;
  while (length > 0) {
    // As many blocks at once as every target takes that has WRITE SAME at all.
    const std::uint64_t bytes =
        std::min<std::uint64_t>(length, write_same_ ? std::uint64_t{0x1000} * facts_.logical_block : zeroes.size());
    Result<> result;
    if (write_same_) {
      iovec data{const_cast<std::byte*>(zeroes.data()), facts_.logical_block};
      ScsiCommand command;
      command.cdb[0] = kWriteSame16;
      command.session = session;
      put(command.cdb, 2, lba(offset), 8);
      put(command.cdb, 10, bytes / facts_.logical_block, 4);
      command.direction = ScsiDirection::kOut;
      command.data = {&data, 1};
      auto status = co_await execute(command);
      if (!status) co_return fail(status.error());
      result = judge(command, *status);
      if (!result && result.error() == Errc::kUnsupported) {
        write_same_ = false;
        continue;
      }
    } else {
      result = co_await write(offset, zeroes.bytes().first(bytes), Durability::kCached);
    }
    if (!result) co_return result;
    offset += bytes;
    length -= bytes;
  }
  co_return Result<>{};
}

Task<Result<>> ScsiDevice::compare_and_write(std::uint64_t offset, std::span<const std::byte> expected,
                                             std::span<const std::byte> data) {
  if (expected.size() != facts_.logical_block || data.size() != facts_.logical_block || !inside(offset, data.size())) {
    co_return fail(Errc::kBounds, "compare and write at byte", offset);
  }
  std::array<iovec, 2> images = {iovec{const_cast<std::byte*>(expected.data()), expected.size()},
                                 iovec{const_cast<std::byte*>(data.data()), data.size()}};
  ScsiCommand command;
  command.cdb[0] = kCompareAndWrite;
  command.cdb[1] = facts_.volatile_cache && facts_.fua ? kFuaBit : 0;
  put(command.cdb, 2, lba(offset), 8);
  command.cdb[13] = 1;
  command.direction = ScsiDirection::kOut;
  command.data = images;
  command.session = admitted_;
  // Sent once, even where the device was busy: what the caller saw to before this may not hold any more.
  auto status = co_await transport_->execute(command);
  if (!status) co_return fail(status.error());
  auto result = judge(command, *status);
  if (!result) complain_of_refusal(result.error());
  if (result && facts_.volatile_cache && !facts_.fua) result = co_await flush_on(command.session);
  co_return result;
}

void ScsiDevice::complain_of_refusal(const Error& refusal) {
  const bool refused = refusal == Errc::kReservationConflict || refusal == Errc::kUnitAttentionReset ||
                       refusal == Errc::kUnitAttentionReservations || refusal == Errc::kUnitAttentionOther;
  if (!refused || facts_.vendor != kLinuxTarget) return;
  log_.error(
      "{}: the target (LIO) has refused a COMPARE AND WRITE ({} {:#x}); from now on it may grant one lock to two "
      "nodes. "
      "Unmount on all nodes, restart the target, run fsck.cawfs -n, mount again. Resizing or remapping the LUN while "
      "it "
      "is mounted, and another program's LUN reset, can cause this",
      facts_.identity, describe(refusal.code), refusal.address);
}

Task<Result<>> ScsiDevice::reserve_out(std::uint8_t action, std::uint8_t type, PrKey key, PrKey service_key,
                                       Aptpl aptpl) {
  std::array<std::uint8_t, 24> parameters{};
  put(parameters, 0, key.value, 8);
  put(parameters, 8, service_key.value, 8);
  parameters[20] = aptpl == Aptpl::kYes ? 1 : 0;
  iovec data{parameters.data(), parameters.size()};
  ScsiCommand command;
  command.cdb_length = 10;
  command.cdb[0] = kPersistentReserveOut;
  command.cdb[1] = action;
  command.cdb[2] = type;  // scope 0: the logical unit
  put(command.cdb, 5, parameters.size(), 4);
  command.direction = ScsiDirection::kOut;
  command.data = {&data, 1};
  auto status = co_await execute(command);
  if (!status) co_return fail(status.error());
  co_return scsi_result(*status);
}

Task<Result<IoBuffer>> ScsiDevice::reserve_in(std::uint8_t action, std::size_t bytes) {
  ScsiCommand command;
  command.cdb_length = 10;
  command.cdb[0] = kPersistentReserveIn;
  command.cdb[1] = action;
  put(command.cdb, 7, bytes, 2);
  return ask(command, bytes);
}

Task<Result<RegisteredKeys>> ScsiDevice::pr_read_keys() {
  auto reply = co_await reserve_in(0x00, kReplyBytes);
  if (!reply) co_return fail(reply.error());
  RegisteredKeys keys;
  keys.generation = static_cast<std::uint32_t>(get(reply->bytes(), 0, 4));
  const std::uint64_t length = get(reply->bytes(), 4, 4);
  if (length % 8 != 0 || length > kReplyBytes - 8) co_return fail(Errc::kBadValue, "READ KEYS length", length);
  for (std::uint64_t i = 0; i < length; i += 8) keys.keys.push_back(PrKey{get(reply->bytes(), 8 + i, 8)});
  co_return keys;
}

// SPC-4 6.15.5; the TransportID of an iSCSI initiator is its name, ",i,0x" and the ISID (7.6.4.6).
Task<Result<std::vector<Registrant>>> ScsiDevice::pr_read_full_status() {
  constexpr std::size_t kFixed = 24;
  constexpr std::uint64_t kIscsi = 5;
  constexpr std::string_view kSeparator = ",i,0x";
  auto reply = co_await reserve_in(0x03, kFullStatusBytes);
  if (!reply) co_return fail(reply.error());
  const std::uint64_t length = get(reply->bytes(), 4, 4);
  if (length > kFullStatusBytes - 8) co_return fail(Errc::kBadValue, "READ FULL STATUS length", length);
  std::vector<Registrant> found;
  for (std::size_t at = 8; at + kFixed <= 8 + length;) {
    Registrant one;
    one.key = PrKey{get(reply->bytes(), at, 8)};
    const std::uint64_t id_bytes = get(reply->bytes(), at + 20, 4);
    if (id_bytes > 8 + length - at - kFixed) co_return fail(Errc::kBadValue, "READ FULL STATUS descriptor", id_bytes);
    const auto id = reply->bytes().subspan(at + kFixed, id_bytes);
    if (id_bytes > 4 && (get(id, 0, 1) & 0x0f) == kIscsi) {
      std::string_view name(reinterpret_cast<const char*>(id.data()) + 4, id_bytes - 4);
      name = name.substr(0, name.find('\0'));
      const std::size_t end = name.find(kSeparator);
      if (end != std::string_view::npos) {
        const std::string_view isid = name.substr(end + kSeparator.size());
        std::from_chars(isid.data(), isid.data() + isid.size(), one.isid, 16);
        one.initiator_name = name.substr(0, end);
      }
    }
    found.push_back(std::move(one));
    at += kFixed + id_bytes;
  }
  co_return found;
}

Task<Result<ReservationState>> ScsiDevice::pr_read_reservation() {
  auto reply = co_await reserve_in(0x01, kReplyBytes);
  if (!reply) co_return fail(reply.error());
  ReservationState state;
  if (get(reply->bytes(), 4, 4) < 16) co_return state;
  state.holder = PrKey{get(reply->bytes(), 8, 8)};
  state.raw_type = static_cast<std::uint8_t>(get(reply->bytes(), 21, 1) & 0x0f);
  const auto type = static_cast<ReservationType>(state.raw_type);
  const bool known =
      type == ReservationType::kWriteExclusiveRegistrants || type == ReservationType::kWriteExclusiveAllRegistrants;
  state.type = known ? type : ReservationType::kOther;
  if (type == ReservationType::kWriteExclusiveAllRegistrants) state.holder = PrKey{};
  co_return state;
}

Task<Result<ReservationCapabilities>> ScsiDevice::pr_report_capabilities() {
  auto reply = co_await reserve_in(0x02, kReplyBytes);
  if (!reply) co_return fail(reply.error());
  ReservationCapabilities capabilities;
  capabilities.persist_through_power_loss = (get(reply->bytes(), 2, 1) & 0x01) != 0;
  const bool mask_valid = (get(reply->bytes(), 3, 1) & 0x80) != 0;
  const std::uint64_t types = get(reply->bytes(), 4, 1);
  capabilities.all_registrants = mask_valid && (types & 0x80) != 0;
  capabilities.registrants_only = mask_valid && (types & 0x20) != 0;
  co_return capabilities;
}

}  // namespace

Task<Result<std::unique_ptr<BlockDevice>>> open_scsi_device(Executor& executor, Log& log,
                                                            std::unique_ptr<ScsiTransport> transport) {
  auto device = std::make_unique<ScsiDevice>(executor, log, std::move(transport));
  auto discovered = co_await device->discover();
  if (!discovered) {
    co_await device->close();
    co_return fail(discovered.error());
  }
  co_return std::unique_ptr<BlockDevice>(std::move(device));
}

}  // namespace cawfs
