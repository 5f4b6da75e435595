// d[M][N] = x[M][K] * w[N][K]: f16 activations, weights of 4 bits with an f16 scale per group of 64
// along K, w = (code - 8) * scale. Codes become f16 in registers (exactly), a group is added up on
// tensor cores, and its sum is scaled in f32.
//
// A block of four warps computes 16 rows and 64 columns, each warp 16 of them. Activations of the
// next group are copied while this one is multiplied. Weights go straight into registers: a word
// holds the eight codes that a lane needs for 32 steps of K, in the order that unpack() below makes
// cheap (nibble p and p + 4 are neighbours along K).
#include "ptx.cuh"

namespace {

constexpr int kRows = 16;
constexpr int kColumns = 64;
constexpr int kGroup = 64;
constexpr int kThreads = 128;
constexpr int kChunk = 8;  // f16 in 16 bytes
constexpr int kWordsPerGroup = kGroup / 8;

__device__ __forceinline__ unsigned in_tile(unsigned row, unsigned chunk) {
  return row * kGroup + ((chunk ^ row) % 8) * kChunk;
}

__device__ __forceinline__ uint32_t bits_of(__half2 x) {
  return *reinterpret_cast<const uint32_t*>(&x);
}
__device__ __forceinline__ __half2 from_bits(uint32_t x) {
  return *reinterpret_cast<const __half2*>(&x);
}

// Eight codes to f16: a 4-bit number put into the mantissa of 1024 is 1024 + code, or 1024 + 16
// code four bits further up.
__device__ __forceinline__ void unpack(uint32_t word, uint32_t (&pairs)[4]) {
  constexpr uint32_t kLow = 0x000F000F, kHigh = 0x00F000F0, k1024 = 0x64006400;
  const __half2 minus_1032 = from_bits(0xE408E408), sixteenth = from_bits(0x2C002C00);
  const __half2 minus_72 = from_bits(0xD480D480);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const __half2 low = from_bits(ptx::and_or(word, kLow, k1024));
    const __half2 high = from_bits(ptx::and_or(word, kHigh, k1024));
    pairs[2 * i] = bits_of(__hadd2(low, minus_1032));
    pairs[2 * i + 1] = bits_of(__hfma2(high, sixteenth, minus_72));
    word >>= 8;
  }
}

}  // namespace

// x: [m][k]; words: [n][k / 8]; scales: [n][k / 64]; d: [m][n] in f16; k: a multiple of 64. Grid:
// (ceil(n / 64), ceil(m / 16)), 128 threads.
extern "C" __global__ void __launch_bounds__(kThreads)
    gemm_int4(const __half* __restrict__ x, const uint32_t* __restrict__ words,
              const __half* __restrict__ scales, __half* __restrict__ d, int m, int n, int k) {
  __shared__ __align__(128) __half tiles[2][kRows * kGroup];
  const int first_m = blockIdx.y * kRows, first_n = blockIdx.x * kColumns;
  const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int groups = static_cast<unsigned>(k) / kGroup;

  const auto begin_group = [&](int group) {
    const unsigned row = threadIdx.x / 8, chunk = threadIdx.x % 8;  // 16 rows of 8 chunks: one each
    const int source_row = first_m + row;
    const bool inside = source_row < m;
    const __half* source = x;
    if (inside) source += static_cast<size_t>(source_row) * k + group * kGroup + chunk * kChunk;
    ptx::cp_async_16(tiles[group % 2] + in_tile(row, chunk), source, inside ? 16 : 0);
    ptx::cp_async_commit();
  };

  float sums[2][4] = {};
  begin_group(0);
  for (int group = 0; group < groups; ++group) {
    if (group + 1 < groups) {
      begin_group(group + 1);
      ptx::cp_async_wait<1>();
    } else {
#ifndef MISSING_LAST_WAIT
      ptx::cp_async_wait<0>();
#endif
    }
    __syncthreads();
    const __half* const tile = tiles[group % 2];
    uint32_t a[kGroup / 16][4];
#pragma unroll
    for (int step = 0; step < kGroup / 16; ++step) {
      ptx::ldmatrix_x4(a[step], tile + in_tile(lane % 16, step * 2 + lane / 16));
    }
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int block_n = first_n + warp * 16 + j * 8;
      const int column = min(block_n + lane / 4, n - 1);  // beyond the end: computed, not stored
      const uint32_t* const from =
          words + (static_cast<size_t>(column) * groups + group) * kWordsPerGroup + lane % 4;
      float part[4] = {};
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        uint32_t b[4];
        unpack(__ldg(from + 4 * half), b);
        ptx::mma_m16n8k16_f16(part, a[2 * half], b[0], b[1]);
        ptx::mma_m16n8k16_f16(part, a[2 * half + 1], b[2], b[3]);
      }
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int scaled = min(block_n + lane % 4 * 2 + e % 2, n - 1);
        const float scale = __half2float(scales[static_cast<size_t>(scaled) * groups + group]);
        sums[j][e] = fmaf(part[e], scale, sums[j][e]);
      }
    }
    __syncthreads();  // before the next copies come into this buffer
  }

#pragma unroll
  for (int j = 0; j < 2; ++j) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int row = first_m + lane / 4 + e / 2 * 8;
      const int column = first_n + warp * 16 + j * 8 + lane % 4 * 2 + e % 2;
      if (row < m && column < n) {
        d[static_cast<size_t>(row) * n + column] = __float2half_rn(sums[j][e]);
      }
    }
  }
}
