// Are the answers that several nodes were given explained by some order of their calls, one after the other, that is
// consistent with real time (Herlihy and Wing, "Linearizability", 1990)? The model does the calls in all orders that
// are (the search is that of Wing and Gong, 1993, states that are equal being looked at once).
//
// Calls come in bursts, at the end of each of which all have returned. What has been seen may leave several states
// possible: they are kept until later answers tell.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "tests/model/call.h"
#include "tests/model/file_system_model.h"

namespace cawfs::test {

class Linearizer {
 public:
  explicit Linearizer(const Attributes& root);

  // All calls of a burst, at most 64. False: nothing explains their answers; the states stay as they were.
  bool explains(const std::vector<Call>& calls);
  std::size_t states() const { return states_.size(); }
  // Of those possible, one; for who wants to know what there is.
  const FileSystemModel& model() const { return states_.front().model; }
  ObjectRef ref(FileSystemModel::Id id) const { return states_.front().refs.at(id); }
  // Of the burst that nothing explained: how far one came, and what was wrong with each call that could have been next.
  const std::string& obstacle() const { return obstacle_; }

 private:
  struct State {
    FileSystemModel model;
    std::map<ObjectRef, FileSystemModel::Id> ids;
    std::map<FileSystemModel::Id, ObjectRef> refs;
  };
  using States = std::map<std::string, State>;  // by what they say

  static std::string fingerprint(const State& state);
  // Does the call; empty if the answer is the model's, else what differs.
  static std::string apply(const Call& call, State& state);
  static std::string compare(const Call& call, State& state, const Result<FileSystemModel::Id>& expected);

  std::vector<State> states_;
  std::string obstacle_;
};

}  // namespace cawfs::test
