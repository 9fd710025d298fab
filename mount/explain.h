// An error in words for people, with what to do about it where that is known.
#pragma once

#include <string>

#include "core/base/error.h"

namespace cawfs {

std::string explain(const Error& error);

}  // namespace cawfs
