// What clients do to files: cells and logs.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "tests/sim/workload.h"

namespace cawfs::sim {

namespace {

constexpr std::uint64_t kRecordMagic = 0xcaf5'0000'0000'0000;
constexpr std::size_t kLogBytes = 512 << 10;  // a log grows no further, but for what is being appended
constexpr std::size_t kAppendedMeanwhile = 64 << 10;
constexpr std::uint64_t kTreeExtents = 300;  // an inode has no room for so many

std::string cell_name(std::uint64_t cell) {
  return fmt::format("#{}", cell);
}

std::vector<Value> words(std::span<const std::byte> bytes) {
  std::vector<Value> all(bytes.size() / sizeof(Value));
  if (!all.empty()) std::memcpy(all.data(), bytes.data(), all.size() * sizeof(Value));
  return all;
}

// {magic | bytes, tag, tag, ...}
std::vector<Value> make_record(Value tag, std::uint64_t count) {
  std::vector<Value> record(count, tag);
  record[0] = kRecordMagic | count * sizeof(Value);
  return record;
}

// The records of a log; what is none is passed over and told.
std::vector<LogRecord> parse_log(const std::vector<Value>& log, bool& garbage) {
  std::vector<LogRecord> records;
  for (std::size_t at = 0; at < log.size();) {
    const std::uint64_t count = (log[at] ^ kRecordMagic) / sizeof(Value);
    const bool whole = count >= 3 && count <= log.size() - at &&
                       std::all_of(log.begin() + static_cast<std::ptrdiff_t>(at) + 1,
                                   log.begin() + static_cast<std::ptrdiff_t>(at + count),
                                   [&](Value word) { return word == log[at + 1]; });
    if (whole) {
      records.push_back({log[at + 1], at * sizeof(Value)});
      at += count;
    } else {
      garbage = true;
      ++at;
    }
  }
  return records;
}

}  // namespace

Task<void> Client::write_cell(CellFile file) {
  begin("write");
  const std::uint64_t cell = random_.below(file.cells);
  const Value tag = ++workload_.last_tag;
  const std::vector<Value> data(file.cell_bytes / sizeof(Value), tag);
  const bool direct = file.cell_bytes == kBlockSize && random_.one_in(3);
  auto call = history_.invoke(run_);
  history_.will_write(call, {file.key, cell_name(cell)}, tag);
  auto wrote =
      co_await fs_.write(file.key.inode, cell * file.cell_bytes, std::as_bytes(std::span(data)), false, direct, false);
  if (!wrote) {
    refused(call, wrote.error());
    co_return;
  }
  history_.done(call);
  history_.used(call, file.key);
  if (direct) ++workload_.counts["operation: direct write"];
}

Task<void> Client::read_cells(CellFile file, std::uint64_t first, std::uint64_t count) {
  begin("read");
  count = std::min(count, file.cells - first);
  std::vector<std::byte> bytes(count * file.cell_bytes);
  auto call = history_.invoke(run_);
  auto read = co_await answer(fs_.read(file.key.inode, first * file.cell_bytes, bytes, false));
  if (!read) {
    refused(call, read.error());
    co_return;
  }
  std::fill(bytes.begin() + static_cast<std::ptrdiff_t>(*read), bytes.end(), std::byte{0});
  for (std::uint64_t i = 0; i < count; ++i) {
    const RegisterKey key{file.key, cell_name(first + i)};
    const auto found = words(std::span(bytes).subspan(i * file.cell_bytes, file.cell_bytes));
    const std::set<Value> tags(found.begin(), found.end());
    if (tags.size() == 1) {
      history_.saw(call, key, *tags.begin());
    } else {
      history_.saw_torn(call, key, {tags.begin(), tags.end()});
      ++workload_.counts["cell torn by a crash"];
    }
  }
  history_.used(call, file.key);
}

Task<void> Client::truncate(CellFile file) {
  begin("truncate");
  const std::uint64_t left = random_.below(file.cells);
  auto call = history_.invoke(run_);
  for (std::uint64_t cell = left; cell < file.cells; ++cell) {
    history_.will_write(call, {file.key, cell_name(cell)}, kNothing);
  }
  AttributeChange change;
  change.size = left * file.cell_bytes;
  auto done = co_await answer(fs_.setattr(file.key.inode, change));
  if (!done) {
    refused(call, done.error());
    co_return;
  }
  history_.done(call);
  history_.used(call, file.key);
}

Task<void> Client::sync_object(ObjectKey object) {
  begin("fsync");
  auto call = history_.invoke(run_);
  auto synced = co_await fs_.sync(object.inode, random_.one_in(2));
  if (!synced) {
    refused(call, synced.error());
    co_return;
  }
  history_.done(call);
  history_.used(call, object, true);
}

Task<void> Client::sync_all() {
  begin("syncfs");
  auto call = history_.invoke(run_);
  auto synced = co_await fs_.sync_all();
  if (!synced) {
    refused(call, synced.error());
    co_return;
  }
  history_.done(call);
  history_.synced_all(call);
}

// One block in two, so that each is an extent of its own.
Task<void> Client::grow_tree() {
  begin("grow a tree");
  const std::array<std::byte, 8> bytes{};
  auto call = history_.invoke(run_);
  for (std::uint64_t i = 0; i < kTreeExtents; ++i) {
    auto wrote = co_await fs_.write(workload_.tree.inode, 2 * i * kBlockSize, bytes, false, false, false);
    if (wrote) continue;
    refused(call, wrote.error());
    co_return;
  }
  co_await sync_object(workload_.tree);
}

Task<void> Client::cut_tree() {
  begin("cut a tree");
  auto call = history_.invoke(run_);
  AttributeChange change;
  change.size = 0;
  auto done = co_await answer(fs_.setattr(workload_.tree.inode, change));
  if (!done) {
    refused(call, done.error());
    co_return;
  }
  co_await sync_object(workload_.tree);
}

Task<void> Client::append(ObjectKey log) {
  if (workload_.log_bytes[log] > kLogBytes - kAppendedMeanwhile) {
    co_await read_log(log);
    co_return;
  }
  begin("append");
  const Value tag = ++workload_.last_tag;
  const auto record = make_record(tag, 3 + random_.below(100));
  auto call = history_.invoke(run_);
  history_.will_append(call, log, tag);
  auto wrote = co_await fs_.write(log.inode, 0, std::as_bytes(std::span(record)), true, false, false);
  if (!wrote) {
    refused(call, wrote.error());
    co_return;
  }
  std::uint64_t& bytes = workload_.log_bytes[log];
  bytes = std::max(bytes, wrote->offset + wrote->count);
  history_.done(call);
  history_.appended_at(call, wrote->offset);
  history_.used(call, log);
}

Task<void> Client::read_log(ObjectKey log) {
  begin("read log");
  std::vector<std::byte> bytes(kLogBytes);
  auto call = history_.invoke(run_);
  auto read = co_await answer(fs_.read(log.inode, 0, bytes, false));
  if (!read) {
    refused(call, read.error());
    co_return;
  }
  if (*read == bytes.size()) workload_.complain("a log has outgrown its reader");
  bool garbage = false;
  auto records = parse_log(words(std::span(bytes).first(*read)), garbage);
  history_.saw_log(call, log, std::move(records), garbage || *read % sizeof(Value) != 0);
  history_.used(call, log);
}

}  // namespace cawfs::sim
