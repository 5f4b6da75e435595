// Activations in kernels: f16, or bf16 in a model whose matrices are bf16 (util/activation_type.h).
// Kernels are templates of their element, __half or __nv_bfloat16, and differ in what stands here.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "cuda/ptx.cuh"

namespace altiplano::cuda {

template <class Element>
inline constexpr bool kIsBf16 = std::is_same_v<Element, __nv_bfloat16>;

__device__ inline float to_float(__half x) { return __half2float(x); }
__device__ inline float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

// To the nearest, ties to even. Element may be float, too.
template <class Element>
__device__ inline Element from_float(float x) {
  if constexpr (kIsBf16<Element>) {
    return __float2bfloat16_rn(x);
  } else if constexpr (std::is_same_v<Element, __half>) {
    return __float2half_rn(x);
  } else {
    return x;
  }
}

// Two neighbours in a register, the first in the low half.
template <class Element>
__device__ inline uint32_t pack_pair(float low, float high) {
  if constexpr (kIsBf16<Element>) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return reinterpret_cast<const uint32_t&>(pair);
  } else {
    const __half2 pair = __floats2half2_rn(low, high);
    return reinterpret_cast<const uint32_t&>(pair);
  }
}

// d[16][8] += a[16][16] b[16][8] in f32
template <class Element>
__device__ inline void mma_16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if constexpr (kIsBf16<Element>) {
    mma_bf16(d, a, b0, b1);
  } else {
    mma_f16(d, a, b0, b1);
  }
}

}  // namespace altiplano::cuda
