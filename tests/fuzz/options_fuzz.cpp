// The words of -o, and the command lines of mount.cawfs and mkfs.cawfs: accepted with values in their ranges, or
// refused with a reason; the same for words given at once or one after the other.
#include <sys/mount.h>

#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include "core/base/assert.h"
#include "core/format/journal_format.h"
#include "core/format/layout.h"
#include "mount/command_line.h"
#include "tests/fuzz/input.h"
#include "utils/mkfs/arguments.h"

namespace cawfs::fuzz {
namespace {

constexpr std::size_t kMostWords = 12;

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

bool same(const MountOptions& a, const MountOptions& b) {
  return a.mount_flags == b.mount_flags && a.read_only == b.read_only && a.synchronous == b.synchronous &&
         a.no_recovery == b.no_recovery && a.local == b.local && a.no_aptpl == b.no_aptpl && a.network == b.network &&
         a.discard == b.discard && a.initiator == b.initiator && a.poll_slowest == b.poll_slowest;
}

void check_options_of(const MountOptions& options) {
  CAWFS_ASSERT(options.read_only == ((options.mount_flags & MS_RDONLY) != 0));
  CAWFS_ASSERT(options.synchronous == ((options.mount_flags & MS_SYNCHRONOUS) != 0));
  CAWFS_ASSERT(options.poll_slowest >= std::chrono::milliseconds(1) && options.poll_slowest <= std::chrono::seconds(1));
  CAWFS_ASSERT(options.initiator.find(',') == std::string::npos);
}

void check_failure(const Failure& failure) {
  CAWFS_ASSERT(failure.exit_code == kExitUsage && !failure.message.empty());
}

void fuzz_words(const std::string& text, bool sloppy) {
  MountOptions options;
  const auto parsed = parse_option_words(text, sloppy, options);
  if (!parsed) return check_failure(parsed.error());
  check_options_of(options);
  if (const auto together = check_options(options); !together) check_failure(together.error());
  MountOptions twice = options;
  CAWFS_ASSERT(parse_option_words(text, sloppy, twice) && same(twice, options));
  // One comma at a time.
  MountOptions pieces;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find(',', at), text.size());
    CAWFS_ASSERT(parse_option_words(text.substr(at, end - at), sloppy, pieces));
    at = end + 1;
  }
  CAWFS_ASSERT(same(pieces, options));
  // What is not sloppy is accepted by who is.
  MountOptions lax;
  CAWFS_ASSERT(parse_option_words(text, true, lax) && same(lax, options));
}

// The words of a command line are separated by zeroes.
std::vector<std::string> split(const std::string& text, const char* program) {
  std::vector<std::string> words{program};
  for (std::size_t at = 0; at <= text.size() && words.size() < kMostWords;) {
    const std::size_t end = std::min(text.find('\0', at), text.size());
    words.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return words;
}

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  return argv;
}

void fuzz_mount(std::vector<std::string> words) {
  auto argv = pointers(words);
  const auto line = parse_command_line(static_cast<int>(words.size()), argv.data());
  if (!line) return check_failure(line.error());
  if (!line->message.empty()) return;
  check_options_of(line->options);
  CAWFS_ASSERT(line->options.directory.starts_with('/'));
  CAWFS_ASSERT(!line->options.no_recovery || line->options.read_only);
}

// What the parsers print is of no interest here, and there is much of it. The fuzzer keeps a stream of its own.
class Quiet {
 public:
  Quiet() { stderr = nowhere(); }
  ~Quiet() { stderr = before_; }
  Quiet(const Quiet&) = delete;

 private:
  static std::FILE* nowhere() {
    static std::FILE* const file = std::fopen("/dev/null", "we");
    CAWFS_ASSERT(file != nullptr);
    return file;
  }
  std::FILE* before_ = stderr;
};

ParsedMkfs parse_quietly(std::vector<std::string> words) {
  auto argv = pointers(words);
  const Quiet quiet;
  return parse_mkfs(static_cast<int>(words.size()), argv.data());
}

void fuzz_mkfs(std::vector<std::string> words) {
  const ParsedMkfs parsed = parse_quietly(std::move(words));
  if (!parsed.arguments) {
    CAWFS_ASSERT(parsed.exit_status == 0 || parsed.exit_status == 2);
    return;
  }
  const MkfsArguments& arguments = *parsed.arguments;
  const MakeOptions& make = arguments.make;
  CAWFS_ASSERT(make.label.size() <= 64 && make.slots <= kSlots);
  CAWFS_ASSERT(make.journal_blocks == 0 ||
               (make.journal_blocks >= format::kMinJournalBlocks && make.journal_blocks <= format::kMaxJournalBlocks));
  CAWFS_ASSERT(make.dead_time_ms >= format::kMinDeadTimeMs && make.dead_time_ms <= format::kMaxDeadTimeMs);
  CAWFS_ASSERT(arguments.logical_block == 0 || arguments.logical_block == 512 || arguments.logical_block == 4096);
  CAWFS_ASSERT(arguments.create_bytes % kBlockSize == 0);
}

void run(FuzzInput input) {
  const std::uint8_t what = input.byte();
  const std::string text = text_of(input.take_bytes(input.size()));
  if (what % 4 < 2) return fuzz_words(text, what % 4 == 1);
  if (what % 4 == 2) return fuzz_mount(split(text, "mount.cawfs"));
  fuzz_mkfs(split(text, "mkfs.cawfs"));
}

}  // namespace
}  // namespace cawfs::fuzz

extern "C" int LLVMFuzzerInitialize(int* /*argc*/, char*** /*argv*/) {
  std::cout.rdbuf(nullptr);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  cawfs::fuzz::run({data, size});
  return 0;
}
