// A block device as cawfs needs it: reads and writes, COMPARE AND WRITE (CAW) of one logical block, persistent
// reservations (PR) and a LUN reset. SCSI terms are those of SBC-4 and SPC-4. docs/design.md, "Block devices", has the
// rules that callers follow; the ones that a device itself keeps stand here.
//
// - Any number of requests may be in flight; they complete in any order. Requests that overlap are the caller's to
// order.
// - Offsets and lengths are bytes and multiples of the logical block; another one is Errc::kBounds, as is one past the
// end.
// - Buffers belong to the request from its start until its task has ended; no request can be cancelled.
//   Any alignment is accepted, alignment to 4096 bytes avoids a copy.
// - A write is durable once a later flush() has succeeded, or at once with Durability::kFua. A device without a
// volatile
//   cache (facts().volatile_cache false) makes every completed write durable, and flush() costs nothing.
// - kTransport (outcome unknown) is never retried by a device: the caller settles it (design §4 rules 2 and 5).
// - A unit attention is returned once, to one request, which was not executed; then the device carries on. Requests
// that
//   were in flight at a reset end with kUnitAttentionReset or kTransport and count as of unknown outcome.
// - One logical block is written wholly or not at all; a larger write may be torn between logical blocks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/base/types.h"
#include "core/runtime/executor.h"
#include "core/runtime/task.h"

namespace cawfs {

enum class Durability : std::uint8_t { kCached, kFua };

struct DeviceFacts {
  std::uint64_t size_bytes = 0;
  std::uint32_t logical_block = 512;  // 512 or 4096
  bool volatile_cache = false;
  bool fua = false;  // kFua reaches the medium; without it the device flushes after the write itself
  bool compare_and_write = false;
  bool reservations = false;
  bool write_protected = false;
  std::uint64_t unmap_granularity = 0;   // bytes; 0: no unmap
  std::uint64_t max_transfer = 1 << 20;  // bytes of one read or write; longer ones are split inside
  std::string vendor;                    // as INQUIRY gives it; empty where there is none
  std::string identity;                  // serial number or WWID, for messages
  // What other nodes need in order to evict this node's session (iSCSI, RFC 7143); empty where there are no sessions.
  std::string initiator_name;
  std::uint64_t isid = 0;  // 48 bits
};

// PERSISTENT RESERVE OUT/IN (SPC-4 5.13, 6.15, 6.16).
enum class ReservationType : std::uint8_t {
  kNone = 0,
  kWriteExclusiveRegistrants = 5,
  kWriteExclusiveAllRegistrants = 7,
  kOther = 0xff,
};

struct ReservationState {
  ReservationType type = ReservationType::kNone;
  std::uint8_t raw_type = 0;  // as the device gave it
  PrKey holder;               // 0 for all-registrants types and none
};

struct RegisteredKeys {
  std::uint32_t generation = 0;
  std::vector<PrKey> keys;  // one for each registered I_T nexus
};

// Who has registered a key; no name where the device tells none.
struct Registrant {
  PrKey key;
  std::string initiator_name;
  std::uint64_t isid = 0;
};

struct ReservationCapabilities {
  bool persist_through_power_loss = false;  // APTPL can be asked for (PTPL_C)
  bool all_registrants = false;             // type 7
  bool registrants_only = false;            // type 5
};

enum class Aptpl : bool { kNo, kYes };

class BlockDevice {
 public:
  virtual ~BlockDevice() = default;

  virtual const DeviceFacts& facts() const = 0;

  virtual Task<Result<>> read(std::uint64_t offset, std::span<std::byte> out) = 0;
  virtual Task<Result<>> write(std::uint64_t offset, std::span<const std::byte> data, Durability durability) = 0;
  virtual Task<Result<>> flush() = 0;
  // A hint: the blocks' contents become undefined; ok also where the device ignores it. kUnsupported without unmap.
  virtual Task<Result<>> unmap(std::uint64_t offset, std::uint64_t length) = 0;
  virtual Task<Result<>> write_zeroes(std::uint64_t offset, std::uint64_t length) = 0;

  // COMPARE AND WRITE of one logical block (SBC-4 5.2): writes `data` if the block equals `expected`, both exactly one
  // logical block long, else kMiscompare. Atomic among CAWs only. Sent with FUA where the cache is volatile: a success
  // is durable.
  virtual Task<Result<>> compare_and_write(std::uint64_t offset, std::span<const std::byte> expected,
                                           std::span<const std::byte> data) = 0;

  // The Linux target (LIO) loses the atomicity of COMPARE AND WRITE, for the whole LUN and until it restarts, once it
  // has refused a single one for a reservation conflict or a pending unit attention. So none is sent that might be
  // refused: a session is admitted once its unit attentions are drained and its registration has been seen, and
  // compare_and_write() sends on the admitted session only. On any other it fails with kTransport, not having been
  // sent.
  //
  // Sessions are counted; a transport that logs in again by itself is on another one from then on. The one in which the
  // device was opened is admitted until admit() names another. 0 where there are no sessions.
  virtual std::uint64_t session() const { return 0; }
  virtual void admit(std::uint64_t /*session*/) {}
  // From now on write(), flush(), unmap() and write_zeroes() go out on `session` only, too. A session begun by itself
  // may be one with another target: the same one after a crash, which has lost its cache, and perhaps all
  // registrations.
  virtual void bind(std::uint64_t /*session*/) {}
  // The device's path counts as lost, and another session is begun, once nothing has come over it for so long though
  // the target was asked; not before three seconds in any case. Ignored by devices that do not watch their path.
  virtual void set_path_timeout(Duration /*timeout*/) {}

  // REGISTER: from `current` (0: none yet) to `key` (0: unregister); kReservationConflict if `current` is not ours.
  virtual Task<Result<>> pr_register(PrKey current, PrKey key, Aptpl aptpl) = 0;
  // REGISTER AND IGNORE EXISTING KEY.
  virtual Task<Result<>> pr_register_ignore(PrKey key, Aptpl aptpl) = 0;
  virtual Task<Result<>> pr_reserve(PrKey key, ReservationType type) = 0;
  virtual Task<Result<>> pr_release(PrKey key, ReservationType type) = 0;
  virtual Task<Result<>> pr_clear(PrKey key) = 0;
  // PREEMPT AND ABORT. Not a fence by itself: commands of the victim in the target's backend may still land.
  virtual Task<Result<>> pr_preempt_and_abort(PrKey key, PrKey victim, ReservationType type) = 0;
  virtual Task<Result<RegisteredKeys>> pr_read_keys() = 0;
  // kUnsupported where the device does not tell.
  virtual Task<Result<std::vector<Registrant>>> pr_read_full_status() = 0;
  virtual Task<Result<ReservationState>> pr_read_reservation() = 0;
  virtual Task<Result<ReservationCapabilities>> pr_report_capabilities() = 0;

  // LOGICAL UNIT RESET (SAM-5 7.4). Returns once the device has answered: every command accepted before it has ended.
  virtual Task<Result<>> reset_lun() = 0;
  // Ends another node's session by logging in with its name and ISID (session reinstatement, RFC 7143 6.3.5) and out
  // again. kUnsupported where the transport has no sessions.
  virtual Task<Result<>> evict(std::string initiator_name, std::uint64_t isid) = 0;

  // Ends the device: requests in flight end first. Nothing may be asked of it afterwards.
  virtual Task<void> close() = 0;
};

}  // namespace cawfs
