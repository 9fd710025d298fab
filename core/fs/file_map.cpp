#include "core/fs/file_map.h"

#include <algorithm>
#include <cstring>

namespace cawfs {

namespace {

MappedRun run_of(const TreeEntry& record) {
  const auto extent = record.as<format::ExtentPayload>();
  return {record.key, extent.count.value(), BlockNo{extent.start.value()},
          (extent.flags.value() & format::kExtentUnwritten) != 0};
}

format::ExtentPayload payload_of(BlockNo start, std::uint64_t count, bool unwritten = false) {
  format::ExtentPayload payload;
  payload.start = start.value;
  payload.count = static_cast<std::uint32_t>(count);
  payload.flags = unwritten ? format::kExtentUnwritten : 0;
  return payload;
}

std::span<const std::byte> bytes_of(const format::ExtentPayload& payload) {
  return std::as_bytes(std::span(&payload, 1));
}

// The part of `run` within [first, end).
MappedRun part_of(const MappedRun& run, std::uint64_t first, std::uint64_t end) {
  const std::uint64_t from = std::max(run.first, first);
  const std::uint64_t to = std::min(run.first + run.count, end);
  return {from, to - from, run.start + (from - run.first), run.unwritten};
}

}  // namespace

void make_extent_root(format::Inode& raw, std::optional<BlockRange> first) {
  raw.content = static_cast<std::uint8_t>(format::InodeContent::kTree);
  raw.tree_kind = static_cast<std::uint16_t>(format::TreeKind::kExtents);
  raw.area.fill(0);
  if (!first) return;
  const auto payload = payload_of(first->start, first->count);
  format::TreeRecord record;
  record.key = 0;
  record.length = static_cast<std::uint16_t>(sizeof(payload));
  format::TreeRoot root{};
  root.count = 1;
  root.used = static_cast<std::uint16_t>(sizeof(record) + sizeof(payload));
  std::uint8_t* out = raw.area.data();
  std::memcpy(out, &root, sizeof(root));
  std::memcpy(out + sizeof(root), &record, sizeof(record));
  std::memcpy(out + sizeof(root) + sizeof(record), &payload, sizeof(payload));
}

bool has_extents(const Inode& inode) {
  return inode.content() == format::InodeContent::kTree;
}

FileMap::FileMap(BufferCache& buffers, const Inode& inode)
    : empty_(!has_extents(inode)), tree_(buffers, tree_of_inode(inode.buffer_ref(), inode.lock())) {}

Task<Result<std::vector<MappedRun>>> FileMap::map(std::uint64_t first, std::uint64_t count) {
  std::vector<MappedRun> runs;
  const std::uint64_t end = first + count;
  if (empty_) {
    runs.push_back({first, count, BlockNo{}, false});
    co_return runs;
  }
  std::uint64_t at = first;
  auto record = co_await tree_.at_or_before(first);
  if (!record) co_return fail(record.error());
  if (*record && run_of(**record).first + run_of(**record).count > first) {
    runs.push_back(part_of(run_of(**record), first, end));
    at = runs.back().first + runs.back().count;
  }
  while (at < end) {
    record = co_await tree_.at_or_after(at);
    if (!record) co_return fail(record.error());
    const std::uint64_t next = *record ? std::min((*record)->key, end) : end;
    if (next > at) runs.push_back({at, next - at, BlockNo{}, false});
    at = next;
    if (at == end) break;
    runs.push_back(part_of(run_of(**record), at, end));
    at = runs.back().first + runs.back().count;
  }
  co_return runs;
}

Task<Result<bool>> FileMap::any_from(std::uint64_t first) {
  if (empty_) co_return false;
  auto mapped = co_await end();
  if (!mapped) co_return fail(mapped.error());
  co_return *mapped > first;
}

Task<Result<std::uint64_t>> FileMap::end() {
  auto record = co_await tree_.at_or_before(UINT64_MAX - 1);
  if (!record) co_return fail(record.error());
  co_return *record ? run_of(**record).first + run_of(**record).count : 0;
}

Task<Result<>> FileMap::add(std::uint64_t first, BlockRange blocks) {
  auto before = co_await tree_.at_or_before(first);
  if (!before) co_return fail(before.error());
  std::optional<MappedRun> old;  // the extent before, or around
  if (*before) old = run_of(**before);
  if (old && old->first + old->count > first) {
    // An unwritten extent: what is left of it on both sides stays so.
    const std::uint64_t end = first + blocks.count;
    const std::uint64_t old_end = old->first + old->count;
    if (!old->unwritten || end > old_end) co_return fail(Errc::kBadValue, "extent", old->start.value);
    auto erased = co_await tree_.erase(old->first);
    if (!erased) co_return erased;
    if (old->first < first) {
      const auto left = payload_of(old->start, first - old->first, true);
      auto done = co_await tree_.insert(old->first, bytes_of(left));
      if (!done) co_return done;
    }
    if (end < old_end) {
      const auto right = payload_of(old->start + (end - old->first), old_end - end, true);
      auto done = co_await tree_.insert(end, bytes_of(right));
      if (!done) co_return done;
    }
  } else if (old && !old->unwritten && old->first + old->count == first && old->start + old->count == blocks.start &&
             old->count + blocks.count <= UINT32_MAX) {
    const auto joined = payload_of(old->start, old->count + blocks.count);
    auto done = co_await tree_.replace(old->first, bytes_of(joined));
    co_return done;
  }
  const auto payload = payload_of(blocks.start, blocks.count);
  auto done = co_await tree_.insert(first, bytes_of(payload));
  co_return done;
}

Task<Result<std::vector<BlockRange>>> FileMap::cut(std::uint64_t from, std::size_t limit, std::uint64_t most) {
  std::vector<BlockRange> freed;
  if (empty_) co_return freed;
  auto mapped = co_await end();
  if (!mapped) co_return fail(mapped.error());
  from = std::max(from, *mapped - std::min(*mapped, most));
  auto erased = co_await tree_.erase_last(from, limit);
  if (!erased) co_return fail(erased.error());
  for (const TreeEntry& record : *erased) freed.push_back({run_of(record).start, run_of(record).count});
  if (from == 0 || freed.size() == limit) co_return freed;
  auto record = co_await tree_.at_or_before(from - 1);
  if (!record) co_return fail(record.error());
  if (!*record) co_return freed;
  const MappedRun run = run_of(**record);
  if (run.first + run.count <= from) co_return freed;
  const std::uint64_t kept = from - run.first;
  const auto payload = payload_of(run.start, kept, run.unwritten);
  auto replaced = co_await tree_.replace(run.first, bytes_of(payload));
  if (!replaced) co_return fail(replaced.error());
  freed.push_back({run.start + kept, run.count - kept});
  co_return freed;
}

}  // namespace cawfs
