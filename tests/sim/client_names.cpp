// What clients do to names.
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "tests/sim/workload.h"

namespace cawfs::sim {

namespace {

constexpr std::uint64_t kContentWords = 250;  // of a file made under one of the names
constexpr const char* kContent = "#0";
constexpr std::size_t kListAtOnce = 3;

bool is_directory(const Attributes& attributes) {
  return (attributes.mode & S_IFMT) == S_IFDIR;
}

}  // namespace

// Mostly one of the fixed directories, now and then one that stands in them.
Task<std::optional<Client::Place>> Client::enter() {
  const ObjectKey fixed = workload_.directories[random_.below(workload_.directories.size())];
  if (!random_.one_in(4)) co_return Place{fixed};
  begin("enter directory");
  auto found = co_await answer(fs_.lookup(fixed.inode, some_name()));
  if (!found) co_return Place{fixed};
  std::optional<Place> place;
  if (is_directory(*found)) {
    auto opened = co_await fs_.open(found->inode);
    if (opened) {
      auto attributes = co_await answer(fs_.getattr(found->inode));
      if (attributes && is_directory(*attributes)) place = Place{{found->inode, attributes->generation}, true};
      if (!place) co_await fs_.close(found->inode);
    }
  }
  fs_.forget(found->inode, 1);
  if (place) ++workload_.counts["operation: in a directory that may go"];
  co_return place ? place : Place{fixed};
}

Task<void> Client::leave(Place place) {
  if (place.passing) co_await fs_.close(place.key.inode);
}

Task<void> Client::create(Place place) {
  begin("create");
  const RegisterKey key{place.key, some_name()};
  auto call = history_.invoke(run_);
  history_.will_write(call, key, kNotKnownYet);
  auto made = co_await answer(fs_.create(place.key.inode, key.name, NewInode{.mode = S_IFREG | 0644}, true));
  if (!made) {
    const bool exists = made.error() == Errc::kExists;
    if (!refused(call, made.error())) co_return;
    if (exists) history_.saw_something(call, key);
    if (exists) history_.used(call, place.key);
    co_return;
  }
  history_.wrote(call, made->inode.value);
  history_.done(call);
  history_.used(call, place.key);

  const ObjectKey file{made->inode, made->generation};
  const Value tag = ++workload_.last_tag;
  const std::vector<Value> data(kContentWords, tag);
  auto fill = history_.invoke(run_);
  history_.will_write(fill, {file, kContent}, tag);
  auto wrote = co_await fs_.write(file.inode, 0, std::as_bytes(std::span(data)), false, false, false);
  if (wrote) {
    history_.done(fill);
    history_.used(fill, file);
  } else {
    refused(fill, wrote.error());
  }
  fs_.forget(file.inode, 1);
}

Task<void> Client::make_directory(Place place) {
  begin("mkdir");
  const RegisterKey key{place.key, some_name()};
  auto call = history_.invoke(run_);
  history_.will_write(call, key, kNotKnownYet);
  auto made = co_await answer(fs_.mkdir(place.key.inode, key.name, NewInode{.mode = S_IFDIR | 0755}));
  if (!made) {
    const bool exists = made.error() == Errc::kExists;
    if (!refused(call, made.error())) co_return;
    if (exists) history_.saw_something(call, key);
    if (exists) history_.used(call, place.key);
    co_return;
  }
  history_.wrote(call, made->inode.value);
  history_.done(call);
  history_.used(call, place.key);
  fs_.forget(made->inode, 1);
}

Task<void> Client::look_up(Place place, std::string name) {
  begin("lookup");
  const RegisterKey key{place.key, name};
  auto call = history_.invoke(run_);
  auto found = co_await answer(fs_.lookup(place.key.inode, name));
  if (!found) {
    const bool absent = found.error() == Errc::kNotFound;
    if (!refused(call, found.error()) || !absent) co_return;
    history_.saw(call, key, kNothing);
    history_.used(call, place.key);
    co_return;
  }
  history_.saw(call, key, found->inode.value);
  history_.used(call, place.key);
  if (!is_directory(*found)) co_await look_inside({found->inode, found->generation}, true);
  fs_.forget(found->inode, 1);
}

// Opens the file and reads it; once it is open it stays, whatever happens to its names.
Task<void> Client::look_inside(ObjectKey file, bool may_be_gone) {
  begin("open");
  auto call = history_.invoke(run_);
  auto opened = co_await fs_.open(file.inode);
  if (!opened) {
    const bool gone = refused(call, opened.error());
    if (!may_be_gone && gone) workload_.complain(fmt::format("run {}: an open file has gone", run_));
    co_return;
  }
  begin("read open file");
  auto attributes = co_await answer(fs_.getattr(file.inode));
  if (attributes && attributes->generation == file.generation) {
    std::vector<Value> data(kContentWords);
    auto reading = history_.invoke(run_);
    auto read = co_await answer(fs_.read(file.inode, 0, std::as_writable_bytes(std::span(data)), false));
    if (read) {
      const std::set<Value> tags(data.begin(), data.end());
      const RegisterKey key{file, kContent};
      if (tags.size() == 1) {
        history_.saw(reading, key, data[0]);
      } else {
        history_.saw_torn(reading, key, {tags.begin(), tags.end()});
      }
      history_.used(reading, file);
    } else {
      const bool out = !refused(reading, read.error());
      if (!out) workload_.complain(fmt::format("run {}: an open file cannot be read: {}", run_, read.error().where));
    }
  } else if (!attributes) {
    auto none = history_.invoke(run_);
    const bool out = !refused(none, attributes.error());
    if (!out) workload_.complain(fmt::format("run {}: an open file has no attributes", run_));
  }
  co_await fs_.close(file.inode);
}

Task<void> Client::remove(Place place) {
  const RegisterKey key{place.key, some_name()};
  const bool directory = random_.one_in(3);
  begin(directory ? "rmdir" : "unlink");
  auto call = history_.invoke(run_);
  history_.will_write(call, key, kNothing);
  Result<> done;
  if (directory) {
    done = co_await fs_.rmdir(place.key.inode, key.name);
  } else {
    done = co_await fs_.unlink(place.key.inode, key.name);
  }
  if (done) {
    history_.done(call);
    history_.used(call, place.key);
    co_return;
  }
  const Errc code = done.error().code;
  if (!refused(call, done.error())) co_return;
  if (code == Errc::kNotFound) history_.saw(call, key, kNothing);
  if (code == Errc::kNotEmpty || code == Errc::kIsDirectory || code == Errc::kNotDirectory) {
    history_.saw_something(call, key);
  }
}

Task<void> Client::rename(Place place) {
  const ObjectKey to = workload_.directories[random_.below(workload_.directories.size())];
  const RegisterKey from_key{place.key, some_name()};
  const RegisterKey to_key{to, some_name()};
  if (from_key == to_key) co_return;
  const bool exchange = random_.one_in(5);
  const bool back = random_.one_in(2);  // into the directory that may go
  const RegisterKey& source = back ? to_key : from_key;
  const RegisterKey& target = back ? from_key : to_key;
  begin(exchange ? "exchange" : "rename");
  auto call = history_.invoke(run_);
  history_.will_move(call, target, source);
  if (exchange) {
    history_.will_move(call, source, target);
  } else {
    history_.will_write(call, source, kNothing);
  }
  auto done = co_await fs_.rename(source.object.inode, source.name, target.object.inode, target.name,
                                  exchange ? RenameMode::kExchange : RenameMode::kReplace);
  if (!done) {
    refused(call, done.error());
    co_return;
  }
  history_.done(call);
  history_.used(call, place.key);
  history_.used(call, to);
}

// Under a name of its own, so that no two of the names that are renamed mean one file: renaming one to the other would
// do nothing.
Task<void> Client::link(Place place) {
  begin("link");
  auto found = co_await answer(fs_.lookup(place.key.inode, some_name()));
  if (!found) co_return;
  if (!is_directory(*found)) {
    const RegisterKey key{workload_.links, fmt::format("{}", ++workload_.last_name)};
    auto call = history_.invoke(run_);
    history_.will_write(call, key, found->inode.value);
    auto made = co_await answer(fs_.link(found->inode, workload_.links.inode, key.name));
    if (!made) {
      if (!refused(call, made.error())) co_return;
    } else {
      history_.done(call);
      history_.used(call, workload_.links);
      fs_.forget(found->inode, 1);
      if (random_.one_in(2)) {
        auto removing = history_.invoke(run_);
        history_.will_write(removing, key, kNothing);
        auto removed = co_await fs_.unlink(workload_.links.inode, key.name);
        if (removed) {
          history_.done(removing);
          history_.used(removing, workload_.links);
        } else if (refused(removing, removed.error())) {
          history_.saw(removing, key, kNothing);
        }
      }
    }
  }
  fs_.forget(found->inode, 1);
}

Task<void> Client::list(Place place) {
  begin("readdir");
  std::map<std::string, Value> found;
  std::uint64_t cookie = 0;
  auto call = history_.invoke(run_);
  while (true) {
    auto entries = co_await answer(fs_.readdir(place.key.inode, cookie, kListAtOnce));
    if (!entries) {
      refused(call, entries.error());
      co_return;
    }
    if (entries->empty()) break;
    cookie = entries->back().cookie;
    for (const DirectoryEntry& entry : *entries) found[entry.name] = entry.inode.value;
  }
  if (place.key == workload_.links) {
    for (const auto& [name, value] : found) history_.saw(call, {place.key, name}, value);
    for (std::uint64_t i = 1; i <= workload_.last_name; ++i) {
      const std::string name = fmt::format("{}", i);
      if (!found.contains(name)) history_.saw(call, {place.key, name}, kNothing);
    }
  } else {
    for (const char* name : kNames) history_.saw(call, {place.key, name}, found[name]);
  }
  history_.used(call, place.key);
}

// A file without a name stays while it is open.
Task<void> Client::use_unlinked(Place place) {
  begin("open-unlinked file");
  const std::string name = fmt::format("temporary-{}", ++workload_.last_name);
  auto call = history_.invoke(run_);
  auto made = co_await answer(fs_.create(place.key.inode, name, NewInode{.mode = S_IFREG | 0600}, true));
  if (!made) {
    refused(call, made.error());
    co_return;
  }
  const ObjectKey file{made->inode, made->generation};
  auto opened = co_await fs_.open(file.inode);
  if (opened) {
    auto removed = co_await fs_.unlink(place.key.inode, name);
    const Value tag = ++workload_.last_tag;
    const std::vector<Value> data(kContentWords, tag);
    auto fill = history_.invoke(run_);
    history_.will_write(fill, {file, kContent}, tag);
    auto wrote = co_await fs_.write(file.inode, 0, std::as_bytes(std::span(data)), false, false, false);
    if (removed && wrote) {
      history_.done(fill);
      history_.used(fill, file);
      co_await executor_.sleep(std::chrono::milliseconds(random_.below(60)));
      co_await look_inside(file, false);
    } else if (!wrote) {
      refused(fill, wrote.error());
    }
    co_await fs_.close(file.inode);
  } else {
    refused(call, opened.error());
  }
  fs_.forget(file.inode, 1);
}

}  // namespace cawfs::sim
