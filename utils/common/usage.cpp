#include "utils/common/usage.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>
#include <vector>

#include "core/base/version.h"

namespace cawfs {

void add_version(CLI::App& app) {
  app.set_version_flag("-V,--version", fmt::format("{} {}", app.get_name(), kVersion), "Print the version");
}

int finish_parsing(const CLI::App& app, const CLI::ParseError& error, int usage) {
  if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success)) return app.exit(error);
  std::string message = error.what();
  // What is there and not understood matters more than what is missing.
  const std::vector<std::string> left = app.remaining(true);
  if (!left.empty()) message = fmt::format("unexpected: {}", left.front());
  fmt::print(stderr, "{0}: {1}; see {0} --help\n", app.get_name(), message);
  return usage;
}

}  // namespace cawfs
