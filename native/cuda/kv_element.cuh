// Numbers of the KV cache: how they lie in a page, and what they are as floats.
#pragma once

#include <type_traits>

#include "cuda/activation_element.cuh"
#include "cuda/kv_page.h"

namespace altiplano::cuda {

// Keys and values of one KV head in a page. Element is float, __half, __nv_bfloat16 or int8_t, or
// const.
template <class Element>
struct KvHead {
  template <class T>
  using Like = std::conditional_t<std::is_const_v<Element>, const T, T>;
  Element* k;             // [kKvPageTokens][head_dim]
  Element* v;             // [kKvPageTokens][head_dim]
  Like<float>* k_scales;  // [kKvPageTokens]; int8 only
  Like<float>* v_scales;

  __device__ KvHead(Like<uint8_t>* head, int head_dim)
      : k(reinterpret_cast<Element*>(head)),
        v(k + kKvPageTokens * head_dim),
        k_scales(reinterpret_cast<Like<float>*>(v + kKvPageTokens * head_dim)),
        v_scales(k_scales + kKvPageTokens) {}
};

// The size of a number as the bits of an f32 without the sign. As integers these order NaN above
// infinity above all finite numbers.
__device__ inline uint32_t magnitude_bits(float x) { return __float_as_uint(x) & 0x7fffffffu; }

// The scale of an int8 head with this largest magnitude.
__device__ inline float kv_scale(uint32_t largest) {
  return largest >= 0x7f800000u ? __uint_as_float(0x7fc00000u) : __uint_as_float(largest) / 127.0f;
}

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(int8_t x) { return static_cast<float>(x); }

}  // namespace altiplano::cuda
