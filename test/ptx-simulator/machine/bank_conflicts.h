// How many times shared memory has to be asked for one access of a warp.
#pragma once

#include <cstdint>

namespace ptx_simulator {

// There are 32 banks of 4 bytes; a wavefront serves one word of each, to any number of lanes.
// Accesses of up to 4 bytes are served for all 32 lanes together, of 8 bytes for each half of the
// warp, of 16 bytes for each quarter (so for each 8x8 matrix of ldmatrix). `ideal` is what the
// distinct bytes of the whole warp would need without conflicts.
struct Wavefronts {
  uint32_t actual = 0;
  uint32_t ideal = 0;
};

// `addresses` are multiples of `width` (1, 2, 4, 8 or 16); `mask` is not empty.
Wavefronts count_wavefronts(uint32_t mask, const uint32_t* addresses, int width);

}  // namespace ptx_simulator
