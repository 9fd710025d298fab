#include "disklock/caw.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/base/assert.h"
#include "core/base/planted_fault.h"
#include "core/format/checksums.h"
#include "core/format/cluster_verify.h"

namespace cawfs {

namespace {

using namespace std::chrono_literals;

// How long a checksum mismatch may be a read that met a write.
constexpr Duration kReadAgainFor = 1s;
constexpr Duration kReadAgainEvery = 20ms;
constexpr Duration kSettleEvery = 50ms;

// Errors after which the block's state is simply not known yet, and asking again may tell.
bool is_passing(Errc code) {
  switch (code) {
    case Errc::kTransport:
    case Errc::kUnitAttentionReset:
    case Errc::kUnitAttentionReservations:
    case Errc::kUnitAttentionOther:
    case Errc::kReservationConflict:
      return true;
    default:
      return false;
  }
}

}  // namespace

CawImage CawImage::clone() const {
  CawImage copy(offset_, buffer_.size());
  std::memcpy(copy.buffer_.data(), buffer_.data(), buffer_.size());
  return copy;
}

Result<> verify_caw(std::span<const std::byte> logical_block, std::uint32_t magic, std::uint64_t offset,
                    std::uint64_t fs_id) {
  if (magic == format::kSlotMagic) return format::verify_slot_record(logical_block, offset, fs_id);
  if (magic == format::kLockMagic) return format::verify_lock_block(logical_block, offset, fs_id);
  const auto& header = *reinterpret_cast<const format::CawHeader*>(logical_block.data());
  if (header.magic.value() != magic) return fail(Errc::kBadMagic, "cluster block", offset / kBlockSize);
  if (header.crc.value() != format::cluster_crc(logical_block, offset, fs_id)) {
    return fail(Errc::kBadChecksum, "cluster block", offset / kBlockSize);
  }
  return {};
}

void seal_caw(std::span<std::byte> logical_block, std::uint64_t offset, std::uint64_t fs_id) {
  auto& header = *reinterpret_cast<format::CawHeader*>(logical_block.data());
  header.crc = format::cluster_crc(logical_block, offset, fs_id);
}

Task<Result<CawImage>> CawEditor::read(std::uint64_t offset, std::uint32_t magic) {
  const Time give_up = executor_.now() + kReadAgainFor;
  CawImage image(offset, device_.facts().logical_block);
  while (true) {
    Result<> done = co_await device_.read(offset, image.bytes());
    if (!done) co_return fail(done.error());
    const Result<> verified = verify_caw(image.bytes(), magic, offset, fs_id_);
    if (verified) co_return image;
    const bool may_have_met_a_write = verified.error() != Errc::kBadValue;
    if (!may_have_met_a_write || executor_.now() >= give_up) co_return fail(verified.error());
    co_await executor_.sleep(kReadAgainEvery);
  }
}

Task<Result<CawResult>> CawEditor::write(CawImage base, CawImage next) {
  CAWFS_ASSERT(base.offset() == next.offset());
  format::CawHeader& header = next.header();
  header.magic = base.header().magic.value();
  header.sequence = base.sequence() + 1;
  header.writer_slot = writer_.slot.value;
  header.writer_incarnation = writer_.incarnation.value;
  header.nonce = random_.next();
  seal_caw(next.bytes(), next.offset(), fs_id_);

  Result<> done = co_await device_.compare_and_write(base.offset(), base.bytes(), next.bytes());
  if (done) co_return CawResult{CawOutcome::kRan, std::move(next)};
  const bool reply_lost = done.error() == Errc::kTransport;
  if (reply_lost && planted(PlantedFault::kLostReplyIsRun)) co_return CawResult{CawOutcome::kRan, std::move(next)};
  if (done.error() != Errc::kMiscompare && !is_passing(done.error().code)) co_return fail(done.error());
  const Time give_up = patience_ == kForever ? Time{Duration::max()} : executor_.now() + patience_;
  Result<CawResult> settled = co_await settle(std::move(base), std::move(next), give_up);
  co_return settled;
}

Task<Result<CawResult>> CawEditor::settle(CawImage base, CawImage next, Time give_up) {
  Error last{Errc::kTransport, "COMPARE AND WRITE", base.offset()};
  for (bool first = true;; first = false) {
    if (!first) co_await executor_.sleep(kSettleEvery);
    if (executor_.now() >= give_up) co_return fail(last);

    Result<CawImage> fresh = co_await read(base.offset(), base.header().magic.value());
    if (!fresh) {
      last = fresh.error();
      if (is_passing(last.code)) continue;
      co_return fail(last);
    }
    if (fresh->nonce() == next.nonce() && fresh->sequence() == next.sequence()) {
      Result<> durable = co_await make_durable(NodeId{});
      if (durable) co_return CawResult{CawOutcome::kRan, std::move(next)};
      last = durable.error();
      if (is_passing(last.code)) continue;
      co_return fail(last);
    }
    if (!std::ranges::equal(fresh->bytes(), base.bytes())) {
      co_return CawResult{CawOutcome::kOthersChanged, std::move(*fresh)};
    }
    Result<> again = co_await device_.compare_and_write(base.offset(), base.bytes(), next.bytes());
    if (again) co_return CawResult{CawOutcome::kRan, std::move(next)};
    last = again.error();
    if (last.code != Errc::kMiscompare && !is_passing(last.code)) co_return fail(last);
  }
}

Task<Result<CawResult>> CawEditor::edit(std::uint64_t offset, std::uint32_t magic, Change change) {
  Result<CawImage> base = co_await read(offset, magic);
  if (!base) co_return fail(base.error());
  while (true) {
    CawImage next = base->clone();
    const Result<Plan> plan = change(next);
    if (!plan) co_return fail(plan.error());
    if (*plan == Plan::kLeave) co_return CawResult{CawOutcome::kOthersChanged, std::move(*base)};
    Result<CawResult> written = co_await write(std::move(*base), std::move(next));
    if (!written) co_return fail(written.error());
    if (written->outcome == CawOutcome::kRan) co_return written;
    *base = std::move(written->image);
  }
}

Task<Result<>> CawEditor::make_durable(NodeId writer_of_image) {
  if (!device_.facts().volatile_cache) co_return Result<>{};
  if (writer_of_image == writer_ && writer_.incarnation.value != 0) co_return Result<>{};
  Result<> flushed = co_await device_.flush();
  co_return flushed;
}

}  // namespace cawfs
