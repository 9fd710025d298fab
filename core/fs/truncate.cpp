#include "core/fs/truncate.h"

#include <algorithm>
#include <cstring>

#include "core/fs/file_data.h"
#include "core/fs/file_map.h"
#include "core/fs/fs_context.h"
#include "core/fs/link_count.h"

namespace cawfs {

namespace {

constexpr std::uint32_t kMostExtentsAtOnce = 64;

struct CutStep {
  bool more = false;                 // there may be more to be cut off
  std::optional<SpaceRequest> room;  // nothing was done: make_room() with this and start over
};

bool all_zero(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

// Before a file grows past `size`: the old bytes behind it in its last block must read as zeros.
Task<Result<>> zero_tail(FsContext& fs, Inode inode, const LockHold& hold) {
  const std::uint64_t size = inode.size();
  const std::uint64_t last = size >> kBlockShift;
  const std::size_t kept = size % kBlockSize;
  if (kept == 0 || !has_extents(inode) || inode.state().data.contains(last)) co_return Result<>{};
  FileMap map(fs.buffers, inode);
  auto runs = co_await map.map(last, 1);
  if (!runs) co_return fail(runs.error());
  if (!runs->front().readable()) co_return Result<>{};
  IoBuffer block(kBlockSize);
  auto read = co_await fs.io.read(runs->front().start.offset_bytes(), block.bytes());
  if (!read) co_return read;
  if (all_zero(block.bytes().subspan(kept))) co_return Result<>{};
  DirtyChange change(fs, inode, hold);
  auto memory = inode.state().data.make_dirty(last, 1);
  std::memcpy(memory.data(), block.data(), kept);
  co_return Result<>{};
}

void cut_dirty_data(DirtyData& data, std::uint64_t size) {
  data.clean(blocks_for(size), UINT64_MAX);
  if (size % kBlockSize == 0 || !data.contains(size >> kBlockShift)) return;
  auto memory = data.make_dirty(size >> kBlockShift, 1);
  std::memset(memory.data() + size % kBlockSize, 0, kBlockSize - size % kBlockSize);
}

// In a transaction that has the inode's block, which gets the new size, unless that has to wait for data not written
// yet.
void change_size(FsContext& fs, Inode inode, const LockHold& hold, std::uint64_t size) {
  InodeState& state = inode.state();
  DirtyChange change(fs, inode, hold);
  if (size < inode.size()) cut_dirty_data(state.data, size);
  const bool waits = !state.data.empty() || (!has_extents(inode) && size > inode.content_bytes());
  const std::uint64_t stored = waits ? std::min(size, inode.disk_size()) : size;
  format::Inode& raw = inode.raw();
  if (!has_extents(inode) && stored < inode.disk_size()) {
    std::memset(raw.area.data() + stored, 0, inode.disk_size() - stored);
  }
  raw.size = stored;
  raw.version = raw.version.value() + 1;
  state.size.reset();
  if (waits) state.size = size;
  touch(fs, inode, true);
}

// Frees some of what is mapped at block `from` and after it, in one transaction, and where `size` is given sets the
// file's size to it in the same one: after a crash the file is as it was or as it is to be.
Task<Result<CutStep>> cut_step(FsContext& fs, Inode inode, const LockHold& hold, std::uint64_t from,
                               std::optional<std::uint64_t> size) {
  const std::uint32_t most = fs.log.max_credits();
  std::size_t extents = std::clamp<std::uint32_t>(most / 8, 1, kMostExtentsAtOnce);
  std::uint64_t file_blocks = UINT64_MAX;
  for (;;) {
    FileMap map(fs.buffers, inode);
    auto freed = co_await map.cut(from, extents, file_blocks);
    if (!freed) co_return fail(freed.error());
    auto more = co_await map.any_from(from);
    if (!more) co_return fail(more.error());
    if (freed->empty() && !size && !(inode.flags() & format::kInodeCutting)) co_return CutStep{};
    SpaceRequest request{.goal = {}, .metadata = map.needs().new_blocks, .frees = *freed};
    add_frees(request.frees, map.needs());
    auto space = fs.space.try_reserve(request);
    if (!space && space.error().code == Errc::kAgain) co_return CutStep{true, std::move(request)};
    if (!space) co_return fail(space.error());
    const std::uint32_t credits = 1 + map.needs().credits + space->credits();
    if (credits > most && extents > 1) {
      extents /= 2;
      continue;
    }
    // One extent, in more bitmaps than a transaction takes.
    if (credits > most && freed->size() == 1 && freed->front().count > 1) {
      file_blocks = freed->front().count / 2;
      continue;
    }

    const std::uint64_t nodes_freed = map.needs().freed.size();
    const std::uint64_t nodes_added = map.needs().new_blocks;
    auto tx = co_await fs.log.begin(credits);
    if (!tx) co_return fail(tx.error());
    tx->change(inode.buffer(), hold);
    map.apply(*tx, hold, *space);
    std::uint64_t blocks = nodes_freed;
    for (const BlockRange& range : *freed) {
      space->free_data(*tx, range);
      blocks += range.count;
    }
    format::Inode& raw = inode.raw();
    raw.blocks = raw.blocks.value() + nodes_added - blocks;
    raw.flags = *more ? inode.flags() | format::kInodeCutting : inode.flags() & ~format::kInodeCutting;
    if (size) {
      change_size(fs, inode, hold, *size);
    } else {
      touch(fs, inode, false);
    }
    co_return CutStep{*more, std::nullopt};
  }
}

// Cuts all of it off, and sets the size where it is given. False: the locks were let go, start over.
Task<Result<bool>> cut(FsContext& fs, LockSet& locks, Inode inode, std::uint64_t from,
                       std::optional<std::uint64_t> size) {
  for (bool more = true; more; size.reset()) {
    auto step = co_await cut_step(fs, inode, locks.hold(inode.number()), from, size);
    if (!step) co_return fail(step.error());
    if (step->room) {
      auto ready = co_await make_room(fs, locks, *step->room);
      if (!ready) co_return fail(ready.error());
      co_return false;
    }
    more = step->more;
  }
  co_return true;
}

}  // namespace

Task<Result<bool>> cut_from(FsContext& fs, LockSet& locks, Inode inode, std::uint64_t from) {
  auto done = co_await cut(fs, locks, inode, from, std::nullopt);
  co_return done;
}

Task<Result<bool>> prepare_growth(FsContext& fs, LockSet& locks, Inode inode) {
  auto done = co_await cut_from(fs, locks, inode, blocks_for(inode.size()));
  if (!done || !*done) co_return done;
  auto zeroed = co_await zero_tail(fs, inode, locks.hold(inode.number()));
  if (!zeroed) co_return fail(zeroed.error());
  co_return true;
}

Task<Result<bool>> set_size(FsContext& fs, LockSet& locks, Inode inode, std::uint64_t size) {
  if (size > inode.size()) {
    auto ready = co_await prepare_growth(fs, locks, inode);
    if (!ready || !*ready) co_return ready;
    auto inlined = co_await move_inline_data(fs, locks, inode, size);
    if (!inlined || !*inlined) co_return inlined;
  }
  auto done = co_await cut(fs, locks, inode, blocks_for(size), size);
  co_return done;
}

}  // namespace cawfs
