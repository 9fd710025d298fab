// The numbers cawfs passes around, each a type of its own, so that a block never stands where an inode is meant.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>

namespace cawfs {

template <class Tag, class Rep>
struct Strong {
  using rep = Rep;
  Rep value = 0;

  constexpr Strong() = default;
  constexpr explicit Strong(Rep v) : value(v) {}
  friend constexpr auto operator<=>(const Strong&, const Strong&) = default;
};

inline constexpr std::uint64_t kBlockSize = 4096;  // the file system's block, bytes
inline constexpr std::uint32_t kBlockShift = 12;
inline constexpr std::uint32_t kSlots = 64;

// A file system block's number: its byte offset on the device / 4096.
struct BlockNo : Strong<struct BlockNoTag, std::uint64_t> {
  using Strong::Strong;
  constexpr BlockNo operator+(std::uint64_t n) const { return BlockNo{value + n}; }
  constexpr std::uint64_t offset_bytes() const { return value << kBlockShift; }
};

// An inode's number is its block's number (design §5); 0 is no inode.
struct InodeNo : Strong<struct InodeNoTag, std::uint64_t> {
  using Strong::Strong;
  constexpr BlockNo block() const { return BlockNo{value}; }
};

using GroupNo = Strong<struct GroupNoTag, std::uint32_t>;
using SlotNo = Strong<struct SlotNoTag, std::uint16_t>;
// Raised each time a slot is taken; (slot, incarnation) names one node for ever. 0 names none.
using Incarnation = Strong<struct IncarnationTag, std::uint32_t>;
// Of a lock entry: grows with every tenure (design §1).
using Generation = Strong<struct GenerationTag, std::uint64_t>;
// A persistent reservation key; 0 is none.
using PrKey = Strong<struct PrKeyTag, std::uint64_t>;

struct NodeId {
  SlotNo slot;
  Incarnation incarnation;
  friend constexpr auto operator<=>(const NodeId&, const NodeId&) = default;
};

// Blocks [start, start + count).
struct BlockRange {
  BlockNo start;
  std::uint64_t count = 0;
  friend constexpr bool operator==(const BlockRange&, const BlockRange&) = default;
};

}  // namespace cawfs

template <class Tag, class Rep>
struct std::hash<cawfs::Strong<Tag, Rep>> {
  std::size_t operator()(const cawfs::Strong<Tag, Rep>& v) const noexcept { return std::hash<Rep>{}(v.value); }
};
template <>
struct std::hash<cawfs::BlockNo> {
  std::size_t operator()(const cawfs::BlockNo& v) const noexcept { return std::hash<std::uint64_t>{}(v.value); }
};
template <>
struct std::hash<cawfs::InodeNo> {
  std::size_t operator()(const cawfs::InodeNo& v) const noexcept { return std::hash<std::uint64_t>{}(v.value); }
};
