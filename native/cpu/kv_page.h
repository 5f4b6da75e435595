// A page of the KV cache, on the CPU: where keys, values and scales of one KV head lie, and what a
// number becomes in int8. Internal linkage for the reason given in scalar.h.
//
//   K [head_dim][kKvPageTokens]   transposed, so that scores of many keys are one vector
//   V [kKvPageTokens][head_dim]
//   int8 only: scales of K [kKvPageTokens], of V [kKvPageTokens], f32
#pragma once

#include "cpu/kernels.h"
#include "cpu/scalar.h"

namespace altiplano::cpu {
namespace {

// Bytes of K and V without scales.
inline size_t kv_elements_bytes(KvType type, int head_dim) {
  const size_t element_bytes = type == KvType::kF32 ? 4 : type == KvType::kInt8 ? 1 : 2;
  return size_t{2} * kKvPageTokens * head_dim * element_bytes;
}

// A page as attention reads it; Element is float, uint16_t (f16), Bf16 or int8_t.
template <class Element>
struct KvPage {
  const Element* k;
  const Element* v;
  const float* k_scales;  // null without scales
  const float* v_scales;

  KvPage(const uint8_t* page, int head_dim)
      : k(reinterpret_cast<const Element*>(page)), v(k + head_dim * kKvPageTokens) {
    constexpr bool kScaled = sizeof(Element) == 1;
    k_scales = kScaled ? reinterpret_cast<const float*>(v + head_dim * kKvPageTokens) : nullptr;
    v_scales = kScaled ? k_scales + kKvPageTokens : nullptr;
  }
};

// The scale of a key or value in int8: its largest magnitude, given as the bits of an f32 without
// the sign, is code 127. As integers these bits order NaN above infinity above all finite numbers:
// a vector that has either gets the scale NaN, so that whatever is computed from it shows it.
inline float kv_scale(uint32_t largest_bits) {
  if (largest_bits >= 0x7f800000u) return float_of(0x7fc00000u);
  return float_of(largest_bits) / 127.f;
}

// round(x / scale), ties to even, in -127 .. 127; 0 if the scale is 0 or NaN. The quotient is at
// most 127 and a rounding; but where the scale is below f32's normal numbers its own rounding may
// push it up to 190.
inline int8_t kv_code(float x, float scale) {
  if (!(scale > 0)) return 0;
  constexpr float kToInteger = 0x1.8p23f;  // neighbouring numbers are integers from here on
  const float code = (x / scale + kToInteger) - kToInteger;
  return static_cast<int8_t>(code < -127.f ? -127.f : code > 127.f ? 127.f : code);
}

}  // namespace
}  // namespace altiplano::cpu
