// A transaction log without a journal, for tests of what stands on one: transactions commit when asked to, and
// committed blocks are written in place when asked to. It checks what users promise: credits, EX holds, that nothing
// changes a buffer outside a transaction (by checksum, at commit), that every block verifies.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <set>
#include <vector>

#include "core/base/checksum.h"
#include "core/format/verify.h"
#include "core/fs/transaction.h"

namespace cawfs::testing {

class MemoryLog final : public TransactionLog {
 public:
  explicit MemoryLog(BufferCache& buffers) : buffers_(buffers) {}
  ~MemoryLog() override {
    for (auto& [block, dirty] : dirty_) clean(*dirty.buffer);
  }

  Task<Result<TxHandle>> begin(std::uint32_t credits) override {
    EXPECT_LE(credits, max_credits());
    ++open_;
    ++begun;
    credits_left_ += credits;
    co_return TxHandle(this, running_, credits);
  }
  std::uint32_t max_credits() const override { return most_credits; }

  Task<Result<>> commit(TxId id) override {
    if (id >= running_) commit_running();
    co_return Result<>();
  }
  TxId last() const override { return running_; }
  bool committed(TxId id) const override { return id < running_; }

  Task<Result<>> write_back(LockName lock) override {
    commit_running();
    std::vector<BlockNo> blocks;
    for (const auto& [block, dirty] : dirty_) {
      if (dirty.lock == lock) blocks.push_back(block);
    }
    for (const BlockNo block : blocks) {
      const auto done = co_await write_in_place(block);
      if (!done) co_return done;
    }
    const auto done = co_await buffers_.device().flush();
    co_return done;
  }
  Task<Result<>> write_back_all() override {
    commit_running();
    while (!dirty_.empty()) {
      const auto done = co_await write_in_place(dirty_.begin()->first);
      if (!done) co_return done;
    }
    const auto done = co_await buffers_.device().flush();
    co_return done;
  }

  void data_written() override {}
  Task<Result<>> flush_data() override {
    const auto done = co_await buffers_.device().flush();
    co_return done;
  }

  std::uint32_t most_credits = 512;
  std::uint64_t begun = 0;  // handles
  int open_handles() const { return open_; }
  std::uint64_t commits() const { return running_.value - 1; }
  // Blocks revoked by transactions so far, in order.
  std::vector<BlockRange> revoked;

 private:
  struct Dirty {
    BufferRef buffer;
    LockName lock;
  };

  void change(TxId id, Buffer& buffer, LockTag tag) override {
    EXPECT_EQ(id, running_);
    EXPECT_GT(open_, 0);
    if (changed_.insert(buffer.block()).second && open_ == 1) {
      EXPECT_GT(credits_left_, 0u) << "a handle changes more buffers than it has credits for";
      if (credits_left_ > 0) --credits_left_;
    }
    buffer.tag = tag;
    buffer.running = id;
    dirty_[buffer.block()] = {BufferRef(&buffer), tag.name};
  }
  void revoke(TxId id, BlockRange blocks) override {
    EXPECT_EQ(id, running_);
    revoked.push_back(blocks);
    for (std::uint64_t i = 0; i < blocks.count; ++i) {
      const auto found = dirty_.find(blocks.start + i);
      if (found != dirty_.end()) {
        clean(*found->second.buffer);
        dirty_.erase(found);
      }
      buffers_.forget(blocks.start + i);
    }
  }
  void on_commit(TxId id, std::function<void()> done) override {
    EXPECT_EQ(id, running_);
    callbacks_.push_back(std::move(done));
  }
  void end(TxId id) override {
    EXPECT_EQ(id, running_);
    if (--open_ == 0) {
      credits_left_ = 0;
      changed_.clear();
    }
  }

  void commit_running() {
    ASSERT_EQ(open_, 0) << "commit with an open handle";
    for (auto& [block, dirty] : dirty_) {
      if (dirty.buffer->running == TxId{}) continue;
      dirty.buffer->committed = dirty.buffer->running;
      dirty.buffer->running = TxId{};
      format::stamp_unverified(dirty.buffer->bytes());
    }
    ++running_.value;
    const auto callbacks = std::move(callbacks_);
    callbacks_.clear();
    for (const auto& done : callbacks) done();
  }

  static void clean(Buffer& buffer) {
    buffer.running = TxId{};
    buffer.committed = TxId{};
  }

  Task<Result<>> write_in_place(BlockNo block) {
    const BufferRef buffer = dirty_.at(block).buffer;
    format::stamp_block(buffer->bytes());
    const auto done = co_await buffers_.device().write(block.offset_bytes(), buffer->bytes(), Durability::kCached);
    if (!done) co_return done;
    clean(*buffer);
    dirty_.erase(block);
    co_return Result<>();
  }

  BufferCache& buffers_;
  TxId running_{1};
  int open_ = 0;
  std::uint32_t credits_left_ = 0;
  std::set<BlockNo> changed_;  // since the handles that are open were opened
  std::map<BlockNo, Dirty> dirty_;
  std::vector<std::function<void()>> callbacks_;
};

}  // namespace cawfs::testing
