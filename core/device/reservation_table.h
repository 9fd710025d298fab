// Persistent reservations (SPC-4 5.13) as a pure state machine: the rules that the simulated LUN and the file LUN
// share. An I_T nexus is a name. Types 5 and 7 (Write Exclusive, Registrants Only and All Registrants) are known; reads
// are always allowed under them.
//
// Every action changes the table wholly or not at all. It returns the unit attentions to be queued for other nexuses;
// the one that acts never gets one. Where a command ends in a CHECK CONDITION, ILLEGAL REQUEST, the error is
// kUnsupported.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/base/types.h"
#include "core/device/device.h"

namespace cawfs {

// The ASCQ of a unit attention with ASC 2A.
enum class ReservationAttention : std::uint8_t {
  kReservationsPreempted = 0x03,
  kReservationsReleased = 0x04,
  kRegistrationsPreempted = 0x05,
};

class ReservationTable {
 public:
  static constexpr std::size_t kMaxRegistrations = 1024;
  static constexpr std::size_t kMaxNexusName = 119;  // bytes

  struct Queued {
    std::string nexus;
    ReservationAttention attention;
    friend bool operator==(const Queued&, const Queued&) = default;
  };
  using Attentions = std::vector<Queued>;

  Result<Attentions> register_key(const std::string& nexus, PrKey current, PrKey key, Aptpl aptpl);
  Result<Attentions> register_ignore(const std::string& nexus, PrKey key, Aptpl aptpl);
  Result<Attentions> reserve(const std::string& nexus, PrKey key, ReservationType type);
  Result<Attentions> release(const std::string& nexus, PrKey key, ReservationType type);
  Result<Attentions> clear(const std::string& nexus, PrKey key);
  // The commands to abort are those of the nexuses that get kRegistrationsPreempted. kReservationConflict where nobody
  // has the victim's key, which is also what a fence that was already done looks like.
  Result<Attentions> preempt(const std::string& nexus, PrKey key, PrKey victim, ReservationType type);

  RegisteredKeys read_keys() const;
  std::vector<Registrant> read_full_status() const;
  ReservationState read_reservation() const;

  // Whether `nexus` may write, CAW, unmap or flush.
  bool may_write(const std::string& nexus) const;
  // The key that `nexus` has registered; 0: none.
  PrKey key_of(const std::string& nexus) const;

  // What is left when the device has lost its power: everything if the last registration asked for APTPL, else nothing.
  void power_loss();

  // The table as bytes, crc included, and back. Whatever cannot be a table is an Error (kBadMagic, kBadVersion,
  // kBadChecksum, kBadValue).
  std::vector<std::byte> serialize() const;
  static Result<ReservationTable> deserialize(std::span<const std::byte> bytes);

  friend bool operator==(const ReservationTable&, const ReservationTable&) = default;

 private:
  struct Registration {
    std::string nexus;
    PrKey key;
    friend bool operator==(const Registration&, const Registration&) = default;
  };

  const Registration* find(const std::string& nexus) const;
  bool is_registered(const std::string& nexus, PrKey key) const;
  bool holds(const std::string& nexus) const;
  Result<Attentions> set_key(const std::string& nexus, PrKey key, Aptpl aptpl);
  Attentions unregister(const std::string& nexus);
  // Takes the registrations with `victim` (all of them: no value) off the table, `except` excepted.
  Attentions remove_keys(const std::string& actor, std::optional<PrKey> victim, bool keep_actor);
  void release_unheld();
  Attentions attention_for_others(const std::string& nexus, ReservationAttention attention) const;

  std::vector<Registration> registrations_;  // in order of registration; one for each nexus
  ReservationType type_ = ReservationType::kNone;
  std::string holder_;  // of type 5; all registrants hold type 7
  std::uint32_t generation_ = 0;
  bool aptpl_ = false;
};

}  // namespace cawfs
