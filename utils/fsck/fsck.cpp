#include "utils/fsck/fsck.h"

#include <algorithm>

#include "core/format/cluster_verify.h"
#include "core/format/superblock_io.h"
#include "core/format/verify.h"
#include "utils/common/live_nodes.h"
#include "utils/fsck/check.h"

namespace cawfs {

bool FsckReport::has(Problem problem) const {
  return std::ranges::any_of(findings, [&](const Finding& finding) { return finding.problem == problem; });
}

std::string FsckReport::text() const {
  std::string out;
  for (const Finding& finding : findings) {
    out += fmt::format("{}: {} {}: {}\n", info(finding.problem).name, "at", finding.address, finding.detail);
  }
  if (problem_count > findings.size()) out += fmt::format("and {} more\n", problem_count - findings.size());
  return out;
}

Check::Check(BlockDevice& device_in, const format::Superblock& superblock_in, const FsckOptions& options_in)
    : device(device_in), superblock(superblock_in), geometry(make_geometry(superblock_in)), options(options_in) {}

Task<Result<bool>> Check::read(std::uint64_t offset, std::span<std::byte> out, Problem problem, std::uint64_t address) {
  const Result<> done = co_await device.read(offset, out);
  if (done) co_return true;
  if (done.error().code != Errc::kMedium) co_return fail(done.error());
  found(problem, address, "cannot be read: medium error");
  co_return false;
}

Task<Result<bool>> Check::load(BlockNo block, format::BlockType type, std::span<std::byte> out, Problem problem) {
  const Result<bool> done = co_await read(block.offset_bytes(), out, problem, block.value);
  if (!done || !*done) co_return done;
  const Result<> ok = format::verify_block(out, type, block, geometry);
  if (!ok) found(problem, block.value, "{}: {}", ok.error().where, describe(ok.error().code));
  co_return ok.has_value();
}

Task<Result<>> Check::check_lock_block(BlockNo block) {
  IoBuffer buffer(geometry.logical_block);
  const Result<bool> done =
      co_await read(block.offset_bytes(), buffer.bytes(), Problem::kLockBlockDamaged, block.value);
  if (!done) co_return fail(done.error());
  if (!*done) co_return Result<>{};
  const Result<> ok = format::verify_lock_block(buffer.bytes(), block.offset_bytes(), geometry.fs_id);
  if (!ok) {
    found(Problem::kLockBlockDamaged, block.value, "{}", describe(ok.error().code));
    co_return Result<>{};
  }
  const auto& lock = *reinterpret_cast<const format::LockBlock*>(buffer.data());
  const std::uint64_t slots = geometry.slots == kSlots ? ~std::uint64_t{0} : (std::uint64_t{1} << geometry.slots) - 1;
  for (std::size_t i = 0; i < lock.entries.size(); ++i) {
    const format::LockEntry& entry = lock.entries[i];
    const bool owned = entry.owner_incarnation.value() != 0;
    if ((owned && entry.owner_slot.value() >= geometry.slots) ||
        ((entry.sharers.value() | entry.openers.value()) & ~slots) != 0) {
      found(Problem::kLockBlockDamaged, block.value, "entry {} names a slot beyond the {} there are", i,
            geometry.slots);
    }
  }
  co_return Result<>{};
}

bool Check::use(BlockRange range, std::string_view user, std::uint64_t number) {
  const std::uint64_t twice = blocks.mark(range);
  if (twice != 0) {
    found(Problem::kBlockUsedTwice, range.start.value,
          "{} of the {} blocks from here, used by {} {}, have another user", twice, range.count, user, number);
  }
  return twice != 0;
}

namespace {

Task<Result<>> run_passes(Check& check) {
  const Result<bool> go_on = co_await check.check_fixed_areas();
  if (!go_on) co_return fail(go_on.error());
  if (!*go_on) co_return Result<>{};
  const Result<> groups = co_await check.check_groups();
  if (!groups) co_return groups;
  const Result<> directories = co_await check.check_directories();
  if (!directories) co_return directories;
  const Result<> orphans = co_await check.check_orphans();
  if (!orphans) co_return orphans;
  check.check_connections();
  const Result<> bitmaps = co_await check.check_bitmaps();
  check.report.complete = bitmaps.has_value();
  co_return bitmaps;
}

Task<Result<>> refuse_live_nodes(Executor& executor, BlockDevice& device, const format::Superblock& superblock) {
  const Result<LiveNodes> live = co_await find_live_nodes(executor, device, superblock, LookFor::kAny);
  if (!live) co_return fail(live.error());
  if (live->any()) co_return fail(Errc::kLive, "a node is there (cawfs status names it)");
  co_return Result<>{};
}

}  // namespace

Task<Result<FsckReport>> check_file_system(Executor& executor, BlockDevice& device, FsckOptions options) {
  const Result<format::Superblock> superblock = co_await read_superblock(device);
  if (!superblock) co_return fail(superblock.error());
  Result<SlotStates> before = co_await read_slot_states(device, make_geometry(*superblock));
  if (!before) co_return fail(before.error());
  if (options.refuse_live) {
    const Result<> dead = co_await refuse_live_nodes(executor, device, *superblock);
    if (!dead) co_return fail(dead.error());
  }
  Check check(device, *superblock, options);
  const Result<> done = co_await run_passes(check);
  if (!done) co_return fail(done.error());
  const Result<SlotStates> after = co_await read_slot_states(device, check.geometry);
  if (!after) co_return fail(after.error());
  if (options.refuse_live && *before != *after) co_return fail(Errc::kLive, "mounted while it was checked");
  co_return std::move(check.report);
}

}  // namespace cawfs
