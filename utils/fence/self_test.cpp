#include "utils/fence/self_test.h"

#include <algorithm>
#include <cstring>

#include "core/device/io_buffer.h"
#include "core/runtime/task_group.h"
#include "disklock/fence.h"
#include "disklock/guarded_device.h"
#include "disklock/reservation.h"

namespace cawfs {

namespace {

using namespace std::chrono_literals;

constexpr Duration kPatience = 30s;
constexpr Duration kWriteBeforeFence = 200ms;

class SelfTest {
 public:
  SelfTest(Executor& executor, BlockDevice& fencer, BlockDevice& victim, Random& random, Log& log,
           const SelfTestOptions& options)
      : executor_(executor),
        victim_(victim),
        options_(options),
        guard_(fencer, executor),
        registration_(fencer, guard_, executor, random, log, Aptpl::kYes),
        victim_guard_(victim, executor),
        victim_registration_(victim, victim_guard_, executor, random, log, Aptpl::kYes),
        fence_(guard_, registration_, executor, log),
        log_(log),
        before_(options.length),
        after_(options.length),
        writers_(executor) {}

  Task<Result<SelfTestReport>> run() {
    Result<> done = co_await registration_.establish(kPatience);
    while (done && report_.rounds < options_.rounds) {
      done = co_await round();
      ++report_.rounds;
    }
    co_await victim_registration_.drop();
    co_await registration_.drop();
    guard_.end(Error{Errc::kStopping, "done"});
    victim_guard_.end(Error{Errc::kStopping, "done"});
    co_await guard_.join();
    co_await victim_guard_.join();
    if (!done) co_return fail(done.error());
    co_return report_;
  }

 private:
  Task<Result<>> round() {
    Result<> done = co_await victim_registration_.establish(kPatience);
    if (!done) co_return done;
    Result<RegisteredKeys> keys = co_await registration_.read_keys();
    if (!keys) co_return fail(keys.error());
    if (!contains(*keys, registration_.key()) || !contains(*keys, victim_registration_.key())) {
      log_.error("both sessions share one registration: the target takes them for one initiator");
      co_return fail(Errc::kUnsupported, "two nexuses");
    }
    round_over_ = false;
    for (std::uint32_t i = 0; i < options_.in_flight; ++i) writers_.spawn(write_until_refused(i));
    co_await executor_.sleep(kWriteBeforeFence);
    done = co_await fence_and_watch();
    round_over_ = true;
    co_await writers_.join();
    co_return done;
  }

  Task<Result<>> fence_and_watch() {
    const DeviceFacts& facts = victim_.facts();
    const Time started = executor_.now();
    Result<> done = co_await fence_.run({{victim_registration_.key(), facts.initiator_name, facts.isid}});
    if (!done) co_return done;
    report_.longest_fence = std::max(report_.longest_fence, executor_.now() - started);
    done = co_await guard_.read(options_.offset, before_.bytes());
    if (!done) co_return done;
    co_await executor_.sleep(options_.watch_for);
    done = co_await guard_.read(options_.offset, after_.bytes());
    if (!done) co_return done;
    const std::size_t block = guard_.facts().logical_block;
    for (std::size_t at = 0; at < before_.size(); at += block) {
      if (std::memcmp(before_.data() + at, after_.data() + at, block) != 0) ++report_.late_blocks;
    }
    co_return done;
  }

  // Straight to the device: no guard, as of a host that knows nothing of its fate. A device that refuses nothing is
  // written to until the round is over.
  Task<void> write_until_refused(std::uint32_t writer) {
    IoBuffer data(options_.write_bytes);
    const std::uint64_t places = options_.length / options_.write_bytes;
    bool refused = false;
    for (std::uint64_t i = writer; !refused && !round_over_; i += options_.in_flight) {
      const std::uint64_t stamp = ++stamp_;
      for (std::size_t at = 0; at < data.size(); at += 512) std::memcpy(data.data() + at, &stamp, sizeof stamp);
      Result<> done = co_await victim_.write(options_.offset + i % places * options_.write_bytes, data.bytes(),
                                             Durability::kCached);
      if (done) ++report_.writes_before;
      refused = !done;
    }
  }

  Executor& executor_;
  BlockDevice& victim_;
  const SelfTestOptions& options_;
  GuardedDevice guard_;
  Registration registration_;
  GuardedDevice victim_guard_;
  Registration victim_registration_;
  Fence fence_;
  Log& log_;
  IoBuffer before_;
  IoBuffer after_;
  TaskGroup writers_;
  std::uint64_t stamp_ = 0;
  bool round_over_ = false;
  SelfTestReport report_;
};

}  // namespace

Task<Result<SelfTestReport>> fence_self_test(Executor& executor, BlockDevice& fencer, BlockDevice& victim,
                                             Random& random, Log& log, SelfTestOptions options) {
  SelfTest test(executor, fencer, victim, random, log, options);
  Result<SelfTestReport> report = co_await test.run();
  co_return report;
}

}  // namespace cawfs
