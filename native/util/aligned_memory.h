// Memory aligned for vector loads, freed by its destructor. Large blocks ask for huge pages:
// weights are read once a token from end to end, and page walks would cost bandwidth.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "util/error.h"

namespace altiplano {

class AlignedMemory {
 public:
  AlignedMemory() = default;
  // Contents are undefined. Throws Error ALTIPLANO_OUT_OF_MEMORY, naming `purpose`.
  AlignedMemory(size_t bytes, const char* purpose) : bytes_(bytes) {
    if (bytes == 0) return;
    const size_t alignment = bytes >= kHugePage ? kHugePage : 64;
    const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
    if (rounded >= bytes) data_ = static_cast<uint8_t*>(std::aligned_alloc(alignment, rounded));
    if (data_ == nullptr) {
      throw Error("ALTIPLANO_OUT_OF_MEMORY", std::string("cannot allocate ") +
                                                 std::to_string(bytes) + " bytes for " + purpose);
    }
#if defined(__linux__)
    if (bytes >= kHugePage) ::madvise(data_, rounded, MADV_HUGEPAGE);  // only a wish
#endif
  }
  ~AlignedMemory() { std::free(data_); }
  AlignedMemory(AlignedMemory&& other) noexcept { swap(other); }
  AlignedMemory& operator=(AlignedMemory&& other) noexcept {
    swap(other);
    return *this;
  }

  uint8_t* data() const { return data_; }
  float* floats() const { return reinterpret_cast<float*>(data_); }
  size_t bytes() const { return bytes_; }

 private:
  static constexpr size_t kHugePage = size_t{2} << 20;

  void swap(AlignedMemory& other) {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }

  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace altiplano
