// Changes a populated file system (populated_image.h) that may be damaged, by every operation there is.
#pragma once

#include <utility>

#include "core/base/error.h"
#include "core/base/random.h"
#include "core/fs/filesystem.h"
#include "core/runtime/task.h"

namespace cawfs::testing {

// Whatever comes of it.
template <class T>
Task<void> tried(Task<Result<T>> task) {
  const auto outcome = co_await std::move(task);
  static_cast<void>(outcome);
}

// Whatever comes of it.
Task<void> change_everything(FileSystem& fs, Random& random);

}  // namespace cawfs::testing
