// Operations that add a name: create, mkdir, mknod, symlink, link.
#include <cstring>

#include "core/fs/chores.h"
#include "core/fs/directory.h"
#include "core/fs/file_map.h"
#include "core/fs/fs_context.h"
#include "core/fs/operations.h"

namespace cawfs {

namespace {

bool has_content(std::uint32_t type) {
  return type == kTypeFile || type == kTypeSymlink || type == kTypeDirectory;
}

// The new inode's block, but for its directory's rules and a long symlink's extent. Its number's generation goes on.
void fill_inode(FsContext& fs, const NewNode& node, const format::Inode& parent, format::Inode& raw) {
  const std::uint64_t generation = raw.generation.value() + 1;
  const format::BlockHeader header = raw.header;
  raw = format::Inode{};
  raw.header = header;
  raw.generation = generation;
  raw.mode = node.type | (node.given.mode & kPermissionBits);
  raw.nlink = 1;
  raw.uid = node.given.uid;
  raw.gid = node.given.gid;
  if (parent.mode.value() & kSetGid) {
    raw.gid = parent.gid.value();
    if (node.type == kTypeDirectory) raw.mode = raw.mode.value() | kSetGid;
  }
  if (node.type == kTypeCharDevice || node.type == kTypeBlockDevice) raw.rdev = node.given.rdev;
  const std::int64_t now = fs.wall_ns();
  raw.atime_ns = now;
  raw.mtime_ns = now;
  raw.ctime_ns = now;
  raw.btime_ns = now;
  raw.content_bytes = static_cast<std::uint16_t>(format::kInodeContent);
  raw.content =
      static_cast<std::uint8_t>(has_content(node.type) ? format::InodeContent::kInline : format::InodeContent::kNone);
  if (node.type == kTypeDirectory) {
    raw.nlink = 2;
    raw.content = static_cast<std::uint8_t>(format::InodeContent::kTree);
    raw.tree_kind = static_cast<std::uint16_t>(format::TreeKind::kDirectory);
  }
}

bool fits_inline(const std::string& target) {
  return target.size() <= format::kInodeContent;
}

// A symlink's target: in the inode, or in the block that has been written.
void fill_target(TxHandle& tx, const std::string& target, Reservation& space, format::Inode& raw) {
  raw.size = target.size();
  if (fits_inline(target)) {
    std::memcpy(raw.area.data(), target.data(), target.size());
    return;
  }
  const BlockRange block{space.runs()[0].start, 1};
  space.take_data(tx, block);
  make_extent_root(raw, block);
  raw.blocks = 1;
}

Task<Result<>> write_target(FsContext& fs, BlockNo block, const std::string& target) {
  IoBuffer buffer(kBlockSize);
  std::memcpy(buffer.data(), target.data(), target.size());
  auto written = co_await fs.io.write(block.offset_bytes(), buffer.bytes(), Durability::kCached);
  if (written) fs.log.data_written();
  co_return written;
}

// Makes the node in `parent`, all locks held. Empty: everything was let go and prepared, start over.
Task<Result<std::optional<Attributes>>> try_make(FsContext& fs, LockSet& locks, Inode parent, std::string name,
                                                 const NewNode& node) {
  auto claim = co_await fs.numbers.claim(parent.number());
  if (!claim && claim.error().code == Errc::kAgain) {
    locks.drop();
    auto ready = co_await fs.numbers.refill(parent.number());
    if (!ready) co_return fail(ready.error());
    co_return std::optional<Attributes>();
  }
  if (!claim) co_return fail(claim.error());
  const InodeNo number = claim->inode();
  auto buffer = co_await fs.buffers.read(number.block(), format::BlockType::kInode, lock_of(number));
  if (!buffer) co_return fail(buffer.error());
  if ((*buffer)->as<format::Inode>().mode.value() != 0) co_return fail(Errc::kBadValue, "free inode", number.value);

  Directory entries(fs, parent);
  auto planned = co_await entries.add(name, number, node.type);
  if (!planned) co_return fail(planned.error());
  const bool long_target = node.type == kTypeSymlink && !fits_inline(node.target);
  SpaceRequest request{
      .goal = number.block(), .data = long_target ? 1u : 0u, .metadata = entries.needs().new_blocks, .frees = {}};
  auto space = fs.space.try_reserve(request);
  if (!space && space.error().code == Errc::kAgain) {
    claim = fail(space.error());  // its locks go too
    auto ready = co_await make_room(fs, locks, request);
    if (!ready) co_return fail(ready.error());
    co_return std::optional<Attributes>();
  }
  if (!space) co_return fail(space.error());
  if (long_target) {
    auto written = co_await write_target(fs, space->runs()[0].start, node.target);
    if (!written) co_return fail(written.error());
  }

  const std::uint32_t credits = 1 + entries.credits() + InodeMaskChange::kCredits + space->credits();
  auto tx = co_await fs.log.begin(credits);
  if (!tx) co_return fail(tx.error());
  claim->mask.apply(*tx);
  tx->change(**buffer, claim->hold);
  auto& raw = (*buffer)->as<format::Inode>();
  fill_inode(fs, node, parent.raw(), raw);
  if (node.type == kTypeSymlink) fill_target(*tx, node.target, *space, raw);
  entries.apply(*tx, locks.hold(parent.number()), *space);
  if (node.type == kTypeDirectory) {
    raw.parent = parent.number().value;
    parent.raw().nlink = parent.nlink() + 1;
  }
  tx->end();

  Inode inode(std::move(*buffer), fs.inodes.get(number));
  inode.state().unlinked = false;
  inode.state().lost_while_open = false;
  remember(inode);
  co_return attributes_of(fs, inode, parent.number());
}

Task<Result<Attributes>> refuse(Errc code) {
  co_return fail(code);
}

}  // namespace

Task<Result<Attributes>> make_node(FsContext& fs, InodeNo directory, std::string name, NewNode node) {
  if (auto good = check_name(name); !good) co_return fail(good.error());
  if (auto good = check_writable(fs); !good) co_return fail(good.error());
  if (node.type == kTypeSymlink && node.target.empty()) co_return fail(Errc::kNotFound);
  if (node.target.size() > kSymlinkMax) co_return fail(Errc::kNameTooLong);
  auto known = co_await check_number(fs, directory);
  if (!known) co_return fail(known.error());

  LockSet locks = fs.lock_set();
  locks.want_write(directory);
  for (;;) {
    auto taken = co_await locks.take();
    if (!taken) co_return fail(taken.error());
    auto parent = co_await read_directory(fs, directory);
    if (!parent) co_return fail(parent.error());
    Directory entries(fs, *parent);
    auto found = co_await entries.find(name);
    if (!found) co_return fail(found.error());
    if (*found && node.exclusive) co_return fail(Errc::kExists);
    if (*found) {
      if ((*found)->type == kTypeDirectory) co_return fail(Errc::kIsDirectory);
      locks.drop();
      auto existing = co_await lookup(fs, directory, name);
      if (!existing && existing.error().code == Errc::kNotFound) continue;
      co_return existing;
    }
    if (parent->nlink() == 0) co_return fail(Errc::kNotFound);
    if (node.type == kTypeDirectory && parent->nlink() >= kLinkMax) co_return fail(Errc::kTooManyLinks);
    auto made = co_await try_make(fs, locks, *parent, name, node);
    if (!made) co_return fail(made.error());
    if (*made) co_return **made;
  }
}

Task<Result<Attributes>> make_special(FsContext& fs, InodeNo directory, std::string name, NewInode inode) {
  const std::uint32_t type = inode.mode & kTypeMask;
  switch (type) {
    case kTypeFile:
    case kTypeCharDevice:
    case kTypeBlockDevice:
    case kTypePipe:
    case kTypeSocket:
      return make_node(fs, directory, std::move(name), {type, inode, {}, true});
    default:
      return refuse(Errc::kInvalid);
  }
}

Task<Result<Attributes>> link(FsContext& fs, InodeNo number, InodeNo directory, std::string name) {
  if (auto good = check_name(name); !good) co_return fail(good.error());
  if (auto good = check_writable(fs); !good) co_return fail(good.error());
  for (const InodeNo given : {number, directory}) {
    auto known = co_await check_number(fs, given);
    if (!known) co_return fail(known.error());
  }
  LockSet locks = fs.lock_set();
  locks.want_write(directory);
  locks.want_write(number);
  for (;;) {
    auto taken = co_await locks.take();
    if (!taken) co_return fail(taken.error());
    auto parent = co_await read_directory(fs, directory);
    if (!parent) co_return fail(parent.error());
    auto inode = co_await read_inode(fs, number);
    if (!inode) co_return fail(inode.error());
    if (inode->directory()) co_return fail(Errc::kPermission);
    Directory entries(fs, *parent);
    auto found = co_await entries.find(name);
    if (!found) co_return fail(found.error());
    if (*found) co_return fail(Errc::kExists);
    if (parent->nlink() == 0 || inode->nlink() == 0) co_return fail(Errc::kNotFound);
    if (inode->nlink() >= kLinkMax) co_return fail(Errc::kTooManyLinks);

    auto planned = co_await entries.add(name, number, inode->type());
    if (!planned) co_return fail(planned.error());
    SpaceRequest request{.goal = directory.block(), .metadata = entries.needs().new_blocks, .frees = {}};
    auto space = fs.space.try_reserve(request);
    if (!space && space.error().code == Errc::kAgain) {
      auto ready = co_await make_room(fs, locks, request);
      if (!ready) co_return fail(ready.error());
      continue;
    }
    if (!space) co_return fail(space.error());
    auto tx = co_await fs.log.begin(entries.credits() + 1 + space->credits());
    if (!tx) co_return fail(tx.error());
    entries.apply(*tx, locks.hold(directory), *space);
    tx->change(inode->buffer(), locks.hold(number));
    inode->raw().nlink = inode->nlink() + 1;
    touch(fs, *inode, false);
    tx->end();
    remember(*inode);
    co_return attributes_of(fs, *inode, directory);
  }
}

}  // namespace cawfs
