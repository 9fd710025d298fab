// What the clients of a simulated cluster do: random file operations on a small set of names that all nodes share, each
// told to the History with what it did and saw.
//
// There are three kinds of things: files of fixed cells, each written whole with a tag of its own; logs, to which
// records are appended; and directories in which a few names come and go (files, directories, links).
#pragma once

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/base/random.h"
#include "core/fs/filesystem.h"
#include "core/runtime/executor.h"
#include "tests/sim/counts.h"
#include "tests/sim/history.h"

namespace cawfs::sim {

struct CellFile {
  ObjectKey key;
  std::uint64_t cell_bytes = 0;
  std::uint64_t cells = 0;
};

// What the clients do most of the time.
enum class Mix : std::uint8_t {
  kAll,    // everything
  kNames,  // names only
  kSyncs,  // small writes, most of them followed by fsync
  kHot,    // all read one small file, which others than the first host write now and then
  kTrees,  // files whose extents need a tree, which they lose again; and whole blocks in what that frees
};

// Shared by all clients of all nodes.
struct Workload {
  History history;
  std::vector<CellFile> files;
  std::vector<ObjectKey> logs;
  std::map<ObjectKey, std::uint64_t> log_bytes;  // as far as appends have been answered
  std::vector<ObjectKey> directories;
  ObjectKey links;
  ObjectKey tree;  // with Mix::kTrees
  Value last_tag = 0;
  std::uint64_t last_name = 0;
  bool stopping = false;
  Counts counts;
  std::optional<std::string> trouble;
  bool medium_errors = false;  // are injected
  Mix mix = Mix::kAll;
  std::set<Run> readers;  // with Mix::kHot: they do not write

  void complain(std::string what) {
    if (!trouble) trouble = std::move(what);
  }
};

inline constexpr std::array kNames{"a", "b", "c", "d", "e"};

// Makes the files and directories, durably.
Task<Result<>> prepare(FileSystem& fs, Workload& workload);

// One user of one node: does one operation after the other until the workload stops or the node fails it.
class Client {
 public:
  Client(Workload& workload, FileSystem& fs, Executor& executor, Run run, std::uint64_t seed)
      : workload_(workload), history_(workload.history), fs_(fs), executor_(executor), run_(run), random_(seed) {}

  Task<void> run();
  // Reads everything once, as the last word.
  Task<void> read_all();

  // Ends run() after the operation in hand.
  void stop() { stopping_ = true; }
  bool failed() const { return failed_; }
  // What it waits for, for reports of hangs.
  const char* doing() const { return doing_; }
  Time since() const { return since_; }

 private:
  // A directory to work in. A passing one is held open meanwhile, so that its number stays its own.
  struct Place {
    ObjectKey key;
    bool passing = false;
  };

  Task<void> step();
  Task<void> use_file(std::uint64_t choice);
  Task<void> use_name(std::uint64_t choice);
  Task<void> write_and_sync();
  Task<void> use_hot_file();
  Task<void> use_tree();
  void begin(const char* doing);
  // What an operation found is shown to nobody before it is known that the lease stood: as the mount answers the
  // kernel.
  template <class T>
  Task<Result<T>> answer(Task<Result<T>> operation) {
    Result<T> result = co_await std::move(operation);
    if (executor_.now() < fs_.lease_end()) co_return result;
    Result<> returned = co_await fs_.wait_for_lease();
    if (!returned) co_return fail(returned.error());
    co_return result;
  }
  // The call has failed: how it ended, and whether the client goes on.
  bool refused(History::Call& call, const Error& error);

  // client_files.cpp
  Task<void> write_cell(CellFile file);
  Task<void> read_cells(CellFile file, std::uint64_t first, std::uint64_t count);
  Task<void> truncate(CellFile file);
  Task<void> sync_object(ObjectKey object);
  Task<void> sync_all();
  Task<void> append(ObjectKey log);
  Task<void> read_log(ObjectKey log);
  Task<void> grow_tree();
  Task<void> cut_tree();

  // client_names.cpp
  Task<std::optional<Place>> enter();
  Task<void> leave(Place place);
  Task<void> create(Place place);
  Task<void> make_directory(Place place);
  Task<void> look_up(Place place, std::string name);
  Task<void> look_inside(ObjectKey file, bool may_be_gone);
  Task<void> remove(Place place);
  Task<void> rename(Place place);
  Task<void> link(Place place);
  Task<void> list(Place place);
  Task<void> use_unlinked(Place place);

  std::string some_name() { return kNames.at(random_.below(kNames.size())); }

  Workload& workload_;
  History& history_;
  FileSystem& fs_;
  Executor& executor_;
  Run run_;
  SeededRandom random_;
  bool stopping_ = false;
  bool failed_ = false;
  bool knows_hot_file_ = false;
  const char* doing_ = "nothing";
  Time since_;
};

}  // namespace cawfs::sim
