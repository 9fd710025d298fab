// Errors: one closed table of codes, each of one class. errno appears in mount/ only, which translates classes and
// codes at the edge. What the disk or a peer says can be wrong: that is an Error. What only our own bug can cause is an
// assertion (core/base/assert.h).
#pragma once

#include <cstdint>
#include <expected>
#include <string_view>

namespace cawfs {

enum class ErrorClass : std::uint8_t {
  kIo,       // the device or its transport failed
  kFenced,   // this node may not write (any more)
  kCorrupt,  // the disk holds what no cawfs writes
  kNoSpace,  // a resource of the file system or the device is used up
  kRetry,    // nothing was done; the caller tries again
  kUsage,    // the caller asked for something that cannot be
};

enum class Errc : std::uint8_t {
  // Devices (design §4). kTransport: the outcome is unknown.
  kMiscompare,                 // COMPARE AND WRITE found other bytes
  kReservationConflict,        // not yet "I was fenced": see design §4 rule 8
  kUnitAttentionReset,         // 29/xx: power on, reset or nexus loss
  kUnitAttentionReservations,  // 2A/03-05: reservations or registrations preempted or released
  kUnitAttentionOther,         // any other unit attention
  kMedium,
  kTransport,
  kThinFull,  // 27/07: the thin pool is used up
  kUnsupported,
  kBounds,  // an address or length outside the device
  kBusy,    // another process holds the device

  // Format.
  kBadMagic,
  kBadChecksum,
  kBadIdentity,  // right checksum, wrong address, file system or type
  kBadValue,     // a size, count, offset or reserved byte that cannot be
  kBadFeature,   // an incompatible feature bit
  kBadVersion,
  kBadBlockSize,  // logical block size differs from the superblock's

  // Cluster.
  kFenced,       // the slot is not ours any more; the node withdraws
  kLeaseLapsed,  // the self-lease ran out; try again once it is back
  kNameInUse,    // the initiator name has an active slot
  kNoSlot,
  kForeignReservation,
  kLocalMode,  // mounted -o local elsewhere, or the other way round
  kLive,       // a node is active where none may be
  kStopping,   // unmounting

  // File system; each is one errno at the edge.
  kNotFound,
  kExists,
  kNotDirectory,
  kIsDirectory,
  kNotEmpty,
  kNameTooLong,
  kTooManyLinks,
  kCrossLink,  // a directory moved into itself or below
  kNoSpace,
  kFileTooBig,
  kInvalid,
  kReadOnly,
  kStale,  // an inode number that is no longer an inode
  kPermission,
  kNotSupported,
  kNoAttribute,
  kRange,

  // Ours.
  kAgain,  // the state changed under way; plan again
};

ErrorClass error_class(Errc code);
// What is read cannot be used, and trying again changes nothing: corrupt, or a medium error.
bool is_damage(Errc code);
// A few plain words, without a full stop: "COMPARE AND WRITE found other bytes".
std::string_view describe(Errc code);

// Carried by Result. `where` names the thing in hand, a literal such as "superblock"; `address` is the block, inode or
// slot it is about, 0 where there is none.
struct Error {
  Errc code;
  const char* where = "";
  std::uint64_t address = 0;

  friend bool operator==(const Error& error, Errc wanted) { return error.code == wanted; }
};

template <class T = void>
using Result = std::expected<T, Error>;

// `return fail(Errc::kNotFound);` from a function or coroutine that returns a Result.
inline std::unexpected<Error> fail(Errc code, const char* where = "", std::uint64_t address = 0) {
  return std::unexpected(Error{code, where, address});
}

inline std::unexpected<Error> fail(const Error& error) {
  return std::unexpected(error);
}

}  // namespace cawfs
