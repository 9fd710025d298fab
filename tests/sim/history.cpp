#include "tests/sim/history.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <set>

namespace cawfs::sim {

namespace {

constexpr Moment kNever = std::numeric_limits<Moment>::max();
// Renames of renames are followed so far; beyond, anything is believed.
constexpr int kDepth = 4;

}  // namespace

History::Call History::invoke(Run run) {
  ++calls_;
  return Call{.run = run, .invoked = ++now_, .writes = {}, .appends = {}};
}

void History::will_write(Call& call, const RegisterKey& key, Value value) {
  auto& writes = registers_[key].writes;
  call.writes.emplace_back(key, writes.size());
  Write write;
  write.run = call.run;
  write.invoked = call.invoked;
  write.effective = kNever;
  write.value = value;
  writes.push_back(write);
}

void History::wrote(const Call& call, Value value) {
  for (const auto& [key, index] : call.writes) registers_[key].writes[index].value = value;
}

void History::will_move(Call& call, const RegisterKey& key, const RegisterKey& source) {
  will_write(call, key, kNothing);
  registers_[key].writes.back().source = source;
}

void History::will_append(Call& call, const ObjectKey& log, Value tag) {
  auto& appends = logs_[log].appends;
  call.appends.emplace_back(log, appends.size());
  Append append;
  append.write.run = call.run;
  append.write.invoked = call.invoked;
  append.write.effective = kNever;
  append.write.value = tag;
  appends.push_back(append);
}

void History::done(Call& call) {
  ++now_;
  const auto end = [&](Write& write) {
    write.returned = now_;
    write.effective = std::min(write.effective, now_);
  };
  for (const auto& [key, index] : call.writes) end(registers_[key].writes[index]);
  for (const auto& [key, index] : call.appends) end(logs_[key].appends[index].write);
}

void History::no_effect(Call& call) {
  ++now_;
  for (const auto& [key, index] : call.writes) registers_[key].writes[index].none = true;
  for (const auto& [key, index] : call.appends) logs_[key].appends[index].write.none = true;
}

void History::appended_at(const Call& call, std::uint64_t offset) {
  for (const auto& [key, index] : call.appends) logs_[key].appends[index].offset = offset;
}

void History::used(const Call& call, const ObjectKey& object, bool synced) {
  uses_[object].push_back({call.run, call.invoked, ++now_, synced});
}

void History::saw(const Call& call, const RegisterKey& key, Value value) {
  registers_[key].reads.push_back(
      {.run = call.run, .kind = Kind::kValue, .invoked = call.invoked, .returned = ++now_, .value = value, .tags = {}});
}

void History::saw_something(const Call& call, const RegisterKey& key) {
  saw(call, key, kNothing);
  registers_[key].reads.back().kind = Kind::kSomething;
}

void History::saw_torn(const Call& call, const RegisterKey& key, std::vector<Value> tags) {
  saw(call, key, kNothing);
  registers_[key].reads.back().kind = Kind::kTorn;
  registers_[key].reads.back().tags = std::move(tags);
}

void History::saw_log(const Call& call, const ObjectKey& log, std::vector<LogRecord> records, bool garbage) {
  logs_[log].reads.push_back({call.run, call.invoked, ++now_, std::move(records), garbage});
}

void History::fenced(Run run) {
  fences_.emplace(run, ++now_);
}

// ---- what a fence may have undone ----

Moment History::durable_until(const ObjectKey& object, Run run, Moment fence) const {
  Moment until = 0;
  if (const auto synced = all_synced_.find(run); synced != all_synced_.end()) {
    for (const Moment moment : synced->second) until = std::max(until, moment);
  }
  if (const auto uses = uses_.find(object); uses != uses_.end()) {
    for (const Use& use : uses->second) {
      // A sync takes no lock where the run has nothing to sync: of others' changes it proves nothing.
      const bool counts = use.run == run ? use.synced : !use.synced && use.returned <= fence;
      if (counts) until = std::max(until, use.invoked);
    }
  }
  return until;
}

void History::note_losses(const ObjectKey& object, Write& write) {
  const auto fence = fences_.find(write.run);
  if (fence == fences_.end()) return;
  if (write.returned && *write.returned <= durable_until(object, write.run, fence->second)) return;
  write.lost = fence->second;
  ++lost_writes_;
}

// ---- registers ----

// Had `second`, for sure, replaced `first` before the read began?
bool History::surely_before(const Write& first, const Write& second, Moment read_invoked, Moment read_returned) const {
  if (second.none || (second.lost && *second.lost < read_returned)) return false;
  return first.effective < second.invoked && second.effective < read_invoked;
}

bool History::may_see(const Register& reg, const Write& write, Moment invoked, Moment returned) const {
  if (write.none || write.invoked >= returned) return false;
  return std::ranges::none_of(reg.writes,
                              [&](const Write& later) { return surely_before(write, later, invoked, returned); });
}

bool History::gives(const Write& write, Value value, int depth) const {
  if (!write.source && write.value != kNotKnownYet) return write.value == value;
  if (value == kNothing) return false;
  if (!write.source) return true;
  return depth == 0 || admissible(*write.source, value, write.invoked, write.returned.value_or(kNever), depth - 1);
}

bool History::admissible(const RegisterKey& key, Value value, Moment invoked, Moment returned, int depth) const {
  const auto found = registers_.find(key);
  if (found == registers_.end()) return value == kNothing;
  const Register& reg = found->second;
  if (value == kNothing && may_see(reg, Write{}, invoked, returned)) return true;
  return std::ranges::any_of(reg.writes, [&](const Write& write) {
    return may_see(reg, write, invoked, returned) && gives(write, value, depth);
  });
}

// Parts of several values: only after a fence has cut a write that nothing has replaced since.
bool History::admissible_torn(const RegisterKey& key, const Read& read) const {
  const Register& reg = registers_.at(key);
  const auto cut = [&](const Write& write) {
    if (write.none || !write.lost || *write.lost > read.returned) return false;
    return std::ranges::none_of(reg.writes, [&](const Write& later) {
      return !later.none && !(later.lost && *later.lost < read.returned) && later.invoked > *write.lost &&
             later.effective < read.invoked;
    });
  };
  if (std::ranges::none_of(reg.writes, cut)) return false;
  return std::ranges::all_of(read.tags, [&](Value tag) {
    return tag == kNothing || std::ranges::any_of(reg.writes, [&](const Write& write) {
             return write.value == tag && !write.none && write.invoked < read.returned;
           });
  });
}

std::optional<std::string> History::check_register(const RegisterKey& key, const Register& reg) const {
  for (const Read& read : reg.reads) {
    bool good = false;
    switch (read.kind) {
      case Kind::kValue:
        good = admissible(key, read.value, read.invoked, read.returned, kDepth);
        break;
      case Kind::kSomething:
        good = std::ranges::any_of(reg.writes, [&](const Write& write) {
          return (write.source || write.value != kNothing) && may_see(reg, write, read.invoked, read.returned);
        });
        break;
      case Kind::kTorn:
        good = admissible_torn(key, read);
        break;
    }
    if (!good) return describe(key, reg, read);
  }
  return std::nullopt;
}

std::string History::describe(const RegisterKey& key, const Register& reg, const Read& read) const {
  std::string what = read.kind == Kind::kValue       ? fmt::format("{}", read.value)
                     : read.kind == Kind::kSomething ? std::string("something")
                                                     : fmt::format("pieces of {}", fmt::join(read.tags, ", "));
  std::string text =
      fmt::format("inode {} generation {} '{}': run {} saw {} in [{}, {}]; it was written:\n", key.object.inode.value,
                  key.object.generation, key.name, read.run, what, read.invoked, read.returned);
  for (const Write& write : reg.writes) {
    if (write.none || write.invoked > read.returned) continue;
    const std::string value = write.source ? "(moved) from " + write.source->name : fmt::format("{}", write.value);
    text += fmt::format("  {} by run {} in [{}, {}]{}\n", value, write.run, write.invoked,
                        write.returned ? fmt::format("{}", *write.returned) : std::string("unknown"),
                        write.lost ? fmt::format(", perhaps undone by a fence at {}", *write.lost) : std::string());
  }
  return text;
}

// ---- logs ----

std::optional<std::string> History::check_log(const ObjectKey& key, const Log& log) const {
  for (const LogRead& read : log.reads) {
    const auto complain = [&](const std::string& what) {
      return fmt::format("log inode {}: run {} read it in [{}, {}]: {}", key.inode.value, read.run, read.invoked,
                         read.returned, what);
    };
    const auto cut = [&](const Append& append) { return append.write.lost && *append.write.lost < read.returned; };
    if (read.garbage && std::ranges::none_of(log.appends, cut)) return complain("what is no record");
    std::map<Value, std::uint64_t> found;
    for (const LogRecord& record : read.records) {
      if (!found.emplace(record.tag, record.offset).second) return complain(fmt::format("{} twice", record.tag));
    }
    for (const Append& append : log.appends) {
      const Write& write = append.write;
      const auto at = found.find(write.value);
      if (at == found.end()) {
        const bool must = !write.none && write.effective < read.invoked && !cut(append);
        if (must)
          return complain(fmt::format("{}, appended in [{}, {}] by run {}, is missing", write.value, write.invoked,
                                      write.returned.value_or(0), write.run));
        continue;
      }
      if (write.none || write.invoked >= read.returned) return complain(fmt::format("{} too early", write.value));
      if (append.offset && *append.offset != at->second) {
        return complain(fmt::format("{} at {}, it was appended at {}", write.value, at->second, *append.offset));
      }
      found.erase(at);
    }
    if (!found.empty()) return complain(fmt::format("{}, which nobody wrote", found.begin()->first));
  }
  return std::nullopt;
}

// ---- all ----

std::optional<std::string> History::check() {
  lost_writes_ = 0;
  for (auto& [key, reg] : registers_) {
    for (Write& write : reg.writes) note_losses(key.object, write);
    // Tags are unique: who has read one proves that it is there.
    if (!key.name.starts_with('#')) continue;
    for (const Read& read : reg.reads) {
      if (read.kind != Kind::kValue) continue;
      for (Write& write : reg.writes) {
        if (write.value == read.value && read.value != kNothing) {
          write.effective = std::min(write.effective, read.returned);
        }
      }
    }
  }
  for (auto& [key, log] : logs_) {
    for (Append& append : log.appends) note_losses(key, append.write);
    for (const LogRead& read : log.reads) {
      std::set<Value> seen;
      for (const LogRecord& record : read.records) seen.insert(record.tag);
      for (Append& append : log.appends) {
        if (seen.contains(append.write.value)) {
          append.write.effective = std::min(append.write.effective, read.returned);
        }
      }
    }
  }
  for (const auto& [key, reg] : registers_) {
    if (auto trouble = check_register(key, reg)) return trouble;
  }
  for (const auto& [key, log] : logs_) {
    if (auto trouble = check_log(key, log)) return trouble;
  }
  return std::nullopt;
}

}  // namespace cawfs::sim
