#include <algorithm>
#include <vector>

#include "core/fs/file_data.h"
#include "core/fs/file_map.h"
#include "core/fs/fs_context.h"
#include "core/fs/link_count.h"
#include "core/fs/write_back.h"

namespace cawfs {

namespace {

constexpr std::uint64_t kBlocksAtOnce = 1024;
// So many extents surely fit into an inode's root, where inline data becomes blocks.
constexpr std::uint64_t kBlocksWithInline = 100;

// A part of the dirty data that lies together in memory, and on the device or will.
struct Piece {
  std::uint64_t first = 0;  // block of the file
  BlockNo start;            // on the device; 0: to be found
  std::span<const std::byte> bytes;
  bool unwritten = false;
  std::uint64_t count() const { return bytes.size() / kBlockSize; }
};

class Step {
 public:
  Step(FsContext& fs, Inode inode, const LockHold& hold)
      : fs_(fs), inode_(std::move(inode)), hold_(hold), map_(fs.buffers, inode_) {}

  Task<Result<std::optional<SpaceRequest>>> run();

 private:
  enum class Fit : std::uint8_t { kFits, kTooLarge };

  Task<Result<>> gather(std::uint64_t limit);
  Result<std::optional<SpaceRequest>> reserve_data();
  Task<Result<>> place();
  Result<std::optional<SpaceRequest>> reserve_nodes();
  std::uint32_t credits();
  Task<Result<>> write();
  Task<Result<>> store();
  void store_extents(TxHandle& tx);
  void store_attributes();
  void finish();
  void lose(const Error& error);
  std::uint64_t take_promise(std::uint64_t blocks);

  InodeState& state() { return inode_.state(); }
  bool nothing_to_store() { return placed_.empty() && !state().size && !state().modified_ns; }

  FsContext& fs_;
  Inode inode_;
  const LockHold& hold_;
  FileMap map_;
  std::vector<Piece> pieces_;
  std::vector<Piece> placed_;  // those that the file's map does not have yet
  std::uint64_t new_blocks_ = 0;
  std::uint64_t promise_used_ = 0;  // by the reservations
  std::uint64_t end_ = 0;           // of the last piece, block of the file
  bool complete_ = true;            // nothing dirty is left behind it
  BlockNo goal_;
  Reservation data_space_;
  Reservation node_space_;
};

// What is dirty, from the start of the file, cut where the file's map has a border.
Task<Result<>> Step::gather(std::uint64_t limit) {
  std::uint64_t at = 0;
  std::uint64_t blocks = 0;
  goal_ = inode_.number().block();
  while (blocks < limit) {
    const auto run = state().data.next_run(at, limit - blocks);
    if (!run) break;
    auto parts = co_await map_.map(run->first, run->count);
    if (!parts) co_return fail(parts.error());
    for (const MappedRun& part : *parts) {
      const auto bytes = run->bytes.subspan((part.first - run->first) * kBlockSize, part.count * kBlockSize);
      pieces_.push_back({part.first, part.start, bytes, part.unwritten});
      if (part.start.value == 0) new_blocks_ += part.count;
    }
    blocks += run->count;
    at = run->first + run->count;
  }
  end_ = at;
  complete_ = !state().data.next_dirty(at);
  const auto first_hole = std::find_if(pieces_.begin(), pieces_.end(), [](const Piece& p) { return !p.start.value; });
  if (first_hole == pieces_.end() || first_hole->first == 0) co_return Result<>{};
  auto before = co_await map_.map(first_hole->first - 1, 1);
  if (!before) co_return fail(before.error());
  if (before->front().start.value != 0) goal_ = before->front().start + 1;
  co_return Result<>{};
}

std::uint64_t Step::take_promise(std::uint64_t blocks) {
  return std::min(blocks, state().promised_blocks);
}

Result<std::optional<SpaceRequest>> Step::reserve_data() {
  if (new_blocks_ == 0) return std::optional<SpaceRequest>();
  SpaceRequest request{
      .goal = goal_, .data = new_blocks_, .data_min = 0, .promised = take_promise(new_blocks_), .frees = {}};
  auto space = fs_.space.try_reserve(request);
  if (!space && space.error().code == Errc::kAgain) return std::optional<SpaceRequest>(std::move(request));
  if (!space) return fail(space.error());
  data_space_ = std::move(*space);
  promise_used_ += request.promised;
  return std::optional<SpaceRequest>();
}

// Hands the reserved runs to the pieces without blocks and plans the map's change.
Task<Result<>> Step::place() {
  std::size_t run = 0;
  std::uint64_t used = 0;  // of that run
  for (Piece& piece : pieces_) {
    if (piece.start.value != 0) {
      if (piece.unwritten) placed_.push_back(piece);
      continue;
    }
    std::uint64_t done = 0;
    while (done < piece.count()) {
      const BlockRange& from = data_space_.runs()[run];
      const std::uint64_t count = std::min(piece.count() - done, from.count - used);
      placed_.push_back(
          {piece.first + done, from.start + used, piece.bytes.subspan(done * kBlockSize, count * kBlockSize), false});
      done += count;
      used += count;
      if (used == from.count) {
        ++run;
        used = 0;
      }
    }
  }
  if (!has_extents(inode_)) co_return Result<>{};  // planned when the root is there
  for (const Piece& piece : placed_) {
    auto planned = co_await map_.add(piece.first, {piece.start, piece.count()});
    if (!planned) co_return planned;
  }
  co_return Result<>{};
}

Result<std::optional<SpaceRequest>> Step::reserve_nodes() {
  if (!map_.has_changes()) return std::optional<SpaceRequest>();
  const TreeNeeds& needs = map_.needs();
  if (needs.new_blocks == 0 && needs.freed.empty()) return std::optional<SpaceRequest>();
  const std::uint64_t promised = state().promised_blocks - promise_used_;
  SpaceRequest request{.goal = inode_.number().block(),
                       .metadata = needs.new_blocks,
                       .promised = std::min<std::uint64_t>(needs.new_blocks, promised),
                       .frees = {}};
  add_frees(request.frees, needs);
  auto space = fs_.space.try_reserve(request);
  if (!space && space.error().code == Errc::kAgain) return std::optional<SpaceRequest>(std::move(request));
  if (!space) return fail(space.error());
  node_space_ = std::move(*space);
  promise_used_ += request.promised;
  return std::optional<SpaceRequest>();
}

std::uint32_t Step::credits() {
  std::uint32_t credits = 1;
  if (map_.has_changes()) credits += map_.needs().credits;
  if (data_space_) credits += data_space_.credits();
  if (node_space_) credits += node_space_.credits();
  return credits;
}

Task<Result<>> Step::write() {
  std::vector<SettledIo::Write> writes;
  for (const Piece& piece : pieces_) {
    if (piece.start.value != 0 && !piece.unwritten) writes.push_back({piece.start.offset_bytes(), piece.bytes});
  }
  for (const Piece& piece : placed_) writes.push_back({piece.start.offset_bytes(), piece.bytes});
  if (writes.empty()) co_return Result<>{};
  auto written = co_await fs_.io.write_all(std::move(writes), Durability::kCached);
  fs_.log.data_written();  // some of it at least, where it failed
  co_return written;
}

// In the transaction: the new blocks are in use, and the map has them.
void Step::store_extents(TxHandle& tx) {
  format::Inode& raw = inode_.raw();
  const std::uint64_t added = new_blocks_ + (map_.has_changes() ? map_.needs().new_blocks : 0);
  const std::uint64_t freed = map_.has_changes() ? map_.needs().freed.size() : 0;
  for (const Piece& piece : placed_) {
    if (!piece.unwritten) data_space_.take_data(tx, {piece.start, piece.count()});
  }
  if (map_.has_changes()) map_.apply(tx, hold_, node_space_ ? node_space_ : data_space_);
  raw.blocks = raw.blocks.value() + added - freed;
}

void Step::store_attributes() {
  format::Inode& raw = inode_.raw();
  if (state().size) {
    const std::uint64_t reached =
        complete_ ? *state().size : std::max(inode_.disk_size(), std::min(*state().size, end_ * kBlockSize));
    raw.size = reached;
  }
  if (state().modified_ns) {
    raw.mtime_ns = *state().modified_ns;
    raw.ctime_ns = *state().modified_ns;
  }
  raw.version = raw.version.value() + 1;
}

Task<Result<>> Step::store() {
  if (nothing_to_store()) co_return Result<>{};
  auto tx = co_await fs_.log.begin(credits());
  if (!tx) co_return fail(tx.error());
  tx->change(inode_.buffer(), hold_);
  const bool leaves_inline =
      !has_extents(inode_) && (!placed_.empty() || state().size.value_or(0) > inode_.content_bytes());
  if (leaves_inline) {
    make_extent_root(inode_.raw());
    map_ = FileMap(fs_.buffers, inode_);
    for (const Piece& piece : placed_) {
      // In the root, which is in memory and has room for them.
      auto planned = co_await map_.add(piece.first, {piece.start, piece.count()});
      CAWFS_ASSERT(planned.has_value());
    }
    CAWFS_ASSERT(placed_.empty() || map_.needs().new_blocks == 0);
  }
  store_extents(*tx);
  store_attributes();
  tx->end();
  co_return Result<>{};
}

void Step::finish() {
  DirtyChange change(fs_, inode_, hold_);
  state().promised_blocks -= promise_used_;
  for (const Piece& piece : pieces_) state().data.clean(piece.first, piece.count());
  if (!complete_) return;
  state().size.reset();
  state().modified_ns.reset();
}

// The pieces cannot be written. The file is left as it is without them.
void Step::lose(const Error& error) {
  fs_.messages.error("inode {}: written data is lost: {}", inode_.number().value, describe(error.code));
  state().write_errors.note(error);
  data_space_ = Reservation();  // what was promised is promised again
  node_space_ = Reservation();
  DirtyChange change(fs_, inode_, hold_);
  for (const Piece& piece : pieces_) state().data.clean(piece.first, piece.count());
}

Task<Result<std::optional<SpaceRequest>>> Step::run() {
  const LoggedWork work(fs_.messages, "allocation");
  const std::uint64_t most_blocks = has_extents(inode_) ? kBlocksAtOnce : kBlocksWithInline;
  for (std::uint64_t limit = most_blocks;; limit /= 2) {
    pieces_.clear();
    placed_.clear();
    new_blocks_ = 0;
    promise_used_ = 0;
    map_ = FileMap(fs_.buffers, inode_);
    data_space_ = Reservation();
    node_space_ = Reservation();
    auto gathered = co_await gather(limit);
    if (!gathered) co_return fail(gathered.error());
    auto room = reserve_data();
    if (!room || *room) co_return room;
    auto placed = co_await place();
    if (!placed) co_return fail(placed.error());
    room = reserve_nodes();
    if (!room || *room) co_return room;
    if (credits() <= fs_.log.max_credits() || limit == 1) break;
  }
  auto written = co_await write();
  if (!written && is_loss(written.error().code)) {
    lose(written.error());
    co_return std::optional<SpaceRequest>();
  }
  if (!written) co_return fail(written.error());
  auto stored = co_await store();
  if (!stored) co_return fail(stored.error());
  finish();
  co_return std::optional<SpaceRequest>();
}

}  // namespace

Task<Result<std::optional<SpaceRequest>>> write_back_step(FsContext& fs, Inode inode, const LockHold& hold) {
  Step step(fs, std::move(inode), hold);
  auto done = co_await step.run();
  co_return done;
}

}  // namespace cawfs
