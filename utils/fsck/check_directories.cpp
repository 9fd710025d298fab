// Directory entries: hashes, names, and what they name. Runs once all inodes are known.
#include <sys/stat.h>

#include <algorithm>
#include <set>
#include <string>

#include "core/base/checksum.h"
#include "core/format/tree_records.h"
#include "utils/fsck/check.h"

namespace cawfs {
namespace {

using namespace format;

constexpr std::uint8_t kDirectoryType = S_IFDIR >> 12;
constexpr std::uint64_t kHashMask = (std::uint64_t{1} << 47) - 1;

class EntryVisitor final : public TreeVisitor {
 public:
  EntryVisitor(Check& check, InodeNo directory) : check_(check), directory_(directory) {}

  void record(std::uint64_t key, std::span<const std::byte> payload) override {
    const auto entry = load_at<DirectoryPayload>(payload, 0);
    const auto name = payload.subspan(sizeof(DirectoryPayload));
    check_name(key, name);
    const InodeNo target{entry.inode.value()};
    InodeFacts* facts = check_.inodes.find(target);
    if (facts == nullptr || facts->state == InodeFacts::kFree) {
      check_.found(Problem::kEntryTargetFree, directory_.value, "'{}' names inode {}", printable(name), target.value);
      return;
    }
    if (facts->state == InodeFacts::kDamaged) return;
    if (facts->system) {
      check_.found(Problem::kEntryTargetSystem, directory_.value, "'{}' names inode {}", printable(name), target.value);
      return;
    }
    ++facts->names;
    if (facts->type != entry.type) {
      check_.found(Problem::kEntryTypeWrong, directory_.value, "'{}' has type {}, inode {} has type {}",
                   printable(name), entry.type, target.value, facts->type);
    }
    if (facts->type == kDirectoryType) check_subdirectory(target, name);
  }

 private:
  static std::string printable(std::span<const std::byte> name) {
    std::string out;
    for (const std::byte c : name) {
      const auto byte = static_cast<unsigned char>(c);
      out += byte >= 0x20 && byte != 0x7f ? std::string(1, static_cast<char>(byte)) : fmt::format("\\x{:02x}", byte);
    }
    return out;
  }

  void check_name(std::uint64_t key, std::span<const std::byte> name) {
    const std::uint64_t hash = siphash(name, check_.geometry.sip_key) & kHashMask;
    if (hash != key >> 16) {
      check_.found(Problem::kEntryHashWrong, directory_.value, "'{}' has key {:#x}, its hash is {:#x}", printable(name),
                   key, hash);
    }
    // Equal names have equal hashes, so they are neighbours.
    if (key >> 16 != hash_) names_of_hash_.clear();
    hash_ = key >> 16;
    const std::string_view text(reinterpret_cast<const char*>(name.data()), name.size());
    if (!names_of_hash_.emplace(text).second) {
      check_.found(Problem::kEntryDuplicate, directory_.value, "'{}'", printable(name));
    }
  }

  void check_subdirectory(InodeNo target, std::span<const std::byte> name) {
    DirectoryFacts& child = check_.inodes.directories()[target];
    if (child.named_by.value != 0 || target == check_.geometry.root) {
      check_.found(Problem::kDirectoryTwoParents, target.value, "the second is directory {}, where it is '{}'",
                   directory_.value, printable(name));
      return;
    }
    child.named_by = directory_;
    ++check_.inodes.directories()[directory_].subdirectories;
  }

  Check& check_;
  InodeNo directory_;
  std::uint64_t hash_ = UINT64_MAX;
  std::set<std::string> names_of_hash_;
};

}  // namespace

Task<Result<>> Check::check_entries(InodeNo directory) {
  IoBuffer block(kBlockSize);
  const Result<bool> loaded =
      co_await load(directory.block(), BlockType::kInode, block.bytes(), Problem::kInodeDamaged);
  if (!loaded) co_return fail(loaded.error());
  if (!*loaded) co_return Result<>{};
  EntryVisitor visitor(*this, directory);
  const Result<bool> walked =
      co_await walk_inode_tree(*this, directory, *reinterpret_cast<const Inode*>(block.data()), visitor);
  if (!walked) co_return fail(walked.error());
  co_return Result<>{};
}

Task<Result<>> Check::check_directories() {
  std::vector<InodeNo> sound;  // a damaged tree is not walked again
  for (const auto& [number, facts] : inodes.directories()) {
    if (inodes.find(number)->sound) sound.push_back(number);
  }
  std::ranges::sort(sound);
  for (const InodeNo directory : sound) {
    const Result<> done = co_await check_entries(directory);
    if (!done) co_return done;
  }
  co_return Result<>{};
}

}  // namespace cawfs
