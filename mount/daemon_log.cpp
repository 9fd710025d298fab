#include "mount/daemon_log.h"

#include <syslog.h>

namespace cawfs {

namespace {

int priority(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return LOG_DEBUG;
    case LogLevel::kInfo:
      return LOG_INFO;
    case LogLevel::kWarning:
      return LOG_WARNING;
    case LogLevel::kError:
      return LOG_ERR;
  }
  return LOG_ERR;
}

}  // namespace

DaemonLog::DaemonLog(LogLevel level) : level_(level), stderr_(stderr_log("mount.cawfs", level)) {}

DaemonLog::~DaemonLog() {
  if (system_log_) closelog();
}

void DaemonLog::use_system_log() {
  openlog("mount.cawfs", LOG_PID, LOG_DAEMON);
  system_log_ = true;
}

void DaemonLog::write(LogLevel level, std::string_view message) {
  if (!system_log_) return stderr_->write(level, message);
  syslog(priority(level), "%.*s", static_cast<int>(message.size()), message.data());
}

}  // namespace cawfs
