// Counts how often the real verifiers run, and refuse, while real code reads a file system: the linker puts the
// functions of verifier_watch.cpp between each verifier and its callers in other files (--wrap; link with
// cawfs_verifier_watch), so that nothing in the code under test knows.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace cawfs::testing {

struct VerifierCount {
  std::uint64_t ran = 0;
  std::uint64_t refused = 0;
  void add(bool good) {
    ++ran;
    if (!good) ++refused;
  }
};

// While it lives, counts calls of all verifiers; those of blocks at byte `offset` of the device apart. One at a time.
class VerifierWatch {
 public:
  explicit VerifierWatch(std::uint64_t offset);
  ~VerifierWatch();
  VerifierWatch(const VerifierWatch&) = delete;

  // For the wrappers. `offset`: what the verifier was told of where the block stands.
  static void note(const char* verifier, std::uint64_t offset, bool good);

  VerifierCount here;                        // of the watched offset
  std::map<std::string, VerifierCount> all;  // by verifier

 private:
  std::uint64_t offset_;
};

}  // namespace cawfs::testing
