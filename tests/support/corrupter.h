// Damages one structure of a file system from a seed, with or without making its checksum right again.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "core/base/random.h"
#include "tests/support/structure_map.h"

namespace cawfs::testing {

struct Damage {
  Structure structure;
  bool sealed = false;  // the checksum is right
  std::string what;     // for people
};

// Makes the checksum right of a structure's bytes, whatever they say.
void seal_structure(const Structure& structure, std::span<std::byte> bytes, std::uint64_t fs_id);

class Corrupter {
 public:
  // `older`: the same file system some time before; its blocks serve as writes that were lost.
  Corrupter(const DiskImage& image, const DiskImage& older, const Geometry& geometry)
      : image_(image), older_(older), geometry_(geometry), structures_(map_structures(image, geometry)) {}

  const std::vector<Structure>& structures() const { return structures_; }

  // `lun` holds the image. What is damaged differs from what was there; where it is not `sealed`, no verifier that
  // knows its place may accept it.
  Damage damage(SimulatedLun& lun, StructureKind kind, bool sealed, Random& random) const;

 private:
  using Bytes = std::vector<std::byte>;
  // One way of damage; says which, or nothing where it does not fit here.
  std::string apply(const Structure& structure, bool sealed, Bytes& bytes, Random& random) const;
  std::string set_field(const Structure& structure, Bytes& bytes, Random& random) const;
  std::string copy_from_another(const Structure& structure, bool same_kind, bool sealed, Bytes& bytes,
                                Random& random) const;
  std::uint64_t extreme(const Structure& structure, std::uint64_t old, Random& random) const;

  const DiskImage& image_;
  const DiskImage& older_;
  const Geometry& geometry_;
  std::vector<Structure> structures_;
};

}  // namespace cawfs::testing
