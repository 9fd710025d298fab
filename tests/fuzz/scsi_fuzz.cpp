// What a SCSI target may answer: statuses, sense data, and data-in of any shape, to all that a device asks. Each
// request ends, what is asked for lies on the medium that the target has described, and what is told of it is possible.
#include <memory>
#include <vector>

#include "core/base/assert.h"
#include "core/base/log.h"
#include "core/device/io_buffer.h"
#include "core/device/scsi_device.h"
#include "core/runtime/virtual_loop.h"
#include "tests/fuzz/input.h"

namespace cawfs::fuzz {
namespace {

constexpr std::uint8_t kRead16 = 0x88;
constexpr std::uint8_t kCompareAndWrite = 0x89;
constexpr std::uint8_t kWrite16 = 0x8a;
constexpr std::uint8_t kWriteSame16 = 0x93;
constexpr std::size_t kMostIo = 3 << 20;

class QuietLog final : public Log {
 public:
  bool enabled(LogLevel /*level*/) const override { return true; }
  void write(LogLevel /*level*/, std::string_view message) override { CAWFS_ASSERT(!message.empty()); }
};

// Answers from the input; once that is used up, GOOD with zeroes.
class FuzzedTransport final : public ScsiTransport {
 public:
  FuzzedTransport(Executor& executor, FuzzInput& input) : executor_(executor), input_(input) {}

  Task<Result<ScsiStatus>> execute(ScsiCommand& command) override {
    co_await executor_.sleep(std::chrono::milliseconds(1));
    check(command);
    co_return answer(command);
  }
  Task<Result<>> reset_lun() override { co_return Result<>{}; }
  Task<Result<>> evict(std::string, std::uint64_t) override { co_return Result<>{}; }
  Task<void> close() override { co_return; }
  std::string initiator_name() const override { return "iqn.fuzzed"; }
  std::uint64_t isid() const override { return 1; }
  std::uint64_t session() const override { return 1; }
  void set_path_timeout(Duration /*timeout*/) override {}

  const DeviceFacts* facts = nullptr;  // once the device is open

 private:
  static std::uint64_t number(const ScsiCommand& command, std::size_t at, std::size_t length) {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < length; ++i) value = value << 8 | command.cdb[at + i];
    return value;
  }
  // What is sent fits the medium, and the data the command.
  void check(const ScsiCommand& command) const {
    std::uint64_t bytes = 0;
    for (const iovec& piece : command.data) {
      CAWFS_ASSERT(piece.iov_base != nullptr);
      bytes += piece.iov_len;
    }
    CAWFS_ASSERT((command.direction == ScsiDirection::kNone) == (bytes == 0));
    CAWFS_ASSERT(command.cdb_length == 6 || command.cdb_length == 10 || command.cdb_length == 16);
    if (facts == nullptr) return;
    const std::uint8_t operation = command.cdb[0];
    if (operation != kRead16 && operation != kWrite16 && operation != kCompareAndWrite && operation != kWriteSame16) {
      return;
    }
    const bool caw = operation == kCompareAndWrite;
    const std::uint64_t blocks = caw ? command.cdb[13] : number(command, 10, 4);
    const std::uint64_t medium = facts->size_bytes / facts->logical_block;
    const std::uint64_t first = number(command, 2, 8);
    CAWFS_ASSERT(blocks > 0 && first < medium && blocks <= medium - first);
    const std::uint64_t images = operation == kWriteSame16 ? 1 : caw ? 2 * blocks : blocks;
    CAWFS_ASSERT(bytes == images * facts->logical_block);
    if (!caw) CAWFS_ASSERT(bytes <= std::max<std::uint64_t>(facts->max_transfer, facts->logical_block));
  }
  Result<ScsiStatus> answer(ScsiCommand& command) {
    const std::uint8_t kind = input_.byte();
    if (kind == 0xff) return fail(Errc::kTransport, "fuzzed");
    ScsiStatus status;
    if (kind >= 0xf0) {
      constexpr std::uint8_t kStatuses[] = {kScsiCheckCondition,      kScsiCheckCondition, kScsiBusy,
                                            kScsiReservationConflict, kScsiTaskSetFull,    0x40};
      status.status = kStatuses[input_.byte() % std::size(kStatuses)];
      status.sense_key = input_.byte() & 0x0f;
      status.sense_code = input_.take<std::uint16_t>();
      status.residual = input_.byte() % 4 == 1 ? input_.byte() : 0;
    }
    if (command.direction != ScsiDirection::kIn || status.status != kScsiGood) return status;
    const auto data = input_.take_bytes(input_.take<std::uint16_t>());
    std::size_t at = 0;
    for (const iovec& piece : command.data) {
      const std::size_t length = std::min(piece.iov_len, data.size() - at);
      std::memcpy(piece.iov_base, data.data() + at, length);
      at += length;
    }
    return status;
  }

  Executor& executor_;
  FuzzInput& input_;
};

void check_facts(const DeviceFacts& facts) {
  CAWFS_ASSERT(facts.logical_block == 512 || facts.logical_block == 4096);
  CAWFS_ASSERT(facts.size_bytes >= facts.logical_block && facts.size_bytes <= std::uint64_t{1} << 63);
  CAWFS_ASSERT(facts.size_bytes % facts.logical_block == 0);
  CAWFS_ASSERT(facts.max_transfer >= kBlockSize && facts.max_transfer <= 1 << 20);
  CAWFS_ASSERT(facts.max_transfer % facts.logical_block == 0);
  CAWFS_ASSERT(facts.unmap_granularity == 0 || facts.unmap_granularity >= kBlockSize);
  CAWFS_ASSERT(facts.vendor.size() <= 8 && facts.identity.size() <= 256);
}

template <class T>
Task<void> tried(Task<Result<T>> task) {
  const auto outcome = co_await std::move(task);
  static_cast<void>(outcome);
}

Task<void> use_medium(BlockDevice& device, FuzzInput& input) {
  const DeviceFacts& facts = device.facts();
  const std::uint64_t block = facts.logical_block;
  IoBuffer buffer(kMostIo);
  for (unsigned step = 0; step < 6; ++step) {
    // Now and then not a whole number of blocks, or beyond the end.
    const std::uint64_t offset =
        input.take<std::uint64_t>() % (facts.size_bytes / block + 2) * block + input.byte() / 255;
    const std::uint64_t length = input.take<std::uint16_t>() * block % buffer.size() + input.byte() / 255;
    const bool fits =
        offset % block == 0 && length % block == 0 && offset <= facts.size_bytes && length <= facts.size_bytes - offset;
    const auto bytes = buffer.bytes().first(length);
    Result<> done;
    switch (step) {
      case 0:
        done = co_await device.read(offset, bytes);
        break;
      case 1:
        done = co_await device.write(offset, bytes, Durability::kFua);
        break;
      case 2:
        done = co_await device.write(offset, bytes, Durability::kCached);
        break;
      case 3:
        done = co_await device.write_zeroes(offset, length);
        break;
      case 4:
        done = co_await device.unmap(offset, length);
        break;
      default:
        done = co_await device.compare_and_write(offset, buffer.bytes().first(block), buffer.bytes().first(block));
        continue;
    }
    if (!fits) CAWFS_ASSERT(!done && done.error().code == Errc::kBounds);
  }
  co_await tried(device.flush());
}

Task<void> use_reservations(BlockDevice& device) {
  constexpr PrKey kMine{1};
  constexpr PrKey kOther{2};
  constexpr auto kType = ReservationType::kWriteExclusiveAllRegistrants;
  co_await tried(device.pr_register(PrKey{}, kMine, Aptpl::kYes));
  co_await tried(device.pr_register_ignore(kMine, Aptpl::kNo));
  co_await tried(device.pr_reserve(kMine, kType));
  co_await tried(device.pr_preempt_and_abort(kMine, kOther, kType));
  const auto keys = co_await device.pr_read_keys();
  if (keys) CAWFS_ASSERT(keys->keys.size() <= 4096 / 8);
  const auto registrants = co_await device.pr_read_full_status();
  if (registrants) {
    CAWFS_ASSERT(registrants->size() <= 32768 / 24);
    for (const Registrant& one : *registrants) CAWFS_ASSERT(one.initiator_name.find('\0') == std::string::npos);
  }
  const auto state = co_await device.pr_read_reservation();
  if (state && state->type == kType) CAWFS_ASSERT(state->holder == PrKey{} && state->raw_type == 7);
  co_await tried(device.pr_report_capabilities());
  co_await tried(device.pr_release(kMine, kType));
  co_await tried(device.pr_clear(kMine));
}

Task<void> use(Executor& executor, Log& log, FuzzInput& input) {
  auto made = std::make_unique<FuzzedTransport>(executor, input);
  FuzzedTransport* transport = made.get();
  auto device = co_await open_scsi_device(executor, log, std::move(made));
  if (!device) co_return;
  check_facts((*device)->facts());
  transport->facts = &(*device)->facts();
  co_await use_reservations(**device);
  co_await use_medium(**device, input);
  co_await (*device)->close();
}

}  // namespace
}  // namespace cawfs::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace cawfs;
  VirtualLoop loop;
  Executor& executor = loop.add_executor();
  fuzz::QuietLog log;
  fuzz::FuzzInput input(data, size);
  loop.run(executor, fuzz::use(executor, log, input));
  return 0;
}
