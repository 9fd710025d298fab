// Requests about open files.
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "mount/errno.h"
#include "mount/fuse_attributes.h"
#include "mount/fuse_dispatch.h"

namespace cawfs {

namespace {

constexpr std::uint32_t kMaxRead = 16 << 20;

bool may_write(std::uint32_t flags) {
  return (flags & O_ACCMODE) != O_RDONLY;
}
bool may_read(std::uint32_t flags) {
  return (flags & O_ACCMODE) != O_WRONLY;
}

// May the caller open a file that another node has just made? The kernel, which knows all of the caller's groups, is
// not asked again: so only where that does not matter.
bool surely_permitted(const Attributes& attributes, const fuse_in_header& caller, std::uint32_t flags) {
  if (caller.uid == 0) return true;
  const std::uint32_t wanted = (may_read(flags) ? 4U : 0U) | (may_write(flags) ? 2U : 0U);
  const std::uint32_t other = attributes.mode & 7;
  const std::uint32_t group = attributes.mode >> 3 & 7;
  const std::uint32_t owner = attributes.mode >> 6 & 7;
  if (caller.uid == attributes.uid) return (owner & wanted) == wanted;
  if (caller.gid == attributes.gid) return (group & wanted) == wanted;
  return (group & other & wanted) == wanted;
}

}  // namespace

Task<void> FuseDispatcher::create(Request request) {
  auto in = request.take<fuse_create_in>();
  if (!in) co_return answer_error(request, in.error());
  auto name = request.take_name();
  if (!name) co_return answer_error(request, name.error());
  const FuseKernelCache::Answer preparing(cache_);
  auto made = co_await create_or_open(request, std::move(*name), *in);
  if (!made) co_return answer_error(request, made.error());
  const InodeNo inode = made->inode;
  auto opened = co_await operations_.open(inode);
  if (!opened) {
    operations_.forget(inode, 1);
    co_return answer_error(request, opened.error());
  }
  const std::uint64_t handle = add_file(inode, in->flags);
  auto ours = co_await confirm();
  if (!ours) {
    answer_error(request, ours.error());
    operations_.forget(inode, 1);
    co_await close_file(handle);
    co_return;
  }
  const fuse_entry_out entry = give_entry(inode_of(request), *made, name_validity(*made), preparing);
  const fuse_open_out open = open_out(handle);
  const std::array parts{std::as_bytes(std::span(&entry, 1)), std::as_bytes(std::span(&open, 1))};
  const bool waits = still_waiting(request);
  if (waits && connection_.reply_parts(request.header().unique, parts)) co_return;
  take_back_entry(inode);
  co_await close_file(handle);
}

// The kernel asks for the making of a name that it knows not to be there. If another node has made it since, ESTALE
// lets it look again, but only once: so where its checks cannot fail it is answered at once.
Task<Result<Attributes>> FuseDispatcher::create_or_open(Request& request, std::string name, fuse_create_in in) {
  const InodeNo directory = inode_of(request);
  const NewInode inode = new_inode(request, S_IFREG | (in.mode & 07777));
  auto made = co_await operations_.create(directory, name, inode, true);
  if (made || made.error().code != Errc::kExists || (in.flags & O_EXCL)) co_return made;

  auto found = co_await operations_.create(directory, name, inode, false);
  if (!found) co_return found;
  if (!S_ISREG(found->mode) || !surely_permitted(*found, request.header(), in.flags)) {
    operations_.forget(found->inode, 1);
    co_return fail(Errc::kStale);
  }
  if ((in.flags & O_TRUNC) && found->size > 0) {
    AttributeChange change;
    change.size = 0;
    change.kill_suid_sgid = true;
    auto truncated = co_await operations_.setattr(found->inode, change);
    if (!truncated) operations_.forget(found->inode, 1);
    co_return truncated;
  }
  co_return found;
}

Task<void> FuseDispatcher::open(Request request) {
  auto in = request.take<fuse_open_in>();
  if (!in) co_return answer_error(request, in.error());
  if (options_.read_only && may_write(in->flags)) co_return answer_error(request, EROFS);
  const InodeNo inode = inode_of(request);
  auto opened = co_await operations_.open(inode);
  if (!opened) co_return answer_error(request, opened.error());
  const std::uint64_t handle = add_file(inode, in->flags);
  if (!answer(request, open_out(handle))) co_await close_file(handle);
}

std::uint64_t FuseDispatcher::add_file(InodeNo inode, std::uint32_t flags) {
  const std::uint64_t handle = ++last_handle_;
  const bool readable = may_read(flags);
  const bool cached = !may_write(flags) && !(flags & O_DIRECT);
  files_.emplace(handle, OpenFile{.inode = inode,
                                  .flags = flags,
                                  .cached = cached,
                                  .readable = readable,
                                  .told = operations_.write_errors(inode)});
  if (readable) cache_.opened_readable(inode);
  return handle;
}

fuse_open_out FuseDispatcher::open_out(std::uint64_t handle) const {
  const std::uint32_t flags =
      files_.at(handle).cached ? FOPEN_KEEP_CACHE : FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES;
  return {.fh = handle, .open_flags = flags, .padding = 0};
}

Task<void> FuseDispatcher::close_file(std::uint64_t handle) {
  auto found = files_.find(handle);
  if (found == files_.end()) co_return;
  const OpenFile file = found->second;
  files_.erase(found);
  co_await mapped_.wait(file.inode);
  if (file.readable) cache_.closed_readable(file.inode);
  co_await operations_.close(file.inode);
}

Result<FuseDispatcher::OpenFile> FuseDispatcher::file_of(std::uint64_t handle) const {
  auto found = files_.find(handle);
  if (found == files_.end()) return fail(Errc::kInvalid, "handle of a FUSE request", handle);
  return found->second;
}

Task<Result<>> FuseDispatcher::sync_file(std::uint64_t handle, InodeNo inode, bool data_only) {
  auto file = file_of(handle);
  WriteErrorMark told = file ? file->told : operations_.write_errors(inode);
  auto synced = co_await operations_.sync(inode, data_only, told);
  // It may have been closed meanwhile.
  const auto found = files_.find(handle);
  if (found != files_.end()) found->second.told.count = std::max(found->second.told.count, told.count);
  co_return synced;
}

Task<void> FuseDispatcher::release(Request request) {
  auto in = request.take<fuse_release_in>();
  if (!in) co_return answer_error(request, in.error());
  co_await close_file(in->fh);
  answer_error(request, 0);
}

Task<void> FuseDispatcher::read(Request request) {
  auto in = request.take<fuse_read_in>();
  if (!in) co_return answer_error(request, in.error());
  auto file = file_of(in->fh);
  if (!file) co_return answer_error(request, EBADF);
  if (in->size > kMaxRead) co_return answer_error(request, EINVAL);
  // Only reads past the page cache name an owner; a file opened for those may be mapped all the same.
  std::optional<FuseKernelCache::PageRead> page_read;
  if (file->cached || !(in->read_flags & FUSE_READ_LOCKOWNER)) {
    auto begun = co_await cache_.begin_page_read(file->inode, in->offset, in->size);
    page_read.emplace(std::move(begun));
  }

  IoBuffer buffer(in->size);
  auto got = co_await operations_.read(file->inode, in->offset, buffer.bytes(), (in->flags & O_DIRECT) != 0);
  auto ours = co_await confirm();
  if (!ours) co_return answer_error(request, ours.error());
  if (!got) co_return answer_error(request, got.error());
  const auto data = buffer.bytes().first(std::min(*got, buffer.size()));
  mapped_.overlay(file->inode, in->offset, data);
  if (!still_waiting(request)) co_return;
  const std::span<const std::byte> part = data;
  connection_.reply_parts(request.header().unique, std::span(&part, 1));
}

Task<void> FuseDispatcher::write(Request request) {
  auto in = request.take<fuse_write_in>();
  if (!in) co_return answer_error(request, in.error());
  auto data = request.take_bytes(in->size);
  if (!data) co_return answer_error(request, data.error());
  const InodeNo inode = inode_of(request);
  fuse_write_out out{.size = in->size, .padding = 0};
  if (in->write_flags & FUSE_WRITE_CACHE) {
    auto accepted = co_await mapped_.accept(inode, in->offset, *data);
    if (!accepted) co_return answer_error(request, accepted.error());
    answer(request, out);
    co_return;
  }

  // The file may have been closed by now, but then the kernel does not write to it.
  if (!files_.contains(in->fh)) co_return answer_error(request, EBADF);
  const bool append = (in->flags & O_APPEND) != 0;
  const bool direct = (in->flags & O_DIRECT) != 0;
  const bool kill = (in->write_flags & FUSE_WRITE_KILL_SUIDGID) != 0;
  if (append) {
    co_await mapped_.wait(inode);
  } else {
    co_await mapped_.wait(inode, in->offset, in->size);
  }
  auto written = co_await operations_.write(inode, in->offset, *data, append, direct, kill);
  if (!written) co_return answer_error(request, written.error());
  if (options_.synchronous || (in->flags & (O_SYNC | O_DSYNC))) {
    const bool data_only = !options_.synchronous && (in->flags & O_SYNC) != O_SYNC;
    auto synced = co_await sync_file(in->fh, inode, data_only);
    if (!synced) co_return answer_error(request, synced.error());
  }
  // The kernel took the file to end elsewhere.
  if (written->offset != in->offset) cache_.forget_attributes(inode);
  // Other opens of the file read through the page cache, which this write has gone past.
  if (cache_.may_have_pages(inode) && written->count > 0) {
    co_await cache_.invalidate_inode(inode, written->offset, written->count);
  }
  out.size = static_cast<std::uint32_t>(written->count);
  answer(request, out);
}

Task<void> FuseDispatcher::fsync(Request request) {
  auto in = request.take<fuse_fsync_in>();
  if (!in) co_return answer_error(request, in.error());
  const InodeNo inode = inode_of(request);
  co_await mapped_.wait(inode);
  auto result = co_await sync_file(in->fh, inode, (in->fsync_flags & FUSE_FSYNC_FDATASYNC) != 0);
  answer_done(request, result);
}

}  // namespace cawfs
