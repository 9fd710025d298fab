#include "core/runtime/reactor.h"

#include <time.h>

#include "core/base/assert.h"

namespace cawfs {

namespace {

std::int64_t read_clock(clockid_t id) {
  timespec now{};
  CAWFS_ASSERT(clock_gettime(id, &now) == 0);
  return now.tv_sec * 1'000'000'000 + now.tv_nsec;
}

}  // namespace

Time SystemClock::now() const {
  return Time{Duration(read_clock(CLOCK_BOOTTIME))};
}

std::int64_t SystemClock::wall_ns() const {
  return read_clock(CLOCK_REALTIME);
}

}  // namespace cawfs
