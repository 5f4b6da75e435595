// y[row] = x[row] / sqrt(mean(x[row]^2) + epsilon) * weight: a block per row, sums in f32. Rows
// whose length suits are read 16 bytes at a time.
#include "ptx.cuh"
#include "reduce.cuh"

namespace {

constexpr int kMostWarps = 32;

__device__ float to_float(float x) { return x; }
__device__ float to_float(__half x) { return __half2float(x); }
__device__ void store(float* to, float x) { *to = x; }
__device__ void store(__half* to, float x) { *to = __float2half_rn(x); }

// As many elements as 16 bytes hold.
template <class T>
struct alignas(16) Pack {
  static constexpr int kCount = 16 / sizeof(T);
  T elements[kCount];
};

template <class T>
__device__ void rmsnorm(const T* x, const T* weight, T* y, int length, float epsilon) {
  __shared__ float scratch[kMostWarps];
  x += static_cast<size_t>(blockIdx.x) * length;
  y += static_cast<size_t>(blockIdx.x) * length;
  using P = Pack<T>;
#ifdef MISALIGNED_PACKS
  const int packs = length / P::kCount;
#else
  const int packs = length % P::kCount == 0 ? length / P::kCount : 0;
#endif
  const P* const x_packs = reinterpret_cast<const P*>(x);
  const P* const weight_packs = reinterpret_cast<const P*>(weight);
  P* const y_packs = reinterpret_cast<P*>(y);

  float sum = 0.f;
  for (int i = threadIdx.x; i < packs; i += blockDim.x) {
    const P pack = x_packs[i];
    for (int j = 0; j < P::kCount; ++j) {
      const float v = to_float(pack.elements[j]);
      sum = fmaf(v, v, sum);
    }
  }
  for (int i = packs * P::kCount + threadIdx.x; i < length; i += blockDim.x) {
    const float v = to_float(x[i]);
    sum = fmaf(v, v, sum);
  }
  sum = reduce::over_block<reduce::Sum>(sum, scratch);
  const float scale = ptx::rsqrt_approximate(sum / static_cast<float>(length) + epsilon);

  for (int i = threadIdx.x; i < packs; i += blockDim.x) {
    const P pack = x_packs[i], weights = weight_packs[i];
    P result;
    for (int j = 0; j < P::kCount; ++j) {
      store(&result.elements[j],
            to_float(pack.elements[j]) * scale * to_float(weights.elements[j]));
    }
    y_packs[i] = result;
  }
  for (int i = packs * P::kCount + threadIdx.x; i < length; i += blockDim.x) {
    store(&y[i], to_float(x[i]) * scale * to_float(weight[i]));
  }
}

}  // namespace

// x, y: [gridDim.x][length]; weight: [length]
extern "C" __global__ void __launch_bounds__(1024)
    rmsnorm_f32(const float* __restrict__ x, const float* __restrict__ weight,
                float* __restrict__ y, int length, float epsilon) {
  rmsnorm(x, weight, y, length, epsilon);
}

extern "C" __global__ void __launch_bounds__(1024)
    rmsnorm_f16(const __half* __restrict__ x, const __half* __restrict__ weight,
                __half* __restrict__ y, int length, float epsilon) {
  rmsnorm(x, weight, y, length, epsilon);
}
