// out = x / sqrt(mean(x^2) + eps) * weight, and the same after x += y. The residual stream x is
// f32, the result is f16: it goes into a matmul.
#include <cuda_fp16.h>

#include "cuda/reduce.cuh"

namespace altiplano::cuda {

// One block per token.
// x [T][cols], weight [cols], out [T][out_stride]
extern "C" __global__ void rmsnorm(const float* x, const float* weight, float eps, int32_t cols,
                                   __half* out, int32_t out_stride) {
  __shared__ float parts[32];
  const int64_t t = blockIdx.x;
  float squares = 0;
  for (int col = threadIdx.x; col < cols; col += blockDim.x) {
    const float v = x[t * cols + col];
    squares += v * v;
  }
  squares = reduce_block(squares, parts, [](float a, float b) { return a + b; });
  const float inverse = 1.0f / sqrtf(squares / static_cast<float>(cols) + eps);
  for (int col = threadIdx.x; col < cols; col += blockDim.x) {
    out[t * out_stride + col] = __float2half_rn(x[t * cols + col] * inverse * weight[col]);
  }
}

// One block per token. Each thread reads again only what it wrote itself.
// x, y [T][cols], weight [cols], out [T][out_stride]
extern "C" __global__ void add_rmsnorm(float* x, const float* y, const float* weight, float eps,
                                       int32_t cols, __half* out, int32_t out_stride) {
  __shared__ float parts[32];
  const int64_t t = blockIdx.x;
  float squares = 0;
  for (int col = threadIdx.x; col < cols; col += blockDim.x) {
    const float v = x[t * cols + col] + y[t * cols + col];
    x[t * cols + col] = v;
    squares += v * v;
  }
  squares = reduce_block(squares, parts, [](float a, float b) { return a + b; });
  const float inverse = 1.0f / sqrtf(squares / static_cast<float>(cols) + eps);
  for (int col = threadIdx.x; col < cols; col += blockDim.x) {
    out[t * out_stride + col] = __float2half_rn(x[t * cols + col] * inverse * weight[col]);
  }
}

}  // namespace altiplano::cuda
