#include "core/fs/inode.h"

#include <algorithm>

#include "core/fs/fs_context.h"

namespace cawfs {

Task<Result<Inode>> read_named_inode(FsContext& fs, InodeNo number) {
  auto buffer = co_await fs.buffers.read(number.block(), format::BlockType::kInode, lock_of(number));
  if (!buffer) co_return fail(buffer.error());
  const auto& raw = (*buffer)->as<format::Inode>();
  if (raw.mode.value() == 0 || (raw.flags.value() & format::kInodeSystem)) {
    co_return fail(Errc::kStale, "inode", number.value);
  }
  Inode inode(std::move(*buffer), fs.inodes.get(number));
  if (inode.nlink() == 0) inode.state().unlinked = true;
  co_return inode;
}

Task<Result<Inode>> read_inode(FsContext& fs, InodeNo number) {
  auto inode = co_await read_named_inode(fs, number);
  if (!inode) co_return inode;
  const std::uint64_t known = inode->state().generation;
  if (known != 0 && known != inode->raw().generation.value()) co_return fail(Errc::kStale, "inode", number.value);
  co_return inode;
}

Task<Result<Inode>> read_directory(FsContext& fs, InodeNo number) {
  auto inode = co_await read_inode(fs, number);
  if (inode && !inode->directory()) co_return fail(Errc::kNotDirectory, "inode", number.value);
  co_return inode;
}

Attributes attributes_of(FsContext& fs, const Inode& inode, std::optional<InodeNo> also) {
  const format::Inode& raw = inode.raw();
  const InodeState& state = inode.state();
  Attributes attributes;
  attributes.inode = inode.number();
  attributes.generation = raw.generation.value();
  attributes.mode = raw.mode.value();
  attributes.nlink = raw.nlink.value();
  attributes.uid = raw.uid.value();
  attributes.gid = raw.gid.value();
  attributes.rdev = raw.rdev.value();
  attributes.size = inode.size();
  // What waits to be written counts as if it had its blocks already.
  attributes.blocks_512 = (raw.blocks.value() + state.promised_blocks) * (kBlockSize / 512);
  attributes.atime_ns = raw.atime_ns.value();
  attributes.mtime_ns = state.modified_ns.value_or(raw.mtime_ns.value());
  attributes.ctime_ns = state.modified_ns.value_or(raw.ctime_ns.value());
  attributes.btime_ns = raw.btime_ns.value();
  const bool yielding = fs.locks.yielding(inode.lock()) || (also && fs.locks.yielding(lock_of(*also)));
  if (!yielding) attributes.valid_until = fs.locks.lease_end();
  return attributes;
}

void touch(FsContext& fs, const Inode& inode, bool modified) {
  const std::int64_t now = fs.wall_ns();
  inode.raw().ctime_ns = now;
  if (modified) inode.raw().mtime_ns = now;
  // What buffered writes left to be stored is older than this.
  if (inode.state().modified_ns) {
    if (!modified) inode.raw().mtime_ns = *inode.state().modified_ns;
    inode.state().modified_ns.reset();
    fs.inodes.mark_clean(inode.state());
  }
}

void remember(const Inode& inode) {
  InodeState& state = inode.state();
  const std::uint64_t generation = inode.raw().generation.value();
  if (state.generation != 0 && state.generation != generation) state.write_errors.forget();
  ++state.references;
  state.generation = generation;
}

bool number_known(FsContext& fs, InodeNo number) {
  if (number == fs.geometry.root) return true;
  const InodePin state = fs.inodes.find(number);
  return state && state->generation != 0;
}

Task<Result<>> check_number(FsContext& fs, InodeNo number) {
  if (number_known(fs, number)) co_return Result<>{};
  auto is_inode = co_await fs.numbers.is_inode(number);
  if (!is_inode) co_return fail(is_inode.error());
  if (!*is_inode) co_return fail(Errc::kStale, "inode", number.value);
  co_return Result<>{};
}

std::uint32_t without_privileges(std::uint32_t mode) {
  mode &= ~kSetUid;
  if (mode & kGroupExecute) mode &= ~kSetGid;
  return mode;
}

}  // namespace cawfs
