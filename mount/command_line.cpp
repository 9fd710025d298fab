#include "mount/command_line.h"

#include <fmt/format.h>
#include <limits.h>
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "core/base/version.h"

namespace cawfs {

namespace {

constexpr const char* kFooter = R"(Options of -o:
  ro                 read only; still a member of the cluster
  ro,norecovery      reads a write-protected copy as it stands: joins nothing, replays nothing
  local              this host alone, without cluster locks; refused while another node is active
  noaptpl            goes on with a target that forgets registrations when it loses power
  discard            tells a thin device which blocks have become free, as they do (default: nodiscard)
  initiator=NAME     iSCSI initiator name (default: the host's); one for each mount of a host
  poll=MS            slowest polling of the mailboxes, 1 to 1000 (default: 20)
  sync, noatime, relatime, nosuid, nodev, noexec, _netdev, nofail, x-..., defaults: as for any file system

Examples:
  mount -t cawfs iscsi://192.0.2.1/iqn.2026-01.org.example:disk/0 /srv/data
  mount.cawfs /var/tmp/lun.img /mnt -o local
  in fstab: iscsi://192.0.2.1/iqn.2026-01.org.example:disk/0 /srv/data cawfs _netdev 0 0

Exit codes: 0 mounted (with -f: unmounted cleanly); 1 usage; 2 system error; 32 the mount failed.)";

Outcome<std::string> absolute_directory(const std::string& directory) {
  char resolved[PATH_MAX];
  if (!realpath(directory.c_str(), resolved)) {
    return failure(kExitUsage, fmt::format("mount point {}: {}", directory, std::strerror(errno)));
  }
  struct stat facts{};
  if (stat(resolved, &facts) != 0 || !S_ISDIR(facts.st_mode)) {
    return failure(kExitUsage, fmt::format("mount point {} is no directory", directory));
  }
  return std::string(resolved);
}

}  // namespace

Outcome<CommandLine> parse_command_line(int argc, char** argv) {
  CommandLine line;
  MountOptions& options = line.options;
  std::vector<std::string> words;
  std::string type;
  bool sloppy = false;
  bool no_mtab = false;

  CLI::App app("Mounts a cawfs file system, shared by every host that mounts the same LUN.", "mount.cawfs");
  app.add_option("SOURCE", options.source, "The LUN: iscsi://HOST[:PORT]/IQN/LUN, or a file")->required();
  app.add_option("DIR", options.directory, "The mount point")->required();
  app.add_flag("-f", options.foreground, "Stay in the foreground; log to standard error");
  app.add_option("-o", words, "Comma-separated options, see below")->allow_extra_args(false);
  app.add_flag("-v", options.verbose, "Log more");
  app.add_flag("-s", sloppy, "Ignore unknown options");
  app.add_flag("-n", no_mtab, "Accepted for mount(8)");
  app.add_option("-t", type, "Accepted for mount(8)");
  app.set_version_flag("-V,--version", fmt::format("mount.cawfs {}", kVersion), "Print the version");
  app.footer(kFooter);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    line.message = app.help();
    return line;
  } catch (const CLI::CallForVersion&) {
    line.message = app.version() + "\n";
    return line;
  } catch (const CLI::ParseError& error) {
    return failure(kExitUsage, fmt::format("{}; see mount.cawfs --help", error.what()));
  }
  for (const auto& word : words) {
    auto parsed = parse_option_words(word, sloppy, options);
    if (!parsed) return std::unexpected(parsed.error());
  }
  auto checked = check_options(options);
  if (!checked) return std::unexpected(checked.error());
  auto directory = absolute_directory(options.directory);
  if (!directory) return std::unexpected(directory.error());
  options.directory = *directory;
  return line;
}

}  // namespace cawfs
