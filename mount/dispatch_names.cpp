// Requests about names, attributes and the file system as a whole.
#include <linux/fs.h>
#include <sys/stat.h>

#include <cerrno>
#include <optional>

#include "mount/errno.h"
#include "mount/fuse_attributes.h"
#include "mount/fuse_dispatch.h"

namespace cawfs {

Task<void> FuseDispatcher::lookup(Request request) {
  auto name = request.take_name();
  if (!name) co_return answer_error(request, name.error());
  auto found = co_await operations_.lookup(inode_of(request), std::move(*name));
  co_await answer_entry(request, found);
}

Task<void> FuseDispatcher::getattr(Request request) {
  auto attributes = co_await operations_.getattr(inode_of(request));
  co_await answer_attributes(request, attributes);
}

Task<void> FuseDispatcher::statx(Request request) {
  auto in = request.take<fuse::StatxIn>();
  if (!in) co_return answer_error(request, in.error());
  auto attributes = co_await operations_.getattr(inode_of(request));
  auto ours = co_await confirm();
  if (!ours) co_return answer_error(request, ours.error());
  if (!attributes) co_return answer_error(request, attributes.error());
  answer(request, to_statx_out(*attributes, reactor_.executor().now()));
}

Task<void> FuseDispatcher::setattr(Request request) {
  auto in = request.take<fuse_setattr_in>();
  if (!in) co_return answer_error(request, in.error());
  const InodeNo inode = inode_of(request);
  std::optional<FuseKernelCache::SizeChange> resizing;
  if (in->valid & FATTR_SIZE) {
    resizing.emplace(cache_, inode);
    // What a map has written comes before.
    auto written = co_await mapped_.wait_or_yield(inode);
    if (!written) co_return answer_error(request, written.error());
  }
  auto attributes = co_await operations_.setattr(inode, from_fuse(*in));
  co_await answer_attributes(request, attributes);
}

Task<void> FuseDispatcher::mkdir(Request request) {
  auto in = request.take<fuse_mkdir_in>();
  if (!in) co_return answer_error(request, in.error());
  auto name = request.take_name();
  if (!name) co_return answer_error(request, name.error());
  const NewInode inode = new_inode(request, S_IFDIR | (in->mode & 07777));
  auto made = co_await operations_.mkdir(inode_of(request), std::move(*name), inode);
  co_await answer_entry(request, made);
}

Task<void> FuseDispatcher::mknod(Request request) {
  auto in = request.take<fuse_mknod_in>();
  if (!in) co_return answer_error(request, in.error());
  auto name = request.take_name();
  if (!name) co_return answer_error(request, name.error());
  const NewInode inode = new_inode(request, in->mode, device_from_fuse(in->rdev));
  auto made = co_await operations_.mknod(inode_of(request), std::move(*name), inode);
  co_await answer_entry(request, made);
}

Task<void> FuseDispatcher::symlink(Request request) {
  auto name = request.take_name();
  if (!name) co_return answer_error(request, name.error());
  auto target = request.take_target();
  if (!target) co_return answer_error(request, target.error());
  const NewInode inode = new_inode(request, S_IFLNK | 0777);
  auto made = co_await operations_.symlink(inode_of(request), std::move(*name), std::move(*target), inode);
  co_await answer_entry(request, made);
}

Task<void> FuseDispatcher::readlink(Request request) {
  auto target = co_await operations_.readlink(inode_of(request));
  auto ours = co_await confirm();
  if (!ours) co_return answer_error(request, ours.error());
  if (!target) co_return answer_error(request, target.error());
  if (!still_waiting(request)) co_return;
  const auto bytes = std::as_bytes(std::span(target->data(), target->size()));
  connection_.reply_parts(request.header().unique, std::span(&bytes, 1));
}

Task<void> FuseDispatcher::link(Request request) {
  auto in = request.take<fuse_link_in>();
  if (!in) co_return answer_error(request, in.error());
  auto name = request.take_name();
  if (!name) co_return answer_error(request, name.error());
  auto linked = co_await operations_.link(cache_.inode(in->oldnodeid), inode_of(request), std::move(*name));
  co_await answer_entry(request, linked);
}

Task<void> FuseDispatcher::unlink(Request request) {
  auto name = request.take_name();
  if (!name) co_return answer_error(request, name.error());
  auto result = co_await operations_.unlink(inode_of(request), std::move(*name));
  answer_done(request, result);
}

Task<void> FuseDispatcher::rmdir(Request request) {
  auto name = request.take_name();
  if (!name) co_return answer_error(request, name.error());
  auto result = co_await operations_.rmdir(inode_of(request), std::move(*name));
  answer_done(request, result);
}

Task<void> FuseDispatcher::rename(Request request) {
  auto in = request.take<fuse_rename_in>();
  if (!in) co_return answer_error(request, in.error());
  co_await rename_to(std::move(request), in->newdir, RenameMode::kReplace);
}

Task<void> FuseDispatcher::rename2(Request request) {
  auto in = request.take<fuse_rename2_in>();
  if (!in) co_return answer_error(request, in.error());
  RenameMode mode = RenameMode::kReplace;
  if (in->flags == RENAME_NOREPLACE) {
    mode = RenameMode::kNoReplace;
  } else if (in->flags == RENAME_EXCHANGE) {
    mode = RenameMode::kExchange;
  } else if (in->flags != 0) {
    co_return answer_error(request, EINVAL);
  }
  co_await rename_to(std::move(request), in->newdir, mode);
}

Task<void> FuseDispatcher::rename_to(Request request, std::uint64_t directory, RenameMode mode) {
  auto from_name = request.take_name();
  if (!from_name) co_return answer_error(request, from_name.error());
  auto to_name = request.take_name();
  if (!to_name) co_return answer_error(request, to_name.error());
  auto result = co_await operations_.rename(inode_of(request), std::move(*from_name), cache_.inode(directory),
                                            std::move(*to_name), mode);
  answer_done(request, result);
}

Task<void> FuseDispatcher::statfs(Request request) {
  auto space = co_await operations_.space();
  if (!space) co_return answer_error(request, space.error());
  fuse_statfs_out out{};
  out.st.blocks = space->blocks;
  out.st.bfree = space->free_blocks;
  out.st.bavail = space->free_blocks;
  out.st.files = space->inodes;
  out.st.ffree = space->free_inodes;
  out.st.bsize = kBlockSize;
  out.st.frsize = kBlockSize;
  out.st.namelen = format::kNameMax;
  answer(request, out);
}

Task<void> FuseDispatcher::syncfs(Request request) {
  co_await mapped_.drain();
  auto result = co_await operations_.sync_all();
  answer_done(request, result);
}

Task<void> FuseDispatcher::destroy(Request request) {
  co_await mapped_.drain();
  auto result = co_await operations_.sync_all();
  answer_done(request, result);
}

}  // namespace cawfs
