#include "disklock/registration_keeper.h"

namespace cawfs {

namespace {

using namespace std::chrono_literals;

constexpr Duration kTryAgainAfter = 50ms;

}  // namespace

Task<Result<>> RegistrationKeeper::regain(bool /*reset*/) {
  while (registration_.registered()) {
    Result<Registration::State> found = co_await registration_.look();
    if (found && *found == Registration::State::kKeyMissing) co_return fail(Errc::kFenced, "own registration");
    if (found) co_return Result<>{};
    if (!is_passing_error(found.error().code)) co_return fail(found.error());
    co_await executor_.sleep(kTryAgainAfter);
  }
  co_return Result<>{};  // nothing to lose yet
}

}  // namespace cawfs
