// What clang-tidy must find: ./dev lint fails unless it reports a name in this header, and a bug in canary.cpp.
#pragma once

namespace cawfs {

struct Canary {
  int Sings = 0;
};

}  // namespace cawfs
