// What is compiled once for all: headers of the standard library and of other projects that most files reach. None of
// cawfs's own, which change. A file still includes what it uses: ./dev lint compiles without this header.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/endian/buffers.hpp>
#include <boost/intrusive/list.hpp>
#include <boost/intrusive/set.hpp>
#include <boost/intrusive_ptr.hpp>
#include <chrono>
#include <coroutine>
#include <cstdint>
#include <cstring>
#include <deque>
#include <expected>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>
