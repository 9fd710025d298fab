// A journal as one ring of blocks: where ring block n is on the device. Extents must have been checked
// (format::check_journal_extents).
#pragma once

#include <cstdint>
#include <vector>

#include "core/base/types.h"
#include "core/format/journal_verify.h"

namespace cawfs {

class JournalRing {
 public:
  explicit JournalRing(std::vector<BlockRange> extents);

  std::uint32_t blocks() const { return blocks_; }
  std::uint32_t advance(std::uint32_t at, std::uint32_t by) const {
    return static_cast<std::uint32_t>((std::uint64_t{at} + by) % blocks_);
  }
  BlockNo header_copy(std::uint64_t writes) const { return extents_[0].start + writes % format::kJournalHeaderCopies; }
  BlockNo block(std::uint32_t at) const { return pieces(at, 1)[0].start; }
  // `count` ring blocks from `at` on, as ranges of the device, in order.
  std::vector<BlockRange> pieces(std::uint32_t at, std::uint32_t count) const;
  // Is the device block part of the journal?
  bool contains(BlockNo block) const;

 private:
  std::vector<BlockRange> extents_;
  std::vector<BlockRange> data_;  // the extents without the header copies
  std::uint32_t blocks_;
};

}  // namespace cawfs
