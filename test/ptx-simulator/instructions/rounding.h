// Rounding to any binary floating-point format by integer arithmetic: exact, in every mode, for
// the conversions that processors have no instruction for.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

namespace ptx_simulator {

enum class RoundTo : uint8_t { kNearest, kZero, kDown, kUp, kNearestAway };

// A number is kept bits times 2^exponent with exponent >= lowest_exponent and `precision` bits at
// most. Its encoding is a sign, `exponent - lowest_exponent` as a field, and the bits without the
// leading one: which is what adding the field's value to the bits gives, subnormals included.
struct FloatFormat {
  int precision;
  int lowest_exponent;
  int bits;
  uint64_t infinity;
  uint64_t nan;
};
inline constexpr FloatFormat kFormatF16{11, -24, 16, 0x7c00, 0x7fff};
inline constexpr FloatFormat kFormatBf16{8, -133, 16, 0x7f80, 0x7fff};
inline constexpr FloatFormat kFormatTf32{11, -136, 19, 0x3fc00, 0x3ffff};
inline constexpr FloatFormat kFormatF32{24, -149, 32, 0x7f800000, 0x7fffffff};
inline constexpr FloatFormat kFormatF64{53, -1074, 64, 0x7ff0000000000000, 0xfff8000000000000};

// The encoding of +-significand * 2^exponent.
inline uint64_t encode(const FloatFormat& format, bool negative, uint64_t significand, int exponent,
                       RoundTo mode) {
  const uint64_t sign = uint64_t{negative} << (format.bits - 1);
  if (significand == 0) return sign;
  const int top = std::bit_width(significand) + exponent;  // the value is below 2^top
  const int unit = std::max(top - format.precision, format.lowest_exponent);
  const int dropped = unit - exponent;
  uint64_t kept;
  int against_half = -1;  // of what is dropped: below, at or above half a unit; -2 if it is zero
  if (dropped <= 0) {
    kept = significand << -dropped;
    against_half = -2;
  } else if (dropped > 64) {
    kept = 0;
  } else {
    kept = dropped == 64 ? 0 : significand >> dropped;
    const uint64_t rest = significand << (64 - dropped);
    constexpr uint64_t half = uint64_t{1} << 63;
    against_half = rest == 0 ? -2 : rest < half ? -1 : rest > half ? 1 : 0;
  }
  bool up = false;
  switch (mode) {
    case RoundTo::kNearest:
      up = against_half > 0 || (against_half == 0 && (kept & 1) != 0);
      break;
    case RoundTo::kNearestAway:
      up = against_half >= 0;
      break;
    case RoundTo::kZero:
      break;
    case RoundTo::kDown:
      up = negative && against_half != -2;
      break;
    case RoundTo::kUp:
      up = !negative && against_half != -2;
      break;
  }
  const auto field = static_cast<uint64_t>(unit - format.lowest_exponent);
  const uint64_t encoded = (field << (format.precision - 1)) + kept + (up ? 1 : 0);
  if (encoded < format.infinity) return sign | encoded;
  const bool to_infinity = mode == RoundTo::kNearest || mode == RoundTo::kNearestAway ||
                           (mode == RoundTo::kDown && negative) ||
                           (mode == RoundTo::kUp && !negative);
  return sign | (to_infinity ? format.infinity : format.infinity - 1);
}

// The encoding of a double, whose value is exactly given.
inline uint64_t encode(const FloatFormat& format, double x, RoundTo mode) {
  const auto bits = std::bit_cast<uint64_t>(x);
  const bool negative = bits >> 63 != 0;
  if (std::isnan(x)) return format.nan;
  if (std::isinf(x)) return uint64_t{negative} << (format.bits - 1) | format.infinity;
  const int field = static_cast<int>(bits >> 52 & 0x7ff);
  const uint64_t fraction = bits & ((uint64_t{1} << 52) - 1);
  return field == 0 ? encode(format, negative, fraction, -1074, mode)
                    : encode(format, negative, fraction | uint64_t{1} << 52, field - 1075, mode);
}

}  // namespace ptx_simulator
