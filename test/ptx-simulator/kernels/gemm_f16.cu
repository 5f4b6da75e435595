// d[M][N] = a[M][K] * b, f16 in, sums in f32, f32 out, on tensor cores. gemm_nt takes b as [N][K],
// gemm_nn as [K][N].
//
// A block of four warps computes a tile of 64 x 64. Slices of 32 along K are on their way into a
// ring of kStages buffers while an earlier one is multiplied. A row of a buffer is cut into chunks
// of 16 bytes, stored at an index XORed with the row, so that the eight rows that ldmatrix reads at
// a time lie in different banks. What lies beyond M, N and K is filled with zeros by cp.async.
#include "ptx.cuh"

namespace {

constexpr int kTile = 64;   // of M and N
constexpr int kDepth = 32;  // of K
constexpr int kStages = 4;
constexpr int kThreads = 128;
constexpr int kChunk = 8;  // f16 in 16 bytes

// Where chunk `chunk` of a row of kDepth elements (4 chunks, so two rows span the banks) and of a
// row of kTile elements (8 chunks) lies, in elements.
__device__ __forceinline__ unsigned in_narrow_tile(unsigned row, unsigned chunk) {
#ifdef UNSWIZZLED
  return row * kDepth + chunk * kChunk;
#else
  return row * kDepth + ((chunk ^ (row / 2)) % 4) * kChunk;
#endif
}
__device__ __forceinline__ unsigned in_wide_tile(unsigned row, unsigned chunk) {
  return row * kTile + ((chunk ^ row) % 8) * kChunk;
}

struct Stage {
  __half a[kTile * kDepth];  // [m][k]
  __half b[kTile * kDepth];  // [n][k] or [k][n]
};

// Begins the copy of kRows rows of kColumns elements from a matrix of rows x columns elements.
template <int kRows, int kColumns>
__device__ __forceinline__ void copy_tile(__half* to, const __half* from, int first_row, int rows,
                                          int first_column, int columns, int stride) {
  constexpr unsigned kChunks = kColumns / kChunk;
#pragma unroll
  for (unsigned first = 0; first < kRows * kChunks; first += kThreads) {
    const unsigned row = (first + threadIdx.x) / kChunks, chunk = (first + threadIdx.x) % kChunks;
    const int source_row = first_row + row, column = first_column + chunk * kChunk;
    const bool inside = source_row < rows && column < columns;
    const __half* source = from;  // any valid address: nothing is read
    if (inside) source += static_cast<size_t>(source_row) * stride + column;
    const int bytes = inside ? min(columns - column, kChunk) * static_cast<int>(sizeof(__half)) : 0;
    const unsigned offset = kChunks == 4 ? in_narrow_tile(row, chunk) : in_wide_tile(row, chunk);
    ptx::cp_async_16(to + offset, source, bytes);
  }
}

template <bool kTransposed>
__device__ __forceinline__ void gemm(const __half* a, const __half* b, float* d, int m, int n,
                                     int k, int a_stride, int b_stride) {
  extern __shared__ __align__(128) unsigned char shared[];
  Stage* const stages = reinterpret_cast<Stage*>(shared);
  const int first_m = blockIdx.y * kTile, first_n = blockIdx.x * kTile;
  const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const unsigned warp_m = warp / 2 * 32, warp_n = warp % 2 * 32;  // each warp: 32 x 32
  const int slices = (k + kDepth - 1) / kDepth;

  const auto begin_slice = [&](int slice) {
#ifdef LEAVES_COPIES_OPEN
    const bool there = true;  // copies beyond the end, for which nobody waits
#else
    const bool there = slice < slices;
#endif
    if (there) {
      Stage& stage = stages[slice % kStages];
      copy_tile<kTile, kDepth>(stage.a, a, first_m, m, slice * kDepth, k, a_stride);
      if (kTransposed) {
        copy_tile<kTile, kDepth>(stage.b, b, first_n, n, slice * kDepth, k, b_stride);
      } else {
        copy_tile<kDepth, kTile>(stage.b, b, slice * kDepth, k, first_n, n, b_stride);
      }
    }
    ptx::cp_async_commit();  // empty beyond the end, so that the count of groups stays
  };

  float sums[2][4][4] = {};
  for (int slice = 0; slice < kStages - 1; ++slice) begin_slice(slice);
  for (int slice = 0; slice < slices; ++slice) {
#ifdef WAITS_ONE_GROUP_SHORT
    ptx::cp_async_wait<kStages - 1>();
#else
    ptx::cp_async_wait<kStages - 2>();  // this slice has arrived,
#endif
#ifndef MISSING_RING_BARRIER
    __syncthreads();  // everybody's part of it; and all have left the buffer that is filled next
#endif
    begin_slice(slice + kStages - 1);
    const Stage& stage = stages[slice % kStages];
#pragma unroll
    for (int step = 0; step < kDepth / 16; ++step) {
      uint32_t a_tiles[2][4], b_tiles[2][4];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        // Tiles: upper left, lower left, upper right, lower right.
        const unsigned row = warp_m + i * 16 + lane % 16, chunk = step * 2 + lane / 16;
        ptx::ldmatrix_x4(a_tiles[i], stage.a + in_narrow_tile(row, chunk));
      }
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        // Tiles: k 0-7 and k 8-15 of the first eight columns, then of the next eight.
        const unsigned group = lane / 8, within = lane % 8;
        if (kTransposed) {
          const unsigned row = warp_n + j * 16 + group / 2 * 8 + within,
                         chunk = step * 2 + group % 2;
          ptx::ldmatrix_x4(b_tiles[j], stage.b + in_narrow_tile(row, chunk));
        } else {
          const unsigned row = step * 16 + group % 2 * 8 + within;
          const unsigned chunk = warp_n / 8 + j * 2 + group / 2;
          ptx::ldmatrix_x4_trans(b_tiles[j], stage.b + in_wide_tile(row, chunk));
        }
      }
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          ptx::mma_m16n8k16_f16(sums[i][j], a_tiles[i], b_tiles[j / 2][j % 2 * 2],
                                b_tiles[j / 2][j % 2 * 2 + 1]);
        }
      }
    }
  }
#ifndef LEAVES_COPIES_OPEN
  ptx::cp_async_wait<0>();
#endif

#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int row = first_m + warp_m + i * 16 + lane / 4 + e / 2 * 8;
        const int column = first_n + warp_n + j * 8 + lane % 4 * 2 + e % 2;
        if (row < m && column < n) d[static_cast<size_t>(row) * n + column] = sums[i][j][e];
      }
    }
  }
}

}  // namespace

// Grid: (ceil(N / 64), ceil(M / 64)), 128 threads, kStages * 8 KB of dynamic shared memory. Strides
// count elements and are multiples of 8.
extern "C" __global__ void __launch_bounds__(kThreads)
    gemm_nt(const __half* __restrict__ a, const __half* __restrict__ b, float* __restrict__ d,
            int m, int n, int k, int a_stride, int b_stride) {
  gemm<true>(a, b, d, m, n, k, a_stride, b_stride);
}

extern "C" __global__ void __launch_bounds__(kThreads)
    gemm_nn(const __half* __restrict__ a, const __half* __restrict__ b, float* __restrict__ d,
            int m, int n, int k, int a_stride, int b_stride) {
  gemm<false>(a, b, d, m, n, k, a_stride, b_stride);
}
