// f16 and bf16 on the host, for references: what the device reads and rounds to.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "../check.h"
#include "backend.h"
#include "cpu/scalar.h"

namespace altiplano::test {

// The errors that the bounds of the tests are made of: half a unit in the last place, relative.
inline constexpr double kHalfEps = 0x1p-11;

// The same for either type of activations: bf16 has 8 significant bits, and f32's exponents.
inline double half_eps(ActivationType type) {
  return type == ActivationType::kBF16 ? 0x1p-8 : kHalfEps;
}
// What rounding adds below the normal numbers: half of the smallest number.
inline double half_least(ActivationType type) {
  return type == ActivationType::kBF16 ? 0x1p-134 : 0x1p-25;
}
inline uint16_t to_bits(ActivationType type, float x) {
  return type == ActivationType::kBF16 ? cpu::f32_to_bf16_one(x) : cpu::f32_to_f16_one(x);
}
inline float from_bits(ActivationType type, uint16_t bits) {
  return type == ActivationType::kBF16 ? cpu::bf16_to_f32_one(bits) : cpu::f16_to_f32_one(bits);
}
// A NaN in both types.
inline constexpr uint16_t kNan16 = 0x7fff;

inline const char* describe(ActivationType type) {
  return type == ActivationType::kBF16 ? "bf16" : "f16";
}
inline const char* describe(KvType type) {
  constexpr const char* kNames[kKvTypes] = {"f32", "f16", "int8", "bf16"};
  return kNames[static_cast<size_t>(type)];
}

// Rounded: the values as the device holds them.
inline std::vector<uint16_t> to_halves(const std::vector<float>& values,
                                       ActivationType type = ActivationType::kF16) {
  std::vector<uint16_t> halves(values.size());
  for (size_t i = 0; i < values.size(); ++i) halves[i] = to_bits(type, values[i]);
  return halves;
}

inline std::vector<double> from_halves(const std::vector<uint16_t>& halves,
                                       ActivationType type = ActivationType::kF16) {
  std::vector<double> values(halves.size());
  for (size_t i = 0; i < halves.size(); ++i) values[i] = from_bits(type, halves[i]);
  return values;
}

// Whether `found`, of 16 bits, is `exact` but for its rounding and an error of at most `bound`.
// Numbers below the normal ones are rounded to multiples of the smallest.
inline bool is_near(double found, double exact, double bound,
                    ActivationType type = ActivationType::kF16) {
  return std::abs(found - exact) <=
         bound + half_eps(type) * (std::abs(exact) + bound) + half_least(type);
}

}  // namespace altiplano::test
