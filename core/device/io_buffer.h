// Memory for device I/O: zeroed, aligned to a file system block, so that direct I/O needs no copy.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <new>
#include <span>

#include "core/base/types.h"

namespace cawfs {

class IoBuffer {
 public:
  IoBuffer() = default;
  explicit IoBuffer(std::size_t size)
      : data_(static_cast<std::byte*>(::operator new(size, std::align_val_t{kBlockSize}))), size_(size) {
    std::memset(data_.get(), 0, size);
  }

  std::byte* data() { return data_.get(); }
  const std::byte* data() const { return data_.get(); }
  std::size_t size() const { return size_; }
  std::span<std::byte> bytes() { return {data_.get(), size_}; }
  std::span<const std::byte> bytes() const { return {data_.get(), size_}; }

 private:
  struct Free {
    void operator()(std::byte* p) const { ::operator delete(p, std::align_val_t{kBlockSize}); }
  };
  std::unique_ptr<std::byte, Free> data_;
  std::size_t size_ = 0;
};

}  // namespace cawfs
