#include "tests/sim/sim_node.h"

#include <algorithm>
#include <utility>

#include "core/format/superblock_io.h"

namespace cawfs::sim {

namespace {

constexpr std::size_t kLines = 40;
constexpr std::uint64_t kCacheBytes = 1 << 20;

}  // namespace

void SimLog::write(LogLevel /*level*/, std::string_view message) {
  const double now = std::chrono::duration<double>(loop_.now().since_boot).count();
  all_.emplace_back(message);
  if (message.find("replayed slot") == 0) fmt::print(stderr, "{:9.4f} {}: {}\n", now, name_, message);
  lines_.push_back(fmt::format("{:9.4f} {}: {}", now, name_, message));
  if (lines_.size() > kLines) lines_.pop_front();
}

std::size_t SimLog::count(std::string_view text) const {
  return static_cast<std::size_t>(
      std::ranges::count_if(all_, [&](const std::string& line) { return line.find(text) != std::string::npos; }));
}

SimNode::SimNode(VirtualLoop& loop, SimulatedLun& lun, std::string name, std::uint8_t boot, int clock_percent,
                 std::uint64_t seed)
    : name_(std::move(name)),
      boot_(boot),
      executor_(loop.add_executor(clock_percent)),
      random_(seed),
      log_(loop, name_),
      raw_(lun.connect(executor_, name_)) {}

SimNode::~SimNode() = default;

void SimNode::crash() {
  crashed_ = true;
  executor_.kill();
}

Task<Result<>> SimNode::start() {
  Result<format::Superblock> superblock = fail(Errc::kAgain);
  while (!superblock) {  // nobody guards the device before the join
    superblock = co_await read_superblock(*raw_);
    if (superblock) break;
    const ErrorClass kind = error_class(superblock.error().code);
    if (kind == ErrorClass::kCorrupt) co_return fail(superblock.error());
    co_await executor_.sleep(std::chrono::milliseconds(50));
  }
  auto done = co_await join(*superblock);
  if (!done) co_return done;
  done = co_await start_journal();
  if (!done) co_return done;
  fs_ = std::make_unique<FileSystem>(
      FileSystemParts{executor_, cluster_->device(), geometry_, cluster_->locks(), *buffers_, *journal_, random_, log_},
      FileSystemOptions{
          .metadata_cache_bytes = kCacheBytes, .dirty_data_bytes = kCacheBytes, .discard = name_.back() % 2 == 0});
  fs_started_ = true;
  done = co_await fs_->start();
  co_return done;
}

Task<Result<>> SimNode::join(const format::Superblock& superblock) {
  geometry_ = make_geometry(superblock);
  ClusterOptions options;
  options.member.host_name = name_;
  for (std::size_t i = 0; i < name_.size(); ++i) {
    options.member.node_uuid.at(i) = static_cast<std::uint8_t>(name_[i]);
  }
  options.member.boot_id[0] = boot_;
  options.member.host_lock = true;
  options.member.no_aptpl = no_aptpl_;
  options.member.dead_time = std::chrono::milliseconds(superblock.dead_time_ms.value());
  cluster_ = std::make_unique<Cluster>(*raw_, executor_, random_, log_, geometry_, options);
  recovery_ = std::make_unique<JournalRecovery>(ReplayParts{executor_, cluster_->device(), geometry_, random_, log_});
  cluster_->set_recovery_client(recovery_.get());
  auto joined = co_await cluster_->join();
  if (!joined) co_return joined;
  cluster_->membership().add_observer(this);
  observing_ = true;
  co_return joined;
}

Task<Result<>> SimNode::start_journal() {
  buffers_ = std::make_unique<BufferCache>(executor_, cluster_->device(), geometry_, kCacheBytes);
  auto record = co_await cluster_->membership().read_slot(self().slot);
  if (!record) co_return fail(record.error());
  auto place = journal_place(*record, self(), geometry_);
  if (!place) co_return fail(place.error());
  journal_ = std::make_unique<JournalLog>(
      JournalParts{executor_, cluster_->device(), geometry_, *buffers_, log_}, std::move(*place),
      JournalOptions{.on_failure = [this](const Error& error) { cluster_->membership().withdraw(error); }});
  auto started = co_await journal_->start();
  if (!started) journal_.reset();
  co_return started;
}

// The order of MountSession::stop().
Task<Result<>> SimNode::stop() {
  Result<> written;
  if (fs_ && fs_started_) {
    auto stopped = co_await fs_->stop();
    if (!stopped) written = stopped;
  }
  if (journal_) {
    auto stopped = co_await journal_->stop();
    if (!stopped && written) written = stopped;
  }
  if (cluster_) {
    if (observing_) cluster_->membership().remove_observer(this);
    if (!written && !withdrawn()) cluster_->membership().withdraw(written.error());
    auto left = co_await cluster_->leave();
    if (!left && written) written = left;
  }
  co_await raw_->close();
  co_return written;
}

void SimNode::slot_changed(SlotNo slot, format::SlotState from, format::SlotState to, Incarnation /*incarnation*/) {
  if (fs_ && fs_started_) fs_->slot_changed(slot, from, to);
}

void SimNode::withdrawn(Error reason) {
  log_.note(fmt::format("withdrawn: {} ({})", cawfs::describe(reason.code), reason.where));
  if (journal_) journal_->withdraw(reason);
}

}  // namespace cawfs::sim
