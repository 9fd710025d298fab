// Checksums and hashes, computed by ISA-L and libsodium.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace cawfs {

// CRC-32C (Castagnoli, as in iSCSI, RFC 7143), reflected, initial and final xor of ~0. `crc32c(b, crc32c(a))` is the
// checksum of a followed by b; `seed` starts at 0.
std::uint32_t crc32c(std::span<const std::byte> data, std::uint32_t seed = 0);

using SipKey = std::array<std::uint8_t, 16>;
// SipHash-2-4 (Aumasson and Bernstein, 2012).
std::uint64_t siphash(std::span<const std::byte> data, const SipKey& key);

}  // namespace cawfs
