// A device that passes everything on to another, for those that override some of it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/device/device.h"
#include "core/runtime/task.h"

namespace cawfs {

class ForwardingDevice : public BlockDevice {
 public:
  explicit ForwardingDevice(BlockDevice& device) : device_(device) {}
  const DeviceFacts& facts() const override { return device_.facts(); }
  Task<Result<>> read(std::uint64_t offset, std::span<std::byte> out) override { return device_.read(offset, out); }
  Task<Result<>> write(std::uint64_t offset, std::span<const std::byte> data, Durability durability) override {
    return device_.write(offset, data, durability);
  }
  Task<Result<>> flush() override { return device_.flush(); }
  Task<Result<>> unmap(std::uint64_t offset, std::uint64_t length) override { return device_.unmap(offset, length); }
  Task<Result<>> write_zeroes(std::uint64_t offset, std::uint64_t length) override {
    return device_.write_zeroes(offset, length);
  }
  Task<Result<>> compare_and_write(std::uint64_t offset, std::span<const std::byte> expected,
                                   std::span<const std::byte> data) override {
    return device_.compare_and_write(offset, expected, data);
  }
  std::uint64_t session() const override { return device_.session(); }
  void admit(std::uint64_t session) override { device_.admit(session); }
  void bind(std::uint64_t session) override { device_.bind(session); }
  void set_path_timeout(Duration timeout) override { device_.set_path_timeout(timeout); }
  Task<Result<>> pr_register(PrKey current, PrKey key, Aptpl aptpl) override {
    return device_.pr_register(current, key, aptpl);
  }
  Task<Result<>> pr_register_ignore(PrKey key, Aptpl aptpl) override { return device_.pr_register_ignore(key, aptpl); }
  Task<Result<>> pr_reserve(PrKey key, ReservationType type) override { return device_.pr_reserve(key, type); }
  Task<Result<>> pr_release(PrKey key, ReservationType type) override { return device_.pr_release(key, type); }
  Task<Result<>> pr_clear(PrKey key) override { return device_.pr_clear(key); }
  Task<Result<>> pr_preempt_and_abort(PrKey key, PrKey victim, ReservationType type) override {
    return device_.pr_preempt_and_abort(key, victim, type);
  }
  Task<Result<RegisteredKeys>> pr_read_keys() override { return device_.pr_read_keys(); }
  Task<Result<std::vector<Registrant>>> pr_read_full_status() override { return device_.pr_read_full_status(); }
  Task<Result<ReservationState>> pr_read_reservation() override { return device_.pr_read_reservation(); }
  Task<Result<ReservationCapabilities>> pr_report_capabilities() override { return device_.pr_report_capabilities(); }
  Task<Result<>> reset_lun() override { return device_.reset_lun(); }
  Task<Result<>> evict(std::string initiator_name, std::uint64_t isid) override {
    return device_.evict(std::move(initiator_name), isid);
  }
  Task<void> close() override { return device_.close(); }

 protected:
  BlockDevice& device() const { return device_; }

 private:
  BlockDevice& device_;
};

}  // namespace cawfs
