// What tools tell people.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace cawfs {

// "1.5 GiB".
std::string size_text(std::uint64_t bytes);
// A number with K, M, G or T (1024-based) after it, or none; nothing if it is no such thing or too large.
std::optional<std::uint64_t> parse_size(std::string_view text);

// A line on standard error that overwrites itself; silent unless standard error is a terminal.
class ProgressLine {
 public:
  explicit ProgressLine(std::string label);
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  void show(std::uint64_t done, std::uint64_t total);

 private:
  std::string label_;
  bool terminal_;
  int shown_ = -1;
};

}  // namespace cawfs
