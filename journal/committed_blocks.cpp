#include "journal/committed_blocks.h"

#include <algorithm>
#include <utility>

#include "core/base/assert.h"
#include "core/base/planted_fault.h"

namespace cawfs {

namespace {

constexpr std::uint64_t kWritesInFlight = 64;
// Up to so many blocks each write carries FUA (one round trip); more are followed by one flush instead.
constexpr std::size_t kMostFua = 16;

}  // namespace

void CommittedBlocks::install(BlockImage image, TxId id) {
  const BlockNo block = image.block;
  const auto [it, added] = blocks_.try_emplace(block);
  Entry& entry = it->second;
  if (!added) {
    CAWFS_ASSERT(entry.id < id);
    space_.release(entry.id, block);
    if (entry.image.tag.name != image.tag.name) {
      const auto lock = by_lock_.find(entry.image.tag.name);
      lock->second.erase(block);
      if (lock->second.empty()) by_lock_.erase(lock);
    }
  }
  by_lock_[image.tag.name].insert(block);
  entry.image = std::move(image);
  entry.id = id;
  space_.hold(id, block);
}

void CommittedBlocks::forget_freed(BlockNo block, TxId id) {
  const auto freed = freed_.find(block);
  CAWFS_ASSERT(freed != freed_.end() && freed->second == id);
  freed_.erase(freed);
  const auto it = blocks_.find(block);
  if (it == blocks_.end()) return;
  CAWFS_ASSERT(!it->second.writing && it->second.id <= id);
  erase(it);
}

bool CommittedBlocks::writing(BlockNo block) const {
  const auto it = blocks_.find(block);
  return it != blocks_.end() && it->second.writing;
}

bool CommittedBlocks::writing_any() const {
  return std::ranges::any_of(blocks_, [](const auto& block) { return block.second.writing; });
}

TxId CommittedBlocks::freed_by(BlockNo block) const {
  const auto it = freed_.find(block);
  return it == freed_.end() ? TxId{} : it->second;
}

bool CommittedBlocks::writable(BlockNo block) const {
  const auto it = blocks_.find(block);
  return it != blocks_.end() && !it->second.writing && !freed_.contains(block);
}

std::vector<BlockNo> CommittedBlocks::under(LockName lock) const {
  const auto it = by_lock_.find(lock);
  if (it == by_lock_.end()) return {};
  return {it->second.begin(), it->second.end()};
}

std::vector<BlockNo> CommittedBlocks::all() const {
  std::vector<BlockNo> out;
  out.reserve(blocks_.size());
  for (const auto& [block, entry] : blocks_) out.push_back(block);
  return out;
}

Task<void> CommittedBlocks::write_one(Write& write, Durability durability, Semaphore& slots) {
  co_await slots.acquire();
  write.result = co_await io_.write(write.block.offset_bytes(), write.bytes->bytes(), durability);
  slots.release();
}

Task<Result<>> CommittedBlocks::write_in_place(std::vector<BlockNo> blocks) {
  std::vector<Write> writes;
  writes.reserve(blocks.size());
  for (const BlockNo block : blocks) {
    CAWFS_ASSERT(writable(block));
    Entry& entry = blocks_.find(block)->second;
    entry.writing = true;
    entry.image.buffer->writing = true;
    writes.push_back({.block = block, .id = entry.id, .bytes = entry.image.bytes});
  }

  const bool no_flush = planted(PlantedFault::kInPlaceNotFlushed);
  const Durability durability = writes.size() <= kMostFua && !no_flush ? Durability::kFua : Durability::kCached;
  TaskGroup group(io_.executor());
  Semaphore slots(io_.executor(), kWritesInFlight);
  for (Write& write : writes) group.spawn(write_one(write, durability, slots));
  co_await group.join();

  Result<> result;
  if (durability == Durability::kCached && !no_flush) result = co_await io_.flush();
  const bool flushed = result.has_value();
  for (const Write& write : writes) {
    in_place(write, flushed && write.result);
    if (result && !write.result) result = write.result;
  }
  progress_.notify_all();
  co_return result;
}

void CommittedBlocks::in_place(const Write& write, bool durable) {
  const auto it = blocks_.find(write.block);
  CAWFS_ASSERT(it != blocks_.end() && it->second.writing);
  it->second.writing = false;
  it->second.image.buffer->writing = false;
  if (durable && it->second.id == write.id) erase(it);
}

void CommittedBlocks::erase(std::map<BlockNo, Entry>::iterator it) {
  const auto& [block, entry] = *it;
  Buffer& buffer = *entry.image.buffer;
  if (buffer.committed == entry.id) buffer.committed = TxId{};
  const auto lock = by_lock_.find(entry.image.tag.name);
  lock->second.erase(block);
  if (lock->second.empty()) by_lock_.erase(lock);
  space_.release(entry.id, block);
  blocks_.erase(it);
}

void CommittedBlocks::abandon() {
  for (auto& [block, entry] : blocks_) {
    CAWFS_ASSERT(!entry.writing);
    entry.image.buffer->committed = TxId{};
  }
  blocks_.clear();
  by_lock_.clear();
  freed_.clear();
}

}  // namespace cawfs
