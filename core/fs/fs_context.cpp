#include "core/fs/fs_context.h"

#include "core/fs/write_back.h"

namespace cawfs {

FsContext::FsContext(FileSystemParts parts, FileSystemOptions given)
    : executor(parts.executor),
      geometry(parts.geometry),
      locks(parts.locks),
      buffers(parts.buffers),
      log(parts.log),
      random(parts.random),
      messages(parts.messages),
      options(given),
      stopping(parts.executor),
      stop_io(parts.executor),
      io(parts.executor, parts.device, stop_io),
      space(parts.executor, parts.device, parts.geometry, parts.locks, parts.buffers, parts.log, given.discard),
      numbers(parts.executor, parts.device, parts.geometry, parts.locks, parts.buffers, parts.log, space),
      dirty_less(parts.executor),
      dirty_more(parts.executor),
      chores_more(parts.executor),
      sweeps_more(parts.executor),
      background(parts.executor) {
  buffers.confirm_reads_by([this] { return locks.wait_for_lease(); });
}

Result<> check_writable(const FsContext& fs) {
  if (fs.options.read_only) return fail(Errc::kReadOnly);
  return {};
}

Result<> check_name(const std::string& name) {
  if (name.size() > format::kNameMax) return fail(Errc::kNameTooLong);
  if (name.empty() || name == "." || name == "..") return fail(Errc::kInvalid, "name");
  if (name.find('/') != std::string::npos || name.find('\0') != std::string::npos) return fail(Errc::kInvalid, "name");
  return {};
}

Task<Result<>> make_room(FsContext& fs, LockSet& locks, SpaceRequest request) {
  locks.drop();
  auto ready = co_await fs.space.prepare(request);
  if (ready || ready.error().code != Errc::kNoSpace || fs.space.promised() == 0) co_return ready;
  auto written = co_await write_back_all(fs);
  if (!written) co_return written;
  ready = co_await fs.space.prepare(request);
  co_return ready;
}

}  // namespace cawfs
