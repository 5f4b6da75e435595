// What the kernel cases share: random numbers, f16 by its definition, and the comparison with a
// reference. Nothing here is shared with the simulator, whose f16 these tests are to judge.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <random>
#include <string>
#include <vector>

namespace ptx_simulator::test {

inline constexpr double kEpsF32 = 0x1p-24;  // the relative error of one rounding to f32
inline constexpr double kEpsF16 = 0x1p-11;
inline constexpr double kLeastF16 =
    0x1p-25;  // half of the least f16: the absolute error below that
inline constexpr uint16_t kNanF16 = 0x7FFF;
inline constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

using Random = std::mt19937;

inline float normal(Random& random, float deviation = 1.f) {
  return std::normal_distribution<float>(0.f, deviation)(random);
}
inline std::vector<float> normals(Random& random, size_t count, float deviation = 1.f) {
  std::vector<float> values(count);
  for (float& v : values) v = normal(random, deviation);
  return values;
}

inline double f16_value(uint16_t bits) {
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  const double sign = bits & 0x8000 ? -1 : 1;
  if (exponent == 31) return mantissa ? std::numeric_limits<double>::quiet_NaN() : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}
// A random f16 that is about normally distributed: the f16 below |x|.
inline uint16_t f16_towards_zero(float x) {
  const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  int exponent;
  const double mantissa = std::frexp(std::fabs(x), &exponent);  // in [1/2, 1)
  if (mantissa == 0 || exponent < -13) return sign;
  if (exponent > 16) return sign | 0x7BFF;
  const int digits = static_cast<int>(mantissa * 2048) - 1024;
  return static_cast<uint16_t>(sign | (exponent + 14) << 10 | digits);
}
inline std::vector<uint16_t> normals_f16(Random& random, size_t count, float deviation = 1.f) {
  std::vector<uint16_t> values(count);
  for (uint16_t& v : values) v = f16_towards_zero(normal(random, deviation));
  return values;
}

inline double value_of(float x) { return x; }
inline double value_of(uint16_t x) { return f16_value(x); }

// Empty if each element is within its bound of the reference, else the first that is not.
template <class T>
std::string compare(const std::vector<T>& found, const std::vector<double>& expected,
                    const std::vector<double>& bounds) {
  for (size_t i = 0; i < found.size(); ++i) {
    const double value = value_of(found[i]);
    if (!(std::fabs(value - expected[i]) <= bounds[i])) {  // false for NaN
      char text[160];
      std::snprintf(text, sizeof(text), "element %zu is %.9g, not %.9g (error %.3g, bound %.3g)", i,
                    value, expected[i], std::fabs(value - expected[i]), bounds[i]);
      return text;
    }
  }
  return "";
}

}  // namespace ptx_simulator::test
