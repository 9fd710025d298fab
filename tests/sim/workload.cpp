#include "tests/sim/workload.h"

#include <fmt/format.h>
#include <sys/stat.h>

namespace cawfs::sim {

namespace {

constexpr Duration kThink = std::chrono::milliseconds(12);

// Of a hundred choices of what to do next, those about files come first.
constexpr std::uint64_t kChoicesOfFiles = 57;
constexpr std::uint64_t kReadsOfAWrite = 250;

struct FileKind {
  const char* name;
  std::uint64_t cell_bytes;
  std::uint64_t cells;
};
// In the inode; across blocks; whole blocks, also direct; many blocks.
constexpr std::array kFiles{FileKind{"inline", 96, 12}, FileKind{"odd", 2504, 10}, FileKind{"blocks", 4096, 8},
                            FileKind{"large", 40'000, 5}};

// With Mix::kTrees, for what a tree has freed; there is not much else that is free.
constexpr FileKind kWide{"wide", 256 << 10, 3};
constexpr std::uint64_t kBlocksForTrees = 900;

Task<Result<>> fill_up(FileSystem& fs) {
  const auto filler = co_await fs.create(fs.root(), "filler", NewInode{.mode = S_IFREG | 0644}, true);
  if (!filler) co_return fail(filler.error());
  auto space = co_await fs.space();
  if (!space) co_return fail(space.error());
  const std::vector<std::byte> data(kBlockSize);
  for (std::uint64_t i = 0; i + kBlocksForTrees < space->free_blocks; ++i) {
    auto wrote = co_await fs.write(filler->inode, i * kBlockSize, data, false, false, false);
    if (!wrote) co_return fail(wrote.error());
  }
  co_return Result<>{};
}

ObjectKey key_of(const Attributes& attributes) {
  return {attributes.inode, attributes.generation};
}

}  // namespace

Task<Result<>> prepare(FileSystem& fs, Workload& workload) {
  const NewInode file{.mode = S_IFREG | 0644};
  const NewInode directory{.mode = S_IFDIR | 0755};
  for (const FileKind& kind : kFiles) {
    auto made = co_await fs.create(fs.root(), kind.name, file, true);
    if (!made) co_return fail(made.error());
    workload.files.push_back({key_of(*made), kind.cell_bytes, kind.cells});
  }
  if (workload.mix == Mix::kTrees) {
    auto wide = co_await fs.create(fs.root(), kWide.name, file, true);
    if (!wide) co_return fail(wide.error());
    workload.files.push_back({key_of(*wide), kWide.cell_bytes, kWide.cells});
    auto tree = co_await fs.create(fs.root(), "tree", file, true);
    if (!tree) co_return fail(tree.error());
    workload.tree = key_of(*tree);
    auto filled = co_await fill_up(fs);
    if (!filled) co_return filled;
  }
  for (const char* name : {"log", "journal"}) {
    auto made = co_await fs.create(fs.root(), name, file, true);
    if (!made) co_return fail(made.error());
    workload.logs.push_back(key_of(*made));
  }
  for (const char* name : {"left", "right"}) {
    auto made = co_await fs.mkdir(fs.root(), name, directory);
    if (!made) co_return fail(made.error());
    workload.directories.push_back(key_of(*made));
  }
  auto links = co_await fs.mkdir(fs.root(), "links", directory);
  if (!links) co_return fail(links.error());
  workload.links = key_of(*links);
  auto synced = co_await fs.sync_all();
  co_return synced;
}

void Client::begin(const char* doing) {
  doing_ = doing;
  since_ = executor_.now();
  ++workload_.counts[std::string("operation: ") + doing];
}

bool Client::refused(History::Call& call, const Error& error) {
  switch (error.code) {
    case Errc::kNotFound:
    case Errc::kExists:
    case Errc::kNotDirectory:
    case Errc::kIsDirectory:
    case Errc::kNotEmpty:
    case Errc::kCrossLink:
    case Errc::kInvalid:
    case Errc::kStale:
    case Errc::kNoSpace:
      history_.no_effect(call);
      return true;
    case Errc::kFenced:
    case Errc::kStopping:
      failed_ = true;  // the node is out; what became of the call is unknown
      ++workload_.counts["operation failed: node out"];
      return false;
    default:
      if (error == Errc::kMedium && workload_.medium_errors) {
        ++workload_.counts["operation failed: medium error"];
        return false;  // what became of the call is unknown
      }
      failed_ = true;
      workload_.complain(fmt::format("run {}: {} failed: {} ({}, {})", run_, doing_, cawfs::describe(error.code),
                                     error.where, error.address));
      return false;
  }
}

Task<void> Client::run() {
  while (!workload_.stopping && !stopping_ && !failed_ && !workload_.trouble) {
    co_await step();
    doing_ = "nothing";
    const auto think = static_cast<std::uint64_t>(kThink.count());
    co_await executor_.sleep(Duration(static_cast<std::int64_t>(random_.below(think))));
  }
}

Task<void> Client::step() {
  const std::uint64_t choice = random_.below(100);
  switch (workload_.mix) {
    case Mix::kAll:
      return choice < kChoicesOfFiles ? use_file(choice) : use_name(choice);
    case Mix::kNames:
      return use_name(kChoicesOfFiles + random_.below(100 - kChoicesOfFiles));
    case Mix::kSyncs:
      return write_and_sync();
    case Mix::kHot:
      return use_hot_file();
    case Mix::kTrees:
      return use_tree();
  }
  std::unreachable();
}

Task<void> Client::write_and_sync() {
  const CellFile& file = workload_.files[random_.below(workload_.files.size())];
  co_await write_cell(file);
  if (random_.one_in(4)) {
    co_await read_cells(file, 0, file.cells);
  } else if (!failed_) {
    co_await sync_object(file.key);
  }
}

Task<void> Client::use_hot_file() {
  const CellFile& file = workload_.files.front();
  if (!knows_hot_file_) {
    // As the kernel would: from then on reading it needs its own lock only.
    auto found = co_await fs_.lookup(fs_.root(), kFiles.front().name);
    if (!found) co_return;
    knows_hot_file_ = true;
  }
  if (!workload_.readers.contains(run_) && random_.one_in(kReadsOfAWrite)) {
    co_await write_cell(file);
  } else {
    co_await read_cells(file, 0, file.cells);
  }
}

Task<void> Client::use_tree() {
  const CellFile file = workload_.files[workload_.files.size() - 1 - random_.below(3)];
  co_await grow_tree();
  if (!failed_) co_await truncate(file);
  if (!failed_) co_await cut_tree();
  for (std::uint64_t i = 0; i < file.cells && !failed_; ++i) co_await write_cell(file);
  if (!failed_) co_await sync_object(file.key);
  if (!failed_) co_await read_cells(file, 0, file.cells);
}

Task<void> Client::use_file(std::uint64_t choice) {
  const CellFile& file = workload_.files[random_.below(workload_.files.size())];
  const ObjectKey log = workload_.logs[random_.below(workload_.logs.size())];
  if (choice < 18) return write_cell(file);
  if (choice < 36) return read_cells(file, random_.below(file.cells), 1 + random_.below(3));
  if (choice < 39) return truncate(file);
  if (choice < 47) return append(log);
  if (choice < 51) return read_log(log);
  if (choice < 54) return sync_object(file.key);
  if (choice < 55) return sync_object(log);
  if (choice < 56) return sync_object(workload_.directories[random_.below(workload_.directories.size())]);
  return sync_all();
}

Task<void> Client::use_name(std::uint64_t choice) {
  const auto place = co_await enter();
  if (!place) co_return;
  if (choice < 67) {
    co_await create(*place);
  } else if (choice < 71) {
    co_await make_directory(*place);
  } else if (choice < 80) {
    co_await look_up(*place, some_name());
  } else if (choice < 86) {
    co_await remove(*place);
  } else if (choice < 92) {
    co_await rename(*place);
  } else if (choice < 94) {
    co_await link(*place);
  } else if (choice < 97) {
    co_await list(*place);
  } else {
    co_await use_unlinked(*place);
  }
  co_await leave(*place);
}

Task<void> Client::read_all() {
  for (const CellFile& file : workload_.files) co_await read_cells(file, 0, file.cells);
  for (const ObjectKey& log : workload_.logs) co_await read_log(log);
  for (const ObjectKey& directory : workload_.directories) {
    for (const char* name : kNames) co_await look_up({directory}, name);
    co_await list({directory});
  }
  co_await list({workload_.links});
}

}  // namespace cawfs::sim
