#include "utils/mkfs/mkfs.h"

#include "core/base/explain.h"
#include "core/format/superblock_io.h"
#include "utils/common/messages.h"
#include "utils/mkfs/claim.h"
#include "utils/mkfs/foreign.h"

namespace cawfs {
namespace {

Result<> check_size(const MkfsParts& parts, const MakeOptions& options) {
  const DeviceFacts& facts = parts.device.facts();
  const auto plan = plan_file_system(facts.size_bytes, facts.logical_block, options);
  if (plan) return {};
  if (plan.error().code == Errc::kNoSpace) {
    parts.log.error("the device has {}; with these options at least {} are needed", size_text(facts.size_bytes),
                    size_text(minimum_size_bytes(facts.logical_block, options)));
  }
  return fail(plan.error());
}

// Is something there that only --force may destroy?
Task<Result<>> look_before(MkfsParts& parts) {
  const auto old = co_await find_cawfs(parts.executor, parts.device);
  if (!old) co_return fail(old.error());
  if (*old) {
    parts.log.error("the device holds {}; --force destroys it", (*old)->text);
    co_return fail((*old)->live ? Errc::kLive : Errc::kExists);
  }
  const auto foreign = co_await find_foreign(parts.device);
  if (!foreign) co_return fail(foreign.error());
  if (*foreign) {
    parts.log.error("the device holds {}; --force destroys it", **foreign);
    co_return fail(Errc::kExists);
  }
  co_return Result<>{};
}

Task<Result<format::Superblock>> make_claimed(MkfsParts& parts, MkfsOptions& options) {
  Claim claim(parts.executor, parts.device, parts.random, parts.log);
  const Result<> taken = co_await claim.take(options.force ? OldKeys::kPreempt : OldKeys::kRefuse);
  if (!taken) co_return fail(taken.error());
  const Result<> proved = co_await claim.prove(parts.second);
  Result<format::Superblock> made = proved ? Result<format::Superblock>{} : fail(proved.error());
  if (proved) {
    made = co_await make_file_system(parts.device, parts.random, std::move(options.make), std::move(options.progress));
  }
  const Result<> released = co_await claim.release();
  if (!released) parts.log.warning("the reservation was not released: {}", explain(released.error()));
  co_return made;
}

}  // namespace

Task<Result<format::Superblock>> run_mkfs(MkfsParts parts, MkfsOptions options) {
  if (parts.device.facts().write_protected) co_return fail(Errc::kReadOnly, "the device is write-protected");
  if (const auto fits = check_size(parts, options.make); !fits) co_return fail(fits.error());
  if (!options.force) {
    const Result<> looked = co_await look_before(parts);
    if (!looked) co_return fail(looked.error());
  }
  Result<format::Superblock> made;
  if (options.make.clustered) {
    made = co_await make_claimed(parts, options);
  } else {
    made = co_await make_file_system(parts.device, parts.random, std::move(options.make), std::move(options.progress));
  }
  co_return made;
}

}  // namespace cawfs
