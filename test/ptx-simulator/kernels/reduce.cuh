// Sums and maxima over a warp and over a block.
#pragma once

namespace reduce {

struct Sum {
  static constexpr float kStart = 0.f;
  __device__ static float of(float a, float b) { return a + b; }
};
struct Max {
  static constexpr float kStart = -INFINITY;
  __device__ static float of(float a, float b) { return fmaxf(a, b); }
};

template <class Operation>
__device__ __forceinline__ float over_warp(float x) {
  for (int distance = 16; distance > 0; distance /= 2) {
    x = Operation::of(x, __shfl_xor_sync(0xFFFFFFFFu, x, distance));
  }
  return x;
}

// All threads of the block get the result. `scratch` holds a float per warp; all threads may have
// left an earlier use of it.
template <class Operation>
__device__ __forceinline__ float over_block(float x, float* scratch) {
  const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  x = over_warp<Operation>(x);
  if (lane == 0) scratch[warp] = x;
#ifndef MISSING_BARRIER
  __syncthreads();
#endif
#ifdef READS_UNWRITTEN_TAIL
  x = scratch[lane];
#else
  x = lane < blockDim.x / 32 ? scratch[lane] : Operation::kStart;
#endif
  return over_warp<Operation>(x);
}

}  // namespace reduce
