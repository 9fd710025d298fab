// mount.cawfs's command line, as mount(8) calls it and as people do.
#pragma once

#include "mount/mount_options.h"

namespace cawfs {

struct CommandLine {
  MountOptions options;
  std::string message;  // for --help and --version: print it and exit 0
};

// kExitUsage with what is wrong. Checks that the mount point is a directory and makes it absolute.
Outcome<CommandLine> parse_command_line(int argc, char** argv);

}  // namespace cawfs
