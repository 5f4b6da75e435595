// What all tables must do alike when they quantize activations. Internal linkage for the reason
// given in scalar.h.
#pragma once

#include <cstdint>
#include <cstring>

#include "cpu/kernels.h"
#include "cpu/scalar.h"

namespace altiplano::cpu {
namespace {

// Larger magnitudes count as not finite, and scales are not smaller than kLeastScale: the product
// with the scale of a group of weights, an f16, is then a normal f32, or 0.
constexpr float kMostActivation = 0x1p90f;
constexpr float kLeastScale = 0x1p-96f;

// The scale of a group of activations whose largest magnitude is `most`: the least power of two of
// which that is at most 127.
inline float activation_scale(float most, bool finite) {
  if (!finite) return __builtin_nanf("");
  if (most <= 127.f * kLeastScale) return kLeastScale;
  uint32_t bits;
  memcpy(&bits, &most, sizeof(bits));
  // 127 is 2^6 times 1.984375, whose mantissa is 0x7e0000: with a larger one the next power is due.
  bits = ((bits + 0x01ffff) & 0xff800000u) - (6u << 23);
  float scale;
  memcpy(&scale, &bits, sizeof(scale));
  return scale;
}

// All of a group but its codes, whose sum is `sum`.
inline void finish_group(ActivationGroup* group, float scale, int32_t sum) {
  group->origin = kOrigin * scale;
  int32_t bits;
  memcpy(&bits, &group->origin, sizeof(bits));
  group->sum = sum;
  group->int4_start = bits - kInt4DefaultZero * sum;
  group->int8_start = bits - 128 * sum;
}

// Of the first group of a row with numbers that are not finite.
inline void make_nan(ActivationGroup* group) { group->origin = __builtin_nanf(""); }

}  // namespace
}  // namespace altiplano::cpu
