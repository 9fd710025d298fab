#include "core/device/reservation_table.h"

#include <algorithm>
#include <boost/endian/buffers.hpp>
#include <cstring>

#include "core/base/checksum.h"

namespace cawfs {
namespace {

using boost::endian::little_uint32_buf_t;
using boost::endian::little_uint64_buf_t;

constexpr char kMagic[8] = {'c', 'a', 'w', 'f', 's', '-', 'p', 'r'};
constexpr std::uint32_t kVersion = 1;
constexpr std::uint32_t kNoHolder = 0xffffffff;

struct TableHeader {
  char magic[8];
  little_uint32_buf_t version;
  little_uint32_buf_t crc;  // crc32c of header and records, with this field zero
  little_uint32_buf_t generation;
  little_uint32_buf_t count;
  little_uint32_buf_t holder;  // index of the holder of type 5; kNoHolder otherwise
  std::uint8_t type;
  std::uint8_t aptpl;
  std::uint8_t reserved[2];
};
static_assert(sizeof(TableHeader) == 32);

struct TableRecord {
  little_uint64_buf_t key;
  std::uint8_t name_length;
  char name[ReservationTable::kMaxNexusName];
};
static_assert(sizeof(TableRecord) == 128);

std::uint32_t table_crc(TableHeader header, std::span<const std::byte> records) {
  header.crc = 0;
  return crc32c(records, crc32c(std::as_bytes(std::span(&header, 1))));
}

bool known(ReservationType type) {
  return type == ReservationType::kWriteExclusiveRegistrants || type == ReservationType::kWriteExclusiveAllRegistrants;
}

std::unexpected<Error> conflict(PrKey key) {
  return fail(Errc::kReservationConflict, "persistent reservation", key.value);
}

}  // namespace

const ReservationTable::Registration* ReservationTable::find(const std::string& nexus) const {
  auto it = std::ranges::find(registrations_, nexus, &Registration::nexus);
  return it == registrations_.end() ? nullptr : &*it;
}

PrKey ReservationTable::key_of(const std::string& nexus) const {
  const Registration* mine = find(nexus);
  return mine ? mine->key : PrKey{};
}

bool ReservationTable::is_registered(const std::string& nexus, PrKey key) const {
  const Registration* mine = find(nexus);
  return mine && mine->key == key;
}

bool ReservationTable::holds(const std::string& nexus) const {
  if (type_ == ReservationType::kWriteExclusiveAllRegistrants) return find(nexus) != nullptr;
  return type_ == ReservationType::kWriteExclusiveRegistrants && holder_ == nexus;
}

bool ReservationTable::may_write(const std::string& nexus) const {
  return type_ == ReservationType::kNone || find(nexus) != nullptr;
}

ReservationTable::Attentions ReservationTable::attention_for_others(const std::string& nexus,
                                                                    ReservationAttention attention) const {
  Attentions queued;
  for (const Registration& registration : registrations_) {
    if (registration.nexus != nexus) queued.push_back({registration.nexus, attention});
  }
  return queued;
}

// A reservation goes with its holder: type 5 with the one, type 7 with the last.
void ReservationTable::release_unheld() {
  const bool held =
      type_ == ReservationType::kWriteExclusiveAllRegistrants ? !registrations_.empty() : find(holder_) != nullptr;
  if (held) return;
  type_ = ReservationType::kNone;
  holder_.clear();
}

Result<ReservationTable::Attentions> ReservationTable::register_key(const std::string& nexus, PrKey current, PrKey key,
                                                                    Aptpl aptpl) {
  if (key_of(nexus) != current) return conflict(current);
  return set_key(nexus, key, aptpl);
}

Result<ReservationTable::Attentions> ReservationTable::register_ignore(const std::string& nexus, PrKey key,
                                                                       Aptpl aptpl) {
  return set_key(nexus, key, aptpl);
}

Result<ReservationTable::Attentions> ReservationTable::set_key(const std::string& nexus, PrKey key, Aptpl aptpl) {
  auto mine = std::ranges::find(registrations_, nexus, &Registration::nexus);
  const bool registered = mine != registrations_.end();
  if (!registered && key == PrKey{}) return Attentions{};
  if (!registered && (registrations_.size() >= kMaxRegistrations || nexus.empty() || nexus.size() > kMaxNexusName)) {
    return fail(Errc::kUnsupported, "registration", registrations_.size());
  }
  ++generation_;
  aptpl_ = aptpl == Aptpl::kYes;
  if (key == PrKey{}) return unregister(nexus);
  if (registered) {
    mine->key = key;
  } else {
    registrations_.push_back({nexus, key});
  }
  return Attentions{};
}

ReservationTable::Attentions ReservationTable::unregister(const std::string& nexus) {
  std::erase_if(registrations_, [&](const Registration& r) { return r.nexus == nexus; });
  const bool was_reserved = type_ != ReservationType::kNone;
  release_unheld();
  if (!was_reserved || type_ != ReservationType::kNone) return {};
  return attention_for_others(nexus, ReservationAttention::kReservationsReleased);
}

Result<ReservationTable::Attentions> ReservationTable::reserve(const std::string& nexus, PrKey key,
                                                               ReservationType type) {
  if (!known(type)) return fail(Errc::kUnsupported, "reservation type", static_cast<std::uint64_t>(type));
  if (!is_registered(nexus, key)) return conflict(key);
  if (type_ != ReservationType::kNone) {
    if (!holds(nexus) || type_ != type) return conflict(key);
    return Attentions{};
  }
  type_ = type;
  holder_ = type == ReservationType::kWriteExclusiveRegistrants ? nexus : std::string();
  return Attentions{};
}

Result<ReservationTable::Attentions> ReservationTable::release(const std::string& nexus, PrKey key,
                                                               ReservationType type) {
  if (!is_registered(nexus, key)) return conflict(key);
  if (!holds(nexus)) return Attentions{};
  if (type_ != type) return fail(Errc::kUnsupported, "release of a reservation of another type", key.value);
  type_ = ReservationType::kNone;
  holder_.clear();
  return attention_for_others(nexus, ReservationAttention::kReservationsReleased);
}

Result<ReservationTable::Attentions> ReservationTable::clear(const std::string& nexus, PrKey key) {
  if (!is_registered(nexus, key)) return conflict(key);
  Attentions queued = attention_for_others(nexus, ReservationAttention::kReservationsPreempted);
  ++generation_;
  registrations_.clear();
  release_unheld();
  return queued;
}

ReservationTable::Attentions ReservationTable::remove_keys(const std::string& actor, std::optional<PrKey> victim,
                                                           bool keep_actor) {
  Attentions queued;
  std::erase_if(registrations_, [&](const Registration& r) {
    const bool is_actor = r.nexus == actor;
    if ((victim && r.key != *victim) || (is_actor && keep_actor)) return false;
    if (!is_actor) queued.push_back({r.nexus, ReservationAttention::kRegistrationsPreempted});
    return true;
  });
  return queued;
}

// SPC-4 5.13.11.2: the reservation itself is preempted if the victim's key is its holder's (for all registrants: if the
// key is zero); otherwise the victim's registrations go and the reservation stays as it is, whatever type was given.
Result<ReservationTable::Attentions> ReservationTable::preempt(const std::string& nexus, PrKey key, PrKey victim,
                                                               ReservationType type) {
  if (!is_registered(nexus, key)) return conflict(key);
  const bool all_registrants = type_ == ReservationType::kWriteExclusiveAllRegistrants;
  if (victim == PrKey{} && !all_registrants) return fail(Errc::kUnsupported, "preempting key zero");

  const bool preempts_reservation =
      all_registrants ? victim == PrKey{}
                      : type_ == ReservationType::kWriteExclusiveRegistrants && key_of(holder_) == victim;
  if (!preempts_reservation) {
    if (std::ranges::find(registrations_, victim, &Registration::key) == registrations_.end()) return conflict(victim);
    ++generation_;
    Attentions queued = remove_keys(nexus, victim, false);
    release_unheld();
    return queued;
  }

  if (!known(type)) return fail(Errc::kUnsupported, "reservation type", static_cast<std::uint64_t>(type));
  ++generation_;
  Attentions queued = remove_keys(nexus, all_registrants ? std::nullopt : std::optional(victim), true);
  if (type_ != type) {
    Attentions others = attention_for_others(nexus, ReservationAttention::kReservationsReleased);
    queued.insert(queued.end(), others.begin(), others.end());
  }
  type_ = type;
  holder_ = type == ReservationType::kWriteExclusiveRegistrants ? nexus : std::string();
  return queued;
}

RegisteredKeys ReservationTable::read_keys() const {
  RegisteredKeys keys{.generation = generation_, .keys = {}};
  for (const Registration& registration : registrations_) keys.keys.push_back(registration.key);
  return keys;
}

std::vector<Registrant> ReservationTable::read_full_status() const {
  std::vector<Registrant> found;
  found.reserve(registrations_.size());
  for (const Registration& registration : registrations_) found.push_back({registration.key, registration.nexus, 0});
  return found;
}

ReservationState ReservationTable::read_reservation() const {
  const PrKey holder = type_ == ReservationType::kWriteExclusiveRegistrants ? key_of(holder_) : PrKey{};
  return {.type = type_, .raw_type = static_cast<std::uint8_t>(type_), .holder = holder};
}

void ReservationTable::power_loss() {
  if (!aptpl_) *this = ReservationTable();
  generation_ = 0;
}

std::vector<std::byte> ReservationTable::serialize() const {
  TableHeader header{};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.version = kVersion;
  header.generation = generation_;
  header.count = static_cast<std::uint32_t>(registrations_.size());
  header.holder = kNoHolder;
  header.type = static_cast<std::uint8_t>(type_);
  header.aptpl = aptpl_ ? 1 : 0;

  std::vector<TableRecord> records(registrations_.size());
  for (std::uint32_t i = 0; i < records.size(); ++i) {
    const Registration& registration = registrations_[i];
    records[i].key = registration.key.value;
    records[i].name_length = static_cast<std::uint8_t>(registration.nexus.size());
    std::memcpy(records[i].name, registration.nexus.data(), registration.nexus.size());
    if (type_ == ReservationType::kWriteExclusiveRegistrants && registration.nexus == holder_) header.holder = i;
  }
  const auto record_bytes = std::as_bytes(std::span(records));
  header.crc = table_crc(header, record_bytes);

  std::vector<std::byte> bytes(sizeof header + record_bytes.size());
  std::memcpy(bytes.data(), &header, sizeof header);
  std::ranges::copy(record_bytes, bytes.begin() + sizeof header);
  return bytes;
}

Result<ReservationTable> ReservationTable::deserialize(std::span<const std::byte> bytes) {
  TableHeader header;
  if (bytes.size() < sizeof header) return fail(Errc::kBadValue, "reservation table size", bytes.size());
  std::memcpy(&header, bytes.data(), sizeof header);
  const auto records = bytes.subspan(sizeof header);
  if (std::memcmp(header.magic, kMagic, sizeof kMagic) != 0) return fail(Errc::kBadMagic, "reservation table");
  if (header.version.value() != kVersion) {
    return fail(Errc::kBadVersion, "reservation table", header.version.value());
  }
  if (header.crc.value() != table_crc(header, records)) return fail(Errc::kBadChecksum, "reservation table");

  const std::uint32_t count = header.count.value();
  if (count > kMaxRegistrations || records.size() != count * sizeof(TableRecord)) {
    return fail(Errc::kBadValue, "reservation table count", count);
  }
  ReservationTable table;
  for (std::uint32_t i = 0; i < count; ++i) {
    TableRecord record;
    std::memcpy(&record, records.data() + i * sizeof record, sizeof record);
    const PrKey key{record.key.value()};
    if (key == PrKey{} || record.name_length == 0 || record.name_length > kMaxNexusName) {
      return fail(Errc::kBadValue, "reservation table record", i);
    }
    std::string nexus(record.name, record.name_length);
    if (table.find(nexus)) return fail(Errc::kBadValue, "reservation table nexus named twice", i);
    table.registrations_.push_back({std::move(nexus), key});
  }

  table.type_ = static_cast<ReservationType>(header.type);
  const bool needs_holder = table.type_ == ReservationType::kWriteExclusiveRegistrants;
  const bool reserved = table.type_ != ReservationType::kNone;
  if ((reserved && (!known(table.type_) || count == 0)) || header.aptpl > 1 || header.reserved[0] != 0 ||
      header.reserved[1] != 0 || (needs_holder ? header.holder.value() >= count : header.holder.value() != kNoHolder)) {
    return fail(Errc::kBadValue, "reservation table header");
  }
  if (needs_holder) table.holder_ = table.registrations_[header.holder.value()].nexus;
  table.generation_ = header.generation.value();
  table.aptpl_ = header.aptpl == 1;
  return table;
}

}  // namespace cawfs
