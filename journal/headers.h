// The two copies of a journal's header.
#pragma once

#include <cstdint>

#include "core/base/error.h"
#include "core/device/io_buffer.h"
#include "core/device/settled_io.h"
#include "core/format/journal_verify.h"
#include "journal/ring.h"

namespace cawfs {

class JournalHeaders {
 public:
  // All outlive it.
  JournalHeaders(SettledIo& io, const Geometry& geometry, const JournalRing& ring, SlotNo slot)
      : io_(io), geometry_(geometry), ring_(ring), slot_(slot) {}

  // The newest valid copy. An error if neither is valid: the first copy's.
  Task<Result<format::JournalHeaderInfo>> read();
  // Durable when it returns. After read(), and one at a time. Slot, ring size and `writes` of `info` are filled in.
  Task<Result<>> write(format::JournalHeaderInfo info);
  // Both copies, the older one first: from then on a damaged copy cannot bring back an older incarnation's header.
  Task<Result<>> write_both(format::JournalHeaderInfo info);

 private:
  SettledIo& io_;
  const Geometry& geometry_;
  const JournalRing& ring_;
  SlotNo slot_;
  std::uint64_t writes_ = 0;  // of the newest copy
};

}  // namespace cawfs
