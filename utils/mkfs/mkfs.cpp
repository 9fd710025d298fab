#include "utils/mkfs/mkfs.h"

#include <fmt/format.h>

#include "core/base/explain.h"
#include "core/format/superblock_io.h"
#include "utils/common/messages.h"
#include "utils/mkfs/claim.h"
#include "utils/mkfs/foreign.h"

namespace cawfs {
namespace {

// `words`, where they are set, say more than the error.
Result<> check_size(const MkfsParts& parts, const MakeOptions& options, std::string& words) {
  const DeviceFacts& facts = parts.device.facts();
  const auto plan = plan_file_system(facts.size_bytes, facts.logical_block, options);
  if (plan) return {};
  if (plan.error().code == Errc::kNoSpace) {
    words = too_small_text(facts.size_bytes, facts.logical_block, options);
  }
  return fail(plan.error());
}

// Is something there that only --force may destroy?
Task<Result<>> look_at_contents(MkfsParts& parts, std::string& words) {
  const auto old = co_await find_cawfs(parts.executor, parts.device);
  if (!old) co_return fail(old.error());
  if (*old) {
    words = fmt::format("it holds {}; --force destroys it", (*old)->text);
    co_return fail((*old)->live ? Errc::kLive : Errc::kExists);
  }
  const auto foreign = co_await find_foreign(parts.device);
  if (!foreign) co_return fail(foreign.error());
  if (*foreign) {
    words = fmt::format("it holds {}; --force destroys it", **foreign);
    co_return fail(Errc::kExists);
  }
  co_return Result<>{};
}

Task<Result<>> look(MkfsParts& parts, const MkfsOptions& options, std::string& words) {
  if (const auto fits = check_size(parts, options.make, words); !fits) co_return fits;
  if (options.force) co_return Result<>{};
  const Result<> looked = co_await look_at_contents(parts, words);
  co_return looked;
}

void say(const MkfsParts& parts, const Error& error, const std::string& words) {
  parts.log.error("{}: {}", parts.name, words.empty() ? explain(error) : words);
}

Task<Result<format::Superblock>> make_claimed(MkfsParts& parts, MkfsOptions& options, std::string& words) {
  Claim claim(parts.executor, parts.device, parts.random, parts.log);
  const Result<> taken = co_await claim.take(options.force ? OldKeys::kPreempt : OldKeys::kRefuse);
  if (!taken) {
    words = claim.in_the_way();
    co_return fail(taken.error());
  }
  const Result<> proved = co_await claim.prove(parts.second);
  Result<format::Superblock> made = proved ? Result<format::Superblock>{} : fail(proved.error());
  if (proved) {
    made = co_await make_file_system(parts.device, parts.random, std::move(options.make), std::move(options.progress));
  }
  if (made) co_return made;
  const Result<> released = co_await claim.give_up();
  if (!released) parts.log.warning("the reservation was not released: {}", explain(released.error()));
  co_return made;
}

Task<Result<format::Superblock>> make(MkfsParts& parts, MkfsOptions& options, std::string& words) {
  if (parts.device.facts().write_protected) co_return fail(Errc::kReadOnly, "the device is write-protected");
  const Result<> looked = co_await look(parts, options, words);
  if (!looked) co_return fail(looked.error());
  Result<format::Superblock> made;
  if (options.make.clustered) {
    made = co_await make_claimed(parts, options, words);
  } else {
    made = co_await make_file_system(parts.device, parts.random, std::move(options.make), std::move(options.progress));
  }
  co_return made;
}

}  // namespace

std::string too_small_text(std::uint64_t size_bytes, std::uint32_t logical_block, const MakeOptions& options) {
  return fmt::format("{} are too small; with these options at least {} are needed", size_text(size_bytes),
                     size_text(minimum_size_bytes(logical_block, options)));
}

Task<Result<>> look_before_mkfs(MkfsParts parts, const MkfsOptions& options) {
  std::string words;
  const Result<> looked = co_await look(parts, options, words);
  if (!looked) say(parts, looked.error(), words);
  co_return looked;
}

Task<Result<format::Superblock>> run_mkfs(MkfsParts parts, MkfsOptions options) {
  std::string words;
  Result<format::Superblock> made = co_await make(parts, options, words);
  if (!made) say(parts, made.error(), words);
  co_return made;
}

}  // namespace cawfs
