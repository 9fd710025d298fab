#include "core/base/checksum.h"

#include <isa-l/crc.h>
#include <sodium.h>

namespace cawfs {

std::uint32_t crc32c(std::span<const std::byte> data, std::uint32_t seed) {
  // ISA-L neither inverts its seed nor its result, and takes a pointer to bytes it does not change.
  auto* bytes = const_cast<unsigned char*>(reinterpret_cast<const unsigned char*>(data.data()));
  return ~crc32_iscsi(bytes, static_cast<int>(data.size()), ~seed);
}

std::uint64_t siphash(std::span<const std::byte> data, const SipKey& key) {
  static_assert(crypto_shorthash_KEYBYTES == std::tuple_size_v<SipKey>);
  std::array<unsigned char, crypto_shorthash_BYTES> out;
  crypto_shorthash(out.data(), reinterpret_cast<const unsigned char*>(data.data()), data.size(), key.data());
  std::uint64_t hash = 0;
  for (std::size_t i = 0; i < out.size(); ++i) hash |= std::uint64_t{out[i]} << (8 * i);
  return hash;
}

}  // namespace cawfs
