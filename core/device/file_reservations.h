// An opener's view of a file LUN's persistent reservations: its nexus's part in the table on the sidecar, the check
// that every write passes, and the waiting that makes PREEMPT AND ABORT and a reset mean something (file_locks.h).
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "core/device/file_locks.h"
#include "core/device/file_lun.h"
#include "core/device/reservation_table.h"
#include "core/runtime/sync.h"

namespace cawfs {

class FileReservations {
 public:
  using Attentions = ReservationTable::Attentions;
  using Change = std::function<Result<Attentions>(ReservationTable&)>;

  // `lun` outlives it.
  FileReservations(Reactor& reactor, Log& log, FileLun& lun, Duration timeout);

  FileLocks& locks() { return locks_; }

  // From before the registration is checked to the end of the I/O; end_write() only where begin_write() succeeded.
  Task<Result<>> begin_write(FileChannel channel);
  void end_write(FileChannel channel);
  // Whether this nexus may write; a unit attention instead, once, where others have changed the reservations.
  Task<Result<>> check();

  // Applies `change` to the table on the sidecar, alone; durable when it returns.
  Task<Result<>> change(Change change);
  // As change(), and returns once the victims have no write in flight.
  Task<Result<>> preempt(PrKey key, PrKey victim, ReservationType type);
  Task<Result<ReservationTable>> read();
  // Returns once the writes that others had in flight have ended: without exception those of openers that are not
  // registered.
  Task<Result<>> wait_for_others();

 private:
  Task<Result<Attentions>> apply(Change change);
  Result<Attentions> apply_blocking(const Change& change, SidecarTable& table);
  Task<Result<>> refresh();
  void adopt(const SidecarTable& table, bool by_others);

  Reactor& reactor_;
  FileLun& lun_;
  FileLocks locks_;
  Mutex changing_;  // the sidecar's lock does not exclude within a description
  Mutex refreshing_;
  std::array<std::uint64_t, 2> writes_in_flight_{};  // by channel

  std::uint64_t known_sequence_ = 0;
  ReservationTable known_;  // as of known_sequence_
  bool may_write_ = true;
  bool attention_ = false;
};

}  // namespace cawfs
