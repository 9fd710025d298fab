// umount.fuse.cawfs DIR: what umount(8) runs for a cawfs mount, where it finds this program as /sbin/umount.fuse.cawfs.
// Unmounts, and returns once the daemon has written everything back and left the cluster.
#include <fmt/format.h>
#include <limits.h>
#include <sys/mount.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "core/base/version.h"
#include "mount/mount_record.h"

namespace {

using namespace cawfs;

constexpr const char* kFooter =
    R"(umount(8) finds this program as /sbin/umount.fuse.cawfs. Without it a file system is unmounted all the
same, but umount returns while the daemon is still writing back. umount(8) does not ask for it where a bind mount of
the file system is the last to go: then run it on that directory yourself.

With -f or -l it does not wait.

Exit codes: 0 unmounted, and everything is written back; 1 usage; 32 it could not be unmounted, or not everything
could be written back, or some files' data was lost earlier and no program was told.)";

// A mount that lives on elsewhere is not waited for.
constexpr int kNoticeTries = 500;
constexpr useconds_t kNoticeEvery = 10'000;

struct Arguments {
  std::string directory;
  bool force = false;
  bool lazy = false;
};

int complain(const std::string& directory, const std::string& message) {
  fmt::print(stderr, "umount.fuse.cawfs: {}: {}\n", directory, message);
  return kExitMountFailed;
}

const char* reason(int error) {
  switch (error) {
    case EBUSY:
      return "target is busy; lsof or fuser show who uses it";
    case EINVAL:
      return "not mounted";
    case EPERM:
      return "must be superuser to unmount";
    default:
      return std::strerror(error);
  }
}

// False: the mount lives on, in another mount namespace.
bool daemon_notices(const MountWatch& watch) {
  for (int i = 0; i < kNoticeTries; ++i) {
    if (watch.unmounting()) return true;
    usleep(kNoticeEvery);
  }
  return false;
}

int unmount(const Arguments& arguments) {
  char resolved[PATH_MAX];
  // umount(8) gives the whole path; looking at it again could wait for a daemon that does not answer.
  const bool whole = arguments.directory.starts_with('/');
  const std::string directory =
      !whole && realpath(arguments.directory.c_str(), resolved) ? resolved : arguments.directory;
  const auto device = mounted_device(directory);
  if (!device) return complain(directory, "no cawfs is mounted here");
  const MountWatch watch(*device);
  const bool elsewhere = count_mounts(*device) > 1;
  const int flags = (arguments.force ? MNT_FORCE : 0) | (arguments.lazy ? MNT_DETACH : 0);
  if (umount2(directory.c_str(), flags) != 0) return complain(directory, reason(errno));
  if (flags != 0 || elsewhere || !watch.found() || !daemon_notices(watch)) return 0;
  const std::string problem = watch.wait();
  return problem.empty() ? 0 : complain(directory, problem);
}

int run(int argc, char** argv) {
  Arguments arguments;
  bool ignored = false;
  std::string ignored_text;
  CLI::App app("Unmounts a cawfs file system and waits until its daemon has written everything back.",
               "umount.fuse.cawfs");
  app.footer(kFooter);
  app.set_version_flag("-V,--version", fmt::format("umount.fuse.cawfs {}", cawfs::kVersion), "Print the version");
  app.add_option("DIR", arguments.directory, "The mount point")->required();
  app.add_flag("-f,--force", arguments.force, "Fail what is under way, and do not wait");
  app.add_flag("-l,--lazy", arguments.lazy, "Detach now, end when it is no longer used; do not wait");
  app.add_flag("-n,-v,-r,-s", ignored, "Accepted for umount(8)");
  app.add_option("-t,-O,-N", ignored_text, "Accepted for umount(8)");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success)) return app.exit(error);
    fmt::print(stderr, "umount.fuse.cawfs: {}; see umount.fuse.cawfs --help\n", error.what());
    return kExitUsage;
  }
  return unmount(arguments);
}

}  // namespace

int main(int argc, char** argv) {
  return run(argc, argv);
}
