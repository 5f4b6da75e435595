// out = x / sqrt(mean(x^2) + eps) * weight. The residual stream x is f32, the result is f16: it
// goes into a matmul.
//
// One block per token. A row of up to kHeldCols numbers (70B has 8,192) is read once, four numbers
// at a time, and stays in registers: all of a thread's loads are under way together, where a loop
// over memory would wait for each. Other rows go through such a loop.
#include <cuda_fp16.h>

#include "cuda/reduce.cuh"

namespace altiplano::cuda {

constexpr int kThreads = 256;  // operations.cc has the same
constexpr int kQuads = 8;      // of a thread
constexpr int kHeldCols = kThreads * kQuads * 4;

__device__ inline float sum(float a, float b) { return a + b; }

__device__ inline float inverse_root(float squares, int32_t cols, float eps, float* parts) {
  return 1.0f / sqrtf(reduce_block(squares, parts, sum) / static_cast<float>(cols) + eps);
}

// x, weight [cols]. Columns are a multiple of 4, at most kHeldCols.
__device__ void normalize_held(const float* x, const float* weight, float eps, int32_t cols,
                               __half* out, float* parts) {
  float4 v[kQuads], w[kQuads];
  float squares = 0;
#pragma unroll
  for (int i = 0; i < kQuads; ++i) {
    const int col = (i * kThreads + threadIdx.x) * 4;
    v[i] = col < cols ? *reinterpret_cast<const float4*>(x + col) : float4{};
    w[i] = col < cols ? *reinterpret_cast<const float4*>(weight + col) : float4{};
  }
#pragma unroll
  for (int i = 0; i < kQuads; ++i) {
    squares += v[i].x * v[i].x + v[i].y * v[i].y + v[i].z * v[i].z + v[i].w * v[i].w;
  }
  const float inverse = inverse_root(squares, cols, eps, parts);
#pragma unroll
  for (int i = 0; i < kQuads; ++i) {
    const int col = (i * kThreads + threadIdx.x) * 4;
    if (col >= cols) break;
    const __half2 low = __floats2half2_rn(v[i].x * inverse * w[i].x, v[i].y * inverse * w[i].y);
    const __half2 high = __floats2half2_rn(v[i].z * inverse * w[i].z, v[i].w * inverse * w[i].w);
    *reinterpret_cast<uint2*>(out + col) = {reinterpret_cast<const uint32_t&>(low),
                                            reinterpret_cast<const uint32_t&>(high)};
  }
}

// The same for any number of columns.
__device__ void normalize(const float* x, const float* weight, float eps, int32_t cols, __half* out,
                          float* parts) {
  float squares = 0;
  for (int col = threadIdx.x; col < cols; col += kThreads) squares += x[col] * x[col];
  const float inverse = inverse_root(squares, cols, eps, parts);
  for (int col = threadIdx.x; col < cols; col += kThreads) {
    out[col] = __float2half_rn(x[col] * inverse * weight[col]);
  }
}

// x [T][x_stride], weight [cols], out [T][out_stride]; rows begin at multiples of 16 bytes.
extern "C" __global__ void __launch_bounds__(kThreads)
    rmsnorm(const float* x, int64_t x_stride, const float* weight, float eps, int32_t cols,
            __half* out, int64_t out_stride) {
  __shared__ float parts[32];
  const int64_t t = blockIdx.x;
  if (cols % 4 == 0 && cols <= kHeldCols) {
    normalize_held(x + t * x_stride, weight, eps, cols, out + t * out_stride, parts);
  } else {
    normalize(x + t * x_stride, weight, eps, cols, out + t * out_stride, parts);
  }
}

}  // namespace altiplano::cuda
