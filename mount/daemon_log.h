// The daemon's log: standard error, and once it is in the background the system log.
#pragma once

#include "core/base/log.h"

namespace cawfs {

class DaemonLog final : public Log {
 public:
  explicit DaemonLog(LogLevel level);
  ~DaemonLog() override;

  void use_system_log();
  bool enabled(LogLevel level) const override { return level >= level_; }
  void write(LogLevel level, std::string_view message) override;

 private:
  LogLevel level_;
  bool system_log_ = false;
  std::unique_ptr<Log> stderr_;
};

}  // namespace cawfs
