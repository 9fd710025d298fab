// A random script of operations, done by a file system and by the model of it; every answer is compared. Several
// scripts may run at once, each in a directory of its own.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/base/random.h"
#include "core/runtime/executor.h"
#include "tests/model/file_system_model.h"

namespace cawfs::test {

struct ScriptOptions {
  std::uint64_t names = 24;          // that it gives in one directory
  std::size_t most_nodes = 1000;     // it rather removes when it has made more
  std::vector<std::string> often{};  // names that are given more often than these
  bool flat = false;                 // most of it in the topmost directory
  bool far = false;                  // files may have holes of any size
  bool scarce = false;               // there may be no space for what it does
  std::uint64_t compare_every = 5000;
};

class ModelScript {
 public:
  using Id = FileSystemModel::Id;

  ModelScript(Executor& executor, std::uint64_t seed, ScriptOptions options, const Attributes& top);

  Task<void> run(FileSystem& fs, std::uint64_t steps);
  // Nothing is open or known to the kernel afterwards.
  Task<void> let_go(FileSystem& fs);
  std::uint64_t refused() const { return refused_; }  // for want of space

 private:
  // model_script.cpp: what to do next, and to what.
  Task<void> step();
  std::string name();
  std::string name_in(Id directory);
  Id any();
  Id directory();
  Id file();
  InodeNo number(Id id) const { return numbers_.at(id); }
  NewInode new_inode(std::uint32_t type = 0);
  std::string bytes(std::size_t size);
  std::size_t length();
  std::uint64_t offset(Id id);
  void forget_dead();

  // Before an operation, and after it: the model does it as of the time between.
  void begin() { began_ns_ = executor_.clock().wall_ns(); }
  FileSystemModel& model() { return model_.at({began_ns_, executor_.clock().wall_ns()}); }
  bool no_space(const Error& error);
  void wrong(const std::string& what) const;
  template <class A, class B>
  bool same_outcome(const char* what, const A& real, const B& expected);
  void compare(const char* what, Id id, const Attributes& real);
  void learn(const char* what, const Result<Attributes>& real, const Result<Id>& expected);

  // model_names.cpp
  Task<void> create();
  Task<void> make_directory();
  Task<void> make_special();
  Task<void> make_symlink();
  Task<void> lookup();
  Task<void> link();
  Task<void> unlink();
  Task<void> rmdir();
  Task<void> rename();
  Task<void> scan();
  void end_scan();
  Task<void> parent();

  // model_files.cpp
  Task<void> write();
  Task<void> write_within();
  Task<void> read();
  Task<void> setattr();
  AttributeChange attribute_change();
  Task<void> getattr();
  Task<void> readlink();
  Task<void> open_one();
  Task<void> close_one();
  Task<void> sync();
  Task<void> space();
  Task<void> check_full();
  Task<void> compare_tree();
  Task<void> compare_file(Id id);
  Task<void> compare_bytes(Id id, std::uint64_t offset, std::size_t size);
  Task<void> compare_directory(Id id);

  // A listing of a directory that is read piece by piece while names come and go.
  struct Scan {
    Id directory = 0;
    std::uint64_t cookie = 0;
    std::uint64_t since = 0;                                // the model's count of changes when it began
    std::set<std::pair<std::string, std::uint64_t>> found;  // and since when the name had its meaning
  };

  Executor& executor_;
  const std::uint64_t seed_;
  const ScriptOptions options_;
  SeededRandom random_;
  FileSystemModel model_;
  FileSystem* fs_ = nullptr;
  std::int64_t began_ns_ = 0;
  std::uint64_t step_ = 0;
  std::uint64_t refused_ = 0;
  bool just_refused_ = false;
  std::vector<Id> ids_;  // all that live, and some that do no more
  std::map<Id, InodeNo> numbers_;
  std::map<Id, std::uint64_t> references_;  // the kernel's
  std::vector<Id> open_;
  std::optional<Scan> scan_;
};

template <class A, class B>
bool ModelScript::same_outcome(const char* what, const A& real, const B& expected) {
  const bool same = real.has_value() == expected.has_value() && (real || real.error().code == expected.error().code);
  if (!same) {
    wrong(std::string(what) + ": " +
          (real ? "success" : std::string(describe(real.error().code)) + " at " + real.error().where) +
          ", the model says " + (expected ? "success" : std::string(describe(expected.error().code))));
  }
  return same && real.has_value();
}

}  // namespace cawfs::test
