// Some of tests/support reports through GoogleTest: to a fuzzer such a failure is a crash.
#pragma once

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>

namespace cawfs::fuzz {

class AbortOnFailure final : public ::testing::EmptyTestEventListener {
 public:
  void OnTestPartResult(const ::testing::TestPartResult& result) override {
    if (!result.failed()) return;
    std::fprintf(stderr, "%s:%d: %s\n", result.file_name() ? result.file_name() : "", result.line_number(),
                 result.summary());
    std::abort();
  }
};

// Once, before the first input.
inline void abort_on_failure() {
  static const bool done = [] {
    ::testing::UnitTest::GetInstance()->listeners().Append(new AbortOnFailure);
    return true;
  }();
  static_cast<void>(done);
}

}  // namespace cawfs::fuzz
