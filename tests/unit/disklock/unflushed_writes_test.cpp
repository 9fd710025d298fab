#include "disklock/unflushed_writes.h"

#include <gtest/gtest.h>

#include <vector>

#include "core/base/random.h"

namespace cawfs {
namespace {

constexpr std::uint64_t kUnit = 16;

// Against an array that remembers, for each unit, what a replay must write there.
TEST(UnflushedWrites, ReplayGivesBackWhatNoFlushCovered) {
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    SCOPED_TRACE(seed);
    SeededRandom random(seed);
    UnflushedWrites kept;
    struct Unit {
      int value = -1;  // nothing to write
      std::uint64_t sequence = 0;
    };
    std::vector<Unit> model(64);
    std::uint64_t sequence = 0;
    for (int step = 0; step < 200; ++step) {
      const std::uint64_t start = random.below(60);
      const std::uint64_t count = 1 + random.below(64 - start);
      const auto set = [&](int value) {
        for (std::uint64_t i = start; i < start + count; ++i) model[i] = {value, sequence};
      };
      ++sequence;
      switch (random.below(5)) {
        case 0:
          kept.drop(start * kUnit, count * kUnit);
          set(-1);
          break;
        case 1:
          kept.keep_zeroes(start * kUnit, count * kUnit, sequence);
          set(0);
          break;
        case 2: {
          const std::uint64_t covered = sequence - random.below(3);
          kept.flushed(covered);
          for (Unit& unit : model) unit = unit.sequence < covered ? Unit{} : unit;
          break;
        }
        default: {
          const int value = 1 + static_cast<int>(random.below(200));
          const std::vector<std::byte> data(count * kUnit, static_cast<std::byte>(value));
          kept.keep(start * kUnit, data, sequence);
          set(value);
        }
      }
      std::vector<int> found(model.size(), -1);
      std::uint64_t bytes = 0;
      for (const auto& [offset, range] : kept.ranges()) {
        bytes += range.data.size();
        for (std::uint64_t at = 0; at < range.length; at += kUnit) {
          EXPECT_EQ(found[(offset + at) / kUnit], -1);
          found[(offset + at) / kUnit] = range.data.size() == 0 ? 0 : static_cast<int>(range.data.data()[at]);
        }
      }
      EXPECT_EQ(bytes, kept.bytes());
      for (std::size_t i = 0; i < model.size(); ++i) ASSERT_EQ(found[i], model[i].value) << "unit " << i;
    }
  }
}

}  // namespace
}  // namespace cawfs
