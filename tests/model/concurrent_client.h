// One node's user among several: calls operations at random, on a few names and on what it has open, and notes each
// call with its answer. What it does not have open it uses by name only, as others may delete it at any moment.
#pragma once

#include <vector>

#include "core/base/random.h"
#include "core/runtime/executor.h"
#include "tests/model/call.h"

namespace cawfs::test {

// What all clients share.
struct CallRecorder {
  std::uint64_t order = 0;  // of invocations and returns
  std::vector<Call> calls;  // that have returned
};

class ConcurrentClient {
 public:
  ConcurrentClient(unsigned node, FileSystem& fs, Executor& executor, std::uint64_t seed, const Attributes& root,
                   CallRecorder& recorder)
      : node_(node), fs_(fs), executor_(executor), random_(seed), recorder_(recorder) {
    open_.push_back({{root.inode, root.generation}, true});
  }

  // So many calls, one after the other.
  Task<void> burst(unsigned calls);
  // Nothing is open afterwards.
  Task<void> let_go();

 private:
  Call choose();
  void choose_names(Call& call, std::uint64_t choice);
  void choose_contents(Call& call, std::uint64_t choice);
  enum class Wanted : bool { kDirectory, kFile };
  // Now and then of the other kind.
  ObjectRef some(Wanted wanted);
  std::string name();
  std::string data();
  Task<void> make(Call call);
  Task<void> execute(Call& call);
  Task<void> execute_on_names(Call& call);
  Task<void> execute_on_contents(Call& call);
  Task<Result<Attributes>> open(InodeNo directory, std::string name);
  template <class T>
  Task<std::optional<T>> answer(Call& call, Task<Result<T>> operation);
  Task<void> answer(Call& call, Task<Result<>> operation);
  unsigned node_;
  FileSystem& fs_;
  Executor& executor_;
  SeededRandom random_;
  CallRecorder& recorder_;
  struct Open {
    ObjectRef ref;
    bool directory = false;
  };
  std::vector<Open> open_;  // the root first
};

}  // namespace cawfs::test
