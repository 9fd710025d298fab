// The only place where cawfs's errors become errno values.
#pragma once

#include "core/base/error.h"

namespace cawfs {

// The errno value that a system call fails with; positive. Every code has one.
int to_errno(Errc code);

}  // namespace cawfs
