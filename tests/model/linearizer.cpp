#include "tests/model/linearizer.h"

#include <fmt/format.h>

#include <bit>
#include <utility>

#include "core/base/assert.h"

namespace cawfs::test {

namespace {

using Id = FileSystemModel::Id;

std::string differs(const Call& call, const std::optional<Errc>& expected) {
  if (call.error == expected) return {};
  return fmt::format("should be {}", expected ? cawfs::describe(*expected) : "done");
}

template <class T>
std::optional<Errc> error_of(const Result<T>& result) {
  return result ? std::nullopt : std::optional(result.error().code);
}

void add(std::string& text, const Span& span) {
  text += fmt::format("{}-{} ", span.earliest, span.latest);
}

}  // namespace

Linearizer::Linearizer(const Attributes& root) {
  State first{FileSystemModel(root.mode), {}, {}};
  const ObjectRef ref{root.inode, root.generation};
  first.ids[ref] = FileSystemModel::kRoot;
  first.refs[FileSystemModel::kRoot] = ref;
  states_.push_back(std::move(first));
}

// Nodes by their numbers on disk: those of the model depend on the order in which it made them.
std::string Linearizer::fingerprint(const State& state) {
  std::string text;
  for (const auto& [ref, id] : state.ids) {
    if (!state.model.alive(id)) continue;
    const auto& node = state.model.node(id);
    text += fmt::format("\n{} {:x} {} {} {} {}: ", ref.inode.value, ref.generation, node.mode, node.nlink, node.opens,
                        node.size());
    for (const Span& span : {node.atime, node.mtime, node.ctime, node.btime, node.last_read}) add(text, span);
    if (node.read_since) text += fmt::format("{} ", *node.read_since);
    for (const auto& [name, entry] : node.entries) {
      text += fmt::format("{}={} ", name, state.refs.at(entry.id).inode.value);
    }
    for (const auto& [at, piece] : node.data.pieces()) text += piece;
    text += node.target;
  }
  return text;
}

std::string Linearizer::compare(const Call& call, State& state, const Result<Id>& expected) {
  if (std::string wrong = differs(call, error_of(expected)); !wrong.empty() || !expected) return wrong;
  const ObjectRef ref{call.attributes.inode, call.attributes.generation};
  const auto known = state.refs.find(*expected);
  if (known == state.refs.end()) {
    state.ids[ref] = *expected;
    state.refs[*expected] = ref;
  } else if (known->second != ref) {
    return fmt::format("should lead to {}", known->second.inode.value);
  }
  return state.model.at(call.when).compare(*expected, call.attributes);
}

std::string Linearizer::apply(const Call& call, State& state) {
  const auto object = state.ids.find(call.object);
  if (object == state.ids.end()) return "has not been made yet";
  const Id id = object->second;
  FileSystemModel& model = state.model.at(call.when);
  const auto itself = [&](const Result<>& done) { return done ? Result<Id>(id) : fail(done.error()); };
  const NewInode inode{.mode = 0644};
  switch (call.kind) {
    case CallKind::kLookup:
      return compare(call, state, model.lookup(id, call.name));
    case CallKind::kOpen: {
      const auto found = model.lookup(id, call.name);
      std::string wrong = compare(call, state, found);
      if (found && wrong.empty()) wrong = differs(call, error_of(model.open(*found)));
      return wrong;
    }
    case CallKind::kCreate:
      return compare(call, state, model.create(id, call.name, inode, call.flag));
    case CallKind::kMkdir:
      return compare(call, state, model.mkdir(id, call.name, inode));
    case CallKind::kSymlink:
      return compare(call, state, model.symlink(id, call.name, call.data, inode));
    case CallKind::kUnlink:
      return differs(call, error_of(model.unlink(id, call.name)));
    case CallKind::kRmdir:
      return differs(call, error_of(model.rmdir(id, call.name)));
    case CallKind::kLink:
    case CallKind::kRename: {
      const auto to = state.ids.find(call.to);
      if (to == state.ids.end()) return "has not been made yet";
      if (call.kind == CallKind::kLink) return compare(call, state, model.link(id, to->second, call.to_name));
      return differs(call, error_of(model.rename(id, call.name, to->second, call.to_name, call.mode)));
    }
    case CallKind::kReaddir: {
      const auto done = model.readdir(id);
      if (std::string wrong = differs(call, error_of(done)); !wrong.empty() || !done) return wrong;
      const auto& entries = model.node(id).entries;
      bool same = entries.size() == call.entries.size();
      for (const DirectoryEntry& entry : call.entries) {
        const auto it = entries.find(entry.name);
        same = same && it != entries.end() && state.refs.at(it->second.id).inode == entry.inode;
      }
      return same ? "" : fmt::format("there are {} entries, or others", entries.size());
    }
    case CallKind::kClose:
      model.close(id);
      return {};
    case CallKind::kGetattr:
      return compare(call, state, id);
    case CallKind::kSetattr:
      return compare(call, state, itself(model.setattr(id, call.change)));
    case CallKind::kRead: {
      const auto read = model.read(id, call.offset, call.length);
      if (std::string wrong = differs(call, error_of(read)); !wrong.empty() || !read) return wrong;
      return *read == call.bytes ? "" : fmt::format("should read {} bytes '{}'", read->size(), read->substr(0, 16));
    }
    case CallKind::kWrite: {
      const auto at = model.write(id, call.offset, call.data, call.flag, false);
      if (std::string wrong = differs(call, error_of(at)); !wrong.empty() || !at) return wrong;
      return *at == call.at ? "" : fmt::format("should be at {}", *at);
    }
  }
  return "?";
}

bool Linearizer::explains(const std::vector<Call>& calls) {
  using Done = std::uint64_t;  // a set of calls
  CAWFS_ASSERT(calls.size() <= 64);
  const Done all = calls.size() == 64 ? ~Done{0} : (Done{1} << calls.size()) - 1;
  // Sets of equally many, one call more in each turn.
  std::map<Done, States> reached;
  for (const State& state : states_) reached[0].emplace(fingerprint(state), state);
  std::string obstacle;
  for (std::size_t n = 0; n < calls.size(); ++n) {
    std::map<Done, States> next;
    obstacle.clear();
    for (const auto& [done, states] : reached) {
      std::uint64_t first_return = UINT64_MAX;
      for (std::size_t i = 0; i < calls.size(); ++i) {
        if (!(done >> i & 1)) first_return = std::min(first_return, calls[i].returned);
      }
      for (std::size_t i = 0; i < calls.size(); ++i) {
        if ((done >> i & 1) || calls[i].invoked > first_return) continue;
        for (const auto& [text, before] : states) {
          State state = before;
          const std::string wrong = apply(calls[i], state);
          if (wrong.empty()) {
            States& there = next[done | Done{1} << i];
            there.try_emplace(fingerprint(state), std::move(state));
          } else {
            obstacle += fmt::format("  {}\n    {}\n", describe(calls[i]), wrong);
          }
        }
      }
    }
    if (next.empty()) {
      obstacle_ = fmt::format("after {} of {} calls:\n{}", n, calls.size(), obstacle);
      return false;
    }
    reached = std::move(next);
  }
  states_.clear();
  for (auto& [text, state] : reached.at(all)) states_.push_back(std::move(state));
  return true;
}

}  // namespace cawfs::test
