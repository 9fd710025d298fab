// 1000 images of a file system, each with one structure damaged, half of them with the checksum made right again. The
// tools look at each; it is mounted with ro,norecovery and read; a node mounts it, reads all of it, changes it and
// leaves. Nothing may crash or hang; with a wrong checksum nothing but the truth, or an error, may be read; fsck finds
// whatever reading finds; and the verifier of each kind of structure is seen to run on what was damaged, and to refuse
// it.
//
// CAWFS_SEED=n runs that one image.
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <optional>

#include "core/runtime/virtual_loop.h"
#include "tests/support/corrupter.h"
#include "tests/support/populated_image.h"
#include "tests/support/tree_changer.h"
#include "tests/support/tree_reader.h"
#include "tests/support/verifier_watch.h"
#include "tests/support/whole_node.h"
#include "utils/fence/fence_slot.h"
#include "utils/fsck/fsck.h"
#include "utils/replay/journals.h"
#include "utils/replay/replay_dead.h"
#include "utils/status/cluster_status.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#include <sanitizer/common_interface_defs.h>
#define CAWFS_ON_DEATH(function) __sanitizer_set_death_callback(function)
#define CAWFS_IMAGES 200
#endif
#endif
#ifndef CAWFS_ON_DEATH
#define CAWFS_ON_DEATH(function) static_cast<void>(function)
#define CAWFS_IMAGES 1000
#endif

namespace cawfs::testing {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kImages = CAWFS_IMAGES;  // fewer where each takes five times as long
// Of one step of a test: far more than any of them needs.
constexpr Duration kLongest = 10min;
constexpr std::uint64_t kMostResumptions = 3'000'000;
constexpr unsigned kLongestSeconds = 60;  // of an image, by the wall: for a loop that never waits

// What the process was at, should it die.
std::array<char, 512> at_work{};

void say_what_was_at_work() {
  [[maybe_unused]] const ssize_t n = ::write(STDERR_FILENO, at_work.data(), strnlen(at_work.data(), at_work.size()));
}
void on_signal(int number) {
  say_what_was_at_work();
  std::signal(number, SIG_DFL);
  std::raise(number);
}

// --- one image
// ----------------------------------------------------------------------------------------------------------

class Case {
 public:
  Case(const PopulatedImage& base, bool dirty, std::uint64_t seed)
      : base_(base), dirty_(dirty), random_(seed), lun_(loop_.clock(), random_, base.lun_options()) {
    (dirty ? base.dirty : base.clean).put(lun_);
  }

  // `damage` has been done; `undamaged` is what read_as_it_stands() gave before.
  void run(const Damage& damage, const Seen& undamaged) {
    damage_ = &damage;
    undamaged_ = &undamaged;
    look();
    if (!damage.sealed || random_.one_in(4)) mount(false);
    if (random_.one_in(8)) fence();
    if (random_.one_in(8)) replay();
    mount(true);
    if (random_.one_in(2)) fsck(true);
  }
  // What a mount that replays nothing reads of the undamaged image.
  Seen read_as_it_stands() {
    mount(false);
    return std::move(seen_);
  }
  // Without damage, the walk finds the truth and fsck nothing.
  void run_undamaged() {
    if (!dirty_) {
      const auto report = fsck(false);
      ASSERT_TRUE(report && *report);
      EXPECT_TRUE((*report)->clean()) << (*report)->text();
    }
    mount(true);
    EXPECT_EQ(seen_.first_error, "");
    for (const auto& [path, versions] : base_.truth) {
      EXPECT_TRUE(seen_.names.contains(path)) << path;
      if (!versions.empty()) EXPECT_TRUE(seen_.contents[path] == versions.back()) << path;
    }
    const auto report = fsck(false);
    ASSERT_TRUE(report && *report);
    EXPECT_TRUE((*report)->clean()) << (*report)->text();
  }
  bool hung() const { return hung_; }
  SimulatedLun& lun() { return lun_; }

 private:
  // The task's value, or nothing: it hangs.
  template <class T>
  std::optional<T> finish(Executor& executor, Task<T> task, const char* what) {
    struct Job {
      explicit Job(Executor& where) : group(where) {}
      Task<void> run(Task<T> work) {
        T value = co_await std::move(work);
        result.emplace(std::move(value));
      }
      TaskGroup group;
      std::optional<T> result;
    };
    auto job = std::make_unique<Job>(executor);
    job->group.spawn(job->run(std::move(task)));
    const Time limit = loop_.now() + kLongest;
    std::uint64_t steps = 0;
    loop_.run_until([&] { return job->group.running() == 0 || ++steps > kMostResumptions || loop_.now() > limit; });
    if (job->group.running() == 0) return std::move(job->result);
    ADD_FAILURE() << what << " hangs after " << steps << " steps\n" << (node_ ? node_->messages.text() : "");
    executor.kill();
    hung_ = true;
    static auto& kept = *new std::vector<std::unique_ptr<Job>>;
    kept.push_back(std::move(job));
    return std::nullopt;
  }
  template <class T>
  using Answer = std::optional<Result<T>>;

  std::unique_ptr<BlockDevice> connect(Executor& executor) {
    return lun_.connect(executor, "nexus " + std::to_string(++nexuses_));
  }
  // A tool's whole life.
  template <class T, class Start>
  Answer<T> tool(const char* what, Start start) {
    if (hung_) return std::nullopt;
    Executor& executor = loop_.add_executor();
    std::unique_ptr<BlockDevice>& device = devices_.emplace_back(connect(executor));
    Answer<T> answer = finish<Result<T>>(executor, start(executor, *device), what);
    if (!hung_) loop_.run(executor, device->close());
    return answer;
  }

  Answer<FsckReport> fsck(bool tolerate) {
    FsckOptions options;
    options.tolerate_dirty_journals = tolerate;
    auto report = tool<FsckReport>(
        "fsck", [&](Executor& executor, BlockDevice& device) { return check_file_system(executor, device, options); });
    if (report && *report) static_cast<void>((*report)->text());
    return report;
  }

  void look() {
    const auto report = fsck(!dirty_ || random_.one_in(2));
    if (report) fsck_clean_ = *report && (*report)->clean() && !dirty_;
    const auto journals = tool<std::vector<JournalState>>(
        "cawfs-replay", [this](Executor& executor, BlockDevice& d) { return journals_of(executor, d); });
    if (journals && *journals) static_cast<void>(print_journals(**journals));
    const auto status = tool<ClusterStatus>(
        "cawfs status", [](Executor& executor, BlockDevice& d) { return read_cluster_status(executor, d); });
    if (status && *status) EXPECT_FALSE(status_text(**status).empty() || status_json(**status).empty());
    if (damage_->sealed || dirty_ || !report) return;
    // A mailbox or heartbeat of zeroes is one that was never written.
    const StructureKind kind = damage_->structure.kind;
    const bool may_be_empty = kind == StructureKind::kMailbox || kind == StructureKind::kHeartbeat;
    EXPECT_FALSE(fsck_clean_ && !may_be_empty) << "fsck finds nothing";
  }
  Task<Result<std::vector<JournalState>>> journals_of(Executor& executor, BlockDevice& device) {
    const auto superblock = co_await read_superblock(device);
    if (!superblock) co_return fail(superblock.error());
    auto journals = co_await look_at_journals(executor, device, random_, quiet_, *superblock);
    co_return journals;
  }
  void fence() {
    static_cast<void>(tool<void>("cawfs-fence", [this](Executor& executor, BlockDevice& device) {
      return fence_slot(executor, device, random_, quiet_, SlotNo{0}, FenceForce::kNo);
    }));
  }
  void replay() {
    static_cast<void>(tool<void>("cawfs-replay --replay", [this](Executor& executor, BlockDevice& device) {
      return replay_all(executor, device);
    }));
  }
  Task<Result<>> replay_all(Executor& executor, BlockDevice& device) {
    const auto superblock = co_await read_superblock(device);
    if (!superblock) co_return fail(superblock.error());
    const auto journals = co_await look_at_journals(executor, device, random_, quiet_, *superblock);
    if (!journals) co_return fail(journals.error());
    std::vector<NodeId> dead;
    for (const JournalState& journal : *journals) {
      if (journal.damaged()) co_return Result<>{};  // as the program does
      if (journal.needs_replay()) dead.push_back({journal.slot, journal.incarnation});
    }
    if (dead.empty()) co_return Result<>{};
    const auto done = co_await replay_dead({executor, device, random_, quiet_, "tool"}, *superblock, dead);
    co_return done;
  }

  Task<Result<>> use(WholeNode& node, bool write) {
    const auto started = co_await node.start();
    if (started) {
      Seen seen;
      co_await read_everything(node.fs(), seen);
      seen_ = std::move(seen);
      if (write) co_await change_everything(node.fs(), random_);
    }
    const auto stopped = co_await node.stop();
    co_return started ? stopped : started;
  }
  // `cluster`: as a member; else -o ro,norecovery.
  void mount(bool cluster) {
    if (hung_) return;
    Executor& executor = loop_.add_executor();
    WholeNodeOptions options{.host = "b", .uuid = 2, .no_recovery = !cluster};
    node_ =
        nodes_.emplace_back(std::make_unique<WholeNode>(executor, connect(executor), random_.next(), options)).get();
    seen_ = {};
    const auto used =
        finish<Result<>>(executor, use(*node_, cluster), cluster ? "a mount" : "a mount -o ro,norecovery");
    if (!used || damage_ == nullptr) return;
    if (!damage_->sealed) cluster ? check_truth() : check_against(*undamaged_);
    if (fsck_clean_ && seen_.corrupt > 0) ADD_FAILURE() << "fsck found nothing, but " << seen_.first_error;
  }

  // No replay mends anything here: what was read is exactly what was there before the damage, or is missing for an
  // error that was given.
  void check_against(const Seen& undamaged) {
    for (const std::string& path : seen_.names) {
      EXPECT_TRUE(undamaged.names.contains(path)) << "norecovery, a name of nothing: " << path;
    }
    for (const auto& [path, content] : seen_.contents) {
      const auto known = undamaged.contents.find(path);
      EXPECT_TRUE(known != undamaged.contents.end() && known->second == content)
          << "norecovery, wrong contents: " << path << ", " << content.size() << " bytes";
    }
    for (const std::string& path : undamaged.names) {
      if (!seen_.listed.contains(path.substr(0, path.rfind('/')))) continue;
      EXPECT_TRUE(seen_.names.contains(path)) << "norecovery, a name is missing: " << path;
    }
  }

  // What was read is what is there. Behind a damaged journal the file system may be an older one.
  void check_truth() {
    const StructureKind kind = damage_->structure.kind;
    const bool journal = kind == StructureKind::kJournalHeader || kind == StructureKind::kJournalRecord ||
                         kind == StructureKind::kJournalContents;
    for (const std::string& path : seen_.names) {
      EXPECT_TRUE(base_.truth.contains(path) || (journal && base_.ever.contains(path)))
          << "a name of nothing: " << path;
    }
    for (const auto& [path, content] : seen_.contents) {
      const auto known = base_.truth.find(path);
      if (known == base_.truth.end()) continue;
      const bool good = journal ? std::ranges::count(known->second, content) > 0 : known->second.back() == content;
      EXPECT_TRUE(good) << "wrong contents: " << path << ", " << content.size() << " bytes";
    }
    if (journal) return;
    for (const auto& [path, versions] : base_.truth) {
      const std::string directory = path.substr(0, path.rfind('/'));
      if (seen_.listed.contains(directory)) EXPECT_TRUE(seen_.names.contains(path)) << "a name is missing: " << path;
    }
  }

  const PopulatedImage& base_;
  bool dirty_;
  const Damage* damage_ = nullptr;
  const Seen* undamaged_ = nullptr;
  VirtualLoop loop_;
  SeededRandom random_;
  SimulatedLun lun_;
  LastMessages quiet_;
  unsigned nexuses_ = 0;
  bool hung_ = false;
  bool fsck_clean_ = false;
  Seen seen_;
  std::vector<std::unique_ptr<BlockDevice>> devices_;
  std::vector<std::unique_ptr<WholeNode>> nodes_;
  WholeNode* node_ = nullptr;
};

// --- all images
// ---------------------------------------------------------------------------------------------------------

bool of_journal(StructureKind kind) {
  return kind == StructureKind::kJournalRecord || kind == StructureKind::kJournalContents;
}

class CorruptImages : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    for (const int number : {SIGABRT, SIGALRM}) std::signal(number, on_signal);
    CAWFS_ON_DEATH(say_what_was_at_work);
    small_ = new PopulatedImage(512);
    large_ = new PopulatedImage(4096);
  }
  static const PopulatedImage& base(std::uint64_t seed) { return seed % 4 < 2 ? *small_ : *large_; }

  static const Corrupter& corrupter(const PopulatedImage& image, bool dirty) {
    static std::map<const DiskImage*, Corrupter> corrupters;
    const DiskImage& disk = dirty ? image.dirty : image.clean;
    return corrupters.try_emplace(&disk, disk, image.older, image.geometry).first->second;
  }

  static const Seen& undamaged(const PopulatedImage& image, bool dirty) {
    static std::map<const DiskImage*, Seen> seen;
    const DiskImage* disk = dirty ? &image.dirty : &image.clean;
    if (!seen.contains(disk)) seen[disk] = Case(image, dirty, 1).read_as_it_stands();
    return seen[disk];
  }

  // Image number `seed`: of each kind in turn, the checksum wrong and right.
  void run(std::uint64_t seed) {
    SCOPED_TRACE(fmt::format("CAWFS_SEED={}", seed));
    const auto kind = static_cast<StructureKind>(seed / 2 % kStructureKinds);
    const PopulatedImage& image = base(seed / kStructureKinds);
    SeededRandom random(seed);
    const bool dirty = of_journal(kind) || random.one_in(2);
    auto test = std::make_unique<Case>(image, dirty, seed);
    const Damage damage = corrupter(image, dirty).damage(test->lun(), kind, seed % 2 == 1, random);
    SCOPED_TRACE(damage.what + (dirty ? ", a node has died" : ""));
    *fmt::format_to_n(at_work.data(), at_work.size() - 2, "CAWFS_SEED={}: {}\n", seed, damage.what).out = '\0';
    const Seen& before = undamaged(image, dirty);
    alarm(kLongestSeconds);
    VerifierWatch watch(damage.structure.offset);
    test->run(damage, before);
    alarm(0);
    at_work[0] = '\0';
    counts_[static_cast<std::size_t>(kind)].images++;
    counts_[static_cast<std::size_t>(kind)].reached += watch.here.ran > 0 ? 1 : 0;
    counts_[static_cast<std::size_t>(kind)].refused += watch.here.refused > 0 ? 1 : 0;
    for (const auto& [name, count] : watch.all) {
      verifiers_[name].ran += count.ran;
      verifiers_[name].refused += count.refused;
    }
    // What hangs is still referred to by its frames.
    if (test->hung()) kept().push_back(std::move(test));
  }
  static std::vector<std::unique_ptr<Case>>& kept() {
    static auto& cases = *new std::vector<std::unique_ptr<Case>>;
    return cases;
  }

  struct Count {
    std::uint64_t images = 0;
    std::uint64_t reached = 0;
    std::uint64_t refused = 0;
  };
  std::array<Count, kStructureKinds> counts_{};
  std::map<std::string, VerifierCount> verifiers_;
  static inline PopulatedImage* small_ = nullptr;
  static inline PopulatedImage* large_ = nullptr;
};

TEST_F(CorruptImages, HaveEveryStructure) {
  for (const PopulatedImage* image : {small_, large_}) {
    for (const DiskImage* disk : {&image->dirty, &image->clean}) {
      std::array<std::uint64_t, kStructureKinds> found{};
      for (const Structure& structure : map_structures(*disk, image->geometry)) {
        ++found[static_cast<std::size_t>(structure.kind)];
      }
      for (std::size_t i = 0; i < kStructureKinds; ++i) {
        const auto kind = static_cast<StructureKind>(i);
        EXPECT_TRUE(found[i] > 0 || (of_journal(kind) && disk == &image->clean)) << name_of(kind);
      }
    }
  }
}

TEST_F(CorruptImages, AreGoodBefore) {
  for (const PopulatedImage* image : {small_, large_}) {
    const Seen& clean = undamaged(*image, false);
    EXPECT_EQ(clean.first_error, "");
    EXPECT_EQ(clean.names.size(), image->truth.size());
    for (const auto& [path, content] : clean.contents) EXPECT_TRUE(image->truth.at(path).back() == content) << path;
    EXPECT_GT(undamaged(*image, true).contents.size(), 800u);
    Case(*image, false, 1).run_undamaged();
    Case(*image, true, 1).run_undamaged();
  }
}

TEST_F(CorruptImages, GiveErrorsOnly) {
  if (const char* seed = std::getenv("CAWFS_SEED")) {
    run(std::strtoull(seed, nullptr, 10));
    return;
  }
  for (std::uint64_t seed = 0; seed < kImages && kept().size() < 5; ++seed) run(seed);
  fmt::print("{:20}{:>8}{:>20}{:>10}\n", "damaged", "images", "verifier reached", "refused");
  for (std::size_t i = 0; i < kStructureKinds; ++i) {
    const Count& count = counts_[i];
    fmt::print("{:20}{:>8}{:>20}{:>10}\n", name_of(static_cast<StructureKind>(i)), count.images, count.reached,
               count.refused);
    EXPECT_GT(count.refused, 0u) << name_of(static_cast<StructureKind>(i));
    EXPECT_EQ(count.reached, count.images) << name_of(static_cast<StructureKind>(i));
  }
  fmt::print("\n{:28}{:>12}{:>12}\n", "verifier", "ran", "refused");
  for (const auto& [name, count] : verifiers_) fmt::print("{:28}{:>12}{:>12}\n", name, count.ran, count.refused);
}

}  // namespace
}  // namespace cawfs::testing
