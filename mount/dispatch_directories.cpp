// Requests about open directories. An entry's offset is its cookie + 2, so that "." and ".." have 1 and 2. A cookie has
// 63 bits, of which the lowest 16 count collisions of a 47-bit hash: the two largest ones, which would not fit, are
// never reached.
#include <sys/stat.h>

#include <algorithm>
#include <cstring>

#include "mount/errno.h"
#include "mount/fuse_attributes.h"
#include "mount/fuse_dispatch.h"

namespace cawfs {

namespace {

constexpr std::uint64_t kDotOffset = 1;
constexpr std::uint64_t kDotDotOffset = 2;
constexpr std::uint64_t kMaxOffset = INT64_MAX;
constexpr std::uint32_t kMaxListing = 1 << 20;
// Of an entry with a name of a few letters; only a guess at how many to ask for.
constexpr std::size_t kShortEntry = FUSE_NAME_OFFSET + 16;
constexpr std::size_t kShortEntryPlus = FUSE_NAME_OFFSET_DIRENTPLUS + 16;

}  // namespace

class FuseDispatcher::Listing {
 public:
  Listing(FuseKernelCache& cache, std::size_t size, bool with_attributes)
      : preparing(cache), with_attributes_(with_attributes), limit_(size) {
    bytes_.reserve(size);
  }

  bool with_attributes() const { return with_attributes_; }
  std::span<const std::byte> bytes() const { return bytes_; }
  // How many entries are worth asking for.
  std::size_t guess() const {
    return (limit_ - bytes_.size()) / (with_attributes_ ? kShortEntryPlus : kShortEntry) + 1;
  }
  std::size_t size_of(const DirectoryEntry& entry) const {
    const std::size_t fixed = with_attributes_ ? FUSE_NAME_OFFSET_DIRENTPLUS : FUSE_NAME_OFFSET;
    return FUSE_REC_ALIGN(fixed + entry.name.size());
  }
  bool fits(const DirectoryEntry& entry) const { return bytes_.size() + size_of(entry) <= limit_; }

  // `found`: of what READDIRPLUS tells besides; put in by describe(), as the kernel learns of it with the answer only.
  void add(const DirectoryEntry& entry, std::uint64_t offset, const std::optional<Attributes>& found) {
    std::size_t at = bytes_.size();
    bytes_.resize(at + size_of(entry));
    if (found) given.push_back({at, *found});
    if (with_attributes_) at += sizeof(fuse_entry_out);
    fuse_dirent head{};
    head.ino = entry.inode.value;
    head.off = offset;
    head.namelen = static_cast<std::uint32_t>(entry.name.size());
    head.type = entry.type >> 12;
    std::memcpy(&bytes_[at], &head, FUSE_NAME_OFFSET);
    std::memcpy(&bytes_[at + FUSE_NAME_OFFSET], entry.name.data(), entry.name.size());
  }

  void describe(std::size_t at, const fuse_entry_out& known) { std::memcpy(&bytes_[at], &known, sizeof(known)); }

  // Inodes given to the kernel with the listing, and where they stand in it.
  struct Given {
    std::size_t at;
    Attributes attributes;
  };
  std::vector<Given> given;
  const FuseKernelCache::Answer preparing;

 private:
  const bool with_attributes_;
  const std::size_t limit_;
  std::vector<std::byte> bytes_;
};

Task<void> FuseDispatcher::opendir(Request request) {
  const InodeNo inode = inode_of(request);
  auto opened = co_await operations_.open(inode);
  if (!opened) co_return answer_error(request, opened.error());
  const std::uint64_t handle = ++last_handle_;
  files_.emplace(handle, OpenFile{.inode = inode});
  const fuse_open_out out{.fh = handle, .open_flags = FOPEN_CACHE_DIR | FOPEN_KEEP_CACHE, .padding = 0};
  if (!answer(request, out)) co_await close_file(handle);
}

Task<void> FuseDispatcher::readdir(Request request) {
  co_await list(std::move(request), false);
}

Task<void> FuseDispatcher::readdirplus(Request request) {
  co_await list(std::move(request), true);
}

Task<void> FuseDispatcher::list(Request request, bool with_attributes) {
  auto in = request.take<fuse_read_in>();
  if (!in) co_return answer_error(request, in.error());
  const InodeNo directory = inode_of(request);
  Listing listing(cache_, std::min(in->size, kMaxListing), with_attributes);
  Result<> listed;
  if (in->offset < kDotDotOffset) {
    auto dots = co_await list_dots(listing, directory, in->offset);
    listed = dots;
  }
  if (listed) {
    auto entries = co_await list_entries(listing, directory, std::max(in->offset, kDotDotOffset) - kDotDotOffset);
    listed = entries;
  }
  auto ours = co_await confirm();
  // What has been gathered before an error is an answer; the error comes again after it.
  if (!ours) {
    answer_error(request, ours.error());
  } else if (!listed && listing.bytes().empty()) {
    answer_error(request, listed.error());
  } else if (answer_listing(request, listing, directory)) {
    co_return;
  }
  for (const auto& given : listing.given) operations_.forget(given.attributes.inode, 1);
}

// False: the kernel has been given nothing.
bool FuseDispatcher::answer_listing(const Request& request, Listing& listing, InodeNo directory) {
  if (!still_waiting(request)) return false;
  for (const auto& [at, attributes] : listing.given) {
    const Time until = options_.cache_listed_names ? name_validity(attributes) : Time{};
    listing.describe(at, give_entry(directory, attributes, until, listing.preparing));
  }
  const auto bytes = listing.bytes();
  if (connection_.reply_parts(request.header().unique, std::span(&bytes, 1))) return true;
  for (const auto& given : listing.given) cache_.forgotten(given.attributes.inode, 1);
  return false;
}

Task<Result<>> FuseDispatcher::list_dots(Listing& listing, InodeNo directory, std::uint64_t offset) {
  auto parent = co_await operations_.parent(directory);
  if (!parent) co_return fail(parent.error());
  const DirectoryEntry dot{.name = ".", .inode = directory, .type = S_IFDIR};
  const DirectoryEntry dot_dot{.name = "..", .inode = *parent, .type = S_IFDIR};
  if (offset < kDotOffset && listing.fits(dot)) listing.add(dot, kDotOffset, {});
  if (listing.fits(dot_dot)) listing.add(dot_dot, kDotDotOffset, {});
  co_return Result<>{};
}

Task<Result<>> FuseDispatcher::list_entries(Listing& listing, InodeNo directory, std::uint64_t cookie) {
  while (true) {
    const std::size_t wanted = listing.guess();
    auto entries = co_await operations_.readdir(directory, cookie, wanted);
    if (!entries) co_return fail(entries.error());
    for (const auto& entry : *entries) {
      if (!listing.fits(entry)) co_return Result<>{};
      std::optional<Attributes> attributes;
      if (listing.with_attributes()) {
        auto found = co_await operations_.lookup(directory, entry.name);
        if (found) attributes = *found;  // or it has gone since, and is listed without
      }
      cookie = entry.cookie;
      listing.add(entry, std::min(cookie + kDotDotOffset, kMaxOffset), attributes);
    }
    if (entries->size() < wanted) co_return Result<>{};
  }
}

}  // namespace cawfs
