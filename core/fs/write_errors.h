// What went wrong in writing an inode's data back, after the writes had been acknowledged. Each open is told once by
// its first sync() after it, as with Linux's errseq_t: also one that came later, if nobody has been told until then.
#pragma once

#include <cstdint>
#include <optional>

#include "core/base/error.h"

namespace cawfs {

// How many errors an open has been told of.
struct WriteErrorMark {
  std::uint64_t count = 0;
};

class WriteErrors {
 public:
  void note(const Error& error) {
    last_ = error;
    ++count_;
    told_ = false;
  }
  // Somebody must still be told.
  bool untold() const { return last_ && !told_; }
  // For a new open.
  WriteErrorMark mark() const { return {untold() ? count_ - 1 : count_}; }
  std::uint64_t count() const { return count_; }
  // The last error, where it is news.
  Result<> tell(WriteErrorMark& mark) {
    if (!last_ || mark.count == count_) return {};
    mark.count = count_;
    told_ = true;
    return fail(*last_);
  }
  // The number is another inode's now.
  void forget() { *this = {}; }

 private:
  std::optional<Error> last_;
  std::uint64_t count_ = 0;
  bool told_ = false;
};

}  // namespace cawfs
