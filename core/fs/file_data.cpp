#include "core/fs/file_data.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/fs/fs_context.h"

namespace cawfs {

namespace {

// Blocks promised once for a file's tree to grow in height.
constexpr std::uint64_t kPromiseOfFile = 8;
// A node of the tree holds at least so many extents.
constexpr std::uint64_t kExtentsPerNode = 64;

// What a run of `count` new blocks may need: each may become an extent of its own, inserted in order; a run that does
// not go on where another one ended may also split two nodes.
std::uint64_t cost_of_run(const DirtyData& data, std::uint64_t first, std::uint64_t count) {
  const std::uint64_t nodes = (first + count) / kExtentsPerNode - first / kExtentsPerNode;
  const bool goes_on = first > 0 && data.contains(first - 1);
  return count + nodes + (goes_on ? 0 : 2);
}

}  // namespace

DirtyChange::DirtyChange(FsContext& fs, const Inode& inode, const LockHold& hold)
    : DirtyChange(fs, inode.state(), hold.generation()) {}

DirtyChange::DirtyChange(FsContext& fs, InodeState& state, Generation tenure) : fs_(fs), state_(&state) {
  state.tenure = tenure;
}

DirtyChange::~DirtyChange() {
  const std::uint64_t bytes = state_->data.bytes();
  const std::uint64_t before = std::exchange(state_->accounted_bytes, bytes);
  fs_.dirty_bytes = fs_.dirty_bytes + bytes - before;
  if (bytes < before) fs_.dirty_less.notify_all();
  if (state_->data.empty() && state_->promised_blocks > 0) {
    fs_.space.unpromise(state_->promised_blocks);
    state_->promised_blocks = 0;
  }
  if (state_->dirty()) {
    const bool first = !state_->is_linked();
    fs_.inodes.mark_dirty(*state_, fs_.executor.now());
    if (first || bytes > before) fs_.dirty_more.notify_all();
  } else {
    fs_.inodes.mark_clean(*state_);
  }
}

Task<Result<bool>> promise_space(FsContext& fs, LockSet& locks, Inode inode, std::uint64_t first, std::uint64_t count) {
  FileMap map(fs.buffers, inode);
  auto runs = co_await map.map(first, count);
  if (!runs) co_return fail(runs.error());
  InodeState& state = inode.state();
  std::uint64_t blocks = 0;
  for (const MappedRun& run : *runs) {
    if (run.start.value != 0) continue;
    std::uint64_t at = run.first;
    const std::uint64_t end = run.first + run.count;
    while (at < end) {
      if (state.data.contains(at)) {
        ++at;
        continue;
      }
      const std::uint64_t next = std::min(state.data.next_dirty(at).value_or(end), end);
      blocks += cost_of_run(state.data, at, next - at);
      at = next;
    }
  }
  if (blocks == 0) co_return true;
  if (state.promised_blocks == 0) blocks += kPromiseOfFile;
  if (fs.space.try_promise(blocks)) {
    state.promised_blocks += blocks;
    co_return true;
  }
  const SpaceRequest request{.goal = {}, .data = blocks, .data_min = 0, .frees = {}};
  auto ready = co_await make_room(fs, locks, request);
  if (!ready) co_return fail(ready.error());
  co_return false;
}

bool data_is_inline(const Inode& inode) {
  const InodeState& state = inode.state();
  return inode.content() == format::InodeContent::kInline && state.data.empty() && !state.size;
}

Task<Result<bool>> move_inline_data(FsContext& fs, LockSet& locks, Inode inode, std::uint64_t size) {
  if (!data_is_inline(inode) || size <= inode.content_bytes() || inode.disk_size() == 0) co_return true;
  auto promised = co_await promise_space(fs, locks, inode, 0, 1);
  if (!promised || !*promised) co_return promised;
  DirtyChange change(fs, inode, locks.hold(inode.number()));
  auto memory = inode.state().data.make_dirty(0, 1);
  std::memcpy(memory.data(), inode.raw().area.data(), inode.disk_size());
  inode.state().size = inode.disk_size();
  co_return true;
}

Task<Result<>> load_block(FsContext& fs, Inode inode, std::uint64_t block, std::span<std::byte> out) {
  std::memset(out.data(), 0, out.size());
  const std::uint64_t begin = block << kBlockShift;
  if (begin >= inode.size()) co_return Result<>{};
  const std::uint64_t valid = std::min<std::uint64_t>(inode.size() - begin, kBlockSize);
  if (!has_extents(inode)) {
    // Inline data that is not dirty: only if it is the whole of it (move_inline_data() otherwise).
    if (block == 0) std::memcpy(out.data(), inode.raw().area.data(), std::min(valid, inode.disk_size()));
    co_return Result<>{};
  }
  FileMap map(fs.buffers, inode);
  auto runs = co_await map.map(block, 1);
  if (!runs) co_return fail(runs.error());
  if (!runs->front().readable()) co_return Result<>{};
  auto read = co_await fs.io.read(runs->front().start.offset_bytes(), out);
  if (!read) co_return read;
  std::memset(out.data() + valid, 0, out.size() - valid);
  co_return Result<>{};
}

}  // namespace cawfs
