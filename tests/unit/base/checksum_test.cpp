#include "core/base/checksum.h"

#include <gtest/gtest.h>

#include <string_view>

namespace cawfs {
namespace {

TEST(Checksum, Crc32cOfTheStandardCheckString) {
  std::string_view check = "123456789";
  EXPECT_EQ(crc32c(std::as_bytes(std::span(check))), 0xE3069283u);
}

TEST(Checksum, Crc32cContinues) {
  std::string_view check = "123456789";
  auto bytes = std::as_bytes(std::span(check));
  EXPECT_EQ(crc32c(bytes.subspan(4), crc32c(bytes.first(4))), 0xE3069283u);
}

TEST(Checksum, SiphashOfTheReferenceVectors) {
  // SipHash-2-4 reference implementation, vectors.h: key 00..0f, input 00..0e.
  SipKey key;
  for (std::size_t i = 0; i < key.size(); ++i) key[i] = static_cast<std::uint8_t>(i);
  std::array<std::byte, 15> input;
  for (std::size_t i = 0; i < input.size(); ++i) input[i] = std::byte(i);
  EXPECT_EQ(siphash(input, key), 0xa129ca6149be45e5u);
  EXPECT_EQ(siphash({}, key), 0x726fdb47dd0e0e31u);
}

}  // namespace
}  // namespace cawfs
