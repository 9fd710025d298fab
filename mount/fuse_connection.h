// One mount's descriptor of /dev/fuse: mounting, the INIT handshake, requests in, replies and notifications out. All
// system calls on it return at once (the descriptor is non-blocking), but for notify_and_wait()'s, which a helper
// thread makes.
//
// Belongs to the reactor's thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/base/log.h"
#include "core/runtime/reactor.h"
#include "core/runtime/sync.h"
#include "mount/failure.h"
#include "mount/request.h"

namespace cawfs {

// What the kernel and we agreed on.
struct FuseFeatures {
  std::uint32_t minor = 0;
  std::uint32_t max_write = 0;  // bytes
  bool direct_io_allow_mmap = false;
  bool inc_epoch = false;
};

class FuseConnection {
 public:
  // Opens /dev/fuse.
  static Outcome<std::unique_ptr<FuseConnection>> open(Reactor& reactor, Log& log);
  FuseConnection(const FuseConnection&) = delete;
  ~FuseConnection();

  // mount(2) with MS_ `flags`; `source` is what /proc/mounts shows. `directory` is absolute.
  Outcome<> mount(const std::string& source, const std::string& directory, unsigned long flags);
  // Answers INIT; requests follow.
  Task<Outcome<>> handshake();
  const FuseFeatures& features() const { return features_; }
  // The kernel has let go: there are no more requests, and no caches.
  bool closed() const { return closed_; }

  // The next request; none once the file system is unmounted or the connection aborted. Malformed ones are answered
  // here.
  Task<std::optional<Request>> next();

  // Answers a request with `error` (an errno value, positive) or with the parts in order. False: the kernel had given
  // the request up, and holds nothing that the answer would have given it.
  bool reply_error(std::uint64_t unique, int error);
  bool reply_parts(std::uint64_t unique, std::span<const std::span<const std::byte>> parts);
  template <class T>
  bool reply(std::uint64_t unique, const T& value) {
    const std::span<const std::byte> part = std::as_bytes(std::span(&value, 1));
    return reply_parts(unique, std::span(&part, 1));
  }

  // Sends a notification; 0 or -errno. Only those that the kernel does not block on (see KernelCache).
  int notify(std::int32_t code, std::span<const std::byte> payload);
  // The same on a helper thread, for as long as it takes. Not many are on their way at a time, so that there are always
  // helper threads for what they may be waiting for: a READ that waits for the lease, which waits for a heartbeat.
  Task<int> notify_and_wait(std::int32_t code, std::vector<std::byte> payload);

 private:
  FuseConnection(Reactor& reactor, Log& log, int fd);
  // Bytes of one request into buffer_; 0 at the end of the connection.
  Task<std::size_t> receive();
  // Whether to go on after read(2) failed so.
  bool ended(int error);
  Result<Request> take_request(std::size_t length);
  std::shared_ptr<IoBuffer> free_buffer();

  Reactor& reactor_;
  Log& log_;
  int fd_;
  FuseFeatures features_;
  bool closed_ = false;
  Semaphore notifications_;
  std::vector<std::shared_ptr<IoBuffer>> pool_;
  std::shared_ptr<IoBuffer> buffer_;  // receives the next request; taken from the pool
};

}  // namespace cawfs
