// Randomness is an object handed in, so that a simulated cluster runs from one seed.
#pragma once

#include <cstdint>
#include <memory>
#include <random>

namespace cawfs {

class Random {
 public:
  virtual ~Random() = default;
  virtual std::uint64_t next() = 0;

  // Uniform in [0, bound); bound > 0.
  std::uint64_t below(std::uint64_t bound) { return next() % bound; }
  bool one_in(std::uint64_t n) { return below(n) == 0; }
};

// The same sequence for the same seed, on every machine.
class SeededRandom final : public Random {
 public:
  explicit SeededRandom(std::uint64_t seed) : engine_(seed) {}
  std::uint64_t next() override { return engine_(); }

 private:
  std::mt19937_64 engine_;
};

// The kernel's random numbers.
std::unique_ptr<Random> system_random();

}  // namespace cawfs
