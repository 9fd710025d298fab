// An error in words for people: "superblock 16: wrong checksum", with what may be done about it where that is known.
#pragma once

#include <string>

#include "core/base/error.h"

namespace cawfs {

std::string explain(const Error& error);

}  // namespace cawfs
