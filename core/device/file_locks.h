// The locks of a file LUN, all on bytes far beyond its end. Every opener has an index, which is also its record in the
// sidecar.
//
//   index    an opener has this index
//   alive    an opener has passed the sidecar's check; on the descriptor that its I/O uses
//   writes   two bytes for each opener, one for each of its descriptors: locked while it has writes in flight there,
//   from
//            before it checks its registration to the end of its I/O
//   marks    mutual exclusion between openers: of COMPARE AND WRITE, one mark for so many blocks, and of changes of the
//            sidecar. The opener with index i locks the i + 1 bytes that end with the mark. So one can have it, and
//            whoever waits sees who.
//
// A fence takes the victim's registration off the sidecar and then waits until the victim's write bytes are free: what
// was checked before has landed, what is checked later is refused. Since the bytes are locked on the very descriptions
// that the I/O uses, those of a killed process are free no sooner than its last I/O has ended.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/base/log.h"
#include "core/base/random.h"
#include "core/device/file_handle.h"
#include "core/device/file_sidecar.h"
#include "core/runtime/reactor.h"

namespace cawfs {

// Cached writes and FUA writes go through different descriptors (O_DSYNC).
enum class FileChannel : std::uint8_t { kCached, kFua };

inline constexpr std::size_t kCompareAndWriteMarks = 64;

LockRange index_lock(std::size_t index);
LockRange alive_lock(std::size_t index);
LockRange alive_locks();  // of all openers
LockRange write_lock(std::size_t index, FileChannel channel);
LockRange write_locks(std::size_t index);  // of both channels

struct Mark {
  std::int64_t byte;
  LockRange as_held_by(std::size_t index) const;
  // Who holds it, from a lock that conflicts.
  std::size_t holder(LockRange lock) const { return static_cast<std::size_t>(byte - lock.start); }
};
Mark compare_and_write_mark(std::uint64_t logical_block_number);
Mark sidecar_mark();

// Whom to wait for; what is not in the list is let be.
struct FileVictim {
  std::size_t index;
  bool fenced;  // it may be killed, and must be waited for
};

class FileLocks {
 public:
  FileLocks(Reactor& reactor, Log& log, const FileSidecar& sidecar, std::uint64_t random_seed, Duration timeout)
      : reactor_(reactor), log_(log), sidecar_(sidecar), random_(random_seed), timeout_(timeout) {}

  // Waits for `mark` on `file` for at most the timeout (kTransport). A holder that has been stopped, so that everybody
  // would wait for it, is killed after a second.
  Task<Result<>> acquire(const FileHandle& file, Mark mark, std::size_t index);
  void release(const FileHandle& file, Mark mark, std::size_t index) const;

  // Returns when each of the victims has been seen without a write in flight. A fenced one that is stopped is killed
  // after a second, another fenced one after five; where it does not die within the timeout, kTransport. One that is
  // not fenced is waited for for a second.
  Task<Result<>> drain(const FileHandle& file, std::vector<FileVictim> victims);

 private:
  Task<Result<>> drain_one(const FileHandle& file, FileVictim victim);
  Task<ProcessState> state_of(std::size_t index);
  Task<void> kill(std::size_t index, const char* reason);
  // Sleeps a random part of `backoff`, and doubles it.
  Task<void> back_off(Duration& backoff);

  Reactor& reactor_;
  Log& log_;
  const FileSidecar& sidecar_;
  SeededRandom random_;
  Duration timeout_;
};

}  // namespace cawfs
