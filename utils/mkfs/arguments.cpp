#include "utils/mkfs/arguments.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cctype>

#include "core/base/types.h"
#include "core/format/journal_format.h"
#include "core/format/layout.h"
#include "utils/common/messages.h"
#include "utils/common/usage.h"

namespace cawfs {
namespace {

constexpr const char* kFooter =
    R"(SOURCE is iscsi://host[:port]/iqn/lun, or a file. Everything on it is lost.

A LUN must prove that COMPARE AND WRITE is atomic and that persistent reservations refuse
whom they should, between two sessions, before anything is written. All keys of an old
cluster are preempted.

Examples:
  mkfs.cawfs iscsi://san/iqn.2026-11.example:store/0
  mkfs.cawfs -L archive --slots 16 --journal-size 128M iscsi://10.0.0.7:3260/iqn.x:y/1
  mkfs.cawfs --size 1G /var/tmp/disk.img      a file LUN, created here
  mkfs.cawfs --force --dead-time 2 disk.img   over whatever is there, for a test

Exit codes:
  0  the file system has been made
  1  refused, or the device failed; a refusal changes nothing on the device but its keys
  2  wrong usage
)";

// Size options hold text until they are checked together.
struct Texts {
  std::string uuid;
  std::string size;
  std::string journal_size;
  double dead_time_seconds = 0;
};

std::optional<format::Uuid> parse_uuid(std::string_view text) {
  format::Uuid uuid{};
  std::size_t digits = 0;
  for (const char c : text) {
    if (c == '-') continue;
    if (std::isxdigit(static_cast<unsigned char>(c)) == 0 || digits == 32) return std::nullopt;
    const int value = c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10;
    std::uint8_t& byte = uuid[digits / 2];
    byte = static_cast<std::uint8_t>(byte << 4 | value);
    ++digits;
  }
  if (digits != 32 || uuid == format::Uuid{}) return std::nullopt;
  return uuid;
}

// What is wrong, or empty.
std::string take_texts(const Texts& texts, MkfsArguments& arguments) {
  if (!texts.uuid.empty()) {
    const auto uuid = parse_uuid(texts.uuid);
    if (!uuid) return fmt::format("--uuid: '{}' is no UUID", texts.uuid);
    arguments.make.uuid = *uuid;
  }
  if (!texts.size.empty()) {
    const auto size = parse_size(texts.size);
    if (!size || *size == 0) return fmt::format("--size: '{}' is no size", texts.size);
    if (arguments.source.starts_with("iscsi://")) return "--size: only files can be created";
    if (*size < kBlockSize) return fmt::format("--size: {} are less than one block ({})", texts.size, kBlockSize);
    arguments.create_bytes = *size / kBlockSize * kBlockSize;
  }
  if (!texts.journal_size.empty()) {
    const auto size = parse_size(texts.journal_size);
    constexpr std::uint64_t kLeast = std::uint64_t{format::kMinJournalBlocks} * kBlockSize;
    constexpr std::uint64_t kMost = std::uint64_t{format::kMaxJournalBlocks} * kBlockSize;
    if (!size || *size < kLeast || *size > kMost) {
      return fmt::format("--journal-size: from {} to {}", size_text(kLeast), size_text(kMost));
    }
    arguments.make.journal_blocks = static_cast<std::uint32_t>(*size / kBlockSize);
  }
  if (arguments.dead_time_given) {
    const double ms = texts.dead_time_seconds * 1000;
    if (!(ms >= format::kMinDeadTimeMs && ms <= format::kMaxDeadTimeMs)) {
      return fmt::format("--dead-time: from {} to {} seconds", format::kMinDeadTimeMs / 1000,
                         format::kMaxDeadTimeMs / 1000);
    }
    arguments.make.dead_time_ms = static_cast<std::uint32_t>(ms);
  }
  if (arguments.make.label.size() > sizeof(format::Superblock::label)) {
    return fmt::format("--label: at most {} bytes", sizeof(format::Superblock::label));
  }
  return {};
}

}  // namespace

ParsedMkfs parse_mkfs(int argc, const char* const* argv) {
  MkfsArguments arguments;
  Texts texts;
  bool no_discard = false;
  bool local = false;
  CLI::App app("Makes a cawfs file system.", "mkfs.cawfs");
  app.footer(kFooter);
  add_version(app);
  app.add_option("SOURCE", arguments.source, "The LUN")->required();
  app.add_option("-L,--label", arguments.make.label, "Its name, up to 64 bytes (default: none)");
  app.add_option("-U,--uuid", texts.uuid, "Its UUID (default: a random one)");
  app.add_option("--slots", arguments.make.slots,
                 "Nodes that can mount it at once, 1 to 64 (default: 4 below 1 GiB, else 8)")
      ->check(CLI::Range(1, static_cast<int>(kSlots)));
  app.add_option("--journal-size", texts.journal_size,
                 "Of each slot's journal, with K, M or G (default: by size, 1M to 64M)");
  auto* dead_time = app.add_option("--dead-time", texts.dead_time_seconds,
                                   "Seconds of silence after which a node is fenced (default: 30; 10 on files)");
  app.add_flag("-f,--force", arguments.force, "Over any file system, partition table, reservation or live cawfs");
  app.add_flag("--no-discard", no_discard, "Do not discard the device's blocks first");
  app.add_flag("--local", local, "For -o local mounts only: needs no COMPARE AND WRITE and no reservations");
  app.add_option("--size", texts.size, "Create SOURCE, a file, with this size (K, M, G or T)");
  app.add_option("--logical-block", arguments.logical_block, "Of a file LUN (default: as it was, 4096 for a new one)")
      ->check(CLI::IsMember({512, 4096}));
  app.add_option("--initiator", arguments.initiator, "iSCSI initiator name (default: the host's, made unique)");
  app.add_flag("-q,--quiet", arguments.quiet, "Say nothing but errors");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return {.arguments = std::nullopt, .exit_status = finish_parsing(app, error, 2)};
  }
  arguments.make.discard = !no_discard;
  arguments.make.clustered = !local;
  arguments.dead_time_given = dead_time->count() > 0;
  if (const std::string wrong = take_texts(texts, arguments); !wrong.empty()) {
    fmt::print(stderr, "mkfs.cawfs: {}; see mkfs.cawfs --help\n", wrong);
    return {.arguments = std::nullopt, .exit_status = 2};
  }
  return {.arguments = std::move(arguments), .exit_status = 0};
}

}  // namespace cawfs
