// Conversions of single numbers between f32, f16 and bf16, bit for bit what F16C does.
//
// Everything here and in layout.h has internal linkage: the header is compiled into files with
// different instruction sets, and a shared inline function could become the one copy that the
// linker keeps, with instructions that an older processor does not have.
#pragma once

#include <cstdint>
#include <cstring>

namespace altiplano::cpu {
namespace {

inline uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof(bits));
  return bits;
}

inline float float_of(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof(x));
  return x;
}

// Exact. Free of branches, so that compilers vectorise loops over it.
inline float f16_to_f32_one(uint16_t h) {
  const uint32_t magnitude = h & 0x7fffu;
  const uint32_t sign = (h & 0x8000u) << 16;
  // The exponent field is off by 127 - 15; a multiplication puts that right, denormals included.
  const uint32_t finite = bits_of(float_of(magnitude << 13) * 0x1p112f);
  const uint32_t quiet = magnitude > 0x7c00u ? 0x400000u : 0u;
  const uint32_t special = (magnitude << 13) | 0x7f800000u | quiet;
  return float_of(sign | (magnitude >= 0x7c00u ? special : finite));
}

// Rounds to nearest even; overflow gives infinity; NaN stays NaN, made quiet.
inline uint16_t f32_to_f16_one(float x) {
  const uint32_t bits = bits_of(x);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u | ((magnitude >> 13) & 0x3ffu);
  } else if (magnitude >= 0x477ff000u) {  // 65520 and above round to infinity
    half = 0x7c00u;
  } else if (magnitude >= 0x38800000u) {  // normal in f16
    const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
    half = (rounded - 0x38000000u) >> 13;
  } else {
    // Denormal in f16: one unit is 2^-24. Adding 0.5 puts that unit at the last bit of an f32, so
    // that the addition itself rounds to nearest even.
    half = bits_of(float_of(magnitude) + 0.5f) - 0x3f000000u;
  }
  return static_cast<uint16_t>(sign | half);
}

// A bf16 number among others: uint16_t stands for f16 where the type of an element decides.
struct Bf16 {
  uint16_t bits;
};

inline float bf16_to_f32_one(uint16_t h) { return float_of(static_cast<uint32_t>(h) << 16); }

// Rounds to nearest even; NaN stays NaN, made quiet.
inline uint16_t f32_to_bf16_one(float x) {
  const uint32_t bits = bits_of(x);
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return static_cast<uint16_t>(nan ? (bits >> 16) | 0x40u : rounded);
}

}  // namespace
}  // namespace altiplano::cpu
