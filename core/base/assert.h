// Assertions are on in release: they state what only our own bug can break. Bad input is an Error, never an assertion.
#pragma once

namespace cawfs {

[[noreturn]] void assertion_failed(const char* expression, const char* file, int line);

}  // namespace cawfs

#define CAWFS_ASSERT(expression) \
  ((expression) ? static_cast<void>(0) : ::cawfs::assertion_failed(#expression, __FILE__, __LINE__))
