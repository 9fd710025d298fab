// mkfs.cawfs' command line.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/format/file_system_plan.h"

namespace cawfs {

struct MkfsArguments {
  std::string source;
  MakeOptions make;
  std::uint64_t create_bytes = 0;  // 0: the source is there
  bool dead_time_given = false;    // else it depends on the device
  bool force = false;
  bool quiet = false;
  std::uint32_t logical_block = 0;  // of a file LUN; 0: as it is
  std::string initiator;            // iSCSI; empty: the host's
};

// Parses and checks all that can be checked without the device. Either arguments, or the program's exit status: 0 after
// --help, 2 after a message about what is wrong.
struct ParsedMkfs {
  std::optional<MkfsArguments> arguments;
  int exit_status = 0;
};
ParsedMkfs parse_mkfs(int argc, const char* const* argv);

}  // namespace cawfs
