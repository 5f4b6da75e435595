// How fast this machine reads memory: the limit of decoding.
#pragma once

#include <cstddef>

namespace altiplano::cpu {

// Bytes a second when `threads` threads together read `bytes` bytes: the median of five passes. The
// memory should be much larger than the caches. Throws Error ALTIPLANO_OUT_OF_MEMORY.
double measure_read_bandwidth(size_t bytes, int threads);

}  // namespace altiplano::cpu
