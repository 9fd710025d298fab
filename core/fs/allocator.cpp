// What never waits: reserving from the groups that are here, promises, and the groups' comings and goings. What waits
// is in allocator_prepare.cpp.
#include "core/fs/allocator.h"

#include <algorithm>

#include "core/base/assert.h"
#include "core/fs/allocator_impl.h"

namespace cawfs {

Allocator::Impl::Impl(Executor& x, BlockDevice& d, const Geometry& g, LockService& l, BufferCache& b, TransactionLog& t,
                      bool discard)
    : executor(x),
      device(d),
      geometry(g),
      locks(l),
      buffers(b),
      log(t),
      seen_(g.group_count),
      loading_(x),
      idle_(x),
      left_(x),
      totals_mutex_(x),
      discard_(discard),
      discarded_(x),
      discards_(x) {}

Group* Allocator::Impl::find(GroupNo number) const {
  const auto found = groups.find(number);
  return found == groups.end() ? nullptr : found->second.get();
}

GroupNo Allocator::Impl::home() const {
  const std::uint64_t slot = locks.self().slot.value;
  return GroupNo{static_cast<std::uint32_t>(slot * geometry.group_count / geometry.slots % geometry.group_count)};
}

std::vector<GroupNo> Allocator::Impl::order(BlockNo goal) const {
  std::vector<GroupNo> numbers;
  const GroupNo near = geometry.in_groups(goal) ? geometry.group_of(goal) : home();
  if (find(near) != nullptr) numbers.push_back(near);
  const auto add = [&](const auto& entry) {
    if (entry.first != near) numbers.push_back(entry.first);
  };
  const auto from = groups.lower_bound(home());
  std::for_each(from, groups.end(), add);
  std::for_each(groups.begin(), from, add);
  return numbers;
}

std::uint64_t Allocator::Impl::space(const Group* without) const {
  std::uint64_t blocks = 0;
  for (const auto& [number, group] : groups) {
    if (!group->leaving && group.get() != without) blocks += group->available() + group->pool.size();
  }
  return blocks;
}

std::uint64_t Allocator::Impl::unpromised() const {
  const std::uint64_t all = space();
  return all > promised ? all - promised : 0;
}

// A leaving group's lock may not be had any more; it is still ours until settle(), which waits for its users.
std::optional<GroupUse> Allocator::Impl::use(Group& group, bool may_be_leaving) {
  if (group.closed || (group.leaving && !may_be_leaving)) return std::nullopt;
  auto hold = locks.try_acquire(group.lock(), LockMode::kExclusive, LocalUse::kShared);
  if (!hold && !group.leaving) return std::nullopt;
  if (hold) return GroupUse(group, std::move(*hold), idle_);
  LockHold own(nullptr, group.lock(), LockMode::kExclusive, LocalUse::kShared, group.generation());
  return GroupUse(group, std::move(own), idle_);
}

Group* Allocator::Impl::use_in(Reservation::State& state, GroupNo number, const SpaceRequest& request) {
  Group* group = find(number);
  if (group == nullptr || state.uses(number)) return group;
  auto taken = use(*group, wholly_promised(request));
  if (!taken) return nullptr;
  state.held.push_back(std::move(*taken));
  return group;
}

// What the caller read in a structure on disk: it must be space that files have.
Result<> Allocator::Impl::check_frees(std::vector<BlockRange> frees) const {
  std::ranges::sort(frees, {}, &BlockRange::start);
  for (std::size_t i = 0; i < frees.size(); ++i) {
    const BlockRange& range = frees[i];
    const bool overlaps = i > 0 && frees[i - 1].start.value + frees[i - 1].count > range.start.value;
    if (overlaps || !geometry.allocatable(range)) return fail(Errc::kBadValue, "block to free", range.start.value);
    const Group* group = find(geometry.group_of(range.start));
    if (group == nullptr || !group->loaded(range)) continue;
    if (!group->in_use(range) || is_announced(range)) return fail(Errc::kBadValue, "block to free", range.start.value);
  }
  return {};
}

// By another operation, which has not begun its transaction yet: two structures name the block.
bool Allocator::Impl::is_announced(BlockRange range) const {
  const auto after = announced_.lower_bound(range.start + range.count);
  if (after == announced_.begin()) return false;
  const auto& [start, count] = *std::prev(after);
  return start + count > range.start;
}

void Allocator::Impl::announce(Reservation::State& state) {
  for (const BlockRange& range : state.frees) announced_.emplace(range.start, range.count);
  state.announced = true;
}

void Allocator::Impl::unannounce(Reservation::State& state) {
  if (!std::exchange(state.announced, false)) return;
  for (const BlockRange& range : state.frees) announced_.erase(range.start);
}

BlockRange Allocator::Impl::without_metadata(Group& group, BlockRange run) {
  for (std::uint64_t i = 0; i < run.count; ++i) {
    if (!buffers.find(run.start + i)) continue;
    if (i + 1 < run.count) group.unreserve({run.start + (i + 1), run.count - i - 1});
    return {run.start, i};
  }
  return run;
}

bool Allocator::Impl::use_groups_of_frees(Reservation::State& state, const SpaceRequest& request) {
  for (const BlockRange& range : request.frees) {
    const Group* group = use_in(state, geometry.group_of(range.start), request);
    if (group == nullptr || !group->loaded(range)) return false;
  }
  state.frees = request.frees;
  return true;
}

bool Allocator::Impl::reserve_metadata(Reservation::State& state, const SpaceRequest& request) {
  for (const GroupNo number : order(request.goal)) {
    if (state.metadata.size() == request.metadata) return true;
    if (find(number)->pool.empty()) continue;
    Group* group = use_in(state, number, request);
    while (group != nullptr && !group->pool.empty() && state.metadata.size() < request.metadata) {
      state.metadata.push_back(group->pool.back());
      group->pool.pop_back();
    }
  }
  return state.metadata.size() == request.metadata;
}

bool Allocator::Impl::reserve_data(Reservation::State& state, const SpaceRequest& request, std::uint64_t count) {
  std::uint64_t left = count;
  for (const GroupNo number : order(request.goal)) {
    if (left == 0) break;
    if (find(number)->ready() == 0) continue;
    Group* group = use_in(state, number, request);
    if (group == nullptr) continue;
    BlockNo goal = request.goal;
    while (left > 0) {
      const auto run =
          request.alignment > 1 ? group->reserve_aligned(goal, left, request.alignment) : group->reserve(goal, left);
      if (!run) break;
      const BlockRange good = without_metadata(*group, *run);
      if (request.alignment > 1 && good.count < run->count) {
        if (good.count > 0) group->unreserve(good);
        continue;
      }
      goal = run->start + run->count;
      if (good.count == 0) continue;
      state.runs.push_back(good);
      left -= good.count;
    }
  }
  return count - left >= std::min(count, least_data(request));
}

Result<Reservation> Allocator::Impl::try_reserve(const SpaceRequest& request) {
  if (const auto ok = check_frees(request.frees); !ok) return fail(ok.error());
  auto reserved = reserve(request);
  if (reserved) announce(*reserved->state_);
  return reserved;
}

Result<Reservation> Allocator::Impl::reserve(const SpaceRequest& request) {
  const auto again = fail(Errc::kAgain, "space");
  const std::uint64_t from_promises = std::min(request.promised, promised);
  const std::uint64_t most = from_promises + unpromised();
  const std::uint64_t least = least_data(request) + request.metadata;
  if (least > 0 && least > most) return again;
  auto state = std::make_unique<Reservation::State>(*this);
  if (!use_groups_of_frees(*state, request)) return again;
  if (!reserve_metadata(*state, request)) return again;
  const std::uint64_t data = request.data == 0 ? 0 : std::min(request.data, most - request.metadata);
  if (!reserve_data(*state, request, data)) return again;
  state->promised = std::min(from_promises, state->unused());
  promised -= state->promised;
  return Reservation(std::move(state));
}

void Allocator::Impl::committed(const std::vector<std::pair<std::uint64_t, BlockRange>>& freed) {
  for (const auto& [tenure, blocks] : freed) {
    Group* group = find(geometry.group_of(blocks.start));
    if (group == nullptr || group->tenure() != tenure) continue;
    if (discard_) {
      discard_later(*group, blocks);
    } else {
      group->freed(blocks);
    }
  }
}

void Allocator::Impl::leave(GroupNo number) {
  if (Group* group = find(number)) group->leaving = true;
}

void Allocator::Impl::abandon() {
  for (const auto& [number, group] : groups) CAWFS_ASSERT(group->users == 0);
  groups.clear();
  promised = 0;
  abandoned = true;
  left_.notify_all();
}

Allocator::Allocator(Executor& executor, BlockDevice& device, const Geometry& geometry, LockService& locks,
                     BufferCache& buffers, TransactionLog& log, bool discard)
    : impl_(std::make_unique<Impl>(executor, device, geometry, locks, buffers, log, discard)) {}
Allocator::~Allocator() = default;

Result<Reservation> Allocator::try_reserve(const SpaceRequest& request) {
  return impl_->try_reserve(request);
}

Task<Result<>> Allocator::prepare(SpaceRequest request) {
  return impl_->prepare(std::move(request));
}

Task<Result<>> Allocator::prepare_held(SpaceRequest request) {
  return impl_->prepare_held(std::move(request));
}

bool Allocator::try_promise(std::uint64_t blocks) {
  if (blocks > impl_->unpromised()) return false;
  impl_->promised += blocks;
  return true;
}

void Allocator::unpromise(std::uint64_t blocks) {
  if (impl_->abandoned) return;
  CAWFS_ASSERT(blocks <= impl_->promised);
  impl_->promised -= blocks;
}

std::uint64_t Allocator::promised() const {
  return impl_->promised;
}

std::optional<GroupNo> Allocator::group_of_lock(LockName lock) const {
  const Geometry& geometry = impl_->geometry;
  if (!geometry.in_groups(lock.block)) return std::nullopt;
  const GroupNo group = geometry.group_of(lock.block);
  return lock == lock_of(geometry, group) ? std::optional(group) : std::nullopt;
}

void Allocator::leave(GroupNo group) {
  impl_->leave(group);
}

std::uint64_t Allocator::promises_resting_on(GroupNo group) const {
  const Group* state = impl_->find(group);
  if (state == nullptr) return 0;
  const std::uint64_t others = impl_->space(state);
  return impl_->promised > others ? impl_->promised - others : 0;
}

Task<Result<>> Allocator::settle(GroupNo group) {
  return impl_->settle(group);
}

Task<void> Allocator::unused() {
  return impl_->unused();
}

void Allocator::abandon() {
  impl_->abandon();
}

Task<Result<SpaceTotals>> Allocator::totals() {
  return impl_->totals();
}

GroupNo Allocator::home() const {
  return impl_->home();
}

std::vector<GroupNo> Allocator::loaded_groups(BlockNo goal) const {
  return impl_->order(goal);
}

Task<Result<>> Allocator::prepare_group(GroupNo group) {
  const auto taken = co_await impl_->take_group(group);
  if (!taken) co_return fail(taken.error());
  co_return Result<>();
}

std::optional<LockHold> Allocator::try_hold(GroupNo group) {
  const Group* state = impl_->find(group);
  if (state == nullptr || state->leaving) return std::nullopt;
  return impl_->locks.try_acquire(state->lock(), LockMode::kExclusive, LocalUse::kShared);
}

BufferRef Allocator::header(GroupNo group) const {
  return impl_->find(group)->header_buffer();
}

SharedMutex& Allocator::index_mutex(GroupNo group) {
  return impl_->find(group)->index;
}

}  // namespace cawfs
