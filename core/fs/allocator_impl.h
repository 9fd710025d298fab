// The inside of the allocator; for its own files only.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "core/fs/allocator.h"
#include "core/fs/group.h"
#include "core/runtime/sync.h"
#include "core/runtime/task_group.h"

namespace cawfs {

// A hold of a group that counts as one of its users, so that its state stays.
class GroupUse {
 public:
  GroupUse() = default;
  GroupUse(Group& group, LockHold hold, Condition& idle) : group_(&group), hold_(std::move(hold)), idle_(&idle) {
    ++group.users;
  }
  GroupUse(GroupUse&& other) noexcept { *this = std::move(other); }
  GroupUse& operator=(GroupUse&& other) noexcept {
    end();
    group_ = std::exchange(other.group_, nullptr);
    hold_ = std::move(other.hold_);
    idle_ = other.idle_;
    return *this;
  }
  ~GroupUse() { end(); }

  Group& group() const { return *group_; }
  const LockHold& hold() const { return hold_; }

 private:
  void end() {
    if (group_ == nullptr) return;
    if (--std::exchange(group_, nullptr)->users == 0) idle_->notify_all();
    hold_.release();
  }

  Group* group_ = nullptr;
  LockHold hold_;
  Condition* idle_ = nullptr;
};

struct Reservation::State {
  explicit State(Allocator::Impl& impl) : owner(impl) {}
  State(const State&) = delete;
  ~State();

  // The group of these blocks, which the reservation uses.
  const GroupUse& use_of(BlockNo block) const;
  const GroupUse& use_of(GroupNo group) const;
  bool uses(GroupNo group) const;
  void free(TxHandle& tx, BlockRange blocks);
  std::uint64_t unused() const;
  std::uint32_t credits() const;

  Allocator::Impl& owner;
  std::vector<GroupUse> held;
  std::vector<BlockRange> runs;
  std::vector<BlockNo> metadata;  // taken from the back
  std::vector<BlockRange> frees;
  bool announced = false;      // `frees`, until the first of them is freed
  std::uint64_t promised = 0;  // of what is unused
  // Freed in a transaction so far; its callback has the other reference.
  std::shared_ptr<std::vector<std::pair<std::uint64_t, BlockRange>>> freed;  // with the group's tenure
  TxId freed_in;
};

class Allocator::Impl {
 public:
  Impl(Executor& executor, BlockDevice& device, const Geometry& geometry, LockService& locks, BufferCache& buffers,
       TransactionLog& log, bool discard);

  Result<Reservation> try_reserve(const SpaceRequest& request);
  // Without judging what is to be freed, which the caller may have read a while ago.
  Result<Reservation> reserve(const SpaceRequest& request);
  Task<Result<>> prepare(SpaceRequest request);
  Task<Result<>> prepare_held(SpaceRequest request);
  Task<Result<>> settle(GroupNo number);
  Task<Result<SpaceTotals>> totals();
  Task<Result<GroupUse>> take_group(GroupNo number);

  Group* find(GroupNo number) const;
  std::optional<GroupUse> use(Group& group, bool may_be_leaving);
  // Nobody else may announce to free these.
  void announce(Reservation::State& state);
  void unannounce(Reservation::State& state);
  // The front of `run`, just reserved, that may be handed out. A free block in the buffer cache is some structure's all
  // the same, and was freed as another's, which is damaged: it stays reserved until the group goes.
  BlockRange without_metadata(Group& group, BlockRange run);
  std::vector<GroupNo> order(BlockNo goal) const;
  GroupNo home() const;
  // Blocks that can be had from the groups that stay, promised ones among them.
  std::uint64_t space(const Group* without = nullptr) const;
  std::uint64_t unpromised() const;
  void leave(GroupNo number);
  void abandon();
  // The transaction that freed them has committed.
  void committed(const std::vector<std::pair<std::uint64_t, BlockRange>>& freed);
  Task<void> unused();

  Executor& executor;
  BlockDevice& device;
  const Geometry& geometry;
  LockService& locks;
  BufferCache& buffers;
  TransactionLog& log;
  std::map<GroupNo, std::unique_ptr<Group>> groups;
  std::uint64_t promised = 0;
  bool abandoned = false;  // what was promised before is still given back, and means nothing
  // Tells callbacks of the log whether this is still there.
  std::shared_ptr<Impl*> alive = std::make_shared<Impl*>(this);

 private:
  static std::uint64_t least_data(const SpaceRequest& request) {
    return request.data_min == 0 ? request.data : std::min(request.data, request.data_min);
  }
  static bool wholly_promised(const SpaceRequest& request) {
    return request.promised >= request.data + request.metadata;
  }

  Result<> check_frees(std::vector<BlockRange> frees) const;
  bool is_announced(BlockRange range) const;
  bool use_groups_of_frees(Reservation::State& state, const SpaceRequest& request);
  bool reserve_metadata(Reservation::State& state, const SpaceRequest& request);
  bool reserve_data(Reservation::State& state, const SpaceRequest& request, std::uint64_t count);
  // The use of the group in `state`, which gets one if it has none and it can be had.
  Group* use_in(Reservation::State& state, GroupNo number, const SpaceRequest& request);

  Task<Result<Group*>> load_group(GroupNo number, const LockHold& hold);
  Task<Result<bool>> improve(const SpaceRequest& request);
  Task<Result<bool>> improve_frees(const SpaceRequest& request);
  Task<Result<bool>> improve_metadata(const SpaceRequest& request);
  Task<Result<bool>> load_another_bitmap(const SpaceRequest& request);
  bool release_pools(const SpaceRequest& request);
  Task<Result<>> load_bitmap(Group& group, std::uint32_t bitmap);
  Task<Result<>> fill_pool(Group& group);
  Task<void> unused(GroupNo number);
  std::set<GroupNo> groups_of_frees(const SpaceRequest& request) const;
  Task<Result<>> decide_no_space(const SpaceRequest& request);
  bool contended(const std::vector<GroupUse>& held);
  bool may_fit(const std::vector<GroupUse>& held, const SpaceRequest& request) const;

  // discard.cpp
  struct Discard {
    GroupUse use;
    BlockRange blocks;
  };
  void discard_later(Group& group, BlockRange blocks);
  Task<void> discard_all();
  Task<void> discard_some(const std::vector<BlockRange>& ranges, std::size_t& next);

  struct Seen {
    std::uint32_t free_blocks = 0;
    std::uint32_t free_inodes = 0;
    std::uint32_t chunks = 0;
    bool known = false;
  };
  void saw(GroupNo number, const format::GroupHeader& header);
  Task<void> look_at(std::uint32_t from, std::uint32_t step);

  std::vector<Seen> seen_;
  std::uint64_t tenures_ = 0;
  std::map<BlockNo, std::uint64_t> announced_;  // ranges to be freed: start, count
  Mutex loading_;
  Condition idle_;  // a group has no user any more
  Condition left_;  // a group that was leaving has gone
  Mutex totals_mutex_;
  std::optional<Time> totals_at_;

  const bool discard_;
  std::vector<Discard> to_discard_;
  Condition discarded_;  // some have become free
  TaskGroup discards_;
};

}  // namespace cawfs
