// write: into the inode while the data fits there, else into dirty data, or in place where it is direct, aligned and
// its blocks are there.
#include <algorithm>
#include <cstring>

#include "core/fs/file_data.h"
#include "core/fs/fs_context.h"
#include "core/fs/operations.h"
#include "core/fs/truncate.h"
#include "core/fs/write_back.h"

namespace cawfs {

namespace {

Result<> check_writable_file(const Inode& inode) {
  if (inode.directory()) return fail(Errc::kIsDirectory);
  if (!inode.regular()) return fail(Errc::kInvalid);
  return {};
}

bool must_kill(const Inode& inode, bool asked) {
  return asked && without_privileges(inode.mode()) != inode.mode();
}

// Small data goes into the inode's block with its metadata.
Task<Result<>> write_inline(FsContext& fs, Inode inode, const LockHold& hold, std::uint64_t offset,
                            std::span<const std::byte> data, bool kill) {
  auto tx = co_await fs.log.begin(1);
  if (!tx) co_return fail(tx.error());
  tx->change(inode.buffer(), hold);
  format::Inode& raw = inode.raw();
  std::memcpy(raw.area.data() + offset, data.data(), data.size());
  raw.size = std::max(inode.disk_size(), offset + data.size());
  raw.version = raw.version.value() + 1;
  if (kill) raw.mode = without_privileges(inode.mode());
  touch(fs, inode, true);
  co_return Result<>{};
}

Task<Result<>> kill_privileges(FsContext& fs, Inode inode, const LockHold& hold) {
  auto tx = co_await fs.log.begin(1);
  if (!tx) co_return fail(tx.error());
  tx->change(inode.buffer(), hold);
  inode.raw().mode = without_privileges(inode.mode());
  touch(fs, inode, false);
  co_return Result<>{};
}

// Copies the data into dirty blocks; the first and the last one are completed from the device first.
Task<Result<>> write_dirty(FsContext& fs, Inode inode, std::uint64_t offset, std::span<const std::byte> data) {
  InodeState& state = inode.state();
  const std::uint64_t end = offset + data.size();
  const std::uint64_t first = offset >> kBlockShift;
  const std::uint64_t last = (end - 1) >> kBlockShift;
  IoBuffer head;
  IoBuffer tail;
  if (offset % kBlockSize != 0 && !state.data.contains(first)) {
    head = IoBuffer(kBlockSize);
    auto loaded = co_await load_block(fs, inode, first, head.bytes());
    if (!loaded) co_return loaded;
  }
  // Behind the end of the file there is nothing to be kept.
  const bool tail_matters = end % kBlockSize != 0 && end < inode.size() && !state.data.contains(last);
  if (tail_matters && !(last == first && head.size() > 0)) {
    tail = IoBuffer(kBlockSize);
    auto loaded = co_await load_block(fs, inode, last, tail.bytes());
    if (!loaded) co_return loaded;
  }
  if (head.size() > 0) std::memcpy(state.data.make_dirty(first, 1).data(), head.data(), kBlockSize);
  if (tail.size() > 0) std::memcpy(state.data.make_dirty(last, 1).data(), tail.data(), kBlockSize);

  std::uint64_t at = offset;
  while (at < end) {
    const std::uint64_t block = at >> kBlockShift;
    const std::uint64_t chunk_end = (block / DirtyData::kChunkBlocks + 1) * DirtyData::kChunkBlocks;
    const std::uint64_t blocks = std::min(last + 1, chunk_end) - block;
    auto memory = state.data.make_dirty(block, blocks).subspan(at % kBlockSize);
    const std::uint64_t count = std::min<std::uint64_t>(memory.size(), end - at);
    std::memcpy(memory.data(), data.data() + (at - offset), count);
    at += count;
  }
  if (end > inode.size()) state.size = end;
  state.modified_ns = fs.wall_ns();
  co_return Result<>{};
}

// With the lock EX. Empty: the locks were let go, start over. Else the offset written at.
Task<Result<std::optional<std::uint64_t>>> try_write(FsContext& fs, LockSet& locks, Inode inode, WriteRequest request) {
  const LockHold& hold = locks.hold(inode.number());
  const std::uint64_t offset = request.append ? inode.size() : request.offset;
  if (request.within) {
    const std::uint64_t room = inode.size() - std::min(offset, inode.size());
    request.data = request.data.first(std::min<std::uint64_t>(request.data.size(), room));
  }
  if (offset > kFileSizeMax || request.data.size() > kFileSizeMax - offset) co_return fail(Errc::kFileTooBig);
  if (request.data.empty()) co_return offset;
  const std::uint64_t end = offset + request.data.size();
  const bool kill = must_kill(inode, request.kill_suid_sgid);
  if (data_is_inline(inode) && end <= inode.content_bytes()) {
    auto written = co_await write_inline(fs, inode, hold, offset, request.data, kill);
    if (!written) co_return fail(written.error());
    co_return offset;
  }
  if (end > inode.size()) {
    auto ready = co_await prepare_growth(fs, locks, inode);
    if (!ready) co_return fail(ready.error());
    if (!*ready) co_return std::optional<std::uint64_t>();
  }
  auto moved = co_await move_inline_data(fs, locks, inode, end);
  if (!moved) co_return fail(moved.error());
  if (!*moved) co_return std::optional<std::uint64_t>();
  const std::uint64_t first = offset >> kBlockShift;
  auto promised = co_await promise_space(fs, locks, inode, first, blocks_for(end) - first);
  if (!promised) co_return fail(promised.error());
  if (!*promised) co_return std::optional<std::uint64_t>();
  // Not before: where the locks were let go, its end would take back what another writer has been promised meanwhile.
  DirtyChange change(fs, inode, hold);
  if (kill) {
    auto killed = co_await kill_privileges(fs, inode, hold);
    if (!killed) co_return fail(killed.error());
  }
  auto written = co_await write_dirty(fs, inode, offset, request.data);
  if (!written) co_return fail(written.error());
  co_return offset;
}

// A direct write that needs no new block and changes no size goes in place beside other users. False: it is not one.
Task<Result<bool>> try_in_place(FsContext& fs, WriteRequest request) {
  const std::uint64_t unit = fs.geometry.logical_block;
  if (request.append || request.data.empty() || request.offset % unit != 0 || request.data.size() % unit != 0 ||
      request.offset > kFileSizeMax) {
    co_return false;
  }
  LockSet locks = fs.lock_set();
  locks.want(lock_of(request.inode), LockMode::kExclusive, LocalUse::kShared);
  auto taken = co_await locks.take();
  if (!taken) co_return fail(taken.error());
  auto inode = co_await read_inode(fs, request.inode);
  if (!inode) co_return fail(inode.error());
  if (auto good = check_writable_file(*inode); !good) co_return fail(good.error());
  const std::uint64_t end = request.offset + request.data.size();
  if (!has_extents(*inode) || end > inode->size() || must_kill(*inode, request.kill_suid_sgid)) co_return false;
  const std::uint64_t first = request.offset >> kBlockShift;
  const auto dirty = inode->state().data.next_dirty(first);
  if (dirty && *dirty < blocks_for(end)) co_return false;
  FileMap map(fs.buffers, *inode);
  auto runs = co_await map.map(first, blocks_for(end) - first);
  if (!runs) co_return fail(runs.error());
  std::vector<SettledIo::Write> writes;
  for (const MappedRun& run : *runs) {
    if (!run.readable()) co_return false;
    const std::uint64_t begin = std::max(request.offset, run.first << kBlockShift);
    const std::uint64_t stop = std::min(end, (run.first + run.count) << kBlockShift);
    writes.push_back({run.start.offset_bytes() + begin - (run.first << kBlockShift),
                      request.data.subspan(begin - request.offset, stop - begin)});
  }
  auto written = co_await fs.io.write_all(std::move(writes), Durability::kCached);
  fs.log.data_written();  // some of it at least, where it failed
  if (!written) co_return fail(written.error());
  DirtyChange change(fs, *inode, locks.hold(request.inode));
  inode->state().modified_ns = fs.wall_ns();
  co_return true;
}

// What there is no space for as a whole may fit in part. The rest is the caller's next write.
bool cut_in_half(WriteRequest& request) {
  if (request.within || request.data.size() <= kBlockSize) return false;
  request.data = request.data.first(std::max(kBlockSize, request.data.size() / 2 / kBlockSize * kBlockSize));
  return true;
}

// What a direct write left in memory goes to the device. `known`: the write-back errors from before the write.
Task<Result<>> write_through(FsContext& fs, InodeNo number, WriteErrorMark known) {
  auto written = co_await write_back_inode(fs, number);
  if (!written) co_return written;
  const InodePin state = fs.inodes.find(number);
  if (state) written = state->write_errors.tell(known);
  if (!written) co_return written;
  // Data that went into the inode's block.
  const BufferRef buffer = fs.buffers.find(number.block());
  if (!buffer || buffer->last_change().value == 0 ||
      buffer->as<format::Inode>().content != static_cast<std::uint8_t>(format::InodeContent::kInline)) {
    co_return Result<>{};
  }
  auto committed = co_await fs.log.commit(buffer->last_change());
  co_return committed;
}

}  // namespace

Task<Result<Written>> write_file(FsContext& fs, WriteRequest request) {
  if (auto good = check_writable(fs); !good) co_return fail(good.error());
  auto known = co_await check_number(fs, request.inode);
  if (!known) co_return fail(known.error());
  if (request.direct) {
    auto in_place = co_await try_in_place(fs, request);
    if (!in_place) co_return fail(in_place.error());
    if (*in_place) co_return Written{request.offset, request.data.size()};
  }
  LockSet locks = fs.lock_set();
  if (request.within) locks.refuse_when_pressed();
  locks.want_write(request.inode);
  for (;;) {
    locks.drop();
    auto room = co_await wait_for_dirty_room(fs, request.data.size());
    if (!room) co_return fail(room.error());
    auto taken = co_await locks.take();
    if (!taken) co_return fail(taken.error());
    auto inode = co_await read_inode(fs, request.inode);
    if (!inode) co_return fail(inode.error());
    if (auto good = check_writable_file(*inode); !good) co_return fail(good.error());
    const WriteErrorMark earlier{inode->state().write_errors.count()};
    auto written = co_await try_write(fs, locks, *inode, request);
    if (!written && written.error() == Errc::kNoSpace && cut_in_half(request)) continue;
    if (!written) co_return fail(written.error());
    if (!*written) continue;
    locks.drop();
    if (request.direct && !request.data.empty()) {
      auto through = co_await write_through(fs, request.inode, earlier);
      if (!through) co_return fail(through.error());
    }
    co_return Written{**written, request.data.size()};
  }
}

}  // namespace cawfs
