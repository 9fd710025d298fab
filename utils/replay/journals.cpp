#include "utils/replay/journals.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/device/io_buffer.h"
#include "core/format/cluster_verify.h"
#include "core/format/superblock_io.h"
#include "utils/common/live_nodes.h"

namespace cawfs {

namespace {

std::string_view name_of(format::SlotState state) {
  switch (state) {
    case format::SlotState::kFree:
      return "FREE";
    case format::SlotState::kClean:
      return "CLEAN";
    case format::SlotState::kWantsJournal:
      return "WANTS_JOURNAL";
    case format::SlotState::kActive:
      return "ACTIVE";
    case format::SlotState::kRecovering:
      return "RECOVERING";
  }
  return "?";
}

std::string text_of(const Error& error) {
  return fmt::format("{} ({} {})", describe(error.code), error.where, error.address);
}

struct Look {
  Executor& executor;
  BlockDevice& device;
  Random& random;
  Log& messages;
  const Geometry& geometry;
};

// The slot's journal, or nothing if it has none.
Task<std::optional<JournalState>> look_at(Look look, SlotNo slot, std::span<const std::byte> bytes, bool live) {
  JournalState journal;
  journal.slot = slot;
  journal.live = live;
  const auto ok = format::verify_slot_record(bytes, look.geometry.slot_record_offset(slot), look.geometry.fs_id);
  if (!ok) {
    journal.report = fail(ok.error());
    co_return journal;
  }
  format::SlotRecord record;
  std::memcpy(&record, bytes.data(), sizeof(record));
  journal.state = static_cast<format::SlotState>(record.state);
  journal.incarnation = Incarnation{record.incarnation.value()};
  journal.local = (record.flags & format::kSlotLocal) != 0;
  journal.host.assign(record.host_name.data(), strnlen(record.host_name.data(), record.host_name.size()));
  if (std::ranges::all_of(record.journal, [](const auto& extent) { return extent.count.value() == 0; })) {
    co_return std::nullopt;
  }
  if (live) co_return journal;
  auto place = journal_place(record, {slot, journal.incarnation}, look.geometry);
  if (!place) {
    journal.report = fail(place.error());
    co_return journal;
  }
  journal.report = co_await replay_journal({look.executor, look.device, look.geometry, look.random, look.messages},
                                           std::move(*place), ReplayMode::kDryRun);
  co_return journal;
}

std::string print_state(const JournalState& journal) {
  if (journal.live) return "live, not looked at";
  if (!journal.report) return "damaged: " + text_of(journal.report.error());
  const ReplayReport& report = *journal.report;
  if (journal.damaged()) return fmt::format("damaged: {} transactions, though the slot was left", report.records);
  if (report.empty && !journal.in_use()) return fmt::format("empty, {} blocks", report.ring_blocks);
  return fmt::format(
      "dead, {} transactions in {} of {} blocks; to be written: {} blocks ({} given up before, {} freed)",
      report.records, report.used_blocks, report.ring_blocks, report.applied, report.stale, report.revoked);
}

}  // namespace

Task<Result<std::vector<JournalState>>> look_at_journals(Executor& executor, BlockDevice& device, Random& random,
                                                         Log& messages, const format::Superblock& superblock) {
  const Geometry geometry = make_geometry(superblock);
  const auto live = co_await find_live_nodes(executor, device, superblock, LookFor::kEach);
  if (!live) co_return fail(live.error());
  IoBuffer table(std::size_t{kSlots} * kBlockSize);
  const auto got = co_await device.read(geometry.node_table.offset_bytes(), table.bytes());
  if (!got) co_return fail(got.error());

  std::vector<JournalState> journals;
  for (std::uint16_t i = 0; i < geometry.slots; ++i) {
    const auto bytes = table.bytes().subspan(std::size_t{i} * kBlockSize, geometry.logical_block);
    const bool is_live = std::ranges::count(live->slots, SlotNo{i}) > 0;
    auto journal = co_await look_at({executor, device, random, messages, geometry}, SlotNo{i}, bytes, is_live);
    if (journal) journals.push_back(std::move(*journal));
  }
  co_return journals;
}

std::string print_journals(const std::vector<JournalState>& journals) {
  std::string out;
  for (const JournalState& journal : journals) {
    out += fmt::format("slot {:2}  {:10}  incarnation {}{}{}{}  {}\n", journal.slot.value, name_of(journal.state),
                       journal.incarnation.value, journal.host.empty() ? "" : "  ", journal.host,
                       journal.local ? "  (local)" : "", print_state(journal));
  }
  return out;
}

}  // namespace cawfs
