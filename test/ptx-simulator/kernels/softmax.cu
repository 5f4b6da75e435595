// y[row] = softmax(x[row]): one pass finds maximum and sum together, a second one writes. A block
// per row; softmax_warp has a warp per row and keeps the row in shared memory.
#include "ptx.cuh"
#include "reduce.cuh"

namespace {

constexpr float kLog2E = 1.4426950408889634f;
constexpr int kMostWarps = 32;

// e^(x - max), and 0 for -infinity.
__device__ __forceinline__ float exponential(float x, float max) {
  return ptx::exp2_approximate((x - max) * kLog2E);
}

}  // namespace

// x, y: [gridDim.x][length]. No row may be all -infinity.
extern "C" __global__ void __launch_bounds__(1024)
    softmax_block(const float* __restrict__ x, float* __restrict__ y, int length) {
  __shared__ float maxima[kMostWarps], sums[kMostWarps];
  x += static_cast<size_t>(blockIdx.x) * length;
  y += static_cast<size_t>(blockIdx.x) * length;
  float max = -INFINITY, sum = 0.f;
  for (int i = threadIdx.x; i < length; i += blockDim.x) {
    const float v = x[i];
    if (v > max) {
      sum = sum * exponential(max, v) + 1.f;
      max = v;
    } else if (v > -INFINITY) {
      sum += exponential(v, max);
    }
  }
#ifdef BARRIER_IN_BRANCH
  // Threads that had nothing to do stay away from the barrier.
  float row_max = max;
  if (threadIdx.x < length) row_max = reduce::over_block<reduce::Max>(max, maxima);
#else
  const float row_max = reduce::over_block<reduce::Max>(max, maxima);
#endif
  sum = max > -INFINITY ? sum * exponential(max, row_max) : 0.f;
  sum = reduce::over_block<reduce::Sum>(sum, sums);
  const float factor = 1.f / sum;
#ifdef INDEX_OFF_BY_ONE
  for (int i = threadIdx.x; i <= length; i += blockDim.x) {
#else
  for (int i = threadIdx.x; i < length; i += blockDim.x) {
#endif
    y[i] = exponential(x[i], row_max) * factor;
  }
}

// x, y: [rows][length]; dynamic shared memory: blockDim.x / 32 rows of [length].
extern "C" __global__ void softmax_warp(const float* __restrict__ x, float* __restrict__ y,
                                        int rows, int length) {
  extern __shared__ float shared[];
  const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int row = blockIdx.x * (blockDim.x / 32) + warp;
  if (row >= rows) return;
  float* const kept = shared + warp * length;
  x += static_cast<size_t>(row) * length;
  y += static_cast<size_t>(row) * length;

  float max = -INFINITY;
  for (int i = lane; i < length; i += 32) {
    kept[i] = x[i];
    max = fmaxf(max, x[i]);
  }
#ifdef LANES_LEAVE_EARLY
  // Lanes without an element are gone, yet the mask of the shuffles names them.
  if (lane >= length) return;
#endif
  max = reduce::over_warp<reduce::Max>(max);
#ifndef MISSING_SYNCWARP
  __syncwarp();
#endif
  // Each lane takes a piece that lies together, so what it reads another lane has written.
  const int piece = (length + 31) / 32;
  const int begin = min(lane * piece, length), end = min(begin + piece, length);
  float sum = 0.f;
  for (int i = begin; i < end; ++i) {
    const float e = exponential(kept[i], max);
    sum += e;
    kept[i] = e;
  }
  sum = reduce::over_warp<reduce::Sum>(sum);
  __syncwarp();
  const float factor = 1.f / sum;
  for (int i = lane; i < length; i += 32) y[i] = kept[i] * factor;
}
