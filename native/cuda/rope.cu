// Rotary positions, and keys and values to their places in the paged cache. The pairs are
// (i, i + head_dim / 2); cos and sin come from a table that the host made in float64.
//
// In int8 a key or a value of one head has the scale (largest magnitude) / 127, NaN if one of its
// numbers is not finite, and the codes round(x / scale), ties to even: docs/weight-formats.md.
#include "cuda/kv_element.cuh"
#include "cuda/reduce.cuh"
#include "cuda/rope_parameters.h"

namespace altiplano::cuda {

__device__ inline int8_t kv_code(float x, float scale) {
  if (!(scale > 0.0f)) return 0;  // a head of zeros, or NaN
  return static_cast<int8_t>(fminf(fmaxf(rintf(x / scale), -127.0f), 127.0f));
}

// Stores value(i), i < head_dim, as a key or value; one warp. `scale` is where its scale goes.
template <class Element, class Value>
__device__ void store(Element* to, float*, int head_dim, const Value& value) {
  for (int i = threadIdx.x; i < head_dim; i += 32) to[i] = from_float<Element>(value(i));
}

template <class Value>
__device__ void store(int8_t* to, float* scale, int head_dim, const Value& value) {
  uint32_t largest = 0;
  for (int i = threadIdx.x; i < head_dim; i += 32) {
    const uint32_t magnitude = magnitude_bits(value(i));
    largest = magnitude > largest ? magnitude : largest;
  }
  largest = reduce_warp(largest, [](uint32_t a, uint32_t b) { return a > b ? a : b; });
  const float s = kv_scale(largest);
  for (int i = threadIdx.x; i < head_dim; i += 32) to[i] = kv_code(value(i), s);
  if (threadIdx.x == 0) *scale = s;
}

// One warp per token (blockIdx.x) and head (blockIdx.y * blockDim.y + threadIdx.y): query heads
// first, which are rotated in place, then KV heads, whose key and value are stored.
// Of a token whose slot is below 0 nothing is stored.
template <class Activation, class Element>
__device__ void rope_and_store(const RopeParameters& p) {
  const int64_t t = blockIdx.x;
  const int head = blockIdx.y * blockDim.y + threadIdx.y;
  if (head >= p.heads + p.kv_heads) return;
  const int head_dim = p.head_dim, half = head_dim / 2;
  const float2* rotation =
      reinterpret_cast<const float2*>(p.rotations) + static_cast<int64_t>(p.positions[t]) * half;
  // q, or k behind it
  auto* row =
      static_cast<Activation*>(p.qkv) + t * p.stride + static_cast<int64_t>(head) * head_dim;
  if (head < p.heads) {
    for (int i = threadIdx.x; i < half; i += 32) {
      const float a = to_float(row[i]), b = to_float(row[i + half]);
      const float2 r = rotation[i];
      row[i] = from_float<Activation>(a * r.x - b * r.y);
      row[i + half] = from_float<Activation>(b * r.x + a * r.y);
    }
    return;
  }
  if (p.slots[t] < 0) return;  // a token that only pads the step
  const int kv_head = head - p.heads;
  const int32_t page = p.slots[t] / kKvPageTokens, offset = p.slots[t] % kKvPageTokens;
  const KvHead<Element> cache(
      p.pages + (static_cast<int64_t>(page) * p.kv_heads + kv_head) * p.head_bytes, head_dim);
  store(cache.k + offset * head_dim, cache.k_scales + offset, head_dim, [&](int i) {
    const bool low = i < half;
    const float2 r = rotation[low ? i : i - half];
    const float self = to_float(row[i]);
    const float other = to_float(row[low ? i + half : i - half]);
    return low ? self * r.x - other * r.y : self * r.x + other * r.y;
  });
  const Activation* value = row + static_cast<int64_t>(p.kv_heads) * head_dim;
  store(cache.v + offset * head_dim, cache.v_scales + offset, head_dim,
        [&](int i) { return to_float(value[i]); });
}

extern "C" __global__ void rope_f16_kv_f32(const __grid_constant__ RopeParameters p) {
  rope_and_store<__half, float>(p);
}
extern "C" __global__ void rope_f16_kv_f16(const __grid_constant__ RopeParameters p) {
  rope_and_store<__half, __half>(p);
}
extern "C" __global__ void rope_f16_kv_int8(const __grid_constant__ RopeParameters p) {
  rope_and_store<__half, int8_t>(p);
}
extern "C" __global__ void rope_f16_kv_bf16(const __grid_constant__ RopeParameters p) {
  rope_and_store<__half, __nv_bfloat16>(p);
}
extern "C" __global__ void rope_bf16_kv_f32(const __grid_constant__ RopeParameters p) {
  rope_and_store<__nv_bfloat16, float>(p);
}
extern "C" __global__ void rope_bf16_kv_f16(const __grid_constant__ RopeParameters p) {
  rope_and_store<__nv_bfloat16, __half>(p);
}
extern "C" __global__ void rope_bf16_kv_int8(const __grid_constant__ RopeParameters p) {
  rope_and_store<__nv_bfloat16, int8_t>(p);
}
extern "C" __global__ void rope_bf16_kv_bf16(const __grid_constant__ RopeParameters p) {
  rope_and_store<__nv_bfloat16, __nv_bfloat16>(p);
}

}  // namespace altiplano::cuda
