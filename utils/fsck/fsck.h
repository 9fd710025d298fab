// The checker behind fsck.cawfs -n, usable in one process on any device: reads everything, writes nothing.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/device/device.h"
#include "core/runtime/executor.h"
#include "core/runtime/task.h"
#include "utils/fsck/problems.h"

namespace cawfs {

struct Finding {
  Problem problem;
  std::uint64_t address = 0;  // block, inode, group or slot, as the problem has it
  std::string detail;
};

struct FsckReport {
  std::vector<Finding> findings;    // the first FsckOptions::max_findings
  std::uint64_t problem_count = 0;  // all
  std::uint64_t slots_to_recover = 0;
  std::uint64_t inodes = 0;  // in use
  std::uint64_t directories = 0;
  std::uint64_t blocks = 0;  // of the groups
  std::uint64_t used_blocks = 0;
  std::uint64_t orphans = 0;
  bool complete = false;  // else the check ended early, and the figures say nothing

  bool clean() const { return problem_count == 0; }
  bool has(Problem problem) const;
  // One line for each finding.
  std::string text() const;
};

struct FsckOptions {
  // Nodes that died in their slots are no problem, and everything is checked all the same. Without replay that makes
  // sense only where their journals are known to have nothing to add. Otherwise such a slot ends the check: until its
  // journal has been replayed, nothing else can be said.
  bool tolerate_dirty_journals = false;
  // Refuse a live file system: waits for up to the dead-time if a slot looks taken. Only tests that know better do
  // without.
  bool refuse_live = true;
  std::size_t max_findings = 10'000;
  std::function<void(std::uint64_t done_groups, std::uint64_t groups)> progress;
};

// Errors mean that it could not be checked: kLive (a node is active, or became so meanwhile), no superblock
// (read_superblock()'s errors), a device that fails other than with kMedium.
//
// Memory: 1 bit for each block in use (with what stands near it), about 16 bytes for each inode of a chunk, about 60
// for each directory.
Task<Result<FsckReport>> check_file_system(Executor& executor, BlockDevice& device, FsckOptions options);

}  // namespace cawfs
