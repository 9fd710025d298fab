#include "core/fs/filesystem.h"

#include <algorithm>

#include "core/fs/chores.h"
#include "core/fs/fs_context.h"
#include "core/fs/lock_client.h"
#include "core/fs/operations.h"
#include "core/fs/write_back.h"

namespace cawfs {

class FileSystem::Impl {
 public:
  Impl(FileSystemParts parts, FileSystemOptions options) : fs(parts, options), client(fs) {}

  Task<Result<>> start();
  Task<Result<>> stop();
  Task<Result<>> sync(InodeNo inode, bool data_only, WriteErrorMark& told);
  Task<Result<>> sync(InodeNo inode, bool data_only);
  Task<Result<>> sync_all();
  Task<Result<SpaceInfo>> space();

  FsContext fs;
  FsLockClient client;

 private:
  void release_all();
};

Task<Result<>> FileSystem::Impl::start() {
  fs.locks.set_client(&client);
  LockSet locks = fs.lock_set();
  locks.want_read(fs.geometry.root);
  auto taken = co_await locks.take();
  if (!taken) co_return taken;
  auto root = co_await read_directory(fs, fs.geometry.root);
  if (!root) co_return fail(root.error());
  if (fs.options.read_only) co_return Result<>{};
  fs.orphan_sweeps.push_back(fs.locks.self().slot);
  for (std::uint16_t i = 0; i < fs.geometry.slots; ++i) {
    if (SlotNo{i} != fs.locks.self().slot) fs.orphan_sweeps.push_back(SlotNo{i});
  }
  fs.background.spawn(run_write_back(fs));
  fs.background.spawn(run_chores(fs));
  fs.background.spawn(run_sweeps(fs));
  co_return Result<>{};
}

// Nobody uses anything any more: what has no link is freed before the end.
void FileSystem::Impl::release_all() {
  for (const InodePin& state : fs.inodes.all()) {
    state->references = 0;
    state->opens = 0;
    note_released(fs, *state);
  }
}

Task<Result<>> FileSystem::Impl::stop() {
  release_all();
  fs.stopping.request();
  fs.chores_more.notify_all();
  fs.sweeps_more.notify_all();
  fs.dirty_more.notify_all();
  fs.dirty_less.notify_all();
  co_await fs.background.join();
  auto written = co_await write_back_all(fs);
  auto in_place = co_await fs.log.write_back_all();
  if (written) written = in_place;
  for (const InodePin& state : fs.inodes.all()) {
    if (state->write_errors.untold())
      fs.messages.error("inode {}: no program was told of its loss", state->number.value);
  }
  fs.stop_io.request();
  co_await fs.space.unused();
  fs.space.abandon();
  co_return written;
}

Task<Result<>> FileSystem::Impl::sync(InodeNo number, bool data_only) {
  const InodePin state = fs.inodes.get(number);
  WriteErrorMark told = state->write_errors.mark();
  auto synced = co_await sync(number, data_only, told);
  co_return synced;
}

Task<Result<>> FileSystem::Impl::sync(InodeNo number, bool data_only, WriteErrorMark& told) {
  const InodePin state = fs.inodes.find(number);
  // Times alone need not be written for the data to be read back.
  const bool only_times = state && state->data.empty() && !state->size;
  if (!(data_only && only_times)) {
    auto written = co_await write_back_inode(fs, number);
    if (!written) co_return written;
  }
  // Every change of an inode changes its block: the transaction that did so last is all that is needed, and where the
  // block is not in memory or not changed, all is committed.
  TxId needed;
  if (const BufferRef buffer = fs.buffers.find(number.block())) needed = buffer->last_change();
  if (needed.value != 0) {
    auto committed = co_await fs.log.commit(needed);
    if (!committed) co_return committed;
  }
  auto flushed = co_await fs.log.flush_data();
  if (!flushed) co_return flushed;
  if (state) flushed = state->write_errors.tell(told);
  co_return flushed;
}

Task<Result<>> FileSystem::Impl::sync_all() {
  auto written = co_await write_back_all(fs);
  auto committed = co_await fs.log.commit(fs.log.last());
  if (!committed) co_return committed;
  auto flushed = co_await fs.log.flush_data();
  if (!flushed) co_return flushed;
  co_return written;
}

Task<Result<SpaceInfo>> FileSystem::Impl::space() {
  auto totals = co_await fs.space.totals();
  if (!totals) co_return fail(totals.error());
  SpaceInfo info;
  info.blocks = totals->blocks;
  const std::uint64_t promised = fs.space.promised();
  info.free_blocks = totals->free_blocks > promised ? totals->free_blocks - promised : 0;
  // Each 16 free blocks could become 15 inodes.
  const std::uint64_t per_chunk = format::kChunkBlocks - 1;
  info.free_inodes = totals->free_inodes + info.free_blocks / format::kChunkBlocks * per_chunk;
  info.inodes = totals->chunks * per_chunk - totals->free_inodes + info.free_inodes;
  co_return info;
}

FileSystem::FileSystem(FileSystemParts parts, FileSystemOptions options)
    : impl_(std::make_unique<Impl>(parts, options)) {}
FileSystem::~FileSystem() = default;

Task<Result<>> FileSystem::start() {
  return impl_->start();
}
Task<Result<>> FileSystem::stop() {
  return impl_->stop();
}
void FileSystem::set_kernel_cache(KernelCache* cache) {
  impl_->fs.kernel = cache;
}
void FileSystem::slot_changed(SlotNo ended, format::SlotState from, format::SlotState to) {
  using format::SlotState;
  // One that is ACTIVE again has another incarnation, and had none between two looks at the table; or its recoverer has
  // found it alive, which does no harm.
  const bool had_node = from == SlotState::kActive || from == SlotState::kRecovering;
  if (!had_node || to == SlotState::kRecovering) return;
  FsContext& fs = impl_->fs;
  const std::uint64_t lists = fs.orphans_left | std::uint64_t{1} << ended.value;
  for (std::uint16_t slot = 0; slot < fs.geometry.slots; ++slot) {
    if ((lists >> slot & 1) && std::ranges::find(fs.orphan_sweeps, SlotNo{slot}) == fs.orphan_sweeps.end()) {
      fs.orphan_sweeps.push_back(SlotNo{slot});
    }
  }
  fs.sweeps_more.notify_all();
}
InodeNo FileSystem::root() const {
  return impl_->fs.geometry.root;
}

Time FileSystem::lease_end() const {
  return impl_->fs.locks.lease_end();
}
Task<Result<>> FileSystem::wait_for_lease() {
  return impl_->fs.locks.wait_for_lease();
}
void FileSystem::press(InodeNo inode) {
  impl_->fs.locks.press(lock_of(inode));
}
void FileSystem::unpress(InodeNo inode) {
  impl_->fs.locks.unpress(lock_of(inode));
}

Task<Result<Attributes>> FileSystem::lookup(InodeNo directory, std::string name) {
  return cawfs::lookup(impl_->fs, directory, std::move(name));
}
void FileSystem::forget(InodeNo inode, std::uint64_t references) {
  forget_inode(impl_->fs, inode, references);
}
Task<Result<Attributes>> FileSystem::getattr(InodeNo inode) {
  return cawfs::getattr(impl_->fs, inode);
}
Task<Result<Attributes>> FileSystem::setattr(InodeNo inode, AttributeChange change) {
  return cawfs::setattr(impl_->fs, inode, change);
}

Task<Result<Attributes>> FileSystem::create(InodeNo directory, std::string name, NewInode inode, bool exclusive) {
  return make_node(impl_->fs, directory, std::move(name), {kTypeFile, inode, {}, exclusive});
}
Task<Result<Attributes>> FileSystem::mkdir(InodeNo directory, std::string name, NewInode inode) {
  return make_node(impl_->fs, directory, std::move(name), {kTypeDirectory, inode, {}, true});
}
Task<Result<Attributes>> FileSystem::mknod(InodeNo directory, std::string name, NewInode inode) {
  return make_special(impl_->fs, directory, std::move(name), inode);
}
Task<Result<Attributes>> FileSystem::symlink(InodeNo directory, std::string name, std::string target, NewInode inode) {
  return make_node(impl_->fs, directory, std::move(name), {kTypeSymlink, inode, std::move(target), true});
}
Task<Result<std::string>> FileSystem::readlink(InodeNo inode) {
  return cawfs::readlink(impl_->fs, inode);
}
Task<Result<Attributes>> FileSystem::link(InodeNo inode, InodeNo directory, std::string name) {
  return cawfs::link(impl_->fs, inode, directory, std::move(name));
}
Task<Result<>> FileSystem::unlink(InodeNo directory, std::string name) {
  return cawfs::unlink(impl_->fs, directory, std::move(name));
}
Task<Result<>> FileSystem::rmdir(InodeNo directory, std::string name) {
  return cawfs::rmdir(impl_->fs, directory, std::move(name));
}
Task<Result<>> FileSystem::rename(InodeNo from, std::string from_name, InodeNo to, std::string to_name,
                                  RenameMode mode) {
  return cawfs::rename(impl_->fs, from, std::move(from_name), to, std::move(to_name), mode);
}

Task<Result<std::vector<DirectoryEntry>>> FileSystem::readdir(InodeNo directory, std::uint64_t cookie,
                                                              std::size_t limit) {
  return cawfs::readdir(impl_->fs, directory, cookie, limit);
}
Task<Result<InodeNo>> FileSystem::parent(InodeNo directory) {
  return parent_of(impl_->fs, directory);
}

Task<Result<>> FileSystem::open(InodeNo inode) {
  return open_inode(impl_->fs, inode);
}
Task<void> FileSystem::close(InodeNo inode) {
  close_inode(impl_->fs, inode);
  co_return;
}
Task<Result<std::size_t>> FileSystem::read(InodeNo inode, std::uint64_t offset, std::span<std::byte> out,
                                           bool /*direct*/) {
  return read_file(impl_->fs, inode, offset, out);
}
Task<Result<Written>> FileSystem::write(InodeNo inode, std::uint64_t offset, std::span<const std::byte> data,
                                        bool append, bool direct, bool kill_suid_sgid) {
  return write_file(impl_->fs, {inode, offset, data, append, direct, kill_suid_sgid, false});
}
Task<Result<>> FileSystem::write_within(InodeNo inode, std::uint64_t offset, std::span<const std::byte> data) {
  auto written = co_await write_file(impl_->fs, {.inode = inode, .offset = offset, .data = data, .within = true});
  if (!written) co_return fail(written.error());
  co_return Result<>{};
}
Task<Result<>> FileSystem::sync(InodeNo inode, bool data_only) {
  return impl_->sync(inode, data_only);
}
Task<Result<>> FileSystem::sync(InodeNo inode, bool data_only, WriteErrorMark& told) {
  return impl_->sync(inode, data_only, told);
}
WriteErrorMark FileSystem::write_errors(InodeNo inode) {
  const InodePin state = impl_->fs.inodes.find(inode);
  return state ? state->write_errors.mark() : WriteErrorMark{};
}
void FileSystem::note_lost(InodeNo inode, const Error& error) {
  impl_->fs.inodes.get(inode)->write_errors.note(error);
}
std::uint64_t FileSystem::untold_losses() {
  const std::vector<InodePin> all = impl_->fs.inodes.all();
  return static_cast<std::uint64_t>(
      std::ranges::count_if(all, [](const InodePin& state) { return state->write_errors.untold(); }));
}
Task<Result<>> FileSystem::sync_all() {
  return impl_->sync_all();
}
Task<Result<SpaceInfo>> FileSystem::space() {
  return impl_->space();
}
std::uint64_t FileSystem::dirty_bytes() const {
  return impl_->fs.dirty_bytes;
}

}  // namespace cawfs
