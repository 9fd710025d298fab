#include "core/fs/directory.h"

#include <cstring>

#include "core/fs/fs_context.h"

namespace cawfs {

namespace {

// Lower ones are not used, so that no entry's cookie is 0 (the start of the directory), 1 or 2, which callers like to
// give to "." and "..".
constexpr std::uint64_t kFirstDisambiguator = 16;
constexpr std::uint64_t kDisambiguators = 1 << 16;
constexpr std::uint64_t kHashMask = (std::uint64_t{1} << 47) - 1;

std::vector<std::byte> payload_of(const std::string& name, InodeNo inode, std::uint32_t type) {
  format::DirectoryPayload head;
  head.inode = inode.value;
  head.type = static_cast<std::uint8_t>(type >> 12);
  std::vector<std::byte> payload(sizeof(head) + name.size());
  std::memcpy(payload.data(), &head, sizeof(head));
  std::memcpy(payload.data() + sizeof(head), name.data(), name.size());
  return payload;
}

std::string_view name_in(const TreeEntry& record) {
  const auto name = std::span(record.payload).subspan(sizeof(format::DirectoryPayload));
  return {reinterpret_cast<const char*>(name.data()), name.size()};
}

std::uint32_t type_in(const format::DirectoryPayload& head) {
  return std::uint32_t{head.type} << 12;
}

}  // namespace

Directory::Directory(FsContext& fs, Inode inode)
    : fs_(fs), inode_(std::move(inode)), tree_(fs.buffers, tree_of_inode(inode_.buffer_ref(), inode_.lock())) {}

std::uint64_t Directory::first_key(const std::string& name) const {
  const std::uint64_t hash = siphash(std::as_bytes(std::span(name)), fs_.geometry.sip_key) & kHashMask;
  return hash << 16;
}

Task<Result<std::optional<Directory::Entry>>> Directory::find(std::string name) {
  const std::uint64_t first = first_key(name);
  std::uint64_t key = first;
  for (;;) {
    auto record = co_await tree_.at_or_after(key);
    if (!record) co_return fail(record.error());
    if (!*record || (*record)->key >> 16 != first >> 16) co_return std::optional<Entry>();
    if (name_in(**record) == name) {
      const auto head = (*record)->as<format::DirectoryPayload>();
      co_return Entry{(*record)->key, InodeNo{head.inode.value()}, type_in(head)};
    }
    key = (*record)->key + 1;
  }
}

Task<Result<std::vector<DirectoryEntry>>> Directory::list(std::uint64_t cookie, std::size_t limit) {
  std::vector<DirectoryEntry> entries;
  if (cookie == UINT64_MAX) co_return entries;
  auto records = co_await tree_.list(cookie + 1, limit);
  if (!records) co_return fail(records.error());
  entries.reserve(records->size());
  for (const TreeEntry& record : *records) {
    const auto head = record.as<format::DirectoryPayload>();
    entries.push_back({std::string(name_in(record)), InodeNo{head.inode.value()}, type_in(head), record.key});
  }
  co_return entries;
}

Task<Result<>> Directory::add(std::string name, InodeNo inode, std::uint32_t type) {
  if (counted() == INT64_MAX) co_return fail(Errc::kBadValue, "directory's size", inode_.number().value);
  const std::uint64_t first = first_key(name);
  std::uint64_t key = first + kFirstDisambiguator;
  for (;;) {
    auto record = co_await tree_.at_or_after(key);
    if (!record) co_return fail(record.error());
    if (!*record || (*record)->key != key) break;
    ++key;
    if (key == first + kDisambiguators) co_return fail(Errc::kNoSpace, "directory", inode_.number().value);
  }
  const auto payload = payload_of(name, inode, type);
  auto planned = co_await tree_.insert(key, payload);
  if (planned) ++entries_;
  co_return planned;
}

Task<Result<>> Directory::remove(Entry entry) {
  if (counted() == 0) co_return fail(Errc::kBadValue, "directory's size", inode_.number().value);
  auto planned = co_await tree_.erase(entry.key);
  if (planned) --entries_;
  co_return planned;
}

Task<Result<>> Directory::redirect(Entry entry, std::string name, InodeNo inode, std::uint32_t type) {
  const auto payload = payload_of(name, inode, type);
  auto planned = co_await tree_.replace(entry.key, payload);
  co_return planned;
}

void Directory::apply(TxHandle& tx, const LockHold& hold, MetadataBlocks& blocks) {
  const std::uint64_t added = tree_.needs().new_blocks;
  const std::uint64_t freed = tree_.needs().freed.size();
  tx.change(inode_.buffer(), hold);
  tree_.apply(tx, hold, blocks);
  format::Inode& raw = inode_.raw();
  raw.blocks = raw.blocks.value() + added - freed;
  raw.size = counted();
  raw.version = raw.version.value() + 1;
  touch(fs_, inode_, true);
  entries_ = 0;
}

}  // namespace cawfs
