// Why a mount did not come about: what the user reads, and what mount(8) is told.
#pragma once

#include <expected>
#include <string>

namespace cawfs {

// mount(8), "EXIT STATUS".
inline constexpr int kExitUsage = 1;
inline constexpr int kExitSystem = 2;
inline constexpr int kExitMountFailed = 32;

struct Failure {
  int exit_code = kExitMountFailed;
  std::string message;  // whole sentences, with the remedy where there is one
};

template <class T = void>
using Outcome = std::expected<T, Failure>;

inline std::unexpected<Failure> failure(int exit_code, std::string message) {
  return std::unexpected(Failure{exit_code, std::move(message)});
}

}  // namespace cawfs
