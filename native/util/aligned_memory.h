// Memory aligned for vector loads, freed by its destructor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace altiplano {

// What the kernel gives out at once where it can, and clears when it is first written to.
inline constexpr size_t kHugePageBytes = size_t{2} << 20;

// Large blocks are mappings of their own, so that freeing them gives the memory back to the system
// at once, and they ask for huge pages: weights are read once a token from end to end, and page
// walks would cost bandwidth.
class AlignedMemory {
 public:
  AlignedMemory() = default;
  // Contents are undefined; aligned to 64 bytes at least, to kHugePageBytes if larger than that.
  // Throws Error ALTIPLANO_OUT_OF_MEMORY,
  // naming `purpose`.
  AlignedMemory(size_t bytes, const char* purpose);
  ~AlignedMemory();
  AlignedMemory(AlignedMemory&& other) noexcept { swap(other); }
  AlignedMemory& operator=(AlignedMemory&& other) noexcept {
    swap(other);
    return *this;
  }

  uint8_t* data() const { return data_; }
  float* floats() const { return reinterpret_cast<float*>(data_); }
  size_t bytes() const { return bytes_; }

 private:
  void swap(AlignedMemory& other) {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }

  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
};

// Blocks that live equally long, cut one after the other from large mappings: a block that fills no
// huge page shares it with the next one. What of a mapping is never written to takes no memory.
class Arena {
 public:
  // Aligned to 64 bytes, contents undefined; freed with the arena. Throws as AlignedMemory does.
  uint8_t* allocate(size_t bytes, const char* purpose);

 private:
  std::vector<AlignedMemory> mappings_;
  size_t used_ = 0;  // of the last one
};

}  // namespace altiplano
