#include "core/device/file_reservations.h"

#include <sys/stat.h>

#include <algorithm>

#include "core/base/assert.h"
#include "core/base/checksum.h"

namespace cawfs {

FileReservations::FileReservations(Reactor& reactor, Log& log, FileLun& lun, Duration timeout)
    : reactor_(reactor),
      lun_(lun),
      locks_(reactor, log, lun.sidecar, siphash(std::as_bytes(std::span(lun.nexus)), SipKey{}), timeout),
      changing_(reactor.executor()),
      refreshing_(reactor.executor()) {}

Task<Result<>> FileReservations::begin_write(FileChannel channel) {
  if (lun_.read_only) co_return fail(Errc::kReadOnly, "file LUN");
  std::uint64_t& in_flight = writes_in_flight_.at(static_cast<std::size_t>(channel));
  if (in_flight == 0) {
    const auto locked = lun_.channel(channel).try_lock(write_lock(lun_.index, channel));
    if (!locked) co_return fail(locked.error());
    if (!*locked) co_return fail(Errc::kTransport, "file LUN: another opener has this one's lock", lun_.index);
  }
  ++in_flight;
  auto allowed = co_await check();
  if (!allowed) end_write(channel);
  co_return allowed;
}

void FileReservations::end_write(FileChannel channel) {
  std::uint64_t& in_flight = writes_in_flight_.at(static_cast<std::size_t>(channel));
  CAWFS_ASSERT(in_flight > 0);
  if (--in_flight == 0) lun_.channel(channel).unlock(write_lock(lun_.index, channel));
}

Task<Result<>> FileReservations::check() {
  if (lun_.read_only) co_return fail(Errc::kReadOnly, "file LUN");
  const auto sequence = lun_.sidecar.sequence();
  if (!sequence) co_return fail(sequence.error());
  if (*sequence != known_sequence_) {
    auto refreshed = co_await refresh();
    if (!refreshed) co_return refreshed;
  }
  if (attention_) {
    attention_ = false;
    co_return fail(Errc::kUnitAttentionReservations, "file LUN");
  }
  if (!may_write_) co_return fail(Errc::kReservationConflict, "file LUN");
  co_return Result<>();
}

// Called with the sequence newer than what is known; once it returns, at least what was present then is known.
Task<Result<>> FileReservations::refresh() {
  auto alone = co_await refreshing_.lock();
  Result<SidecarTable> table;
  co_await reactor_.run_blocking([&] { table = lun_.sidecar.load(); });
  if (!table) co_return fail(table.error());
  adopt(*table, true);
  co_return Result<>();
}

void FileReservations::adopt(const SidecarTable& table, bool by_others) {
  if (table.sequence <= known_sequence_) return;
  const bool was_registered = known_.key_of(lun_.nexus) != PrKey{};
  const ReservationType type_before = known_.read_reservation().type;
  known_sequence_ = table.sequence;
  known_ = table.reservations;
  may_write_ = known_.may_write(lun_.nexus);
  const bool is_registered = known_.key_of(lun_.nexus) != PrKey{};
  const bool released = type_before != ReservationType::kNone && known_.read_reservation().type != type_before;
  if (by_others && was_registered && (!is_registered || released)) attention_ = true;
}

Result<FileReservations::Attentions> FileReservations::apply_blocking(const Change& change, SidecarTable& table) {
  struct stat facts{};
  if (::fstat(lun_.sidecar.file().get(), &facts) != 0 || facts.st_nlink == 0) {
    return fail(Errc::kTransport, "file LUN: its sidecar has been deleted");
  }
  auto loaded = lun_.sidecar.load();
  if (!loaded) return fail(loaded.error());
  table = std::move(*loaded);
  if (auto settled = lun_.sidecar.settle(table); !settled) return fail(settled.error());
  SidecarTable changed = table;
  auto attentions = change(changed.reservations);
  if (!attentions || changed.reservations == table.reservations) return attentions;
  if (auto stored = lun_.sidecar.store(changed); !stored) return fail(stored.error());
  table = std::move(changed);
  return attentions;
}

Task<Result<FileReservations::Attentions>> FileReservations::apply(Change change) {
  if (lun_.read_only) co_return fail(Errc::kReadOnly, "file LUN");
  auto alone = co_await changing_.lock();
  auto locked = co_await locks_.acquire(lun_.sidecar.file(), sidecar_mark(), lun_.index);
  if (!locked) co_return fail(locked.error());
  // What others have changed before counts as theirs.
  auto refreshed = co_await refresh();
  Result<Attentions> attentions = fail(Errc::kTransport);
  SidecarTable table;
  if (refreshed) co_await reactor_.run_blocking([&] { attentions = apply_blocking(change, table); });
  locks_.release(lun_.sidecar.file(), sidecar_mark(), lun_.index);
  if (!refreshed) co_return fail(refreshed.error());
  adopt(table, false);
  co_return attentions;
}

Task<Result<>> FileReservations::change(Change change) {
  auto attentions = co_await apply(std::move(change));
  if (!attentions) co_return fail(attentions.error());
  co_return Result<>();
}

Task<Result<>> FileReservations::preempt(PrKey key, PrKey victim, ReservationType type) {
  auto attentions =
      co_await apply([&](ReservationTable& table) { return table.preempt(lun_.nexus, key, victim, type); });
  if (!attentions) co_return fail(attentions.error());

  std::vector<FileVictim> victims;
  co_await reactor_.run_blocking([&] {
    for (std::size_t index = 0; index < kMaxFileOpeners; ++index) {
      const auto opener = lun_.sidecar.read_opener(index);
      if (!opener || index == lun_.index) continue;
      const ReservationTable::Queued fenced{opener->nexus, ReservationAttention::kRegistrationsPreempted};
      if (std::ranges::find(*attentions, fenced) != attentions->end()) {
        victims.push_back({.index = index, .fenced = true});
      }
    }
  });
  auto drained = co_await locks_.drain(lun_.cached, std::move(victims));
  co_return drained;
}

Task<Result<ReservationTable>> FileReservations::read() {
  if (!lun_.sidecar.file()) co_return fail(Errc::kUnsupported, "file LUN: no sidecar");
  if (lun_.read_only) {
    Result<SidecarTable> table;
    co_await reactor_.run_blocking([&] { table = lun_.sidecar.load(); });
    if (!table) co_return fail(table.error());
    co_return std::move(table->reservations);
  }
  // Under the lock, so that a change that somebody died in is settled before anyone acts on it.
  ReservationTable seen;
  auto done = co_await change([&](ReservationTable& table) -> Result<Attentions> {
    seen = table;
    return Attentions{};
  });
  if (!done) co_return fail(done.error());
  co_return seen;
}

Task<Result<>> FileReservations::wait_for_others() {
  auto table = co_await read();
  if (!table) co_return fail(table.error());
  std::vector<FileVictim> others;
  co_await reactor_.run_blocking([&] {
    for (std::size_t index = 0; index < kMaxFileOpeners; ++index) {
      if (index == lun_.index) continue;
      const auto opener = lun_.sidecar.read_opener(index);
      others.push_back({.index = index, .fenced = !opener || table->key_of(opener->nexus) == PrKey{}});
    }
  });
  auto drained = co_await locks_.drain(lun_.cached, std::move(others));
  co_return drained;
}

}  // namespace cawfs
