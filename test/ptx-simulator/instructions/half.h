// f16 and bf16 as bits in the low half of a 32-bit value: their values, and rounding to them. A NaN
// becomes some NaN in value() and the canonical one in round().
// Written without branches, so that loops over lanes become vector code.
#pragma once

#include <bit>
#include <cstdint>

namespace ptx_simulator {

inline constexpr uint32_t kNan32 = 0x7fffffff;  // the NaNs that PTX instructions produce
inline constexpr uint32_t kNan16 = 0x7fff;      // of f16 and of bf16

// A format of 16 bits. Wide is a type that holds a product and a sum exactly enough: see half.cc.
struct F16 {
  static constexpr uint32_t kInfinity = 0x7c00;
  static constexpr uint32_t kOne = 0x3c00;
  using Wide = float;
  static float value(uint32_t h) {
    const uint32_t magnitude = (h & 0x7fff) << 13;
    // With the exponent's field moved, only the bias is wrong; exact for subnormals too.
    const uint32_t scaled = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112f);
    const uint32_t finite = scaled | (h & 0x8000) << 16;
    const uint32_t special = 0x7f800000 | (h & 0x3ff) << 13 | (h & 0x8000) << 16;
    const uint32_t bits = (h & 0x7fff) < kInfinity ? finite : special;
    return std::bit_cast<float>(bits);
  }
  // The nearest, ties to even.
  static uint32_t round(float x) {
    const uint32_t bits = std::bit_cast<uint32_t>(x), magnitude = bits & 0x7fffffff;
    // Normal results: drop 13 bits with the carry of rounding, and correct the bias (127 to 15).
    const uint32_t normal = (magnitude - (112u << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13;
    // Subnormal results: 0.5f has the unit 2^-24 of f16's subnormals, so the sum rounds to it.
    const uint32_t small = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) -
                           std::bit_cast<uint32_t>(0.5f);
    const uint32_t finite = magnitude < 0x38800000 ? small : normal;      // 2^-14
    const uint32_t result = magnitude < 0x47800000 ? finite : kInfinity;  // 2^16
    return magnitude > 0x7f800000 ? kNan16 : result | (bits >> 16 & 0x8000);
  }
};

struct Bf16 {
  static constexpr uint32_t kInfinity = 0x7f80;
  static constexpr uint32_t kOne = 0x3f80;
  using Wide = double;
  static float value(uint32_t h) { return std::bit_cast<float>(h << 16); }
  static uint32_t round(float x) {
    const uint32_t bits = std::bit_cast<uint32_t>(x);
    const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return (bits & 0x7fffffff) > 0x7f800000 ? kNan16 : rounded;
  }
};

}  // namespace ptx_simulator
