#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "disklock/slot_table.h"
#include "utils/common/messages.h"
#include "utils/status/cluster_status.h"

namespace cawfs {

namespace {

using format::SlotState;

std::string uuid_text(const std::array<std::uint8_t, 16>& uuid) {
  std::string text;
  for (std::size_t i = 0; i < uuid.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += fmt::format("{:02x}", uuid[i]);
  }
  return text;
}

std::string key_text(PrKey key) {
  return fmt::format("{:#018x}", key.value);
}

std::string life_text(const NodeStatus& node) {
  if (node.damaged) return "its record is damaged";
  if (node.state == SlotState::kRecovering) {
    const bool fenced = (node.flags & format::kSlotFenced) != 0;
    const bool damaged = (node.flags & format::kSlotDamaged) != 0;
    return fmt::format("{}, recovered by {}{}", fenced ? "fenced" : "not fenced yet", node.recoverer,
                       damaged ? "; ITS JOURNAL IS DAMAGED: what it had locked gives errors" : "");
  }
  if (node.state != SlotState::kActive) return "";
  if (node.heartbeat_moves) return "alive";
  return fmt::format("silent for at least {:.1f} s", node.silent_seconds);
}

std::string node_text(const NodeStatus& node) {
  std::string text =
      fmt::format("{:>4}  {:<11} {:>11}  {:<20} {}\n", node.slot.value, node.damaged ? "?" : state_name(node.state),
                  node.incarnation.value, node.host.empty() ? "-" : node.host, life_text(node));
  if (node.state != SlotState::kActive) return text;
  text += fmt::format("      key {}{}{}\n", key_text(node.key), node.key_registered ? "" : " (not registered)",
                      node.initiator.empty() ? "" : ", initiator " + node.initiator);
  text += fmt::format("      {} locks held, {} dirty, journal {} of {} blocks used, {} operations{}\n", node.locks_held,
                      size_text(node.dirty_bytes), node.journal_used, node.journal_blocks, node.operations,
                      (node.flags & format::kSlotLocal) != 0 ? ", mounted -o local" : "");
  return text;
}

nlohmann::json node_json(const NodeStatus& node) {
  nlohmann::json json = {{"slot", node.slot.value}, {"damaged", node.damaged}};
  if (node.damaged) return json;
  json["state"] = state_name(node.state);
  json["incarnation"] = node.incarnation.value;
  json["host"] = node.host;
  json["initiator"] = node.initiator;
  json["key"] = key_text(node.key);
  json["key_registered"] = node.key_registered;
  json["local"] = (node.flags & format::kSlotLocal) != 0;
  if (node.state == SlotState::kRecovering) {
    json["fenced"] = (node.flags & format::kSlotFenced) != 0;
    json["recoverer"] = node.recoverer;
    json["journal_damaged"] = (node.flags & format::kSlotDamaged) != 0;
  }
  if (node.state != SlotState::kActive) return json;
  json["alive"] = node.heartbeat_moves;
  json["silent_seconds"] = node.silent_seconds;
  json["locks_held"] = node.locks_held;
  json["dirty_bytes"] = node.dirty_bytes;
  json["operations"] = node.operations;
  json["journal_blocks"] = node.journal_blocks;
  json["journal_used"] = node.journal_used;
  return json;
}

}  // namespace

const char* state_name(SlotState state) {
  switch (state) {
    case SlotState::kFree:
      return "free";
    case SlotState::kClean:
      return "clean";
    case SlotState::kWantsJournal:
      return "wants journal";
    case SlotState::kActive:
      return "active";
    case SlotState::kRecovering:
      return "recovering";
  }
  return "?";
}

std::string status_text(const ClusterStatus& status) {
  std::string text = fmt::format(
      "file system  {}{}\n", uuid_text(status.superblock.uuid),
      field_text(status.superblock.label).empty() ? "" : fmt::format(" '{}'", field_text(status.superblock.label)));
  text += fmt::format("space        {} of {} free\n", status.free_bytes ? size_text(*status.free_bytes) : "unknown",
                      size_text(status.total_bytes));
  text += fmt::format("dead-time    {:.1f} s\n", status.superblock.dead_time_ms.value() / 1000.0);
  text += fmt::format("reservation  {}, {} keys registered\n", status.reservation, status.keys.size());
  for (const PrKey key : status.stray_keys) text += fmt::format("             key {} is no node's\n", key_text(key));
  text += fmt::format("\n{:>4}  {:<11} {:>11}  {:<20} {}\n", "slot", "state", "incarnation", "host", "");
  for (const NodeStatus& node : status.nodes) text += node_text(node);
  return text;
}

std::string status_json(const ClusterStatus& status) {
  nlohmann::json json = {
      {"uuid", uuid_text(status.superblock.uuid)}, {"label", std::string(field_text(status.superblock.label))},
      {"total_bytes", status.total_bytes},         {"dead_time_ms", status.superblock.dead_time_ms.value()},
      {"reservation", status.reservation},         {"keys", nlohmann::json::array()},
      {"stray_keys", nlohmann::json::array()},     {"nodes", nlohmann::json::array()}};
  if (status.free_bytes) json["free_bytes"] = *status.free_bytes;
  for (const PrKey key : status.keys) json["keys"].push_back(key_text(key));
  for (const PrKey key : status.stray_keys) json["stray_keys"].push_back(key_text(key));
  for (const NodeStatus& node : status.nodes) json["nodes"].push_back(node_json(node));
  // Host names come from the disk and need not be UTF-8.
  return json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace cawfs
