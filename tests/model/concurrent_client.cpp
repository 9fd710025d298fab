#include "tests/model/concurrent_client.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <utility>

namespace cawfs::test {

namespace {

constexpr std::array kNames{"a", "b", "c"};
constexpr std::size_t kMostOpen = 5;
// Beyond what an inode holds within itself, and a block.
constexpr std::uint64_t kFarthest = 6000;
constexpr std::uint64_t kPause = 1500;  // microseconds between calls, at most

}  // namespace

std::string ConcurrentClient::name() {
  return kNames.at(random_.below(kNames.size()));
}

std::string ConcurrentClient::data() {
  std::string text(1 + random_.below(random_.one_in(4) ? 5000 : 50), '\0');
  for (char& c : text) c = static_cast<char>('a' + random_.below(26));
  return text;
}

ObjectRef ConcurrentClient::some(Wanted wanted) {
  const bool any = random_.one_in(12);
  std::vector<ObjectRef> candidates;
  for (const Open& open : open_) {
    if (any || open.directory == (wanted == Wanted::kDirectory)) candidates.push_back(open.ref);
  }
  return candidates.empty() ? open_.front().ref : candidates[random_.below(candidates.size())];
}

Call ConcurrentClient::choose() {
  Call call;
  call.node = node_;
  call.object = some(Wanted::kDirectory);
  call.name = name();
  const std::uint64_t choice = random_.below(100);
  if (choice < 58) {
    choose_names(call, choice);
  } else {
    choose_contents(call, choice);
  }
  return call;
}

void ConcurrentClient::choose_names(Call& call, std::uint64_t choice) {
  call.to_name = name();
  call.to = some(Wanted::kDirectory);
  if (choice < 8) {
    call.kind = CallKind::kLookup;
  } else if (choice < 18) {
    call.kind = CallKind::kCreate;
    call.flag = random_.one_in(2);
  } else if (choice < 20) {
    call.kind = CallKind::kMkdir;
  } else if (choice < 21) {
    call.kind = CallKind::kSymlink;
    call.data = data();
  } else if (choice < 26) {
    call.kind = CallKind::kLink;
    call.object = some(Wanted::kFile);
  } else if (choice < 33) {
    call.kind = CallKind::kUnlink;
  } else if (choice < 37) {
    call.kind = CallKind::kRmdir;
  } else if (choice < 49 && open_.size() < kMostOpen) {
    call.kind = CallKind::kOpen;
  } else if (choice < 54) {
    call.kind = CallKind::kRename;
    call.mode =
        random_.one_in(2) ? RenameMode::kReplace : (random_.one_in(2) ? RenameMode::kNoReplace : RenameMode::kExchange);
  } else {
    call.kind = CallKind::kReaddir;
  }
}

void ConcurrentClient::choose_contents(Call& call, std::uint64_t choice) {
  call.object = some(Wanted::kFile);
  if (choice < 63 && open_.size() > 1) {
    call.kind = CallKind::kClose;
    call.object = open_[1 + random_.below(open_.size() - 1)].ref;
  } else if (choice < 72) {
    call.kind = CallKind::kGetattr;
  } else if (choice < 79) {
    call.kind = CallKind::kSetattr;
    if (random_.one_in(3)) {
      call.change.mode = random_.one_in(2) ? 0600 : 0644;
    } else if (random_.one_in(2)) {
      call.change.atime_ns = static_cast<std::int64_t>(random_.below(1'000'000'000));
    } else {
      call.change.size = random_.below(random_.one_in(2) ? 100 : kFarthest);
    }
  } else if (choice < 88) {
    call.kind = CallKind::kRead;
    call.offset = random_.one_in(2) ? 0 : random_.below(kFarthest);
    call.length = 1 + random_.below(kFarthest);
  } else {
    call.kind = CallKind::kWrite;
    call.flag = random_.one_in(2);
    call.offset = random_.one_in(2) ? 0 : random_.below(kFarthest);
    call.data = data();
  }
}

Task<void> ConcurrentClient::burst(unsigned calls) {
  for (unsigned i = 0; i < calls; ++i) {
    co_await executor_.sleep(std::chrono::microseconds(random_.below(kPause)));
    co_await make(choose());
  }
}

Task<void> ConcurrentClient::let_go() {
  while (open_.size() > 1) {
    Call call;
    call.node = node_;
    call.kind = CallKind::kClose;
    call.object = open_.back().ref;
    co_await make(call);
  }
}

Task<void> ConcurrentClient::make(Call call) {
  call.invoked = ++recorder_.order;
  call.when.earliest = executor_.clock().wall_ns();
  co_await execute(call);
  call.when.latest = executor_.clock().wall_ns();
  call.returned = ++recorder_.order;
  recorder_.calls.push_back(std::move(call));
}

// What an operation found is shown to nobody before it is known that the lease stood: as the mount answers the kernel.
template <class T>
Task<std::optional<T>> ConcurrentClient::answer(Call& call, Task<Result<T>> operation) {
  Result<T> result = co_await std::move(operation);
  if (executor_.now() >= fs_.lease_end()) {
    const Result<> returned = co_await fs_.wait_for_lease();
    if (!returned) result = fail(returned.error());
  }
  if (result) co_return std::move(*result);
  call.error = result.error().code;
  co_return std::nullopt;
}

Task<void> ConcurrentClient::answer(Call& call, Task<Result<>> operation) {
  const Result<> result = co_await std::move(operation);
  if (!result) call.error = result.error().code;
}

// Between the two others may delete it: then there was nothing to open.
Task<Result<Attributes>> ConcurrentClient::open(InodeNo directory, std::string name) {
  while (true) {
    auto found = co_await fs_.lookup(directory, name);
    if (!found) co_return found;
    auto opened = co_await fs_.open(found->inode);
    fs_.forget(found->inode, 1);
    if (opened) co_return found;
    if (opened.error() != Errc::kStale) co_return fail(opened.error());
  }
}

Task<void> ConcurrentClient::execute(Call& call) {
  if (call.kind <= CallKind::kReaddir) {
    co_await execute_on_names(call);
  } else {
    co_await execute_on_contents(call);
  }
}

Task<void> ConcurrentClient::execute_on_names(Call& call) {
  const InodeNo object = call.object.inode;
  const NewInode inode{.mode = 0644};
  std::optional<Attributes> found;
  switch (call.kind) {
    case CallKind::kLookup:
      found = co_await answer(call, fs_.lookup(object, call.name));
      break;
    case CallKind::kOpen:
      found = co_await answer(call, open(object, call.name));
      break;
    case CallKind::kCreate:
      found = co_await answer(call, fs_.create(object, call.name, inode, call.flag));
      break;
    case CallKind::kMkdir:
      found = co_await answer(call, fs_.mkdir(object, call.name, inode));
      break;
    case CallKind::kSymlink:
      found = co_await answer(call, fs_.symlink(object, call.name, call.data, inode));
      break;
    case CallKind::kLink:
      found = co_await answer(call, fs_.link(object, call.to.inode, call.to_name));
      break;
    case CallKind::kUnlink:
      co_await answer(call, fs_.unlink(object, call.name));
      co_return;
    case CallKind::kRmdir:
      co_await answer(call, fs_.rmdir(object, call.name));
      co_return;
    case CallKind::kRename:
      co_await answer(call, fs_.rename(object, call.name, call.to.inode, call.to_name, call.mode));
      co_return;
    default: {
      auto entries = co_await answer(call, fs_.readdir(object, 0, 1000));
      if (entries) call.entries = std::move(*entries);
      co_return;
    }
  }
  if (!found) co_return;
  call.attributes = *found;
  if (call.kind == CallKind::kOpen) {
    open_.push_back({{found->inode, found->generation}, S_ISDIR(found->mode)});
  } else {
    fs_.forget(found->inode, 1);
  }
}

Task<void> ConcurrentClient::execute_on_contents(Call& call) {
  const InodeNo object = call.object.inode;
  switch (call.kind) {
    case CallKind::kClose:
      open_.erase(std::ranges::find(open_, call.object, &Open::ref));
      co_await fs_.close(object);
      co_return;
    case CallKind::kGetattr:
    case CallKind::kSetattr: {
      const bool changes = call.kind == CallKind::kSetattr;
      auto attributes = co_await answer(call, changes ? fs_.setattr(object, call.change) : fs_.getattr(object));
      if (attributes) call.attributes = *attributes;
      co_return;
    }
    case CallKind::kRead: {
      std::string bytes(call.length, '\0');
      auto count =
          co_await answer(call, fs_.read(object, call.offset, std::as_writable_bytes(std::span(bytes)), false));
      if (count) call.bytes = bytes.substr(0, *count);
      co_return;
    }
    default: {
      const auto bytes = std::as_bytes(std::span(call.data));
      auto written = co_await answer(call, fs_.write(object, call.offset, bytes, call.flag, false, false));
      if (!written) co_return;
      call.at = written->offset;
      call.data.resize(written->count);
    }
  }
}

}  // namespace cawfs::test
