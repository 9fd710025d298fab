// What the allocator waits for: group locks, bitmaps, the writing of metadata blocks ahead, commits; and how it finds
// that there is no space.
#include <algorithm>

#include "core/base/assert.h"
#include "core/base/planted_fault.h"
#include "core/format/verify.h"
#include "core/fs/allocator_impl.h"
#include "core/runtime/task_group.h"

namespace cawfs {
namespace {

constexpr std::uint64_t kPoolBlocks = 32;  // written ahead at once
constexpr std::uint32_t kReadsAtOnce = 16;
constexpr auto kTotalsAge = std::chrono::seconds(2);
constexpr auto kLookAgain = std::chrono::milliseconds(100);

}  // namespace

Task<Result<GroupUse>> Allocator::Impl::take_group(GroupNo number) {
  while (true) {
    auto hold = co_await locks.acquire(lock_of(geometry, number), LockMode::kExclusive, LocalUse::kShared);
    if (!hold) co_return fail(hold.error());
    const auto group = co_await load_group(number, *hold);
    if (!group) co_return fail(group.error());
    if (!(*group)->leaving) co_return GroupUse(**group, std::move(*hold), idle_);
    // Another node is to have it first. Looked at again in any case: a node that withdraws settles nothing any more.
    hold->release();
    co_await left_.wait_until(executor.now() + kLookAgain);
  }
}

Task<Result<Group*>> Allocator::Impl::load_group(GroupNo number, const LockHold& hold) {
  const auto guard = co_await loading_.lock();
  if (Group* group = find(number)) co_return group;
  const BlockNo block = geometry.group_header(number);
  const auto header = co_await buffers.read(block, format::BlockType::kGroupHeader, hold.name());
  if (!header) co_return fail(header.error());
  auto group = std::make_unique<Group>(executor, geometry, number, *header, hold, ++tenures_);
  saw(number, group->header());
  Group* loaded = group.get();
  groups.emplace(number, std::move(group));
  co_return loaded;
}

Task<Result<>> Allocator::Impl::prepare_held(SpaceRequest request) {
  while (true) {
    const auto reserved = reserve(request);
    if (reserved) co_return Result<>();
    if (reserved.error() != Errc::kAgain) co_return fail(reserved.error());
    const auto better = co_await improve(request);
    if (!better) co_return fail(better.error());
    if (!*better) co_return fail(Errc::kAgain, "space");
  }
}

// One step towards what try_reserve() lacks; false if there is none.
Task<Result<bool>> Allocator::Impl::improve(const SpaceRequest& request) {
  const auto guard = co_await loading_.lock();
  auto better = co_await improve_frees(request);
  if (!better || *better) co_return better;
  const std::uint64_t least = least_data(request) + request.metadata;
  if (least == 0 || least > std::min(request.promised, promised) + unpromised()) co_return false;
  better = co_await improve_metadata(request);
  if (!better || *better) co_return better;
  std::uint64_t ready = 0;
  for (const auto& [number, group] : groups) {
    if (!group->leaving || wholly_promised(request)) ready += group->ready();
  }
  if (least_data(request) > ready || request.alignment > 1) {
    better = co_await load_another_bitmap(request);
    if (!better || *better) co_return better;
    if (request.data > 0 && release_pools(request)) co_return true;
  }
  co_return false;
}

Task<Result<bool>> Allocator::Impl::improve_frees(const SpaceRequest& request) {
  for (const BlockRange& range : request.frees) {
    Group* group = find(geometry.group_of(range.start));
    if (group == nullptr || group->loaded(range)) continue;
    const auto use = this->use(*group, wholly_promised(request));
    if (!use) continue;
    std::uint32_t bitmap = group->first_bitmap(range);
    while (group->loaded(bitmap)) ++bitmap;
    const auto done = co_await load_bitmap(*group, bitmap);
    if (!done) co_return fail(done.error());
    co_return true;
  }
  co_return false;
}

Task<Result<bool>> Allocator::Impl::improve_metadata(const SpaceRequest& request) {
  std::uint64_t pooled = 0;
  for (const auto& [number, group] : groups) {
    if (!group->leaving || wholly_promised(request)) pooled += group->pool.size();
  }
  if (pooled >= request.metadata) co_return false;
  for (const GroupNo number : order(request.goal)) {
    Group* group = find(number);
    if (group->ready() == 0) continue;
    const auto use = this->use(*group, wholly_promised(request));
    if (!use) continue;
    const auto done = co_await fill_pool(*group);
    if (!done) co_return fail(done.error());
    co_return true;
  }
  const auto better = co_await load_another_bitmap(request);
  co_return better;
}

Task<Result<bool>> Allocator::Impl::load_another_bitmap(const SpaceRequest& request) {
  for (const GroupNo number : order(request.goal)) {
    Group* group = find(number);
    const bool near = group->holds({request.goal, 1});
    const std::uint32_t first = near ? group->first_bitmap({request.goal, 1}) : 0;
    for (std::uint32_t i = 0; i < group->bitmap_count(); ++i) {
      const std::uint32_t bitmap = (first + i) % group->bitmap_count();
      if (group->loaded(bitmap) || group->free_in_summary(bitmap) == 0) continue;
      const auto use = this->use(*group, wholly_promised(request));
      if (!use) break;
      const auto done = co_await load_bitmap(*group, bitmap);
      if (!done) co_return fail(done.error());
      co_return true;
    }
  }
  co_return false;
}

// The blocks written ahead are needed for data: near the end of space.
bool Allocator::Impl::release_pools(const SpaceRequest& request) {
  std::uint64_t pooled = 0;
  for (const auto& [number, group] : groups) pooled += group->pool.size();
  const std::uint64_t before = pooled;
  for (const auto& [number, group] : groups) {
    while (!group->pool.empty() && pooled > request.metadata) {
      group->unreserve({group->pool.back(), 1});
      group->pool.pop_back();
      --pooled;
    }
  }
  return pooled < before;
}

Task<Result<>> Allocator::Impl::load_bitmap(Group& group, std::uint32_t bitmap) {
  const BlockNo block = geometry.group_bitmap(group.number(), bitmap);
  BufferRef buffer;
  if (group.uninitialised(bitmap)) {
    // Never written: it is written physically before a transaction can need it (design §4 rule 11).
    buffer = buffers.make(block, format::BlockType::kBitmap, group.lock());
    format::stamp_block(buffer->bytes());
    const auto written = co_await device.write(block.offset_bytes(), buffer->bytes(), Durability::kCached);
    if (!written) {
      buffers.forget(block);
      co_return written;
    }
  } else {
    const auto read = co_await buffers.read(block, format::BlockType::kBitmap, group.lock());
    if (!read) co_return fail(read.error());
    buffer = *read;
  }
  co_return group.add_bitmap(bitmap, std::move(buffer));
}

// Zeros, which is what no block of metadata looks like.
Task<Result<>> Allocator::Impl::fill_pool(Group& group) {
  const auto reserved = group.reserve(BlockNo{}, kPoolBlocks);
  if (!reserved) co_return Result<>();
  const BlockRange run = without_metadata(group, *reserved);
  if (run.count == 0) co_return Result<>();
  const IoBuffer zeros(run.count * kBlockSize);
  const auto written = co_await device.write(run.start.offset_bytes(), zeros.bytes(), Durability::kCached);
  if (!written) {
    group.unreserve(run);
    co_return written;
  }
  for (std::uint64_t i = run.count; i-- > 0;) group.pool.push_back(run.start + i);
  co_return Result<>();
}

Task<Result<>> Allocator::Impl::prepare(SpaceRequest request) {
  // What is to be freed is for try_reserve() to judge, under the caller's locks. Here it may be out of date: others of
  // this node that wait for the same group may have freed it meanwhile.
  std::erase_if(request.frees, [this](const BlockRange& range) { return !geometry.allocatable(range); });
  for (const GroupNo number : groups_of_frees(request)) {
    const auto taken = co_await take_group(number);
    if (!taken) co_return fail(taken.error());
  }
  Result<> ready = co_await prepare_held(request);
  // From home on, so that the nodes stay apart. Groups that had nothing when last seen come later, in
  // decide_no_space().
  for (std::uint32_t i = 0; i < geometry.group_count && !ready && ready.error() == Errc::kAgain; ++i) {
    const GroupNo number{(home().value + i) % geometry.group_count};
    const bool full = seen_[number.value].known && seen_[number.value].free_blocks == 0;
    if (full && find(number) == nullptr) continue;
    const auto taken = co_await take_group(number);
    if (!taken) co_return fail(taken.error());
    ready = co_await prepare_held(request);
    saw(number, taken->group().header());
  }
  if (!ready && ready.error() == Errc::kAgain) ready = co_await decide_no_space(request);
  co_return ready;
}

std::set<GroupNo> Allocator::Impl::groups_of_frees(const SpaceRequest& request) const {
  std::set<GroupNo> numbers;
  for (const BlockRange& range : request.frees) numbers.insert(geometry.group_of(range.start));
  return numbers;
}

// Holds every group that has anything, and those of what is to be freed, in the order of locks, so that nothing moves
// between nodes meanwhile.
Task<Result<>> Allocator::Impl::decide_no_space(const SpaceRequest& request) {
  const std::set<GroupNo> needed = groups_of_frees(request);
  while (true) {
    std::vector<GroupUse> held;
    std::uint64_t uncommitted = 0;
    for (std::uint32_t i = 0; i < geometry.group_count; ++i) {
      auto taken = co_await take_group(GroupNo{i});
      if (!taken) co_return fail(taken.error());
      Group& group = taken->group();
      saw(group.number(), group.header());
      uncommitted += group.uncommitted();
      const bool has_any = group.available() + group.pool.size() + group.uncommitted() > 0;
      if (has_any || needed.contains(group.number())) held.push_back(std::move(*taken));
    }
    bool unsure = contended(held);
    const auto ready = co_await prepare_held(request);
    if (ready || ready.error() != Errc::kAgain) co_return ready;
    unsure = contended(held) || unsure;
    // The caller tries again, and waits his turn in prepare().
    if (unsure && may_fit(held, request)) co_return Result<>();
    if (uncommitted == 0) co_return fail(Errc::kNoSpace, "space");
    const auto done = co_await log.commit(log.last());
    if (!done) co_return done;
    if (discards_.running() > 0) co_await discarded_.wait();
  }
}

// Somebody else waits for one of them: what it has cannot be had from it now.
bool Allocator::Impl::contended(const std::vector<GroupUse>& held) {
  return std::ranges::any_of(held, [this](const GroupUse& use) {
    return use.group().leaving || !locks.try_acquire(use.group().lock(), LockMode::kExclusive, LocalUse::kShared);
  });
}

bool Allocator::Impl::may_fit(const std::vector<GroupUse>& held, const SpaceRequest& request) const {
  std::uint64_t blocks = 0;
  for (const GroupUse& use : held) blocks += use.group().available() + use.group().pool.size();
  const std::uint64_t spoken_for = promised - std::min(promised, request.promised);
  return blocks >= spoken_for + least_data(request) + request.metadata;
}

Task<void> Allocator::Impl::unused(GroupNo number) {
  for (const Group* group = find(number); group != nullptr && group->users > 0; group = find(number)) {
    co_await idle_.wait();
  }
}

Task<void> Allocator::Impl::unused() {
  co_await discards_.join();
  const auto used = [](const auto& group) { return group.second->users > 0; };
  while (std::ranges::any_of(groups, used)) co_await idle_.wait();
}

Task<Result<>> Allocator::Impl::settle(GroupNo number) {
  if (Group* group = find(number)) group->leaving = true;
  // Users without a hold: those that turn promises into blocks, and discards.
  co_await unused(number);
  // None comes while it is written back, or it would have the group taken from under it.
  if (Group* group = find(number)) group->closed = true;
  const LockName lock = lock_of(geometry, number);
  const auto done = co_await log.write_back(lock);
  if (!done) co_return done;
  co_await unused(number);  // by discards of what that has committed
  if (const Group* group = find(number)) saw(number, group->header());
  groups.erase(number);
  if (!planted(PlantedFault::kBitmapsKept)) buffers.forget(lock);
  left_.notify_all();
  co_return Result<>();
}

void Allocator::Impl::saw(GroupNo number, const format::GroupHeader& header) {
  seen_[number.value] = {header.free_blocks.value(), header.free_inodes.value(), header.chunks.value(), true};
}

Task<Result<SpaceTotals>> Allocator::Impl::totals() {
  const auto guard = co_await totals_mutex_.lock();
  if (!totals_at_ || executor.now() - *totals_at_ > kTotalsAge) {
    TaskGroup readers(executor);
    const std::uint32_t count = std::min(kReadsAtOnce, geometry.group_count);
    for (std::uint32_t i = 0; i < count; ++i) readers.spawn(look_at(i, count));
    co_await readers.join();
    totals_at_ = executor.now();
  }
  for (const auto& [number, group] : groups) saw(number, group->header());
  SpaceTotals totals;
  for (std::uint32_t i = 0; i < geometry.group_count; ++i) {
    totals.blocks += geometry.blocks_in_group(GroupNo{i});
    totals.free_blocks += seen_[i].free_blocks;
    totals.free_inodes += seen_[i].free_inodes;
    totals.chunks += seen_[i].chunks;
  }
  co_return totals;
}

// Without the lock a read may meet a write: a block that does not verify is read once more, then left as last seen.
Task<void> Allocator::Impl::look_at(std::uint32_t from, std::uint32_t step) {
  IoBuffer block(kBlockSize);
  for (std::uint32_t i = from; i < geometry.group_count; i += step) {
    const BlockNo address = geometry.group_header(GroupNo{i});
    for (int tries = 0; tries < 2 && find(GroupNo{i}) == nullptr; ++tries) {
      const auto read = co_await device.read(address.offset_bytes(), block.bytes());
      if (!read) break;
      if (!format::verify_block(block.bytes(), format::BlockType::kGroupHeader, address, geometry)) continue;
      saw(GroupNo{i}, *reinterpret_cast<const format::GroupHeader*>(block.data()));
      break;
    }
  }
}

}  // namespace cawfs
