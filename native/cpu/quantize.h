// How a group of weights chooses its scale and codes by rounding to nearest: shared by all tables,
// so that they give the same bits. int4 goes on from there (int4_search.h). Internal linkage for
// the reason given in scalar.h.
#pragma once

#include "cpu/scalar.h"
#include "util/weight_format.h"

namespace altiplano::cpu {
namespace {

// code(x) = round(clamp(x * inverse, low, high)) + zero, ties to even, and NaN counts as 0.
struct GroupCodes {
  uint16_t scale;  // f16 bits
  float inverse;   // 1 / scale, 0 if the scale is 0
  float low, high;
  int zero;
};

// The f16 bits of a scale, range / steps, finite. Rounding a small scale to f16 may lose so much
// that the range is cut off; then the next larger f16 is taken. So no weight is cut off by more
// than an eighth of a step, unless the scale is the largest f16.
inline uint16_t finite_scale(float range, float steps) {
  uint16_t bits = f32_to_f16_one(range / steps);
  if (bits >= 0x7bff) return 0x7bff;
  if (f16_to_f32_one(bits) * (steps + 0.125f) < range) ++bits;
  return bits;
}

// low <= 0 <= high: the least and the greatest weight of the group (0 if beyond).
inline GroupCodes choose_codes(WeightFormat format, float low, float high) {
  const bool int4 = format.type == WeightType::kInt4;
  GroupCodes codes{};
  float least_code, greatest_code;
  if (format.zero_points) {
    least_code = int4 ? 0.f : -128.f;
    greatest_code = int4 ? 15.f : 127.f;
    codes.scale = finite_scale(high - low, int4 ? 15.f : 255.f);
  } else if (int4) {
    // Codes reach from -8 to 7, so the weight of the largest magnitude becomes -8 and gives the
    // scale its sign, as in GGUF's Q4_0.
    least_code = 0.f;
    greatest_code = 15.f;
    codes.scale = finite_scale(-low > high ? -low : high, 8.f);
    if (-low < high) codes.scale |= 0x8000;
    codes.zero = kInt4DefaultZero;
  } else {
    least_code = -127.f;
    greatest_code = 127.f;
    codes.scale = finite_scale(-low > high ? -low : high, 127.f);
  }
  const float scale = f16_to_f32_one(codes.scale);
  codes.inverse = scale == 0.f ? 0.f : 1.f / scale;
  if (format.zero_points) {
    float zero = least_code - low * codes.inverse;
    if (!(zero > least_code)) zero = least_code;
    if (zero > greatest_code) zero = greatest_code;
    codes.zero = static_cast<int>((zero + 0x1.8p23f) - 0x1.8p23f);  // to nearest even
  }
  codes.low = least_code - static_cast<float>(codes.zero);
  codes.high = greatest_code - static_cast<float>(codes.zero);
  return codes;
}

inline int code_of(float x, const GroupCodes& codes) {
  float v = x * codes.inverse;
  v = v == v ? v : 0.f;
  v = v > codes.low ? v : codes.low;
  v = v < codes.high ? v : codes.high;
  return static_cast<int>((v + 0x1.8p23f) - 0x1.8p23f) + codes.zero;
}

}  // namespace
}  // namespace altiplano::cpu
