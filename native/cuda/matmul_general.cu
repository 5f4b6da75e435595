// y = x W^T from weights in canonical form, for any shape: the simple kernel that is right
// everywhere. A warp computes one output (for silu(gate) * up: two rows of W) for a few tokens: its
// lanes take columns in turn, and their sums are added at the end. So an output is one fixed chain
// of operations, whatever tokens are computed beside it.
#include "cuda/canonical.cuh"
#include "cuda/matmul_parameters.h"
#include "cuda/reduce.cuh"

namespace altiplano::cuda {

// The products of one row of W with kTokens tokens from `first` on; every lane gets them.
template <class Weights, int kTokens>
__device__ void products(const CanonicalView& w, int64_t row, const __half* x, int64_t x_stride,
                         int first, int tokens, float (&sums)[kTokens]) {
  for (float& sum : sums) sum = 0.0f;
  for (int64_t col = threadIdx.x % 32; col < w.cols; col += 32) {
    const float weight = Weights::at(w, row, col);
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      if (first + t < tokens) sums[t] += weight * __half2float(x[(first + t) * x_stride + col]);
    }
  }
  for (float& sum : sums) sum = reduce_warp(sum, [](float a, float b) { return a + b; });
}

// Outputs in blockIdx.x (one for each warp of the block), kTokens tokens in blockIdx.y.
// w [rows][cols], x [tokens][x_stride], y [tokens][y_stride] of the epilogue's type
template <class Weights, int kTokens>
__device__ void multiply(const CanonicalView& w, int64_t rows, const __half* x, int64_t x_stride,
                         int tokens, Epilogue epilogue, void* y, int64_t y_stride) {
  const int64_t outputs = epilogue == Epilogue::kSiluMulF16 ? rows / 2 : rows;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  if (row >= outputs) return;  // the whole warp
  const int first = blockIdx.y * kTokens;
  float sums[kTokens], ups[kTokens] = {};
  products<Weights, kTokens>(w, row, x, x_stride, first, tokens, sums);
  if (epilogue == Epilogue::kSiluMulF16) {
    products<Weights, kTokens>(w, outputs + row, x, x_stride, first, tokens, ups);
  }
  if (threadIdx.x % 32 != 0) return;
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
    if (first + t >= tokens) break;
    const int64_t at = (first + t) * y_stride + row;
    switch (epilogue) {
      case Epilogue::kStoreF16:
        static_cast<__half*>(y)[at] = __float2half_rn(sums[t]);
        break;
      case Epilogue::kStoreF32:
        static_cast<float*>(y)[at] = sums[t];
        break;
      case Epilogue::kAddF32:
        static_cast<float*>(y)[at] += sums[t];
        break;
      case Epilogue::kSiluMulF16:
        static_cast<__half*>(y)[at] = __float2half_rn(sums[t] / (1.0f + expf(-sums[t])) * ups[t]);
        break;
    }
  }
}

}  // namespace altiplano::cuda

// Kernels matmul_general_FORMAT_TOKENS.
#define ALTIPLANO_KERNEL(format, Weights, tokens_at_once)                                \
  extern "C" __global__ void matmul_general_##format##_##tokens_at_once(                 \
      altiplano::cuda::CanonicalView w, int64_t rows, const __half* x, int64_t x_stride, \
      int32_t tokens, altiplano::cuda::Epilogue epilogue, void* y, int64_t y_stride) {   \
    altiplano::cuda::multiply<altiplano::cuda::Weights, tokens_at_once>(                 \
        w, rows, x, x_stride, tokens, epilogue, y, y_stride);                            \
  }
#define ALTIPLANO_KERNELS(format, Weights) \
  ALTIPLANO_KERNEL(format, Weights, 1)     \
  ALTIPLANO_KERNEL(format, Weights, 8)

ALTIPLANO_KERNELS(f32, F32Weights)
ALTIPLANO_KERNELS(f16, F16Weights)
ALTIPLANO_KERNELS(bf16, BF16Weights)
ALTIPLANO_KERNELS(int8, Int8Weights)
ALTIPLANO_KERNELS(int4, Int4Weights)
