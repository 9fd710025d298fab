#include "mount/mapped_writes.h"

#include <algorithm>
#include <cstring>

#include "core/device/io_buffer.h"

namespace cawfs {

namespace {

// Differing bytes closer together than this are written as one run.
constexpr std::size_t kJoinGap = 16;
constexpr Duration kTryAgain = std::chrono::milliseconds(1);

// The end of the run of differing bytes that starts at `begin`.
std::size_t end_of_run(std::span<const std::byte> before, std::span<const std::byte> after, std::size_t begin) {
  std::size_t end = begin + 1;
  for (std::size_t i = end; i < after.size() && i - end < kJoinGap; ++i) {
    if (before[i] != after[i]) end = i + 1;
  }
  return end;
}

}  // namespace

Task<void> MappedWrites::room(InodeNo inode, std::uint64_t bytes) {
  while (bytes_ > 0 && bytes_ + bytes > limit_ && !dropped_(inode)) co_await changed_.wait();
}

Task<Result<>> MappedWrites::accept(InodeNo inode, std::uint64_t offset, std::span<const std::byte> data) {
  co_await room(inode, data.size());
  // All of it may differ.
  bytes_ += data.size();
  IoBuffer before(data.size());
  auto got = co_await operations_.read(inode, offset, before.bytes(), false);
  bytes_ -= data.size();
  changed_.notify_all();
  if (!got) co_return fail(got.error());
  // Past the end of the file there is nothing to write: a map cannot make a file longer.
  const auto old = before.bytes().first(std::min(*got, data.size()));
  overlay(inode, offset, old);
  Runs runs = differences(offset, old, data.first(old.size()));
  if (runs.empty()) co_return Result<>{};
  for (const Run& run : runs) bytes_ += run.memory();
  auto& kept = kept_[inode];
  const bool writing = !kept.empty();
  kept.splice(kept.end(), runs);
  if (!writing) writers_.spawn(write_back(inode));
  co_return Result<>{};
}

MappedWrites::Runs MappedWrites::differences(std::uint64_t offset, std::span<const std::byte> old,
                                             std::span<const std::byte> now) {
  Runs runs;
  for (std::size_t i = 0; i < now.size();) {
    if (old[i] == now[i]) {
      ++i;
      continue;
    }
    const std::size_t end = end_of_run(old, now, i);
    const auto run = now.subspan(i, end - i);
    runs.push_back({++last_run_, offset + i, std::vector<std::byte>(run.begin(), run.end())});
    i = end;
  }
  return runs;
}

void MappedWrites::overlay(InodeNo inode, std::uint64_t offset, std::span<std::byte> data) const {
  auto kept = kept_.find(inode);
  if (kept == kept_.end()) return;
  for (const Run& run : kept->second) {
    const std::uint64_t begin = std::max(offset, run.offset);
    const std::uint64_t end = std::min(offset + data.size(), run.offset + run.bytes.size());
    if (begin >= end) continue;
    std::memcpy(data.data() + (begin - offset), run.bytes.data() + (begin - run.offset), end - begin);
  }
}

Task<void> MappedWrites::write_back(InodeNo inode) {
  while (true) {
    // References into the map stay valid: only this task removes the inode's entry.
    Runs& kept = kept_.at(inode);
    if (kept.empty()) break;
    const Run& run = kept.front();
    auto written = co_await operations_.write_within(inode, run.offset, run.bytes);
    if (!written && written.error().code == Errc::kAgain) {
      ++yields_[inode];
      changed_.notify_all();
      co_await executor_.sleep(kTryAgain);
      continue;
    }
    if (!written) {
      log_.error("inode {}: {} bytes written through a map are lost: {}", inode.value, run.bytes.size(),
                 describe(written.error().code));
      operations_.note_lost(inode, written.error());
    }
    bytes_ -= run.memory();
    kept.pop_front();
    changed_.notify_all();
  }
  kept_.erase(inode);
  yields_.erase(inode);
  changed_.notify_all();
}

bool MappedWrites::keeps(InodeNo inode, std::uint64_t offset, std::uint64_t length, std::uint64_t up_to) const {
  auto kept = kept_.find(inode);
  if (kept == kept_.end()) return false;
  return std::ranges::any_of(kept->second, [&](const Run& run) {
    return run.number <= up_to && run.offset < offset + length && offset < run.offset + run.bytes.size();
  });
}

Task<void> MappedWrites::wait(InodeNo inode, std::uint64_t offset, std::uint64_t length) {
  const std::uint64_t up_to = last_run_;
  while (keeps(inode, offset, length, up_to)) co_await changed_.wait();
}

Task<void> MappedWrites::wait(InodeNo inode) {
  while (kept_.contains(inode)) co_await changed_.wait();
}

Task<Result<>> MappedWrites::wait_or_yield(InodeNo inode) {
  auto yields = yields_.find(inode);
  const std::uint64_t before = yields == yields_.end() ? 0 : yields->second;
  while (kept_.contains(inode)) {
    co_await changed_.wait();
    yields = yields_.find(inode);
    if (yields != yields_.end() && yields->second > before) co_return fail(Errc::kAgain, "map", inode.value);
  }
  co_return Result<>{};
}

Task<void> MappedWrites::drain() {
  co_await writers_.join();
}

}  // namespace cawfs
