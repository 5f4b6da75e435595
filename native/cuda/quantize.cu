// Rows of f16 to int8, for activations that no kernel before has quantized (int8_codes.cuh).
#include <cuda_fp16.h>

#include "cuda/int8_codes.cuh"
#include "cuda/pack_parameters.h"

namespace altiplano::cuda {

constexpr int kThreads = 256;  // matmul.cc has the same

// Largest magnitude of two f16, as bits: NaN is larger than infinity, infinity than numbers.
__device__ inline uint32_t largest_of(uint32_t two) {
  return max(two & 0x7fff, two >> 16 & 0x7fff);
}

// Eight numbers of a row; those from `cols` on are zeros.
__device__ inline uint4 load_eight(const QuantizeParameters& p, const uint8_t* row, int col) {
  if (col + 8 <= p.cols) return *reinterpret_cast<const uint4*>(row + col * 2);
  uint32_t words[4] = {};
  for (int i = 0; i < 8; ++i) {
    if (col + i < p.cols) {
      words[i / 2] |= static_cast<uint32_t>(reinterpret_cast<const uint16_t*>(row)[col + i])
                      << (16 * (i % 2));
    }
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

__device__ inline uint32_t four_codes(uint32_t low, uint32_t high, float inverse) {
  const float2 a = __half22float2(*reinterpret_cast<const half2*>(&low));
  const float2 b = __half22float2(*reinterpret_cast<const half2*>(&high));
  return four_codes({a.x * inverse, a.y * inverse, b.x * inverse, b.y * inverse});
}

// A block for each row.
extern "C" __global__ void __launch_bounds__(kThreads)
    quantize_rows(const __grid_constant__ QuantizeParameters p) {
  __shared__ uint32_t largest_of_warp[kThreads / 32];
  const int64_t row = blockIdx.x;
  const int thread = static_cast<int>(threadIdx.x);
  const uint8_t* x = p.x + row * p.x_stride_bytes;

  uint32_t largest = 0;
  for (int col = thread * 8; col < p.cols; col += kThreads * 8) {
    const uint4 v = load_eight(p, x, col);
    largest = max(max(largest, max(largest_of(v.x), largest_of(v.y))),
                  max(largest_of(v.z), largest_of(v.w)));
  }
  largest = __reduce_max_sync(0xffffffffu, largest);
  if (thread % 32 == 0) largest_of_warp[thread / 32] = largest;
  __syncthreads();
#pragma unroll
  for (const uint32_t of_warp : largest_of_warp) largest = max(largest, of_warp);
  const float magnitude = __half2float(__ushort_as_half(static_cast<uint16_t>(largest)));
  const float inverse = inverse_scale(magnitude);
  if (thread == 0) p.scales[row] = magnitude / 127.f;

  // The second pass finds the row in L1 or L2.
  for (int col = thread * 8; col < p.cols; col += kThreads * 8) {
    const uint4 v = load_eight(p, x, col);
    *reinterpret_cast<uint2*>(p.values + row * p.values_stride + col) =
        make_uint2(four_codes(v.x, v.y, inverse), four_codes(v.z, v.w, inverse));
  }
}

}  // namespace altiplano::cuda
