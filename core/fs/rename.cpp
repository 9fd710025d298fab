// rename, within a directory and across, with replacing, without, and exchanging.
#include "core/format/cluster_format.h"
#include "core/fs/directory.h"
#include "core/fs/fs_context.h"
#include "core/fs/link_count.h"
#include "core/fs/operations.h"

namespace cawfs {

namespace {

class Rename {
 public:
  Rename(FsContext& fs, InodeNo from, std::string from_name, InodeNo to, std::string to_name, RenameMode mode)
      : fs_(fs),
        from_(from),
        to_(to),
        from_name_(std::move(from_name)),
        to_name_(std::move(to_name)),
        mode_(mode),
        locks_(fs.lock_set()) {}

  Task<Result<>> run();

 private:
  enum class Round : std::uint8_t { kDone, kAgain };

  bool within() const { return from_ == to_; }
  bool exchange() const { return mode_ == RenameMode::kExchange; }
  Directory& to_entries() { return within() ? *from_entries_ : *to_entries_; }

  void want_all();
  Task<Result<>> read_names();
  Result<> check_names() const;
  Task<Result<Round>> lock_children();
  Task<Result<>> walk_up(InodeNo directory, InodeNo forbidden);
  Task<Result<Round>> check_ancestors();
  Result<> check_children() const;
  Task<Result<>> check_target_empty();
  Task<Result<>> plan();
  Task<Result<Round>> attempt();
  Task<Result<Round>> commit();
  void move_child(TxHandle& tx, const Inode& child, const Inode& old_parent, const Inode& new_parent);

  FsContext& fs_;
  const InodeNo from_;
  const InodeNo to_;
  const std::string from_name_;
  const std::string to_name_;
  const RenameMode mode_;

  LockSet locks_;
  InodeNo source_;  // what the locks wanted are about; 0: not known yet
  InodeNo target_;
  int doubts_ = 0;  // of lock_child()
  // Directories that are being moved to another parent, RENAME held since: their ancestors have been checked.
  bool ancestors_checked_ = false;

  // Of this round.
  Inode from_inode_;
  Inode to_inode_;
  std::optional<Directory> from_entries_;
  std::optional<Directory> to_entries_;
  std::optional<Directory::Entry> source_entry_;
  std::optional<Directory::Entry> target_entry_;
  Inode source_inode_;
  Inode target_inode_;
  std::optional<NameLoss> loss_;
};

void Rename::want_all() {
  locks_.reset();
  source_ = InodeNo{};
  target_ = InodeNo{};
  ancestors_checked_ = false;
  locks_.want_write(from_);
  locks_.want_write(to_);
}

Task<Result<>> Rename::read_names() {
  auto from = co_await read_directory(fs_, from_);
  if (!from) co_return fail(from.error());
  auto to = co_await read_directory(fs_, to_);
  if (!to) co_return fail(to.error());
  from_inode_ = *from;
  to_inode_ = *to;
  from_entries_.emplace(fs_, from_inode_);
  to_entries_.emplace(fs_, to_inode_);
  auto source = co_await from_entries_->find(from_name_);
  if (!source) co_return fail(source.error());
  auto target = co_await to_entries_->find(to_name_);
  if (!target) co_return fail(target.error());
  source_entry_ = *source;
  target_entry_ = *target;
  co_return Result<>{};
}

Result<> Rename::check_names() const {
  if (!source_entry_ || to_inode_.nlink() == 0) return fail(Errc::kNotFound);
  if (target_entry_ && mode_ == RenameMode::kNoReplace) return fail(Errc::kExists);
  if (!target_entry_ && exchange()) return fail(Errc::kNotFound);
  return {};
}

// The children's locks. The names may lead elsewhere than in the round before: then all is forgotten.
Task<Result<Rename::Round>> Rename::lock_children() {
  const InodeNo target = target_entry_ ? target_entry_->inode : InodeNo{};
  if ((source_.value != 0 && source_ != source_entry_->inode) || (target_.value != 0 && target_ != target)) {
    want_all();
    co_return Round::kAgain;
  }
  auto held = co_await lock_child(fs_, locks_, source_entry_->inode, LockMode::kExclusive, LocalUse::kExclusive,
                                  source_, doubts_);
  if (!held) co_return fail(held.error());
  if (!*held) co_return Round::kAgain;
  auto source = co_await read_named_inode(fs_, source_);
  if (!source) co_return fail(source.error());
  source_inode_ = *source;
  target_inode_ = Inode();
  if (!target_entry_) co_return Round::kDone;
  held = co_await lock_child(fs_, locks_, target, LockMode::kExclusive, LocalUse::kExclusive, target_, doubts_);
  if (!held) co_return fail(held.error());
  if (!*held) co_return Round::kAgain;
  auto inode = co_await read_named_inode(fs_, target_);
  if (!inode) co_return fail(inode.error());
  target_inode_ = *inode;
  co_return Round::kDone;
}

// kCrossLink if `forbidden` is `directory` or one of those above it. RENAME is held, so the way up cannot change; no
// other lock is, so each directory's can be waited for.
Task<Result<>> Rename::walk_up(InodeNo directory, InodeNo forbidden) {
  // A damaged parent pointer must not make this endless.
  constexpr int kDeepest = 1 << 20;
  for (int depth = 0; depth < kDeepest; ++depth) {
    if (directory == forbidden) co_return fail(Errc::kCrossLink);
    if (directory == fs_.geometry.root) co_return Result<>{};
    auto known = co_await check_number(fs_, directory);
    if (!known) co_return known;
    auto hold = co_await fs_.locks.acquire(lock_of(directory), LockMode::kShared, LocalUse::kShared);
    if (!hold) co_return fail(hold.error());
    auto inode = co_await read_named_inode(fs_, directory);
    if (!inode) co_return fail(inode.error());
    if (!inode->directory()) co_return fail(Errc::kBadValue, "parent", directory.value);
    if (inode->nlink() == 0) co_return fail(Errc::kNotFound);
    directory = inode->parent();
  }
  co_return fail(Errc::kBadValue, "parent", directory.value);
}

// A directory that moves to another parent must not come to stand below itself. The whole cluster does one such move at
// a time, from before the look at the ancestors until the change.
Task<Result<Rename::Round>> Rename::check_ancestors() {
  const bool source_moves = !within() && source_inode_.directory();
  const bool target_moves = !within() && exchange() && target_inode_.directory();
  if ((!source_moves && !target_moves) || ancestors_checked_) co_return Round::kDone;

  const InodeNo source = source_;
  const InodeNo target = target_;
  locks_.reset();
  source_inode_ = target_inode_ = from_inode_ = to_inode_ = Inode();
  const LockName rename = global_lock(fs_.geometry, format::kEntryRename);
  locks_.want(rename, LockMode::kExclusive, LocalUse::kExclusive);
  auto taken = co_await locks_.take();
  if (!taken) co_return fail(taken.error());
  if (source_moves) {
    auto good = co_await walk_up(to_, source);
    if (!good) co_return fail(good.error());
  }
  if (target_moves) {
    auto good = co_await walk_up(from_, target);
    if (!good) co_return fail(good.error());
  }
  // RENAME stays held while the others are taken: it orders before them.
  locks_.want_write(from_);
  locks_.want_write(to_);
  locks_.want_write(source);
  if (target.value != 0) locks_.want_write(target);
  if (target.value != 0 && !exchange()) locks_.want_write(fs_.orphan_inode());
  ancestors_checked_ = true;
  auto more = co_await locks_.take_rest();
  if (!more) co_return fail(more.error());
  co_return Round::kAgain;
}

Result<> Rename::check_children() const {
  if (!target_inode_ || exchange()) return {};
  if (source_inode_.directory() && !target_inode_.directory()) return fail(Errc::kNotDirectory);
  if (!source_inode_.directory() && target_inode_.directory()) return fail(Errc::kIsDirectory);
  return {};
}

Task<Result<>> Rename::check_target_empty() {
  if (!target_inode_ || exchange() || !target_inode_.directory()) co_return Result<>{};
  Directory entries(fs_, target_inode_);
  auto first = co_await entries.list(0, 1);
  if (!first) co_return fail(first.error());
  if (!first->empty()) co_return fail(Errc::kNotEmpty);
  co_return Result<>{};
}

Task<Result<>> Rename::plan() {
  if (exchange()) {
    auto done = co_await from_entries_->redirect(*source_entry_, from_name_, target_, target_inode_.type());
    if (!done) co_return done;
    done = co_await to_entries().redirect(*target_entry_, to_name_, source_, source_inode_.type());
    co_return done;
  }
  auto done = co_await from_entries_->remove(*source_entry_);
  if (!done) co_return done;
  if (target_entry_) {
    done = co_await to_entries().redirect(*target_entry_, to_name_, source_, source_inode_.type());
  } else {
    done = co_await to_entries().add(to_name_, source_, source_inode_.type());
  }
  co_return done;
}

// In the transaction: the child's parent pointer and its parents' link counts.
void Rename::move_child(TxHandle& tx, const Inode& child, const Inode& old_parent, const Inode& new_parent) {
  tx.change(child.buffer(), locks_.hold(child.number()));
  touch(fs_, child, false);
  if (!child.directory() || old_parent.number() == new_parent.number()) return;
  child.raw().parent = new_parent.number().value;
  old_parent.raw().nlink = old_parent.nlink() - 1;
  new_parent.raw().nlink = new_parent.nlink() + 1;
}

Task<Result<Rename::Round>> Rename::commit() {
  SpaceRequest request{.goal = to_.block(), .metadata = from_entries_->needs().new_blocks, .frees = {}};
  std::uint32_t credits = from_entries_->credits() + 2;
  add_frees(request.frees, from_entries_->needs());
  if (!within()) {
    request.metadata += to_entries_->needs().new_blocks;
    credits += to_entries_->credits();
    add_frees(request.frees, to_entries_->needs());
  }
  if (loss_) {
    request.metadata += loss_->new_blocks();
    credits += loss_->credits();
    loss_->add_frees(request.frees);
  }
  auto space = fs_.space.try_reserve(request);
  if (!space && space.error().code == Errc::kAgain) {
    auto ready = co_await make_room(fs_, locks_, request);
    if (!ready) co_return fail(ready.error());
    ancestors_checked_ = false;
    co_return Round::kAgain;
  }
  if (!space) co_return fail(space.error());
  auto tx = co_await fs_.log.begin(credits + space->credits());
  if (!tx) co_return fail(tx.error());
  from_entries_->apply(*tx, locks_.hold(from_), *space);
  if (!within()) to_entries_->apply(*tx, locks_.hold(to_), *space);
  move_child(*tx, source_inode_, from_inode_, to_inode_);
  if (exchange()) move_child(*tx, target_inode_, to_inode_, from_inode_);
  if (loss_) {
    if (target_inode_.directory()) to_inode_.raw().nlink = to_inode_.nlink() - 1;
    loss_->apply(fs_, *tx, locks_, *space);
  }
  tx->end();
  if (loss_) loss_->done(fs_);
  co_return Round::kDone;
}

// With the locks wanted so far held.
Task<Result<Rename::Round>> Rename::attempt() {
  loss_.reset();
  auto read = co_await read_names();
  if (!read) co_return fail(read.error());
  if (auto good = check_names(); !good) co_return fail(good.error());
  if (target_entry_ && target_entry_->inode == source_entry_->inode) co_return Round::kDone;
  auto round = co_await lock_children();
  if (!round || *round == Round::kAgain) co_return round;
  round = co_await check_ancestors();
  if (!round || *round == Round::kAgain) co_return round;
  if (auto good = check_children(); !good) co_return fail(good.error());
  auto empty = co_await check_target_empty();
  if (!empty) co_return fail(empty.error());
  if (!within() && source_inode_.directory() && to_inode_.nlink() >= kLinkMax) co_return fail(Errc::kTooManyLinks);
  if (target_inode_ && !exchange()) {
    auto loss = co_await NameLoss::plan(fs_, locks_, target_inode_);
    if (!loss) co_return fail(loss.error());
    if (!*loss) {
      ancestors_checked_ = false;
      co_return Round::kAgain;
    }
    loss_ = std::move(*loss);
  }
  auto planned = co_await plan();
  if (!planned) co_return fail(planned.error());
  round = co_await commit();
  co_return round;
}

Task<Result<>> Rename::run() {
  want_all();
  for (;;) {
    // check_ancestors() has taken all the locks itself, with RENAME held throughout.
    if (!locks_.all_held()) {
      auto taken = co_await locks_.take();
      if (!taken) co_return taken;
      ancestors_checked_ = false;
    }
    auto round = co_await attempt();
    if (!round) co_return fail(round.error());
    if (*round == Round::kDone) co_return Result<>{};
  }
}

}  // namespace

Task<Result<>> rename(FsContext& fs, InodeNo from, std::string from_name, InodeNo to, std::string to_name,
                      RenameMode mode) {
  for (const std::string* name : {&from_name, &to_name}) {
    if (auto good = check_name(*name); !good) co_return good;
  }
  if (auto good = check_writable(fs); !good) co_return good;
  for (const InodeNo directory : {from, to}) {
    auto known = co_await check_number(fs, directory);
    if (!known) co_return known;
  }
  Rename rename(fs, from, std::move(from_name), to, std::move(to_name), mode);
  auto done = co_await rename.run();
  co_return done;
}

}  // namespace cawfs
