#include "mount/request.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <random>

#include "mount/errno.h"
#include "mount/fuse_attributes.h"

namespace cawfs {
namespace {

std::vector<std::byte> request_bytes(std::span<const std::byte> body, std::uint16_t extensions = 0) {
  fuse_in_header header{};
  header.len = static_cast<std::uint32_t>(sizeof(header) + body.size());
  header.opcode = FUSE_LOOKUP;
  header.total_extlen = extensions;
  std::vector<std::byte> bytes(header.len);
  std::memcpy(bytes.data(), &header, sizeof(header));
  if (!body.empty()) std::memcpy(bytes.data() + sizeof(header), body.data(), body.size());
  return bytes;
}

Request with_text(const std::string& text) {
  return Request::parse(request_bytes(std::as_bytes(std::span(text.data(), text.size())))).value();
}

TEST(RequestTest, ShortAndInconsistentHeadersAreRefused) {
  const auto whole = request_bytes({});
  for (std::size_t length = 0; length < whole.size(); ++length) {
    EXPECT_FALSE(Request::parse(std::vector<std::byte>(whole.begin(), whole.begin() + static_cast<long>(length))));
  }
  EXPECT_TRUE(Request::parse(whole));
  auto longer = whole;
  longer.push_back(std::byte{0});
  EXPECT_FALSE(Request::parse(longer)) << "the header's length is not the request's";
  EXPECT_FALSE(Request::parse(request_bytes({}, 1))) << "extensions longer than the body";
}

TEST(RequestTest, ArgumentsAreTakenInOrderAndNotPastTheEnd) {
  std::vector<std::byte> body(sizeof(fuse_write_in) + 5);
  auto request = Request::parse(request_bytes(body)).value();
  EXPECT_TRUE(request.take<fuse_write_in>());
  EXPECT_FALSE(request.take_bytes(6));
  EXPECT_TRUE(request.take_bytes(5));
  EXPECT_TRUE(request.take_bytes(0));
  EXPECT_FALSE(request.take<std::uint8_t>());
}

TEST(RequestTest, Names) {
  using namespace std::string_literals;
  EXPECT_EQ(with_text("name\0rest"s).take_name().value(), "name");
  EXPECT_EQ(with_text("no end").take_name().error().code, Errc::kInvalid);
  EXPECT_EQ(with_text("\0"s).take_name().error().code, Errc::kInvalid);
  EXPECT_EQ(with_text("").take_name().error().code, Errc::kInvalid);
  EXPECT_EQ(with_text("a/b\0"s).take_name().error().code, Errc::kInvalid);
  EXPECT_TRUE(with_text(std::string(255, 'n') + "\0"s).take_name());
  EXPECT_EQ(with_text(std::string(256, 'n') + "\0"s).take_name().error().code, Errc::kNameTooLong);
  EXPECT_EQ(with_text(std::string(4096, 't') + "\0"s).take_target().error().code, Errc::kNameTooLong);
  EXPECT_EQ(with_text("/a/b\0"s).take_target().value(), "/a/b");
}

TEST(RequestTest, RandomBytesNeverReadPastTheEnd) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  for (int i = 0; i < 20'000; ++i) {
    std::vector<std::byte> body(random() % 200);
    for (auto& byte : body) byte = static_cast<std::byte>(random() % 4 == 0 ? 0 : random());
    auto request = Request::parse(request_bytes(body, static_cast<std::uint16_t>(random() % 8)));
    while (request) {
      bool more = false;
      switch (random() % 4) {
        case 0:
          more = request->take<fuse_setattr_in>().has_value();
          break;
        case 1:
          more = request->take_name().has_value();
          break;
        case 2:
          more = request->take_target().has_value();
          break;
        default:
          more = request->take_bytes(1 + random() % 40).has_value();
          break;
      }
      if (!more) break;
    }
  }
}

TEST(ErrnoTest, EveryCodeHasOne) {
  for (int code = 0; code <= static_cast<int>(Errc::kAgain); ++code) {
    const int error = to_errno(static_cast<Errc>(code));
    EXPECT_GT(error, 0) << code;
    EXPECT_LT(error, 134) << code;
  }
  EXPECT_EQ(to_errno(Errc::kNotFound), ENOENT);
  EXPECT_EQ(to_errno(Errc::kFenced), EIO);
  EXPECT_EQ(to_errno(Errc::kBadChecksum), EUCLEAN);
}

TEST(FuseAttributesTest, DeviceNumbersAndTimesSurvive) {
  for (std::uint32_t device : {0U, 1U, 259U << 20 | 70000U, 0xfffU << 20 | 0xfffffU}) {
    EXPECT_EQ(device_from_fuse(device_to_fuse(device)), device);
  }
  Attributes attributes;
  attributes.mtime_ns = -1;
  EXPECT_EQ(to_fuse(attributes).mtime, ~std::uint64_t{0});
  EXPECT_EQ(to_fuse(attributes).mtimensec, 999'999'999u);
  fuse_setattr_in in{};
  in.valid = FATTR_MTIME | FATTR_ATIME;
  in.mtime = to_fuse(attributes).mtime;
  in.mtimensec = to_fuse(attributes).mtimensec;
  in.atime = INT64_MAX;
  EXPECT_EQ(from_fuse(in).mtime_ns, -1);
  EXPECT_GT(*from_fuse(in).atime_ns, 0) << "clamped, not overflown";
}

TEST(FuseAttributesTest, NothingIsValidInThePast) {
  using namespace std::chrono_literals;
  const Time now{10s};
  EXPECT_EQ(validity(Time{9s}, now).seconds, 0u);
  EXPECT_EQ(validity(Time{}, now).nanoseconds, 0u);
  EXPECT_EQ(validity(Time{11s + 5ns}, now).seconds, 1u);
  EXPECT_EQ(validity(Time{11s + 5ns}, now).nanoseconds, 5u);
}

}  // namespace
}  // namespace cawfs
