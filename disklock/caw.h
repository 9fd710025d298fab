// The editor of blocks that are changed by COMPARE AND WRITE: slot records and lock blocks (design §4 rules 1-3).
//
// - read() verifies magic, checksum, address and file system; an image that fails is read again for a second (it may
//   have met a write) before it is an error.
// - write() replaces one image by another and settles what it cannot tell from the answer: after a miscompare or an
//   unknown outcome it reads the block back. My nonce stands: it ran. The old image stands: the identical image is sent
//   again (sequence numbers never repeat, so a late duplicate of it fails its own compare). Else others have changed
//   the block, and the caller judges each entry on the fresh image: mine may have run before theirs.
// - Durability: when write() says kRan the image is on the medium. An image read that another node wrote may still be
//   in a volatile cache: whoever relies on it without replacing it flushes before the first commit that does
//   (make_durable(), or TransactionLog::data_written()).
//
// Errors: those of the device. While the device gives kTransport, unit attentions or reservation conflicts, settling
// goes on for `patience`; through a GuardedDevice (disklock/guarded_device.h) that may be for ever, for it ends them
// with kFenced once the node has withdrawn. After an error the outcome is unknown for good: an entry that was being
// given up counts as given up, one that was being taken as not held.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <type_traits>

#include "core/base/error.h"
#include "core/base/random.h"
#include "core/base/types.h"
#include "core/device/device.h"
#include "core/device/io_buffer.h"
#include "core/format/block_header.h"
#include "core/format/cluster_format.h"
#include "core/runtime/executor.h"
#include "core/runtime/task.h"

namespace cawfs {

inline constexpr Duration kForever = Duration::max();

// One logical block's bytes and where they stand.
class CawImage {
 public:
  CawImage() = default;
  CawImage(std::uint64_t offset, std::size_t logical_block) : offset_(offset), buffer_(logical_block) {}
  CawImage clone() const;

  // T: format::LockBlock or format::SlotRecord.
  template <class T>
  T& as() {
    static_assert(sizeof(T) == format::kClusterBlockBytes && alignof(T) == 1 && std::is_trivially_copyable_v<T>);
    return *reinterpret_cast<T*>(buffer_.data());
  }
  template <class T>
  const T& as() const {
    static_assert(sizeof(T) == format::kClusterBlockBytes && alignof(T) == 1 && std::is_trivially_copyable_v<T>);
    return *reinterpret_cast<const T*>(buffer_.data());
  }

  explicit operator bool() const { return buffer_.size() != 0; }
  std::uint64_t offset() const { return offset_; }  // bytes
  std::uint64_t sequence() const { return header().sequence.value(); }
  std::uint64_t nonce() const { return header().nonce.value(); }
  NodeId writer() const {
    return {SlotNo{header().writer_slot.value()}, Incarnation{header().writer_incarnation.value()}};
  }
  std::span<std::byte> bytes() { return buffer_.bytes(); }
  std::span<const std::byte> bytes() const { return buffer_.bytes(); }
  format::CawHeader& header() { return *reinterpret_cast<format::CawHeader*>(buffer_.data()); }
  const format::CawHeader& header() const { return *reinterpret_cast<const format::CawHeader*>(buffer_.data()); }

 private:
  std::uint64_t offset_ = 0;
  IoBuffer buffer_;
};

// Checks an image read from `offset` as what the magic says; of other magics than format::kSlotMagic and kLockMagic
// only magic and checksum. kBadMagic, kBadChecksum (which covers address and file system), kBadValue.
Result<> verify_caw(std::span<const std::byte> logical_block, std::uint32_t magic, std::uint64_t offset,
                    std::uint64_t fs_id);
// Writes the checksum. For images that no other node sees yet (mkfs, a new inode chunk); live blocks go through
// CawEditor::write().
void seal_caw(std::span<std::byte> logical_block, std::uint64_t offset, std::uint64_t fs_id);

enum class CawOutcome : std::uint8_t {
  kRan,            // the new image stood on the device, durably; nobody has been seen to replace it
  kOthersChanged,  // another image stands; whether ours stood before it, the caller judges entry by entry
};

struct CawResult {
  CawOutcome outcome;
  CawImage image;  // what stands now: ours, or the fresh one
};

class CawEditor {
 public:
  // `device`, `executor` and `random` outlive the editor and its tasks. Any number of edits may run at once, of
  // different blocks.
  CawEditor(BlockDevice& device, Executor& executor, Random& random, std::uint64_t fs_id, Duration patience)
      : device_(device), executor_(executor), random_(random), fs_id_(fs_id), patience_(patience) {}

  // Named as the writer in the images from now on.
  void set_writer(NodeId writer) { writer_ = writer; }

  Task<Result<CawImage>> read(std::uint64_t offset, std::uint32_t magic);

  // `next` is a changed clone of `base`, an image that this editor has returned; sequence, writer, nonce and checksum
  // are filled in here.
  Task<Result<CawResult>> write(CawImage base, CawImage next);

  // What a change says about an image that it was given to change.
  enum class Plan : std::uint8_t { kWrite, kLeave };
  using Change = std::function<Result<Plan>(CawImage& image)>;
  // Reads the block and lets `change` alter the image, again on each fresh image that others have made, until the
  // change ran or `change` leaves the image alone or fails. The result's outcome is kRan if a change was written by the
  // last round. A change that has run unseen shows in the image: `change` must recognise its own work.
  Task<Result<CawResult>> edit(std::uint64_t offset, std::uint32_t magic, Change change);

  // Flushes if the device has a volatile cache and another node wrote the image.
  Task<Result<>> make_durable(NodeId writer_of_image);

 private:
  Task<Result<CawResult>> settle(CawImage base, CawImage next, Time give_up);

  BlockDevice& device_;
  Executor& executor_;
  Random& random_;
  std::uint64_t fs_id_;
  Duration patience_;
  NodeId writer_;
};

}  // namespace cawfs
