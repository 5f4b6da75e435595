// Sums, maxima and the like over the threads of a block, in a fixed order: the same inputs give the
// same bits.
#pragma once

#include <cstdint>

namespace altiplano::cuda {

inline constexpr unsigned kAllLanes = 0xffffffffu;

// combine(a, b) over the lanes of a warp; every lane gets the result.
template <class T, class Combine>
__device__ T reduce_warp(T value, Combine combine) {
  for (int distance = 16; distance > 0; distance /= 2) {
    value = combine(value, __shfl_xor_sync(kAllLanes, value, distance));
  }
  return value;
}

// combine(a, b) over the threads of a block of whole warps; every thread gets the result.
// `scratch` has room for an element per warp and may be used again after the next barrier.
template <class T, class Combine>
__device__ T reduce_block(T value, T* scratch, Combine combine) {
  value = reduce_warp(value, combine);
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
  __syncthreads();  // every warp's part is there
  T total = scratch[0];
  for (unsigned warp = 1; warp < blockDim.x / 32; ++warp) total = combine(total, scratch[warp]);
  return total;
}

}  // namespace altiplano::cuda
