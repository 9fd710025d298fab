#include "tests/lint/canary.h"

#include <string>
#include <utility>

namespace cawfs {

std::size_t use_after_move(std::string text) {
  const std::string taken = std::move(text);
  return taken.size() + text.size();
}

}  // namespace cawfs
