#include "tests/integration/lio_lab.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>

namespace cawfs::test {
namespace {

struct CommandResult {
  int status;
  std::string output;
};

CommandResult run_command(const std::string& command) {
  FILE* pipe = popen(command.c_str(), "r");
  if (!pipe) return {-1, "popen failed"};
  std::string output;
  std::array<char, 4096> chunk;
  for (std::size_t n; (n = fread(chunk.data(), 1, chunk.size(), pipe)) > 0;) output.append(chunk.data(), n);
  return {pclose(pipe), output};
}

std::string make_directory() {
  std::string name = (std::filesystem::temp_directory_path() / "cawfs-lio-XXXXXX").string();
  if (!mkdtemp(name.data())) std::abort();
  return name;
}

}  // namespace

LioLab::LioLab(const std::vector<std::string>& options) : directory_(make_directory()) {
  std::string arguments;
  for (const auto& option : options) arguments += " " + option;
  url_ = run("start", arguments);
  while (!url_.empty() && url_.back() == '\n') url_.pop_back();
  if (!url_.starts_with("iscsi://")) {
    std::cerr << "the lab's target did not come up: " << url_ << "\n";
    std::abort();
  }
}

LioLab::~LioLab() {
  run("stop");
  std::filesystem::remove_all(directory_);
}

std::string LioLab::run(const std::string& verb, const std::string& arguments) {
  auto result = run_command(std::string(CAWFS_LIO_LUN) + " " + verb + " " + directory_ + " " + arguments + " 2>&1");
  EXPECT_EQ(result.status, 0) << verb << " " << arguments << ": " << result.output;
  return result.output;
}

void LioLab::enter_host(int number) {
  // The namespaces under /run/netns are files; the one that `exec` runs in is known by its inode number.
  const std::uint64_t inode = std::stoull(run("exec", std::to_string(number) + " stat -L -c %i /proc/self/ns/net"));
  for (const auto& entry : std::filesystem::directory_iterator("/run/netns")) {
    struct stat found{};
    if (stat(entry.path().c_str(), &found) != 0 || found.st_ino != inode) continue;
    const int fd = open(entry.path().c_str(), O_RDONLY | O_CLOEXEC);
    const int entered = setns(fd, CLONE_NEWNET);
    close(fd);
    ASSERT_EQ(entered, 0);
    return;
  }
  FAIL() << "no namespace of host " << number;
}

}  // namespace cawfs::test
