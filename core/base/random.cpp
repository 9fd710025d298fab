#include "core/base/random.h"

#include <sodium.h>

namespace cawfs {
namespace {

class SystemRandom final : public Random {
 public:
  std::uint64_t next() override {
    std::uint64_t value = 0;
    randombytes_buf(&value, sizeof value);
    return value;
  }
};

}  // namespace

std::unique_ptr<Random> system_random() {
  return std::make_unique<SystemRandom>();
}

}  // namespace cawfs
