// The parts of core/format/verify.cpp: is what a block with a good header says possible? `geometry` may be null: then
// addresses are not checked against the file system.
#pragma once

#include <algorithm>
#include <cstring>
#include <span>

#include "core/base/error.h"
#include "core/base/types.h"
#include "core/format/disk_format.h"
#include "core/format/geometry.h"

namespace cawfs::format {

// Each byte is the one before it, and the first is zero.
template <class Bytes>
bool all_zero(const Bytes& bytes) {
  const auto all = std::as_bytes(std::span(bytes));
  return all.empty() || (all[0] == std::byte{0} && std::memcmp(all.data(), all.data() + 1, all.size() - 1) == 0);
}

// Zeros from the first zero on.
template <class Text>
bool padded_with_zeros(const Text& text) {
  const auto end = std::ranges::find(text, '\0');
  return std::all_of(end, text.end(), [](char c) { return c == '\0'; });
}

Result<> check_features(const Superblock& superblock);
bool superblock_is_possible(const Superblock& superblock);
bool group_header_is_possible(const GroupHeader& group, BlockNo address, const Geometry* geometry);
bool tree_node_is_possible(const TreeNode& node, BlockNo address, const Geometry* geometry);
bool inode_is_possible(const Inode& inode, BlockNo address, const Geometry* geometry);

}  // namespace cawfs::format
