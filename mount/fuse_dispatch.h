// Serves the kernel's requests from an Operations. Each request is a task of its own, so any number are under way; each
// is answered once. A request that is not understood is answered ENOSYS, which for xattrs, locks, fallocate and the
// like makes the kernel do what it does on a file system without them.
//
// Files that may be written are opened with FOPEN_DIRECT_IO: their data does not pass through the kernel's page cache,
// so no WRITE holds a page locked while it waits for another node, appends have no offset in the kernel to be wrong,
// and streams run faster. Files opened for reading are cached for as long as their lock is held.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/runtime/task_group.h"
#include "mount/fuse_connection.h"
#include "mount/kernel_cache.h"
#include "mount/mapped_writes.h"
#include "mount/operations.h"

namespace cawfs {

struct DispatchOptions {
  bool read_only = false;
  bool synchronous = false;  // every write as with O_SYNC
  // Names listed by READDIRPLUS may be cached. The kernel takes them up some time after the answer, out of reach of an
  // invalidation in between: so only where no other node can change a directory.
  bool cache_listed_names = false;
  std::uint64_t mapped_bytes = 64 << 20;  // what maps have written may take so much memory
};

class FuseDispatcher {
 public:
  FuseDispatcher(Reactor& reactor, Log& log, FuseConnection& connection, Operations& operations, FuseKernelCache& cache,
                 DispatchOptions options);

  // Until the file system is unmounted or the connection aborted, and all requests have been answered. Files that the
  // kernel has not closed are closed.
  Task<void> serve();
  // Requests taken up so far that have an answer.
  std::uint64_t accepted() const { return accepted_; }
  // What maps have written and is not with the file system yet.
  std::uint64_t mapped_bytes() const { return mapped_.bytes(); }

 private:
  using Handler = Task<void> (FuseDispatcher::*)(Request request);
  struct OpenFile {
    InodeNo inode;
    std::uint32_t flags = 0;  // as open(2)
    bool cached = false;      // its reads fill the page cache
    bool readable = false;
    WriteErrorMark told{};
  };
  // An answer being put together.
  class Listing;

  static Handler handler_of(std::uint32_t opcode);
  void start(Request request);
  Task<void> close_all();

  // Answers, if the caller still waits for one. False: it does not, and what the answer would have given is to be
  // undone.
  bool still_waiting(const Request& request);
  void answer_error(const Request& request, int error);
  void answer_error(const Request& request, const Error& error);
  template <class T>
  bool answer(const Request& request, const T& value) {
    const bool waits = still_waiting(request);
    return waits && connection_.reply(request.header().unique, value);
  }
  void answer_done(const Request& request, const Result<>& result);
  // Before every answer that shows what the file system holds: the self-lease may have lapsed since that was found.
  // Waits until it has returned. kFenced: it is not to be shown.
  Task<Result<>> confirm();
  Task<void> answer_attributes(const Request& request, const Result<Attributes>& result);
  Task<void> answer_entry(const Request& request, const Result<Attributes>& result);
  // The entry for an answer that is about to be sent; take_back_entry() if it cannot be.
  fuse_entry_out give_entry(InodeNo directory, const Attributes& attributes, Time name_until,
                            const FuseKernelCache::Answer& answer);
  void take_back_entry(InodeNo inode);
  Time name_validity(const Attributes& attributes) const;

  InodeNo inode_of(const Request& request) const { return cache_.inode(request.header().nodeid); }
  NewInode new_inode(const Request& request, std::uint32_t mode, std::uint32_t rdev = 0) const;

  // fuse_dispatch.cpp
  void forget(Request& request);
  void batch_forget(Request& request);
  void interrupt(Request& request);
  Task<void> watch_interrupted(std::uint64_t unique);
  // dispatch_names.cpp
  Task<void> lookup(Request request);
  Task<void> getattr(Request request);
  Task<void> statx(Request request);
  Task<void> setattr(Request request);
  Task<void> mkdir(Request request);
  Task<void> mknod(Request request);
  Task<void> symlink(Request request);
  Task<void> readlink(Request request);
  Task<void> link(Request request);
  Task<void> unlink(Request request);
  Task<void> rmdir(Request request);
  Task<void> rename(Request request);
  Task<void> rename2(Request request);
  Task<void> rename_to(Request request, std::uint64_t directory, RenameMode mode);
  Task<void> statfs(Request request);
  Task<void> syncfs(Request request);
  Task<void> destroy(Request request);
  // dispatch_files.cpp
  Task<void> create(Request request);
  Task<Result<Attributes>> create_or_open(Request& request, std::string name, fuse_create_in in);
  Task<void> open(Request request);
  Task<void> release(Request request);
  Task<void> read(Request request);
  Task<void> write(Request request);
  Task<void> fsync(Request request);
  std::uint64_t add_file(InodeNo inode, std::uint32_t flags);
  fuse_open_out open_out(std::uint64_t handle) const;
  Task<void> close_file(std::uint64_t handle);
  Task<Result<>> sync_file(std::uint64_t handle, InodeNo inode, bool data_only);
  Result<OpenFile> file_of(std::uint64_t handle) const;
  // dispatch_directories.cpp
  Task<void> opendir(Request request);
  Task<void> readdir(Request request);
  Task<void> readdirplus(Request request);
  Task<void> list(Request request, bool with_attributes);
  Task<Result<>> list_dots(Listing& listing, InodeNo directory, std::uint64_t offset);
  Task<Result<>> list_entries(Listing& listing, InodeNo directory, std::uint64_t cookie);
  bool answer_listing(const Request& request, Listing& listing, InodeNo directory);

  Reactor& reactor_;
  Log& log_;
  FuseConnection& connection_;
  Operations& operations_;
  FuseKernelCache& cache_;
  const DispatchOptions options_;
  MappedWrites mapped_;
  TaskGroup requests_;
  // Those not answered yet, by their unique number: the thread that waits.
  std::unordered_map<std::uint64_t, std::uint32_t> waiting_;
  std::unordered_map<std::uint64_t, OpenFile> files_;  // directories too, by handle
  std::uint64_t last_handle_ = 0;
  std::uint64_t accepted_ = 0;
};

}  // namespace cawfs
