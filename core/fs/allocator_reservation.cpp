// Reservations: what an operation does with its blocks in its transaction, and how the rest returns.
#include <algorithm>
#include <set>

#include "core/base/assert.h"
#include "core/fs/allocator_impl.h"

namespace cawfs {

Reservation::State::~State() {
  owner.unannounce(*this);
  const std::uint64_t back = std::min(promised, unused());
  for (const BlockRange& run : runs) use_of(run.start).group().unreserve(run);
  while (!metadata.empty()) {
    use_of(metadata.back()).group().pool.push_back(metadata.back());
    metadata.pop_back();
  }
  owner.promised += back;
}

bool Reservation::State::uses(GroupNo group) const {
  return std::ranges::any_of(held, [&](const GroupUse& use) { return use.group().number() == group; });
}

const GroupUse& Reservation::State::use_of(GroupNo group) const {
  const auto found = std::ranges::find_if(held, [&](const GroupUse& use) { return use.group().number() == group; });
  CAWFS_ASSERT(found != held.end());
  return *found;
}

const GroupUse& Reservation::State::use_of(BlockNo block) const {
  return use_of(owner.geometry.group_of(block));
}

std::uint64_t Reservation::State::unused() const {
  std::uint64_t blocks = metadata.size();
  for (const BlockRange& run : runs) blocks += run.count;
  return blocks;
}

std::uint32_t Reservation::State::credits() const {
  std::set<std::pair<GroupNo, std::uint32_t>> changed;  // bitmaps by number, the header as number -1
  const auto add = [&](BlockRange blocks) {
    const Group& group = use_of(blocks.start).group();
    changed.emplace(group.number(), UINT32_MAX);
    for (std::uint32_t i = group.first_bitmap(blocks); i <= group.last_bitmap(blocks); ++i) {
      changed.emplace(group.number(), i);
    }
  };
  for (const BlockRange& run : runs) add(run);
  for (const BlockRange& range : frees) add(range);
  for (const BlockNo block : metadata) add({block, 1});
  return static_cast<std::uint32_t>(changed.size());
}

void Reservation::State::free(TxHandle& tx, BlockRange blocks) {
  // What a transaction frees it frees without a wait, and then the bitmap says so.
  owner.unannounce(*this);
  const GroupUse& use = use_of(blocks.start);
  use.group().free(tx, use.hold(), blocks);
  if (!freed || freed_in != tx.id()) {
    freed = std::make_shared<std::vector<std::pair<std::uint64_t, BlockRange>>>();
    freed_in = tx.id();
    tx.on_commit([list = freed, alive = std::weak_ptr(owner.alive)] {
      if (const auto allocator = alive.lock()) (*allocator)->committed(*list);
    });
  }
  freed->emplace_back(use.group().tenure(), blocks);
}

Reservation::Reservation() = default;
Reservation::Reservation(std::unique_ptr<State> state) : state_(std::move(state)) {}
Reservation::Reservation(Reservation&&) noexcept = default;
Reservation& Reservation::operator=(Reservation&&) noexcept = default;
Reservation::~Reservation() = default;

std::span<const BlockRange> Reservation::runs() const {
  return state_->runs;
}

std::uint64_t Reservation::data_blocks() const {
  return state_->unused() - state_->metadata.size();
}

std::uint32_t Reservation::metadata_blocks() const {
  return static_cast<std::uint32_t>(state_->metadata.size());
}

std::uint32_t Reservation::credits() const {
  return state_->credits();
}

void Reservation::take_data(TxHandle& tx, BlockRange blocks) {
  CAWFS_ASSERT(blocks.count > 0);
  auto& runs = state_->runs;
  const auto run = std::ranges::find_if(runs, [&](const BlockRange& r) {
    return r.start <= blocks.start && blocks.start.value + blocks.count <= r.start.value + r.count;
  });
  CAWFS_ASSERT(run != runs.end());
  const BlockRange before{run->start, blocks.start.value - run->start.value};
  const BlockRange after{blocks.start + blocks.count, run->count - before.count - blocks.count};
  auto at = runs.erase(run);
  if (after.count > 0) at = runs.insert(at, after);
  if (before.count > 0) runs.insert(at, before);
  state_->promised -= std::min(state_->promised, blocks.count);
  const GroupUse& use = state_->use_of(blocks.start);
  use.group().take(tx, use.hold(), blocks);
}

BlockNo Reservation::take_metadata(TxHandle& tx) {
  CAWFS_ASSERT(!state_->metadata.empty());
  const BlockNo block = state_->metadata.back();
  state_->metadata.pop_back();
  state_->promised -= std::min<std::uint64_t>(state_->promised, 1);
  const GroupUse& use = state_->use_of(block);
  use.group().take(tx, use.hold(), {block, 1});
  return block;
}

void Reservation::free_data(TxHandle& tx, BlockRange blocks) {
  state_->free(tx, blocks);
}

void Reservation::free_metadata(TxHandle& tx, BlockNo block) {
  tx.revoke({block, 1});
  state_->owner.buffers.forget(block);
  state_->free(tx, {block, 1});
}

BufferRef Reservation::group_header(GroupNo group) const {
  return state_->use_of(group).group().header_buffer();
}

const LockHold& Reservation::group_hold(GroupNo group) const {
  return state_->use_of(group).hold();
}

}  // namespace cawfs
