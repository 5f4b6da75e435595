#include "util/aligned_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "util/error.h"

namespace altiplano {
namespace {

constexpr size_t kSmallAlignment = 64;
constexpr size_t kArenaMapping = size_t{256} << 20;

size_t round_up(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

bool is_mapped(size_t bytes) { return bytes >= kHugePageBytes; }

// A mapping of `size` bytes (a multiple of kHugePageBytes) that starts at a multiple of
// kHugePageBytes, or null: one huge page more is mapped, and what sticks out at both ends is given
// back.
uint8_t* map(size_t size) {
  if (size > SIZE_MAX - kHugePageBytes) return nullptr;
  void* start = ::mmap(nullptr, size + kHugePageBytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (start == MAP_FAILED) return nullptr;
  auto* from = static_cast<uint8_t*>(start);
  const size_t head = round_up(reinterpret_cast<uintptr_t>(from), kHugePageBytes) -
                      reinterpret_cast<uintptr_t>(from);
  if (head > 0) ::munmap(from, head);
  ::munmap(from + head + size, kHugePageBytes - head);
#if defined(__linux__)
  ::madvise(from + head, size, MADV_HUGEPAGE);  // only a wish
#endif
  return from + head;
}

}  // namespace

AlignedMemory::AlignedMemory(size_t bytes, const char* purpose) : bytes_(bytes) {
  if (bytes == 0) return;
  if (bytes <= SIZE_MAX - kHugePageBytes) {
    data_ = is_mapped(bytes) ? map(round_up(bytes, kHugePageBytes))
                             : static_cast<uint8_t*>(std::aligned_alloc(
                                   kSmallAlignment, round_up(bytes, kSmallAlignment)));
  }
  if (data_ == nullptr) {
    throw Error("ALTIPLANO_OUT_OF_MEMORY",
                "cannot allocate " + std::to_string(bytes) + " bytes for " + purpose);
  }
}

AlignedMemory::~AlignedMemory() {
  if (data_ == nullptr) return;
  if (is_mapped(bytes_)) {
    ::munmap(data_, round_up(bytes_, kHugePageBytes));
  } else {
    std::free(data_);
  }
}

uint8_t* Arena::allocate(size_t bytes, const char* purpose) {
  bytes = round_up(std::min(bytes, SIZE_MAX / 2), kSmallAlignment);
  if (mappings_.empty() || bytes > mappings_.back().bytes() - used_) {
    // Small models take what they need, not a quarter of a gigabyte of address space.
    const size_t grown = mappings_.empty() ? kHugePageBytes : 2 * mappings_.back().bytes();
    mappings_.emplace_back(std::max(bytes, std::min(grown, kArenaMapping)), purpose);
    used_ = 0;
  }
  uint8_t* block = mappings_.back().data() + used_;
  used_ += bytes;
  return block;
}

}  // namespace altiplano
