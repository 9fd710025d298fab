// What --version prints, of every program.
#pragma once

namespace cawfs {

inline constexpr const char* kVersion = "0.1.0";

}  // namespace cawfs
