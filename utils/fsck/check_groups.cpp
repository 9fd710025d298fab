// Group headers, chunk indexes, and the inodes of each chunk against its mask of free ones.
#include <bit>
#include <cstring>

#include "core/format/tree_records.h"
#include "utils/fsck/check.h"

namespace cawfs {
namespace {

using namespace format;

class ChunkVisitor final : public TreeVisitor {
 public:
  ChunkVisitor(Check& check, GroupNo group) : check_(check), group_(group) {}

  void record(std::uint64_t key, std::span<const std::byte> payload) override {
    const BlockNo chunk{key};
    if (check_.geometry.group_of(chunk) != group_) {
      check_.found(Problem::kChunkMisplaced, key, "it stands in the index of group {}", group_.value);
      return;
    }
    check_.use({chunk, kChunkBlocks}, "the inode chunk at", key);
    if (!check_.inodes.add_chunk(chunk)) return;
    const std::uint16_t mask = load_at<le16>(payload, 0).value();
    chunks.push_back({chunk, mask});
    free_inodes += static_cast<std::uint64_t>(std::popcount(mask));
  }
  bool node(BlockNo block) override { return !check_.use({block, 1}, "the chunk index of group", group_.value); }

  std::vector<std::pair<BlockNo, std::uint16_t>> chunks;
  std::uint64_t free_inodes = 0;

 private:
  Check& check_;
  GroupNo group_;
};

}  // namespace

Task<Result<>> Check::check_chunks(GroupNo group, const GroupHeader& header) {
  ChunkVisitor visitor(*this, group);
  const auto area = std::as_bytes(std::span(header.chunk_index_area));
  const Result<bool> sound =
      co_await walk_tree(*this, geometry.group_header(group), TreeKind::kChunkIndex, header.chunk_index, area, visitor);
  if (!sound) co_return fail(sound.error());
  if (*sound && visitor.chunks.size() != header.chunks.value()) {
    found(Problem::kGroupChunkCountWrong, group.value, "{} where there are {}", header.chunks.value(),
          visitor.chunks.size());
  }
  if (*sound && visitor.free_inodes != header.free_inodes.value()) {
    found(Problem::kGroupFreeInodesWrong, group.value, "{} where there are {}", header.free_inodes.value(),
          visitor.free_inodes);
  }
  for (const auto& [chunk, mask] : visitor.chunks) {
    const Result<> lock = co_await check_lock_block(chunk);
    if (!lock) co_return lock;
    const Result<> done = co_await check_inodes(group, chunk, mask);
    if (!done) co_return done;
  }
  co_return Result<>{};
}

Task<Result<>> Check::check_groups() {
  IoBuffer block(kBlockSize);
  for (std::uint32_t i = 0; i < geometry.group_count; ++i) {
    const GroupNo group{i};
    const BlockNo start = geometry.group_start(group);
    report.blocks += geometry.blocks_in_group(group);
    use({start, geometry.group_data(group).value - start.value}, "group", i);
    const Result<> lock = co_await check_lock_block(geometry.group_lock(group));
    if (!lock) co_return lock;
    const Result<bool> loaded = co_await load(geometry.group_header(group), BlockType::kGroupHeader, block.bytes(),
                                              Problem::kGroupHeaderDamaged);
    if (!loaded) co_return fail(loaded.error());
    if (*loaded) {
      const Result<> done = co_await check_chunks(group, *reinterpret_cast<const GroupHeader*>(block.data()));
      if (!done) co_return done;
    }
    if (options.progress) options.progress(i + 1, geometry.group_count);
  }
  co_return Result<>{};
}

}  // namespace cawfs
