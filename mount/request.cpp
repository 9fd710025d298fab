#include "mount/request.h"

#include <algorithm>

#include "core/format/disk_format.h"

namespace cawfs {

namespace {

constexpr std::size_t kTargetMax = 4095;

}  // namespace

Result<Request> Request::parse(std::vector<std::byte> bytes) {
  Request request;
  request.small_ = std::move(bytes);
  request.body_ = request.small_;
  auto checked = request.parse_header();
  if (!checked) return fail(checked.error());
  return request;
}

Result<Request> Request::parse(std::shared_ptr<IoBuffer> buffer, std::size_t offset, std::size_t length) {
  Request request;
  request.large_ = std::move(buffer);
  request.body_ = request.large_->bytes().subspan(offset, length);
  auto checked = request.parse_header();
  if (!checked) return fail(checked.error());
  return request;
}

Result<> Request::parse_header() {
  const std::size_t length = body_.size();
  auto header = take<fuse_in_header>();
  if (!header) return fail(header.error());
  header_ = *header;
  if (header_.len != length) return fail(Errc::kInvalid, "length of a FUSE request", header_.opcode);
  // Extensions stand behind the arguments; INIT asks for none.
  const std::size_t extensions = std::size_t{header_.total_extlen} * 8;
  if (extensions > body_.size()) return fail(Errc::kInvalid, "extensions of a FUSE request", header_.opcode);
  body_ = body_.first(body_.size() - extensions);
  return {};
}

Result<std::span<const std::byte>> Request::take_bytes(std::size_t count) {
  if (count > body_.size()) return fail(Errc::kInvalid, "arguments of a FUSE request", header_.opcode);
  const auto taken = body_.first(count);
  body_ = body_.subspan(count);
  return taken;
}

Result<std::string> Request::take_string() {
  const auto end = std::ranges::find(body_, std::byte{0});
  if (end == body_.end() || end == body_.begin()) return fail(Errc::kInvalid, "name in a FUSE request", header_.opcode);
  const auto length = static_cast<std::size_t>(end - body_.begin());
  std::string text(reinterpret_cast<const char*>(body_.data()), length);
  body_ = body_.subspan(length + 1);
  return text;
}

Result<std::string> Request::take_name() {
  auto name = take_string();
  if (!name) return name;
  if (name->size() > format::kNameMax) return fail(Errc::kNameTooLong);
  if (name->find('/') != std::string::npos) return fail(Errc::kInvalid, "name in a FUSE request", header_.opcode);
  return name;
}

Result<std::string> Request::take_target() {
  auto target = take_string();
  if (target && target->size() > kTargetMax) return fail(Errc::kNameTooLong);
  return target;
}

}  // namespace cawfs
