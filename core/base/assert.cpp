#include "core/base/assert.h"

#include <cstdio>
#include <cstdlib>

namespace cawfs {

void assertion_failed(const char* expression, const char* file, int line) {
  std::fprintf(stderr, "cawfs: %s:%d: assertion failed: %s\n", file, line, expression);
  std::abort();
}

}  // namespace cawfs
