// The log is an object handed in: the daemon's writes to standard error or the system log, a simulation's keeps the
// last events of each node.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace cawfs {

enum class LogLevel : std::uint8_t { kDebug, kInfo, kWarning, kError };

class Log {
 public:
  virtual ~Log() = default;
  virtual bool enabled(LogLevel level) const = 0;
  virtual void write(LogLevel level, std::string_view message) = 0;

  template <class... Args>
  void debug(fmt::format_string<Args...> format, Args&&... args) {
    print(LogLevel::kDebug, format, std::forward<Args>(args)...);
  }
  template <class... Args>
  void info(fmt::format_string<Args...> format, Args&&... args) {
    print(LogLevel::kInfo, format, std::forward<Args>(args)...);
  }
  template <class... Args>
  void warning(fmt::format_string<Args...> format, Args&&... args) {
    print(LogLevel::kWarning, format, std::forward<Args>(args)...);
  }
  template <class... Args>
  void error(fmt::format_string<Args...> format, Args&&... args) {
    print(LogLevel::kError, format, std::forward<Args>(args)...);
  }

 private:
  template <class... Args>
  void print(LogLevel level, fmt::format_string<Args...> format, Args&&... args) {
    if (enabled(level)) write(level, fmt::format(format, std::forward<Args>(args)...));
  }
};

// Work that takes more than one request to the device: at debug level the log says when it begins and ends, which tells
// where a node stood when it died.
class LoggedWork {
 public:
  // `log` and `what` outlive it.
  LoggedWork(Log& log, std::string_view what) : log_(log), what_(what) { log_.debug("{} begins", what_); }
  ~LoggedWork() { log_.debug("{} ends", what_); }
  LoggedWork(const LoggedWork&) = delete;
  LoggedWork& operator=(const LoggedWork&) = delete;

 private:
  Log& log_;
  std::string_view what_;
};

// Lines on standard error, "name: level: message", from `level` up.
std::unique_ptr<Log> stderr_log(const std::string& name, LogLevel level);

}  // namespace cawfs
