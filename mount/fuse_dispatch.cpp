#include "mount/fuse_dispatch.h"

#include <signal.h>

#include <cerrno>
#include <fstream>

#include "mount/errno.h"
#include "mount/fuse_attributes.h"

namespace cawfs {

namespace {

using namespace std::chrono_literals;

// Requests started before those that are ready get their turn.
constexpr int kRequestsPerTurn = 16;
constexpr Duration kInterruptRecheck = 500ms;

// Has the thread been killed, so that it will never see what its system call returns?
bool is_dying(std::uint32_t thread) {
  std::ifstream status(fmt::format("/proc/{}/status", thread));
  std::string line;
  while (std::getline(status, line)) {
    if (!line.starts_with("SigPnd:") && !line.starts_with("ShdPnd:")) continue;
    const std::uint64_t pending = std::strtoull(line.c_str() + sizeof("SigPnd:") - 1, nullptr, 16);
    if (pending & (std::uint64_t{1} << (SIGKILL - 1))) return true;
  }
  return false;
}

}  // namespace

FuseDispatcher::FuseDispatcher(Reactor& reactor, Log& log, FuseConnection& connection, Operations& operations,
                               FuseKernelCache& cache, DispatchOptions options)
    : reactor_(reactor),
      log_(log),
      connection_(connection),
      operations_(operations),
      cache_(cache),
      options_(options),
      mapped_(reactor.executor(), log, operations, options.mapped_bytes,
              [&cache](InodeNo inode) { return cache.drops(inode); }),
      requests_(reactor.executor()) {
  cache_.set_press([this](InodeNo inode, bool on) { on ? operations_.press(inode) : operations_.unpress(inode); });
  cache_.set_drop_began([this] { mapped_.drop_began(); });
}

FuseDispatcher::Handler FuseDispatcher::handler_of(std::uint32_t opcode) {
  switch (opcode) {
    case FUSE_LOOKUP:
      return &FuseDispatcher::lookup;
    case FUSE_GETATTR:
      return &FuseDispatcher::getattr;
    case FUSE_SETATTR:
      return &FuseDispatcher::setattr;
    case FUSE_READLINK:
      return &FuseDispatcher::readlink;
    case FUSE_SYMLINK:
      return &FuseDispatcher::symlink;
    case FUSE_MKNOD:
      return &FuseDispatcher::mknod;
    case FUSE_MKDIR:
      return &FuseDispatcher::mkdir;
    case FUSE_UNLINK:
      return &FuseDispatcher::unlink;
    case FUSE_RMDIR:
      return &FuseDispatcher::rmdir;
    case FUSE_RENAME:
      return &FuseDispatcher::rename;
    case FUSE_RENAME2:
      return &FuseDispatcher::rename2;
    case FUSE_LINK:
      return &FuseDispatcher::link;
    case FUSE_STATFS:
      return &FuseDispatcher::statfs;
    case FUSE_SYNCFS:
      return &FuseDispatcher::syncfs;
    case FUSE_DESTROY:
      return &FuseDispatcher::destroy;
    case FUSE_CREATE:
      return &FuseDispatcher::create;
    case FUSE_OPEN:
      return &FuseDispatcher::open;
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR:
      return &FuseDispatcher::release;
    case FUSE_READ:
      return &FuseDispatcher::read;
    case FUSE_WRITE:
      return &FuseDispatcher::write;
    case FUSE_FSYNC:
    case FUSE_FSYNCDIR:
      return &FuseDispatcher::fsync;
    case FUSE_OPENDIR:
      return &FuseDispatcher::opendir;
    case FUSE_READDIR:
      return &FuseDispatcher::readdir;
    case FUSE_READDIRPLUS:
      return &FuseDispatcher::readdirplus;
    case fuse::kOpStatx:
      return &FuseDispatcher::statx;
    default:
      return nullptr;
  }
}

Task<void> FuseDispatcher::serve() {
  int started = 0;
  while (true) {
    auto request = co_await connection_.next();
    if (!request) break;
    start(std::move(*request));
    if (++started % kRequestsPerTurn == 0) co_await reactor_.executor().yield();
  }
  // Nobody waits for answers any more.
  waiting_.clear();
  co_await requests_.join();
  co_await close_all();
  co_await mapped_.drain();
}

void FuseDispatcher::start(Request request) {
  const fuse_in_header& header = request.header();
  switch (header.opcode) {  // these have no answer
    case FUSE_FORGET:
      return forget(request);
    case FUSE_BATCH_FORGET:
      return batch_forget(request);
    case FUSE_INTERRUPT:
      return interrupt(request);
    default:
      break;
  }
  const Handler handler = handler_of(header.opcode);
  if (!handler) {
    connection_.reply_error(header.unique, ENOSYS);
    return;
  }
  ++accepted_;
  waiting_.emplace(header.unique, header.pid);
  requests_.spawn((this->*handler)(std::move(request)));
}

Task<void> FuseDispatcher::close_all() {
  while (!files_.empty()) co_await close_file(files_.begin()->first);
}

bool FuseDispatcher::still_waiting(const Request& request) {
  return waiting_.erase(request.header().unique) > 0;
}

void FuseDispatcher::answer_error(const Request& request, int error) {
  if (still_waiting(request)) connection_.reply_error(request.header().unique, error);
}

void FuseDispatcher::answer_error(const Request& request, const Error& error) {
  if (error_class(error.code) == ErrorClass::kCorrupt) {
    log_.error("the file system is damaged: {} {}: {}; unmount it everywhere and run fsck.cawfs", error.where,
               error.address, describe(error.code));
  }
  answer_error(request, to_errno(error.code));
}

void FuseDispatcher::answer_done(const Request& request, const Result<>& result) {
  if (!result) return answer_error(request, result.error());
  answer_error(request, 0);
}

Task<Result<>> FuseDispatcher::confirm() {
  if (reactor_.executor().now() < operations_.lease_end()) co_return Result<>{};
  auto returned = co_await operations_.wait_for_lease();
  co_return returned;
}

Task<void> FuseDispatcher::answer_attributes(const Request& request, const Result<Attributes>& result) {
  auto ours = co_await confirm();
  if (!ours) co_return answer_error(request, ours.error());
  if (!result) co_return answer_error(request, result.error());
  answer(request, to_attr_out(*result, reactor_.executor().now()));
}

Task<void> FuseDispatcher::answer_entry(const Request& request, const Result<Attributes>& result) {
  const FuseKernelCache::Answer preparing(cache_);
  auto ours = co_await confirm();
  if (!ours && result) operations_.forget(result->inode, 1);
  if (!ours) co_return answer_error(request, ours.error());
  if (!result) co_return answer_error(request, result.error());
  const fuse_entry_out entry = give_entry(inode_of(request), *result, name_validity(*result), preparing);
  if (!answer(request, entry)) take_back_entry(result->inode);
}

fuse_entry_out FuseDispatcher::give_entry(InodeNo directory, const Attributes& attributes, Time name_until,
                                          const FuseKernelCache::Answer& answer) {
  Attributes given = attributes;
  if (!answer.stands(attributes.inode)) given.valid_until = {};
  if (!answer.stands(attributes.inode) || !answer.stands(directory)) name_until = {};
  cache_.referenced(given.inode);
  cache_.name_given(directory, name_until);
  return to_entry_out(given, cache_.node_id(given.inode), name_until, reactor_.executor().now());
}

void FuseDispatcher::take_back_entry(InodeNo inode) {
  cache_.forgotten(inode, 1);
  operations_.forget(inode, 1);
}

// Without INC_EPOCH the kernel cannot be told to drop names without waiting for requests in their directory.
Time FuseDispatcher::name_validity(const Attributes& attributes) const {
  return connection_.features().inc_epoch ? attributes.valid_until : Time{};
}

NewInode FuseDispatcher::new_inode(const Request& request, std::uint32_t mode, std::uint32_t rdev) const {
  return {.mode = mode, .uid = request.header().uid, .gid = request.header().gid, .rdev = rdev};
}

void FuseDispatcher::forget(Request& request) {
  auto in = request.take<fuse_forget_in>();
  if (!in) return log_.error("malformed FORGET");
  cache_.forgotten(inode_of(request), in->nlookup);
  operations_.forget(inode_of(request), in->nlookup);
}

void FuseDispatcher::batch_forget(Request& request) {
  auto in = request.take<fuse_batch_forget_in>();
  for (std::uint32_t i = 0; in && i < in->count; ++i) {
    auto one = request.take<fuse_forget_one>();
    if (!one) return log_.error("malformed BATCH_FORGET");
    cache_.forgotten(cache_.inode(one->nodeid), one->nlookup);
    operations_.forget(cache_.inode(one->nodeid), one->nlookup);
  }
}

// A signal came for a thread that waits for an answer. Whether it kills cannot be seen from the request: for another
// signal the operation runs to its end as on any disk file system; a thread that is dying is let go at once, whatever
// its operation still waits for.
void FuseDispatcher::interrupt(Request& request) {
  auto in = request.take<fuse_interrupt_in>();
  if (in && waiting_.contains(in->unique)) requests_.spawn(watch_interrupted(in->unique));
}

Task<void> FuseDispatcher::watch_interrupted(std::uint64_t unique) {
  while (true) {
    auto waiting = waiting_.find(unique);
    if (waiting == waiting_.end()) co_return;
    const std::uint32_t thread = waiting->second;
    bool dying = false;
    co_await reactor_.run_blocking([&] { dying = is_dying(thread); });
    if (dying && waiting_.erase(unique) > 0) {
      connection_.reply_error(unique, EINTR);
      co_return;
    }
    co_await reactor_.executor().sleep(kInterruptRecheck);
  }
}

}  // namespace cawfs
