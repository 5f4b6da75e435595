// Rows of f16 to int8, for activations that no kernel before has quantized (int8_codes.cuh).
//
// A thread loads kEights times eight numbers at once, where a loop would wait for each. Rows of up
// to 16,384 numbers (7B has 11,008 at most) stay in registers; others are read again for the codes.
#include <cuda_fp16.h>

#include "cuda/int8_codes.cuh"
#include "cuda/pack_parameters.h"

namespace altiplano::cuda {

constexpr int kThreads = 256;  // matmul.cc has the same
constexpr int kEights = 8;     // of a thread
constexpr int kChunk = kThreads * kEights * 8;

// Largest magnitude of two f16, as bits: NaN is larger than infinity, infinity than numbers.
__device__ inline uint32_t largest_of(uint32_t two) {
  return max(two & 0x7fff, two >> 16 & 0x7fff);
}

// Eights of a row, kThreads of them apart; numbers behind the row are zeros.
struct Eights {
  uint4 at[kEights];

  static __device__ int first_col(int chunk, int i) {
    return chunk + (i * kThreads + static_cast<int>(threadIdx.x)) * 8;
  }
  __device__ void load(const uint8_t* row, int cols, int chunk) {
#pragma unroll
    for (int i = 0; i < kEights; ++i) {
      const int col = first_col(chunk, i);
      at[i] = uint4{};
      if (col + 8 <= cols) at[i] = *reinterpret_cast<const uint4*>(row + col * 2);
    }
    if (cols % 8 == 0) return;
#pragma unroll
    for (int i = 0; i < kEights; ++i) {
      const int col = first_col(chunk, i);
      if (col < cols && col + 8 > cols) at[i] = load_tail(row, cols, col);
    }
  }

 private:
  static __device__ uint4 load_tail(const uint8_t* row, int cols, int col) {
    uint32_t words[4] = {};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (col + i < cols) {
        words[i / 2] |= static_cast<uint32_t>(reinterpret_cast<const uint16_t*>(row)[col + i])
                        << (16 * (i % 2));
      }
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
  }
};

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
  Eights held;
  for (int chunk = 0; chunk < p.cols; chunk += kChunk) {
    held.load(x, p.cols, chunk);
#pragma unroll
    for (const uint4& v : held.at) {
      largest = max(max(largest, max(largest_of(v.x), largest_of(v.y))),
                    max(largest_of(v.z), largest_of(v.w)));
    }
  }
  largest = __reduce_max_sync(0xffffffffu, largest);
  if (thread % 32 == 0) largest_of_warp[thread / 32] = largest;
  __syncthreads();
#pragma unroll
  for (const uint32_t of_warp : largest_of_warp) largest = max(largest, of_warp);
  const float magnitude = __half2float(__ushort_as_half(static_cast<uint16_t>(largest)));
  const float inverse = inverse_scale(magnitude);
  if (thread == 0) p.scales[row] = magnitude / 127.f;

  for (int chunk = 0; chunk < p.cols; chunk += kChunk) {
    if (p.cols > kChunk) held.load(x, p.cols, chunk);
#pragma unroll
    for (int i = 0; i < kEights; ++i) {
      const int col = Eights::first_col(chunk, i);
      const uint4& v = held.at[i];
      if (col < p.cols) {
        *reinterpret_cast<uint2*>(p.values + row * p.values_stride + col) =
            make_uint2(four_codes(v.x, v.y, inverse), four_codes(v.z, v.w, inverse));
      }
    }
  }
}

}  // namespace altiplano::cuda
