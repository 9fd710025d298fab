#include "core/fs/buffer_cache.h"

#include <map>
#include <utility>

#include "core/base/assert.h"
#include "core/format/verify.h"

namespace cawfs {

class BufferCache::Impl {
 public:
  Impl(Executor& executor, BlockDevice& device, const Geometry& geometry, std::uint64_t limit_bytes)
      : executor_(executor), device_(device), geometry_(geometry), limit_bytes_(limit_bytes) {}

  ~Impl() {
    while (!buffers_.empty()) drop(*buffers_.begin()->second);
  }

  Task<Result<BufferRef>> read(BlockNo block, format::BlockType type, LockName lock) {
    if (const BufferRef cached = find(block)) co_return checked(cached, type, lock);
    auto [position, first] = reading_.try_emplace(block);
    if (!first) {
      const std::shared_ptr<Reading> other = position->second;
      co_await other->done.wait();
      if (!other->result) co_return other->result;
      co_return checked(*other->result, type, lock);
    }
    const auto mine = std::make_shared<Reading>(executor_);
    position->second = mine;
    mine->result = co_await load(block, type, lock);
    reading_.erase(block);
    mine->done.set();
    co_return mine->result;
  }

  BufferRef find(BlockNo block) {
    const auto found = buffers_.find(block);
    return found == buffers_.end() ? nullptr : BufferRef(found->second);
  }

  BufferRef make(BlockNo block, format::BlockType type, LockName lock) {
    if (const auto old = buffers_.find(block); old != buffers_.end()) {
      CAWFS_ASSERT(!old->second->dirty());
      drop(*old->second);
    }
    BufferRef buffer = add(std::make_unique<Buffer>(), block, lock);
    format::start_block(buffer->bytes(), type, block, geometry_.fs_id);
    return buffer;
  }

  void forget(LockName lock) {
    const auto found = by_lock_.find(lock);
    if (found == by_lock_.end()) return;
    auto& list = *found->second;
    // drop() of the last one takes the list away.
    for (std::size_t left = list.size(); left > 0; --left) {
      Buffer& buffer = list.front();
      CAWFS_ASSERT(!buffer.dirty());
      drop(buffer);
    }
  }

  void forget(BlockNo block) {
    if (const auto found = buffers_.find(block); found != buffers_.end()) drop(*found->second);
  }

  void pinned(Buffer& buffer) {
    if (buffer.idle_hook_.is_linked()) idle_.erase(idle_.iterator_to(buffer));
  }

  void unpinned(Buffer& buffer) {
    idle_.push_back(buffer);
    evict();
  }

  // What the friend calls once the last pin has gone.
  static void last_pin_gone(Buffer& buffer) {
    if (!buffer.cached_) {
      delete &buffer;
    } else {
      buffer.cache_->impl_->unpinned(buffer);
    }
  }

  BufferCache* self = nullptr;
  std::function<Task<Result<>>()> confirm;
  BlockDevice& device() const { return device_; }
  const Geometry& geometry() const { return geometry_; }
  std::uint64_t bytes() const { return buffers_.size() * kBlockSize; }

 private:
  struct Reading {
    explicit Reading(Executor& executor) : done(executor) {}
    Event done;
    Result<BufferRef> result;
  };
  using IdleList = boost::intrusive::list<
      Buffer, boost::intrusive::member_hook<Buffer, boost::intrusive::list_member_hook<>, &Buffer::idle_hook_>>;
  using LockList = boost::intrusive::list<
      Buffer, boost::intrusive::member_hook<Buffer, boost::intrusive::list_member_hook<>, &Buffer::lock_hook_>>;

  static Result<BufferRef> checked(const BufferRef& buffer, format::BlockType type, LockName lock) {
    const auto& header = *reinterpret_cast<const format::BlockHeader*>(buffer->bytes().data());
    if (header.type.value() != static_cast<std::uint16_t>(type) || buffer->lock_ != lock) {
      return fail(Errc::kBadIdentity, "cached block", buffer->block().value);
    }
    return buffer;
  }

  Task<Result<BufferRef>> load(BlockNo block, format::BlockType type, LockName lock) {
    if (block.value >= geometry_.block_count) co_return fail(Errc::kBounds, "metadata block", block.value);
    auto buffer = std::make_unique<Buffer>();
    const auto done = co_await device_.read(block.offset_bytes(), buffer->bytes());
    if (!done) co_return fail(done.error());
    if (confirm) {
      const auto held = co_await confirm();
      if (!held) co_return fail(held.error());
    }
    if (const auto ok = format::verify_block(buffer->bytes(), type, block, geometry_); !ok) co_return fail(ok.error());
    // Made meanwhile by somebody else, under a lock that was not ours: the block is claimed twice.
    if (const BufferRef other = find(block)) co_return checked(other, type, lock);
    co_return add(std::move(buffer), block, lock);
  }

  BufferRef add(std::unique_ptr<Buffer> owned, BlockNo block, LockName lock) {
    Buffer* buffer = owned.release();
    buffer->cache_ = self;
    buffer->block_ = block;
    buffer->lock_ = lock;
    buffers_[block] = buffer;
    auto& list = by_lock_[lock];
    if (!list) list = std::make_unique<LockList>();
    list->push_back(*buffer);
    return BufferRef(buffer);
  }

  void drop(Buffer& buffer) {
    buffers_.erase(buffer.block_);
    const auto under = by_lock_.find(buffer.lock_);
    under->second->erase(under->second->iterator_to(buffer));
    if (under->second->empty()) by_lock_.erase(under);
    pinned(buffer);
    buffer.cached_ = false;
    buffer.cache_ = nullptr;
    if (buffer.pins_ == 0) delete &buffer;
  }

  // A dirty buffer that nobody pins waits for the log; it goes to the end of the queue.
  void evict() {
    for (std::size_t tries = idle_.size(); tries > 0 && bytes() > limit_bytes_; --tries) {
      Buffer& oldest = idle_.front();
      if (oldest.dirty()) {
        idle_.splice(idle_.end(), idle_, idle_.begin());
      } else {
        drop(oldest);
      }
    }
  }

  Executor& executor_;
  BlockDevice& device_;
  const Geometry& geometry_;
  const std::uint64_t limit_bytes_;
  std::unordered_map<BlockNo, Buffer*> buffers_;
  std::map<LockName, std::unique_ptr<LockList>> by_lock_;
  IdleList idle_;  // unpinned, least recently used first
  std::unordered_map<BlockNo, std::shared_ptr<Reading>> reading_;
};

void intrusive_ptr_add_ref(Buffer* buffer) {
  if (buffer->pins_++ == 0 && buffer->cached_) buffer->cache_->impl_->pinned(*buffer);
}

void intrusive_ptr_release(Buffer* buffer) {
  CAWFS_ASSERT(buffer->pins_ > 0);
  if (--buffer->pins_ == 0) BufferCache::Impl::last_pin_gone(*buffer);
}

BufferCache::BufferCache(Executor& executor, BlockDevice& device, const Geometry& geometry, std::uint64_t limit_bytes)
    : impl_(std::make_unique<Impl>(executor, device, geometry, limit_bytes)) {
  impl_->self = this;
}
BufferCache::~BufferCache() = default;

void BufferCache::confirm_reads_by(std::function<Task<Result<>>()> confirm) {
  impl_->confirm = std::move(confirm);
}

Task<Result<BufferRef>> BufferCache::read(BlockNo block, format::BlockType type, LockName lock) {
  return impl_->read(block, type, lock);
}
BufferRef BufferCache::find(BlockNo block) {
  return impl_->find(block);
}
BufferRef BufferCache::make(BlockNo block, format::BlockType type, LockName lock) {
  return impl_->make(block, type, lock);
}
void BufferCache::forget(LockName lock) {
  impl_->forget(lock);
}
void BufferCache::forget(BlockNo block) {
  impl_->forget(block);
}
const Geometry& BufferCache::geometry() const {
  return impl_->geometry();
}
BlockDevice& BufferCache::device() const {
  return impl_->device();
}
std::uint64_t BufferCache::bytes() const {
  return impl_->bytes();
}

}  // namespace cawfs
