#include "mount/fuse_connection.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace cawfs {

namespace {

constexpr std::uint32_t kMaxWrite = 1 << 20;
constexpr std::uint16_t kMaxPages = kMaxWrite / 4096;
constexpr std::uint32_t kMinMinor = 31;  // Linux 5.4: what the structures used here need
constexpr std::uint16_t kMaxBackground = 128;
constexpr std::uint16_t kCongestionThreshold = 96;
// Requests are received at this offset, so that a WRITE's data is aligned for direct I/O.
constexpr std::size_t kReceiveOffset = kBlockSize - sizeof(fuse_in_header) - sizeof(fuse_write_in);
constexpr std::size_t kReceiveBytes = kBlockSize - kReceiveOffset + kMaxWrite + kBlockSize;
// Shorter requests are copied, so that the large buffer serves the next one.
constexpr std::size_t kSmallRequest = 8192;
constexpr std::size_t kPooledBuffers = 32;
constexpr std::uint64_t kMostNotifications = kMostHelperThreads / 2;

constexpr std::uint64_t kWanted = std::uint64_t{FUSE_ASYNC_READ} | FUSE_BIG_WRITES | FUSE_AUTO_INVAL_DATA |
                                  FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS |
                                  FUSE_HANDLE_KILLPRIV_V2 | FUSE_ABORT_ERROR | FUSE_MAX_PAGES | FUSE_CACHE_SYMLINKS |
                                  FUSE_INIT_EXT | fuse::kInitDirectIoAllowMmap;

std::string mount_remedy(int error) {
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return "; the mount point must be an existing directory";
    case EPERM:
    case EACCES:
      return "; mounting needs root";
    case ENODEV:
      return "; the kernel has no FUSE: try \"modprobe fuse\"";
    case EINVAL:
      return "; the kernel does not take these mount options";
    default:
      return "";
  }
}

}  // namespace

Outcome<std::unique_ptr<FuseConnection>> FuseConnection::open(Reactor& reactor, Log& log) {
  const int fd = ::open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    const char* remedy = errno == ENOENT ? "; is the module loaded? Try \"modprobe fuse\"" : "";
    return failure(kExitSystem, fmt::format("cannot open /dev/fuse: {}{}", std::strerror(errno), remedy));
  }
  return std::unique_ptr<FuseConnection>(new FuseConnection(reactor, log, fd));
}

FuseConnection::FuseConnection(Reactor& reactor, Log& log, int fd)
    : reactor_(reactor),
      log_(log),
      fd_(fd),
      notifications_(reactor.executor(), kMostNotifications),
      buffer_(free_buffer()) {}

FuseConnection::~FuseConnection() {
  close(fd_);
}

Outcome<> FuseConnection::mount(const std::string& source, const std::string& directory, unsigned long flags) {
  const std::string data =
      fmt::format("fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions", fd_);
  if (::mount(source.c_str(), directory.c_str(), "fuse.cawfs", flags, data.c_str()) == 0) return {};
  const int error = errno;
  return failure(kExitMountFailed,
                 fmt::format("cannot mount on {}: {}{}", directory, std::strerror(error), mount_remedy(error)));
}

Task<Outcome<>> FuseConnection::handshake() {
  auto request = co_await next();
  if (!request) co_return failure(kExitMountFailed, "the kernel closed the FUSE connection before it was set up");
  const std::uint64_t unique = request->header().unique;
  // Kernels before 7.36 send a shorter structure; what they leave out reads as zero.
  fuse_init_in in{};
  constexpr std::size_t kShortInit = offsetof(fuse_init_in, flags2);
  auto start = request->take_bytes(kShortInit);
  if (request->header().opcode != FUSE_INIT || !start) {
    reply_error(unique, EPROTO);
    co_return failure(kExitMountFailed, "the kernel did not begin with a FUSE INIT request");
  }
  std::memcpy(&in, start->data(), kShortInit);
  if (in.flags & FUSE_INIT_EXT) {
    auto rest = request->take<std::uint32_t>();
    if (rest) in.flags2 = *rest;
  }
  if (in.major != FUSE_KERNEL_VERSION || in.minor < kMinMinor) {
    reply_error(unique, EPROTO);
    co_return failure(kExitSystem, fmt::format("the kernel speaks FUSE {}.{}, cawfs needs {}.{} (Linux 5.4) or newer",
                                               in.major, in.minor, FUSE_KERNEL_VERSION, kMinMinor));
  }

  const std::uint64_t offered = in.flags | std::uint64_t{in.flags2} << 32;
  const std::uint64_t agreed = offered & kWanted;
  features_ = {.minor = in.minor,
               .max_write = kMaxWrite,
               .direct_io_allow_mmap = (agreed & fuse::kInitDirectIoAllowMmap) != 0,
               .inc_epoch = in.minor >= fuse::kMinorIncEpoch};
  fuse_init_out out{};
  out.major = FUSE_KERNEL_VERSION;
  out.minor = std::min(in.minor, std::max<std::uint32_t>(FUSE_KERNEL_MINOR_VERSION, fuse::kMinorIncEpoch));
  out.max_readahead = std::max(in.max_readahead, kMaxWrite);
  out.flags = static_cast<std::uint32_t>(agreed);
  out.flags2 = static_cast<std::uint32_t>(agreed >> 32);
  out.max_background = kMaxBackground;
  out.congestion_threshold = kCongestionThreshold;
  out.max_write = kMaxWrite;
  out.time_gran = 1;
  out.max_pages = kMaxPages;
  if (!reply(unique, out)) co_return failure(kExitMountFailed, "the kernel refused the answer to FUSE INIT");
  co_return Outcome<>{};
}

Task<std::optional<Request>> FuseConnection::next() {
  while (true) {
    const std::size_t length = co_await receive();
    if (length == 0) {
      closed_ = true;
      co_return std::nullopt;
    }
    auto request = take_request(length);
    if (request) co_return std::move(*request);
    log_.error("the kernel sent a malformed FUSE request of {} bytes", length);
  }
}

Task<std::size_t> FuseConnection::receive() {
  const auto space = buffer_->bytes().subspan(kReceiveOffset, kReceiveBytes);
  while (true) {
    const ssize_t n = ::read(fd_, space.data(), space.size());
    if (n > 0) co_return static_cast<std::size_t>(n);
    const int error = n < 0 ? errno : ENODEV;
    if (ended(error)) co_return std::size_t{0};
    if (error != EAGAIN) continue;
    const int events = co_await reactor_.poll(fd_, POLLIN);
    if (events < 0 && events != -EINTR) {
      log_.error("cannot wait for FUSE requests: {}", std::strerror(-events));
      co_return std::size_t{0};
    }
  }
}

bool FuseConnection::ended(int error) {
  switch (error) {
    case EAGAIN:
    case EINTR:
    case ENOENT:  // the request was interrupted before it was read
      return false;
    case ENODEV:        // unmounted
    case ECONNABORTED:  // umount -f, or an abort by way of /sys/fs/fuse/connections
      return true;
    default:
      log_.error("cannot read FUSE requests: {}", std::strerror(error));
      return true;
  }
}

Result<Request> FuseConnection::take_request(std::size_t length) {
  if (length > kSmallRequest) {
    auto request = Request::parse(buffer_, kReceiveOffset, length);
    buffer_ = free_buffer();
    return request;
  }
  const auto bytes = buffer_->bytes().subspan(kReceiveOffset, length);
  return Request::parse(std::vector<std::byte>(bytes.begin(), bytes.end()));
}

std::shared_ptr<IoBuffer> FuseConnection::free_buffer() {
  for (auto& buffer : pool_) {
    if (buffer.use_count() == 1) return buffer;
  }
  auto buffer = std::make_shared<IoBuffer>(kReceiveOffset + kReceiveBytes);
  if (pool_.size() < kPooledBuffers) pool_.push_back(buffer);
  return buffer;
}

bool FuseConnection::reply_error(std::uint64_t unique, int error) {
  const fuse_out_header header{.len = sizeof(header), .error = -error, .unique = unique};
  const ssize_t n = ::write(fd_, &header, sizeof(header));
  if (n < 0 && errno != ENOENT) log_.error("cannot answer a FUSE request: {}", std::strerror(errno));
  return n >= 0;
}

bool FuseConnection::reply_parts(std::uint64_t unique, std::span<const std::span<const std::byte>> parts) {
  constexpr std::size_t kMaxParts = 4;
  CAWFS_ASSERT(parts.size() < kMaxParts);
  std::array<iovec, kMaxParts> vector{};
  fuse_out_header header{.len = sizeof(header), .error = 0, .unique = unique};
  std::size_t count = 1;
  for (const auto& part : parts) {
    vector[count++] = {const_cast<std::byte*>(part.data()), part.size()};
    header.len += static_cast<std::uint32_t>(part.size());
  }
  vector[0] = {&header, sizeof(header)};
  const ssize_t n = ::writev(fd_, vector.data(), static_cast<int>(count));
  if (n < 0 && errno != ENOENT) {
    const int error = errno;
    log_.error("cannot answer a FUSE request with {} bytes: {}", header.len, std::strerror(error));
    // Or its caller would wait for ever.
    if (error != ENODEV) reply_error(unique, EIO);
  }
  return n >= 0;
}

int FuseConnection::notify(std::int32_t code, std::span<const std::byte> payload) {
  fuse_out_header header{
      .len = static_cast<std::uint32_t>(sizeof(header) + payload.size()), .error = code, .unique = 0};
  const std::array<iovec, 2> vector{
      {{&header, sizeof(header)}, {const_cast<std::byte*>(payload.data()), payload.size()}}};
  const ssize_t n = ::writev(fd_, vector.data(), payload.empty() ? 1 : 2);
  return n < 0 ? -errno : 0;
}

Task<int> FuseConnection::notify_and_wait(std::int32_t code, std::vector<std::byte> payload) {
  int result = 0;
  co_await notifications_.acquire();
  co_await reactor_.run_blocking([&] { result = notify(code, payload); });
  notifications_.release();
  co_return result;
}

}  // namespace cawfs
