// out = x / sqrt(mean(x^2) + eps) * weight. The residual stream x is f32. The result goes into a
// matmul, which takes f16, bf16, or int8 with a scale per token.
//
// One block per token. A row of up to kHeldCols numbers (70B has 8,192) is read once, four numbers
// at a time, and stays in registers: all of a thread's loads are under way together, where a loop
// over memory would wait for each. Other rows go through such a loop.
//
// int8: the root divides a whole row, so that codes come from x * weight alone, and it is a factor
// of the scale: squares and largest magnitude are reduced together. Beside rounding the result to
// f16 first this saves a rounding, and numbers that f16 has not.
#include "cuda/activation_element.cuh"
#include "cuda/int8_codes.cuh"
#include "cuda/reduce.cuh"

namespace altiplano::cuda {

constexpr int kThreads = 256;  // operations.cc has the same
constexpr int kWarps = kThreads / 32;
constexpr int kQuads = 8;  // of a thread
constexpr int kHeldCols = kThreads * kQuads * 4;

__device__ inline float sum(float a, float b) { return a + b; }
__device__ inline float inverse_root(float squares, int32_t cols, float eps) {
  return 1.0f / sqrtf(squares / static_cast<float>(cols) + eps);
}
__device__ inline float dot(float4 a, float4 b) {
  return a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w;
}

__device__ inline int column(int quad) { return (quad * kThreads + threadIdx.x) * 4; }
// Columns are a multiple of 4, at most kHeldCols; those behind are zeros.
__device__ inline void load_row(const float* row, int32_t cols, float4 (&v)[kQuads]) {
#pragma unroll
  for (int i = 0; i < kQuads; ++i) {
    const int col = column(i);
    v[i] = col < cols ? *reinterpret_cast<const float4*>(row + col) : float4{};
  }
}
__device__ inline bool is_held(int32_t cols) { return cols % 4 == 0 && cols <= kHeldCols; }

// x [T][x_stride], weight [cols], out [T][out_stride]; rows begin at multiples of 16 bytes.
template <class Activation>
__device__ void normalize_row(const float* x, int64_t x_stride, const float* weight, float eps,
                              int32_t cols, Activation* out, int64_t out_stride) {
  __shared__ float parts[kWarps];
  const int64_t t = blockIdx.x;
  x += t * x_stride;
  out += t * out_stride;
  float squares = 0;
  if (is_held(cols)) {
    float4 v[kQuads], w[kQuads];
    load_row(x, cols, v);
    load_row(weight, cols, w);
#pragma unroll
    for (int i = 0; i < kQuads; ++i) squares += dot(v[i], v[i]);
    const float inverse = inverse_root(reduce_block(squares, parts, sum), cols, eps);
#pragma unroll
    for (int i = 0; i < kQuads; ++i) {
      const int col = column(i);
      if (col >= cols) break;
      *reinterpret_cast<uint2*>(out + col) = {
          pack_pair<Activation>(v[i].x * inverse * w[i].x, v[i].y * inverse * w[i].y),
          pack_pair<Activation>(v[i].z * inverse * w[i].z, v[i].w * inverse * w[i].w)};
    }
  } else {
    for (int col = threadIdx.x; col < cols; col += kThreads) squares += x[col] * x[col];
    const float inverse = inverse_root(reduce_block(squares, parts, sum), cols, eps);
    for (int col = threadIdx.x; col < cols; col += kThreads) {
      out[col] = from_float<Activation>(x[col] * inverse * weight[col]);
    }
  }
}

extern "C" __global__ void __launch_bounds__(kThreads)
    rmsnorm_f16(const float* x, int64_t x_stride, const float* weight, float eps, int32_t cols,
                __half* out, int64_t out_stride) {
  normalize_row(x, x_stride, weight, eps, cols, out, out_stride);
}
extern "C" __global__ void __launch_bounds__(kThreads)
    rmsnorm_bf16(const float* x, int64_t x_stride, const float* weight, float eps, int32_t cols,
                 __nv_bfloat16* out, int64_t out_stride) {
  normalize_row(x, x_stride, weight, eps, cols, out, out_stride);
}

// Bits that order the magnitudes of f32: NaN is larger than infinity, infinity than numbers.
__device__ inline uint32_t magnitude(float v) { return __float_as_uint(v) & 0x7fffffffu; }

// What makes codes of x * weight, from the sums of squares of x and the largest magnitudes of
// x * weight that the threads of a block have found. Stores the scale of the normalised row.
__device__ inline float reduce_scale(float squares, uint32_t largest, int32_t cols, float eps,
                                     float* scale) {
  __shared__ float parts[kWarps];
  __shared__ uint32_t largest_of_warp[kWarps];
  largest = __reduce_max_sync(kAllLanes, largest);
  if (threadIdx.x % 32 == 0) largest_of_warp[threadIdx.x / 32] = largest;
  squares = reduce_block(squares, parts, sum);  // its barrier is that of the maxima, too
#pragma unroll
  for (const uint32_t of_warp : largest_of_warp) largest = max(largest, of_warp);
  const float most = __uint_as_float(largest);
  if (threadIdx.x == 0) *scale = most / 127.f * inverse_root(squares, cols, eps);
  return inverse_scale(most);
}

// codes [T][codes_stride], scales [T]
extern "C" __global__ void __launch_bounds__(kThreads)
    rmsnorm_int8(const float* x, int64_t x_stride, const float* weight, float eps, int32_t cols,
                 int8_t* codes, int64_t codes_stride, float* scales) {
  const int64_t t = blockIdx.x;
  x += t * x_stride;
  codes += t * codes_stride;
  float squares = 0;
  uint32_t largest = 0;
  if (is_held(cols)) {
    float4 v[kQuads], w[kQuads];
    load_row(x, cols, v);
    load_row(weight, cols, w);
#pragma unroll
    for (int i = 0; i < kQuads; ++i) {
      squares += dot(v[i], v[i]);
      largest = max(max(largest, max(magnitude(v[i].x * w[i].x), magnitude(v[i].y * w[i].y))),
                    max(magnitude(v[i].z * w[i].z), magnitude(v[i].w * w[i].w)));
    }
    const float inverse = reduce_scale(squares, largest, cols, eps, scales + t);
    // Not the products from above: with x and weight needed until here, the compiler sees no gain
    // in holding loads back.
#pragma unroll
    for (int i = 0; i < kQuads; ++i) {
      const int col = column(i);
      if (col >= cols) break;
      *reinterpret_cast<uint32_t*>(codes + col) =
          four_codes({v[i].x * inverse * w[i].x, v[i].y * inverse * w[i].y,
                      v[i].z * inverse * w[i].z, v[i].w * inverse * w[i].w});
    }
  } else {
    for (int col = threadIdx.x; col < cols; col += kThreads) {
      squares += x[col] * x[col];
      largest = max(largest, magnitude(x[col] * weight[col]));
    }
    const float inverse = reduce_scale(squares, largest, cols, eps, scales + t);
    for (int col = threadIdx.x; col < cols; col += kThreads) {
      codes[col] = static_cast<int8_t>(__float2int_rn(x[col] * inverse * weight[col]));
    }
  }
}

}  // namespace altiplano::cuda
