#include "core/fs/inode_allocator.h"

#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "core/base/assert.h"
#include "core/fs/inode_chunk.h"

namespace cawfs {
namespace {

constexpr std::size_t kPrepareAtOnce = std::size_t{2} * kInodesPerChunk;
constexpr std::size_t kChunksAtOnce = 128;

}  // namespace

class InodeAllocator::Impl {
 public:
  Impl(InodeAllocator& self, Executor& executor, BlockDevice& device, const Geometry& geometry, LockService& locks,
       BufferCache& buffers, TransactionLog& log, Allocator& allocator)
      : self_(self),
        device_(device),
        geometry_(geometry),
        locks_(locks),
        buffers_(buffers),
        log_(log),
        allocator_(allocator),
        refilling_(executor) {}

  Task<Result<InodeClaim>> claim(InodeNo near);
  Task<Result<>> refill(InodeNo near);
  Task<Result<InodeMaskChange>> change_mask(InodeNo inode, bool free);
  Task<Result<bool>> is_inode(InodeNo inode);

  GroupNo group_of(InodeNo inode) const { return geometry_.group_of(inode.block()); }
  bool is_possible(InodeNo inode) const { return is_inode_number(inode) && geometry_.allocatable({inode.block(), 1}); }
  void put(InodeNo inode) {
    if (known_.insert(inode).second) pool_.push_back(inode);
  }
  std::size_t prepared() const { return pool_.size(); }
  Allocator& allocator() { return allocator_; }

 private:
  // The prepared inodes in the order in which a claim tries them.
  std::vector<InodeNo> candidates(InodeNo near) const;
  void drop(InodeNo inode);
  bool is_loaded(GroupNo group) const;
  BTree index(GroupNo group) const;

  Task<Result<bool>> refill_from(GroupNo group);
  Task<Result<std::vector<InodeNo>>> free_inodes(GroupNo group);
  Task<Result<>> take_locks(std::vector<InodeNo> inodes);
  Task<Result<>> add_chunk(InodeNo near);
  // False: not enough was reserved for the index.
  Task<Result<bool>> make_chunk(Reservation& space);
  void cache_inodes(BlockNo chunk, const IoBuffer& blocks);

  InodeAllocator& self_;
  BlockDevice& device_;
  const Geometry& geometry_;
  LockService& locks_;
  BufferCache& buffers_;
  TransactionLog& log_;
  Allocator& allocator_;
  Mutex refilling_;
  std::deque<InodeNo> pool_;
  std::set<InodeNo> known_;                   // those in the pool
  std::map<GroupNo, std::uint64_t> scanned_;  // chunk that the next search for free inodes starts from
};

void InodeAllocator::Impl::drop(InodeNo inode) {
  known_.erase(inode);
  std::erase(pool_, inode);
}

bool InodeAllocator::Impl::is_loaded(GroupNo group) const {
  const auto groups = allocator_.loaded_groups(BlockNo{});
  return std::ranges::find(groups, group) != groups.end();
}

BTree InodeAllocator::Impl::index(GroupNo group) const {
  return BTree(buffers_, chunk_index_of_group(allocator_.header(group), lock_of(geometry_, group)));
}

std::vector<InodeNo> InodeAllocator::Impl::candidates(InodeNo near) const {
  const bool anywhere = !is_possible(near);
  std::vector<InodeNo> order;
  for (const bool beside : {true, false}) {
    for (const InodeNo inode : pool_) {
      if ((anywhere || group_of(inode) == group_of(near)) == beside) order.push_back(inode);
    }
  }
  return order;
}

Task<Result<InodeClaim>> InodeAllocator::Impl::claim(InodeNo near) {
  for (const InodeNo inode : candidates(near)) {
    if (!known_.contains(inode)) continue;  // gone while this waited
    drop(inode);
    auto hold = locks_.try_acquire(lock_of(inode), LockMode::kExclusive, LocalUse::kExclusive);
    if (!hold) continue;
    auto mask = co_await change_mask(inode, false);
    if (mask) co_return InodeClaim{std::move(*hold), std::move(*mask)};
    if (mask.error() == Errc::kAgain) {
      put(inode);
    } else if (mask.error() != Errc::kStale) {
      co_return fail(mask.error());
    }
  }
  co_return fail(Errc::kAgain, "prepared inode");
}

// kAgain: the group is not here. kStale: the bit has the wanted value already. kBadValue: there is no such chunk.
Task<Result<InodeMaskChange>> InodeAllocator::Impl::change_mask(InodeNo inode, bool free) {
  const GroupNo group = group_of(inode);
  InodeMaskChange change;
  auto hold = allocator_.try_hold(group);
  if (!hold) co_return fail(Errc::kAgain, "group", group.value);
  change.group_ = std::move(*hold);
  change.index_ = co_await allocator_.index_mutex(group).lock_shared();
  auto slot = co_await index(group).locate(chunk_of(inode).value);
  if (!slot) co_return fail(slot.error());
  if (!*slot) co_return fail(Errc::kBadValue, "inode chunk", chunk_of(inode).value);
  const bool is_free = (load_mask((*slot)->bytes()) & mask_bit(inode)) != 0;
  if (is_free == free) co_return fail(Errc::kStale, "inode", inode.value);
  change.inode_ = inode;
  change.free_ = free;
  change.header_ = allocator_.header(group);
  change.slot_ = std::move(**slot);
  change.owner_ = &self_;
  co_return change;
}

Task<Result<>> InodeAllocator::Impl::refill(InodeNo near) {
  const auto guard = co_await refilling_.lock();
  // Of groups that have gone the inodes are found again once those are back.
  for (const InodeNo inode : candidates(near)) {
    if (!is_loaded(group_of(inode))) drop(inode);
  }
  if (!pool_.empty()) {
    // Another operation has refilled, or the group was busy; wait for it in turn.
    const auto ready = co_await allocator_.prepare_group(group_of(pool_.front()));
    co_return ready;
  }
  if (!is_loaded(allocator_.home())) {
    const auto ready = co_await allocator_.prepare_group(allocator_.home());
    if (!ready) co_return ready;
  }
  const BlockNo goal = is_possible(near) ? near.block() : BlockNo{};
  for (const GroupNo group : allocator_.loaded_groups(goal)) {
    const auto found = co_await refill_from(group);
    if (!found) co_return fail(found.error());
    if (*found) co_return Result<>();
  }
  const auto added = co_await add_chunk(near);
  if (added || added.error() != Errc::kNoSpace) co_return added;
  // No room for a chunk anywhere: free inodes of existing ones in groups that are not here.
  for (std::uint32_t i = 0; i < geometry_.group_count; ++i) {
    const GroupNo group{(allocator_.home().value + i) % geometry_.group_count};
    const auto ready = co_await allocator_.prepare_group(group);
    if (!ready) co_return ready;
    const auto found = co_await refill_from(group);
    if (!found) co_return fail(found.error());
    if (*found) co_return Result<>();
  }
  co_return added;
}

// Prepares free inodes of the group's chunks; false if there are none.
Task<Result<bool>> InodeAllocator::Impl::refill_from(GroupNo group) {
  const auto inodes = co_await free_inodes(group);
  if (!inodes) co_return fail(inodes.error());
  const std::size_t before = pool_.size();
  for (const InodeNo inode : *inodes) {
    if (locks_.try_acquire(lock_of(inode), LockMode::kExclusive, LocalUse::kExclusive)) put(inode);
  }
  if (pool_.size() == before && !inodes->empty()) {
    const auto taken = co_await take_locks(*inodes);
    if (!taken) co_return fail(taken.error());
  }
  co_return pool_.size() > before;
}

// Some free inodes of the group, which this node may or may not have the locks of; none if the group is not here.
Task<Result<std::vector<InodeNo>>> InodeAllocator::Impl::free_inodes(GroupNo group) {
  std::vector<InodeNo> inodes;
  const auto hold = allocator_.try_hold(group);
  if (!hold) co_return inodes;
  if (allocator_.header(group)->as<format::GroupHeader>().free_inodes.value() == 0) co_return inodes;
  const auto guard = co_await allocator_.index_mutex(group).lock_shared();
  BTree tree = index(group);
  std::uint64_t& from = scanned_[group];
  for (bool wrapped = from == 0; inodes.size() < kPrepareAtOnce;) {
    const auto chunks = co_await tree.list(from, kChunksAtOnce);
    if (!chunks) co_return fail(chunks.error());
    for (const TreeEntry& chunk : *chunks) {
      if (inodes.size() >= kPrepareAtOnce) break;
      from = chunk.key + 1;
      for (std::uint64_t i = 1; i <= kInodesPerChunk; ++i) {
        const InodeNo inode{chunk.key + i};
        if ((load_mask(chunk.payload) & mask_bit(inode)) != 0 && !known_.contains(inode)) inodes.push_back(inode);
      }
    }
    if (chunks->size() == kChunksAtOnce) continue;
    if (inodes.size() < kPrepareAtOnce) from = 0;
    if (wrapped) break;
    wrapped = true;
  }
  co_return inodes;
}

// One after the other, in order, nothing else held; they stay with the node.
Task<Result<>> InodeAllocator::Impl::take_locks(std::vector<InodeNo> inodes) {
  for (const InodeNo inode : inodes) {
    const auto hold = co_await locks_.acquire(lock_of(inode), LockMode::kExclusive, LocalUse::kExclusive);
    if (!hold) co_return fail(hold.error());
    put(inode);
  }
  co_return Result<>();
}

Task<Result<>> InodeAllocator::Impl::add_chunk(InodeNo near) {
  SpaceRequest request;
  if (is_possible(near)) request.goal = chunk_of(near);
  request.data = format::kChunkBlocks;
  request.alignment = format::kChunkBlocks;
  request.metadata = 2;  // a split of the index's root; more if it turns out that more splits
  while (true) {
    auto space = allocator_.try_reserve(request);
    if (space) {
      const auto made = co_await make_chunk(*space);
      if (!made) co_return fail(made.error());
      if (*made) co_return Result<>();
      ++request.metadata;
      continue;
    }
    if (space.error() != Errc::kAgain) co_return fail(space.error());
    const auto ready = co_await allocator_.prepare(request);
    if (!ready) co_return ready;
  }
}

// Everything that can fail comes before the lock block: a chunk whose locks the lock service knows must become live.
Task<Result<bool>> InodeAllocator::Impl::make_chunk(Reservation& space) {
  const BlockRange blocks = space.runs().front();
  const BlockNo chunk = blocks.start;
  const GroupNo group = geometry_.group_of(chunk);
  const IoBuffer inodes = free_inode_blocks(chunk, geometry_);
  const auto written = co_await device_.write((chunk + 1).offset_bytes(), inodes.bytes(), Durability::kCached);
  if (!written) co_return fail(written.error());
  log_.data_written();

  const auto guard = co_await allocator_.index_mutex(group).lock();
  BTree tree = index(group);
  std::array<std::byte, sizeof(format::le16)> mask;
  store_mask(mask, kAllInodesFree);
  const auto planned = co_await tree.insert(chunk.value, mask);
  if (!planned && planned.error() == Errc::kExists) co_return fail(Errc::kBadValue, "inode chunk", chunk.value);
  if (!planned) co_return fail(planned.error());
  if (tree.needs().new_blocks > space.metadata_blocks()) co_return false;
  const auto adopted = co_await locks_.adopt_chunk(chunk);
  if (!adopted) co_return fail(adopted.error());
  auto tx = co_await log_.begin(tree.needs().credits + space.credits() + 1);
  if (!tx) co_return fail(tx.error());
  const LockHold& hold = space.group_hold(group);
  tree.apply(*tx, hold, space);
  space.take_data(*tx, blocks);
  const BufferRef header = space.group_header(group);
  tx->change(*header, hold);
  auto& raw = header->as<format::GroupHeader>();
  raw.chunks = raw.chunks.value() + 1;
  raw.free_inodes = raw.free_inodes.value() + kInodesPerChunk;
  tx->end();
  cache_inodes(chunk, inodes);
  for (std::uint64_t i = 1; i <= kInodesPerChunk; ++i) put(InodeNo{chunk.value + i});
  co_return true;
}

// As they are on the device, so that the creates that follow need not read them.
void InodeAllocator::Impl::cache_inodes(BlockNo chunk, const IoBuffer& blocks) {
  for (std::uint64_t i = 0; i < kInodesPerChunk; ++i) {
    const InodeNo inode{chunk.value + 1 + i};
    const auto hold = locks_.try_acquire(lock_of(inode), LockMode::kExclusive, LocalUse::kExclusive);
    if (!hold) continue;
    const BufferRef buffer = buffers_.make(inode.block(), format::BlockType::kInode, lock_of(inode));
    std::ranges::copy(blocks.bytes().subspan(i * kBlockSize, kBlockSize), buffer->bytes().begin());
  }
}

Task<Result<bool>> InodeAllocator::Impl::is_inode(InodeNo inode) {
  if (!is_possible(inode)) co_return false;
  const GroupNo group = group_of(inode);
  const LockName lock = lock_of(geometry_, group);
  while (true) {
    auto hold = co_await locks_.acquire(lock, LockMode::kShared, LocalUse::kShared);
    if (!hold) co_return fail(hold.error());
    SharedMutex::Guard guard;
    if (hold->mode() == LockMode::kExclusive) {
      // The index may change under our eyes: it has a mutex as soon as the group is loaded.
      if (!is_loaded(group)) {
        hold->release();
        const auto ready = co_await allocator_.prepare_group(group);
        if (!ready) co_return fail(ready.error());
        continue;
      }
      guard = co_await allocator_.index_mutex(group).lock_shared();
    }
    const auto header = co_await buffers_.read(geometry_.group_header(group), format::BlockType::kGroupHeader, lock);
    if (!header) co_return fail(header.error());
    BTree tree(buffers_, chunk_index_of_group(*header, lock));
    const auto chunk = co_await tree.find(chunk_of(inode).value);
    if (!chunk) co_return fail(chunk.error());
    co_return chunk->has_value() && (load_mask((*chunk)->payload) & mask_bit(inode)) == 0;
  }
}

InodeMaskChange::InodeMaskChange(InodeMaskChange&& other) noexcept {
  swap(other);
}

InodeMaskChange& InodeMaskChange::operator=(InodeMaskChange&& other) noexcept {
  InodeMaskChange taken(std::move(other));
  swap(taken);
  return *this;
}

InodeMaskChange::~InodeMaskChange() {
  if (owner_ != nullptr && !free_) owner_->put_back(inode_);
}

void InodeMaskChange::swap(InodeMaskChange& other) noexcept {
  std::swap(owner_, other.owner_);
  std::swap(inode_, other.inode_);
  std::swap(free_, other.free_);
  std::swap(group_, other.group_);
  std::swap(index_, other.index_);
  std::swap(header_, other.header_);
  std::swap(slot_, other.slot_);
}

void InodeMaskChange::apply(TxHandle& tx) {
  CAWFS_ASSERT(owner_ != nullptr);
  tx.change(*slot_.buffer, group_);
  tx.change(*header_, group_);
  const std::uint16_t mask = load_mask(slot_.bytes());
  CAWFS_ASSERT(((mask & mask_bit(inode_)) != 0) != free_);
  store_mask(slot_.bytes(), mask ^ mask_bit(inode_));
  auto& header = header_->as<format::GroupHeader>();
  const std::uint32_t free = header.free_inodes.value();
  header.free_inodes = free_ ? free + 1 : free - 1;
  if (free_) owner_->put_back(inode_);
  owner_ = nullptr;
}

InodeAllocator::InodeAllocator(Executor& executor, BlockDevice& device, const Geometry& geometry, LockService& locks,
                               BufferCache& buffers, TransactionLog& log, Allocator& allocator)
    : impl_(std::make_unique<Impl>(*this, executor, device, geometry, locks, buffers, log, allocator)) {}
InodeAllocator::~InodeAllocator() = default;

Task<Result<InodeClaim>> InodeAllocator::claim(InodeNo near) {
  return impl_->claim(near);
}

Task<Result<>> InodeAllocator::refill(InodeNo near) {
  return impl_->refill(near);
}

Task<Result<InodeMaskChange>> InodeAllocator::release(InodeNo inode) {
  if (!impl_->is_possible(inode)) co_return fail(Errc::kBadValue, "inode", inode.value);
  auto change = co_await impl_->change_mask(inode, true);
  if (!change && change.error() == Errc::kStale) co_return fail(Errc::kBadValue, "free inode", inode.value);
  co_return change;
}

Task<Result<>> InodeAllocator::prepare_free(InodeNo inode) {
  return impl_->allocator().prepare_group(impl_->group_of(inode));
}

Task<Result<bool>> InodeAllocator::is_inode(InodeNo inode) {
  return impl_->is_inode(inode);
}

std::size_t InodeAllocator::prepared() const {
  return impl_->prepared();
}

void InodeAllocator::put_back(InodeNo inode) {
  impl_->put(inode);
}

}  // namespace cawfs
