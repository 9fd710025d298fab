#include "core/base/error.h"

#include <array>

namespace cawfs {
namespace {

struct Entry {
  ErrorClass error_class;
  std::string_view text;
};

// In the order of Errc.
constexpr std::array kTable = {
    Entry{ErrorClass::kRetry, "COMPARE AND WRITE found other bytes"},
    Entry{ErrorClass::kFenced, "reservation conflict"},
    Entry{ErrorClass::kRetry, "unit attention: power on, reset or nexus loss"},
    Entry{ErrorClass::kRetry, "unit attention: reservations changed"},
    Entry{ErrorClass::kRetry, "unit attention"},
    Entry{ErrorClass::kIo, "medium error"},
    Entry{ErrorClass::kIo, "the path to the device failed"},
    Entry{ErrorClass::kNoSpace, "the thin pool behind the device is full"},
    Entry{ErrorClass::kUsage, "the device does not support this"},
    Entry{ErrorClass::kCorrupt, "an address outside the device"},
    Entry{ErrorClass::kUsage, "the device is in use by another process"},
    Entry{ErrorClass::kCorrupt, "wrong magic number"},
    Entry{ErrorClass::kCorrupt, "wrong checksum"},
    Entry{ErrorClass::kCorrupt, "a block of another place or file system"},
    Entry{ErrorClass::kCorrupt, "an impossible value"},
    Entry{ErrorClass::kUsage, "a feature this version does not know"},
    Entry{ErrorClass::kUsage, "a format version this program does not know"},
    Entry{ErrorClass::kUsage, "the device's logical block size is not the one the file system was made for"},
    Entry{ErrorClass::kFenced, "this node was fenced"},
    Entry{ErrorClass::kRetry, "the self-lease has lapsed"},
    Entry{ErrorClass::kUsage, "the initiator name is in use by an active node"},
    Entry{ErrorClass::kNoSpace, "no free slot"},
    Entry{ErrorClass::kUsage, "the device is reserved by something else"},
    Entry{ErrorClass::kUsage, "mounted with -o local by one side only"},
    Entry{ErrorClass::kUsage, "the file system is mounted"},
    Entry{ErrorClass::kIo, "the file system is being unmounted"},
    Entry{ErrorClass::kUsage, "no such file or directory"},
    Entry{ErrorClass::kUsage, "it exists already"},
    Entry{ErrorClass::kUsage, "not a directory"},
    Entry{ErrorClass::kUsage, "is a directory"},
    Entry{ErrorClass::kUsage, "directory not empty"},
    Entry{ErrorClass::kUsage, "name too long"},
    Entry{ErrorClass::kUsage, "too many links"},
    Entry{ErrorClass::kUsage, "a directory cannot move below itself"},
    Entry{ErrorClass::kNoSpace, "no space left"},
    Entry{ErrorClass::kNoSpace, "file too big"},
    Entry{ErrorClass::kUsage, "invalid argument"},
    Entry{ErrorClass::kUsage, "read-only file system"},
    Entry{ErrorClass::kUsage, "stale inode number"},
    Entry{ErrorClass::kUsage, "not permitted"},
    Entry{ErrorClass::kUsage, "not supported"},
    Entry{ErrorClass::kUsage, "no such attribute"},
    Entry{ErrorClass::kUsage, "out of range"},
    Entry{ErrorClass::kRetry, "changed under way"},
};
static_assert(kTable.size() == static_cast<std::size_t>(Errc::kAgain) + 1);

}  // namespace

ErrorClass error_class(Errc code) {
  return kTable[static_cast<std::size_t>(code)].error_class;
}

bool is_damage(Errc code) {
  return code == Errc::kMedium || error_class(code) == ErrorClass::kCorrupt;
}

std::string_view describe(Errc code) {
  return kTable[static_cast<std::size_t>(code)].text;
}

}  // namespace cawfs
