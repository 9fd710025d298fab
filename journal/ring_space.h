// Which part of a journal's ring is in use: the records, oldest first, and which of them replay still needs. A record
// is needed until it has committed and each block whose newest committed image it holds is in place (or freed by a
// committed transaction). Ring blocks are used again only once a header with a later tail is durable.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <vector>

#include "core/base/types.h"
#include "core/fs/buffer_cache.h"
#include "journal/ring.h"

namespace cawfs {

class RingSpace {
 public:
  // A place between two records. `position` counts ring blocks since the journal was opened.
  struct Place {
    std::uint64_t position = 0;
    std::uint64_t sequence = 0;  // of the record that starts or will start there
    friend bool operator==(const Place&, const Place&) = default;
  };

  // Starts empty at `ring_block`, with `sequence` for the first record.
  RingSpace(const JournalRing& ring, std::uint32_t ring_block, std::uint64_t sequence)
      : ring_(ring), start_(ring_block), head_{0, sequence}, durable_tail_(head_) {}

  std::uint32_t ring_block(Place place) const { return ring_.advance(start_, in_ring(place.position)); }

  // Takes the ring blocks of transaction `id`'s record, higher than all before. They must be free.
  Place append(TxId id, std::uint32_t blocks);
  void committed(TxId id);
  // `block`'s newest committed image is in the record of `id` and not in place.
  void hold(TxId id, BlockNo block);
  void release(TxId id, BlockNo block);

  // The oldest record that is needed, or the head.
  Place tail() const { return records_.empty() ? head_ : records_.begin()->second.place; }
  Place durable_tail() const { return durable_tail_; }
  void set_durable_tail(Place tail) { durable_tail_ = tail; }

  std::uint32_t capacity() const { return ring_.blocks(); }
  std::uint32_t used() const { return static_cast<std::uint32_t>(head_.position - durable_tail_.position); }
  std::uint32_t free() const { return capacity() - used(); }
  // What would be in use if the header were written now.
  std::uint32_t needed() const { return static_cast<std::uint32_t>(head_.position - tail().position); }

  // The oldest needed record; not if there is none.
  bool oldest_committed() const { return !records_.empty() && records_.begin()->second.committed; }
  // Blocks held by committed records, oldest record first, until what is needed would be at most `target` ring blocks,
  // or `limit` blocks.
  std::vector<BlockNo> held(std::uint32_t target, std::size_t limit) const;

 private:
  struct Record {
    Place place;
    bool committed = false;
    std::set<BlockNo> holds;
  };

  std::uint32_t in_ring(std::uint64_t position) const { return static_cast<std::uint32_t>(position % ring_.blocks()); }
  void drop_unneeded();

  const JournalRing& ring_;
  std::uint32_t start_;
  Place head_;
  Place durable_tail_;
  std::map<TxId, Record> records_;
};

}  // namespace cawfs
