// A request of the kernel's, decoded with every length checked: a short or inconsistent one is an Error, never a read
// past its end.
#pragma once

#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "core/base/error.h"
#include "core/device/io_buffer.h"
#include "mount/fuse_protocol.h"

namespace cawfs {

// Owns its bytes. The arguments are taken in order from the body, each at most once.
class Request {
 public:
  // Checks the header against the bytes' number; `bytes` starts with it. kInvalid: not a request.
  static Result<Request> parse(std::vector<std::byte> bytes);
  // A large one: the request is the `length` bytes at `offset` of the buffer.
  static Result<Request> parse(std::shared_ptr<IoBuffer> buffer, std::size_t offset, std::size_t length);

  const fuse_in_header& header() const { return header_; }

  // A structure. kInvalid if the body is too short.
  template <class T>
  Result<T> take() {
    static_assert(std::is_trivially_copyable_v<T>);
    auto bytes = take_bytes(sizeof(T));
    if (!bytes) return fail(bytes.error());
    T value;
    std::memcpy(&value, bytes->data(), sizeof(T));
    return value;
  }
  // `count` bytes, in place: as long-lived as the request.
  Result<std::span<const std::byte>> take_bytes(std::size_t count);
  // A file name: kInvalid if it is not terminated, empty or has a '/'; kNameTooLong above 255 bytes.
  Result<std::string> take_name();
  // A string up to 4095 bytes, the target of a symlink: kInvalid if it is not terminated or empty, kNameTooLong.
  Result<std::string> take_target();

 private:
  Request() = default;
  Result<> parse_header();
  Result<std::string> take_string();

  std::vector<std::byte> small_;
  std::shared_ptr<IoBuffer> large_;
  fuse_in_header header_{};
  std::span<const std::byte> body_;
};

}  // namespace cawfs
