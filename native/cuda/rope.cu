// Rotary positions, and keys and values to their places in the paged cache. The pairs are
// (i, i + head_dim / 2); cos and sin come from a table that the host made in float64.
//
// In int8 a key or a value of one head has the scale (largest magnitude) / 127, NaN if one of its
// numbers is not finite, and the codes round(x / scale), ties to even: docs/weight-formats.md.
#include "cuda/kv_element.cuh"
#include "cuda/reduce.cuh"

namespace altiplano::cuda {

// The scale of a head whose lanes hold `largest` magnitudes, as the bits of an f32 without the
// sign. As integers these order NaN above infinity above all finite numbers.
__device__ inline float kv_scale(uint32_t largest) {
  largest = reduce_warp(largest, [](uint32_t a, uint32_t b) { return a > b ? a : b; });
  return largest >= 0x7f800000u ? __uint_as_float(0x7fc00000u) : __uint_as_float(largest) / 127.0f;
}

__device__ inline uint32_t magnitude_bits(float x) { return __float_as_uint(x) & 0x7fffffffu; }

__device__ inline int8_t kv_code(float x, float scale) {
  if (!(scale > 0.0f)) return 0;  // a head of zeros, or NaN
  return static_cast<int8_t>(fminf(fmaxf(rintf(x / scale), -127.0f), 127.0f));
}

// Stores value(i), i < head_dim, as a key or value; one warp. `scale` is where its scale goes.
template <class Value>
__device__ void store(float* to, float*, int head_dim, const Value& value) {
  for (int i = threadIdx.x; i < head_dim; i += 32) to[i] = value(i);
}

template <class Value>
__device__ void store(__half* to, float*, int head_dim, const Value& value) {
  for (int i = threadIdx.x; i < head_dim; i += 32) to[i] = __float2half_rn(value(i));
}

template <class Value>
__device__ void store(int8_t* to, float* scale, int head_dim, const Value& value) {
  uint32_t largest = 0;
  for (int i = threadIdx.x; i < head_dim; i += 32) {
    const uint32_t magnitude = magnitude_bits(value(i));
    largest = magnitude > largest ? magnitude : largest;
  }
  const float s = kv_scale(largest);
  for (int i = threadIdx.x; i < head_dim; i += 32) to[i] = kv_code(value(i), s);
  if (threadIdx.x == 0) *scale = s;
}

// One warp per token (blockIdx.x) and head (blockIdx.y * blockDim.y + threadIdx.y): query heads
// first, which are rotated in place, then KV heads, whose key and value are stored.
// qkv [T][stride], positions, slots [T], rotations [max positions][head_dim / 2] as (cos, sin),
// layer_pages [pages][kv_heads][kv_head_bytes]
template <class Element>
__device__ void rope_and_store(__half* qkv, int32_t stride, int32_t heads, int32_t kv_heads,
                               int32_t head_dim, const int32_t* positions, const int32_t* slots,
                               const float2* rotations, uint8_t* layer_pages, int64_t head_bytes) {
  const int64_t t = blockIdx.x;
  const int head = blockIdx.y * blockDim.y + threadIdx.y;
  if (head >= heads + kv_heads) return;
  const int half = head_dim / 2;
  const float2* rotation = rotations + static_cast<int64_t>(positions[t]) * half;
  __half* row = qkv + t * stride + static_cast<int64_t>(head) * head_dim;  // q, or k behind it
  if (head < heads) {
    for (int i = threadIdx.x; i < half; i += 32) {
      const float a = __half2float(row[i]), b = __half2float(row[i + half]);
      const float2 r = rotation[i];
      row[i] = __float2half_rn(a * r.x - b * r.y);
      row[i + half] = __float2half_rn(b * r.x + a * r.y);
    }
    return;
  }
  if (slots[t] < 0) return;  // a token that only pads the step
  const int kv_head = head - heads;
  const int32_t page = slots[t] / kKvPageTokens, offset = slots[t] % kKvPageTokens;
  const KvHead<Element> cache(
      layer_pages + (static_cast<int64_t>(page) * kv_heads + kv_head) * head_bytes, head_dim);
  store(cache.k + offset * head_dim, cache.k_scales + offset, head_dim, [&](int i) {
    const bool low = i < half;
    const float2 r = rotation[low ? i : i - half];
    const float self = __half2float(row[i]);
    const float other = __half2float(row[low ? i + half : i - half]);
    return low ? self * r.x - other * r.y : self * r.x + other * r.y;
  });
  const __half* value = row + static_cast<int64_t>(kv_heads) * head_dim;
  store(cache.v + offset * head_dim, cache.v_scales + offset, head_dim,
        [&](int i) { return __half2float(value[i]); });
}

extern "C" __global__ void rope_f32(__half* qkv, int32_t stride, int32_t heads, int32_t kv_heads,
                                    int32_t head_dim, const int32_t* positions,
                                    const int32_t* slots, const float2* rotations,
                                    uint8_t* layer_pages, int64_t head_bytes) {
  rope_and_store<float>(qkv, stride, heads, kv_heads, head_dim, positions, slots, rotations,
                        layer_pages, head_bytes);
}

extern "C" __global__ void rope_f16(__half* qkv, int32_t stride, int32_t heads, int32_t kv_heads,
                                    int32_t head_dim, const int32_t* positions,
                                    const int32_t* slots, const float2* rotations,
                                    uint8_t* layer_pages, int64_t head_bytes) {
  rope_and_store<__half>(qkv, stride, heads, kv_heads, head_dim, positions, slots, rotations,
                         layer_pages, head_bytes);
}

extern "C" __global__ void rope_int8(__half* qkv, int32_t stride, int32_t heads, int32_t kv_heads,
                                     int32_t head_dim, const int32_t* positions,
                                     const int32_t* slots, const float2* rotations,
                                     uint8_t* layer_pages, int64_t head_bytes) {
  rope_and_store<int8_t>(qkv, stride, heads, kv_heads, head_dim, positions, slots, rotations,
                         layer_pages, head_bytes);
}

}  // namespace altiplano::cuda
