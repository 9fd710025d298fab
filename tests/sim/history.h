// What the clients of a simulated cluster did and saw, and whether some order of it all explains what they saw (design
// §10, invariants 3 and 5).
//
// The file system is taken apart into registers: a name in a directory holds an inode number or nothing, a cell of a
// file holds the tag of the write that filled it, a log holds records. A call that changes a register takes effect at
// one moment between its invocation and its return; a call that never returned, or failed so that its effect is
// unknown, at any moment after its invocation or not at all. So what a read returned must have been written by a call
// that began before the read ended, and that was not overwritten, for sure, before the read began.
//
// Nodes that are fenced lose what was not durable. What a run (one life of a node) changed in an object (a file, a
// directory) is durable once the run has synced the object, or another run has read or changed it: the lock has changed
// hands. The rest may be gone after the fence, or not, part of it.
//
// The check is sound, not complete: it never accuses a right file system, and it misses some wrong orders.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/base/types.h"

namespace cawfs::sim {

using Moment = std::uint64_t;  // a place in the order of all that happened
using Value = std::uint64_t;
using Run = std::size_t;
inline constexpr Value kNothing = 0;
inline constexpr Value kNotKnownYet = ~Value{0};  // something

struct ObjectKey {
  InodeNo inode;
  std::uint64_t generation = 0;
  friend auto operator<=>(const ObjectKey&, const ObjectKey&) = default;
};

struct RegisterKey {
  ObjectKey object;
  std::string name;
  friend auto operator<=>(const RegisterKey&, const RegisterKey&) = default;
};

// A record found in a log, and where.
struct LogRecord {
  Value tag = 0;
  std::uint64_t offset = 0;
};

class History {
 public:
  // One call of a client. Everything it may change is announced before it is invoked; then it ends in one of three
  // ways, or never.
  struct Call {
    Run run = 0;
    Moment invoked = 0;
    std::vector<std::pair<RegisterKey, std::size_t>> writes;
    std::vector<std::pair<ObjectKey, std::size_t>> appends;
  };
  Call invoke(Run run);
  void will_write(Call& call, const RegisterKey& key, Value value);
  // What a value written as kNotKnownYet has turned out to be.
  void wrote(const Call& call, Value value);
  // What stands in `source` at the moment of the call.
  void will_move(Call& call, const RegisterKey& key, const RegisterKey& source);
  void will_append(Call& call, const ObjectKey& log, Value tag);

  void done(Call& call);       // it has had its effect
  void no_effect(Call& call);  // it failed and changed nothing
  // Otherwise: unknown.
  void appended_at(const Call& call, std::uint64_t offset);

  // The call, which has returned, used the object's lock; `synced`: all of the run's calls on it that had returned
  // before it are durable.
  void used(const Call& call, const ObjectKey& object, bool synced = false);
  void synced_all(const Call& call) { all_synced_[call.run].push_back(call.invoked); }

  // What a call that has returned just now saw.
  void saw(const Call& call, const RegisterKey& key, Value value);
  void saw_something(const Call& call, const RegisterKey& key);
  void saw_torn(const Call& call, const RegisterKey& key, std::vector<Value> tags);
  void saw_log(const Call& call, const ObjectKey& log, std::vector<LogRecord> records, bool garbage);

  // From now on nothing of the run can become durable any more.
  void fenced(Run run);

  // The first thing that nothing explains, or nothing.
  std::optional<std::string> check();

  std::size_t calls() const { return calls_; }
  std::size_t lost_writes() const { return lost_writes_; }  // that a fence may have undone, after check()

 private:
  struct Write {
    Run run = 0;
    Moment invoked = 0;
    std::optional<Moment> returned;
    Moment effective = 0;  // has had its effect by then; kNever
    Value value = kNothing;
    std::optional<RegisterKey> source;
    bool none = false;           // had no effect
    std::optional<Moment> lost;  // by a fence at this moment, maybe
  };
  enum class Kind : std::uint8_t { kValue, kSomething, kTorn };
  struct Read {
    Run run = 0;
    Kind kind = Kind::kValue;
    Moment invoked = 0;
    Moment returned = 0;
    Value value = kNothing;
    std::vector<Value> tags;
  };
  struct Register {
    std::vector<Write> writes;
    std::vector<Read> reads;
  };
  struct Append {
    Write write;
    std::optional<std::uint64_t> offset;
  };
  struct LogRead {
    Run run = 0;
    Moment invoked = 0;
    Moment returned = 0;
    std::vector<LogRecord> records;
    bool garbage = false;
  };
  struct Log {
    std::vector<Append> appends;
    std::vector<LogRead> reads;
  };
  struct Use {
    Run run = 0;
    Moment invoked = 0;
    Moment returned = 0;
    bool synced = false;
  };

  Moment durable_until(const ObjectKey& object, Run run, Moment fence) const;
  void note_losses(const ObjectKey& object, Write& write);
  bool surely_before(const Write& first, const Write& second, Moment read_invoked, Moment read_returned) const;
  bool may_see(const Register& reg, const Write& write, Moment invoked, Moment returned) const;
  bool gives(const Write& write, Value value, int depth) const;
  bool admissible(const RegisterKey& key, Value value, Moment invoked, Moment returned, int depth) const;
  bool admissible_torn(const RegisterKey& key, const Read& read) const;
  std::optional<std::string> check_register(const RegisterKey& key, const Register& reg) const;
  std::optional<std::string> check_log(const ObjectKey& key, const Log& log) const;
  std::string describe(const RegisterKey& key, const Register& reg, const Read& read) const;

  Moment now_ = 0;
  std::size_t calls_ = 0;
  std::size_t lost_writes_ = 0;
  std::map<RegisterKey, Register> registers_;
  std::map<ObjectKey, Log> logs_;
  std::map<ObjectKey, std::vector<Use>> uses_;
  std::map<Run, std::vector<Moment>> all_synced_;
  std::map<Run, Moment> fences_;
};

}  // namespace cawfs::sim
