#include "core/device/open_device.h"

#include <sys/stat.h>

#include <cerrno>

#include "core/device/file_device.h"
#include "core/device/file_handle.h"
#include "core/device/iscsi_device.h"

namespace cawfs {

Task<Result<std::unique_ptr<BlockDevice>>> open_device(Reactor& reactor, Log& log, std::string source,
                                                       OpenOptions options) {
  if (source.starts_with("iscsi://")) {
    auto device = co_await open_iscsi_device(reactor, log, std::move(source), std::move(options));
    co_return device;
  }
  struct stat facts{};
  int error = 0;
  co_await reactor.run_blocking([&] { error = ::stat(source.c_str(), &facts) == 0 ? 0 : errno; });
  if (error != 0) co_return fail(errc_of_errno(error));
  if (S_ISBLK(facts.st_mode)) {
    co_return fail(Errc::kUnsupported,
                   "a kernel block device, which cawfs does not open yet (name the LUN as iscsi://host/iqn/lun)");
  }
  if (!S_ISREG(facts.st_mode)) {
    co_return fail(Errc::kUnsupported, "neither a file nor iscsi://host[:port]/iqn/lun");
  }
  auto device = co_await open_file_device(reactor, log, std::move(source), std::move(options));
  co_return device;
}

}  // namespace cawfs
