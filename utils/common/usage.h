// What a tool says of a command line that it does not understand.
#pragma once

namespace CLI {
class App;
class ParseError;
}  // namespace CLI

namespace cawfs {

// Adds -V and --version, which print the program's name and version.
void add_version(CLI::App& app);

// Prints what was asked for (help, version) and returns 0, or what is wrong, as "TOOL: ...; see TOOL --help", and
// returns `usage`.
int finish_parsing(const CLI::App& app, const CLI::ParseError& error, int usage);

}  // namespace cawfs
