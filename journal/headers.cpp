#include "journal/headers.h"

#include <optional>

namespace cawfs {

Task<Result<format::JournalHeaderInfo>> JournalHeaders::read() {
  std::optional<format::JournalHeaderInfo> newest;
  std::optional<Error> first_error;
  for (std::uint32_t copy = 0; copy < format::kJournalHeaderCopies; ++copy) {
    const BlockNo address = ring_.header_copy(copy);
    IoBuffer buffer(kBlockSize);
    const auto got = co_await io_.read(address.offset_bytes(), buffer.bytes());
    if (!got && got.error() != Errc::kMedium) co_return fail(got.error());
    auto info = got ? format::verify_journal_header(buffer.bytes(), address, geometry_, slot_, ring_.blocks())
                    : Result<format::JournalHeaderInfo>(fail(got.error()));
    if (info && info->writes % format::kJournalHeaderCopies != copy) {
      info = fail(Errc::kBadValue, "journal header", address.value);
    }
    if (!info) {
      if (!first_error) first_error = info.error();
    } else if (!newest || info->writes > newest->writes) {
      newest = *info;
    }
  }
  if (!newest) co_return fail(*first_error);
  writes_ = newest->writes;
  co_return *newest;
}

Task<Result<>> JournalHeaders::write(format::JournalHeaderInfo info) {
  info.slot = slot_;
  info.ring_blocks = ring_.blocks();
  info.writes = writes_ + 1;
  const BlockNo address = ring_.header_copy(info.writes);
  IoBuffer buffer(kBlockSize);
  format::make_journal_header(buffer.bytes(), address, geometry_.fs_id, info);
  const auto done = co_await io_.write(address.offset_bytes(), buffer.bytes(), Durability::kFua);
  if (done) writes_ = info.writes;
  co_return done;
}

Task<Result<>> JournalHeaders::write_both(format::JournalHeaderInfo info) {
  for (std::uint32_t copy = 0; copy < format::kJournalHeaderCopies; ++copy) {
    const auto done = co_await write(info);
    if (!done) co_return done;
  }
  co_return Result<>{};
}

}  // namespace cawfs
