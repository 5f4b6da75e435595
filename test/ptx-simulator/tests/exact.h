// Exact arithmetic on floating-point numbers, for the tests to compare the instructions with: a
// number is a sign, an integer of as many bits as it takes, and what lies below that (a remainder,
// of which only its being there matters). Slow and simple, and nothing of the simulator's own.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <vector>

namespace ptx_simulator::test {

// An IEEE format: how many bits of exponent and of fraction.
struct Ieee {
  int exponent_bits, fraction_bits;
  uint64_t nan;  // that instructions produce

  int width() const { return 1 + exponent_bits + fraction_bits; }
  int bias() const { return (1 << (exponent_bits - 1)) - 1; }
  uint64_t sign_bit() const { return uint64_t{1} << (width() - 1); }
  uint64_t infinity() const { return ((uint64_t{1} << exponent_bits) - 1) << fraction_bits; }
  uint64_t largest() const { return infinity() - 1; }
  uint64_t one() const { return static_cast<uint64_t>(bias()) << fraction_bits; }
  uint64_t magnitude(uint64_t x) const { return x & (sign_bit() - 1); }
  bool is_nan(uint64_t x) const { return magnitude(x) > infinity(); }
  bool is_infinite(uint64_t x) const { return magnitude(x) == infinity(); }
  bool is_zero(uint64_t x) const { return magnitude(x) == 0; }
  bool is_subnormal(uint64_t x) const {
    return !is_zero(x) && magnitude(x) < uint64_t{1} << fraction_bits;
  }
  bool negative(uint64_t x) const { return (x & sign_bit()) != 0; }
  uint64_t flushed(uint64_t x) const { return is_subnormal(x) ? x & sign_bit() : x; }
  // Of a finite number: value = significand * 2^exponent.
  uint64_t significand(uint64_t x) const {
    const uint64_t fraction = x & ((uint64_t{1} << fraction_bits) - 1);
    return magnitude(x) >> fraction_bits == 0 ? fraction : fraction | uint64_t{1} << fraction_bits;
  }
  int exponent(uint64_t x) const {
    const auto field = static_cast<int>(magnitude(x) >> fraction_bits);
    return (field == 0 ? 1 : field) - bias() - fraction_bits;
  }
  long double value(uint64_t x) const {  // NaN and infinities included
    if (is_nan(x)) return NAN;
    const long double size =
        is_infinite(x) ? static_cast<long double>(INFINITY)
                       : std::ldexp(static_cast<long double>(significand(x)), exponent(x));
    return negative(x) ? -size : size;
  }
};
inline const Ieee kHalfFormat{5, 10, 0x7fff}, kBrainFormat{8, 7, 0x7fff};
inline const Ieee kSingleFormat{8, 23, 0x7fffffff}, kDoubleFormat{11, 52, 0xfff8000000000000};

enum class Round { kNearest, kZero, kDown, kUp, kAway };  // kAway: to nearest, ties away from zero

// A finite number: +-(bits + something in (0, 1) if `more`) * 2^exponent.
struct Exact {
  bool negative = false;
  std::vector<bool> bits;  // the lowest first
  int exponent = 0;
  bool more = false;

  static Exact of(bool negative, unsigned __int128 integer, int exponent, bool more = false) {
    Exact x;
    x.negative = negative;
    x.exponent = exponent;
    x.more = more;
    for (; integer != 0; integer >>= 1) x.bits.push_back((integer & 1) != 0);
    return x;
  }
  static Exact of(const Ieee& format, uint64_t x) {
    return of(format.negative(x), format.significand(x), format.exponent(x));
  }
  bool zero() const {
    for (const bool bit : bits) {
      if (bit) return false;
    }
    return !more;
  }
  // Digit at weight 2^position.
  bool at(int position) const {
    const int i = position - exponent;
    return i >= 0 && i < static_cast<int>(bits.size()) && bits[i];
  }
  int top() const {  // the weight of the highest set bit
    int i = static_cast<int>(bits.size()) - 1;
    while (i >= 0 && !bits[i]) --i;
    return i + exponent;
  }

  // Schoolbook addition and subtraction, of numbers that have nothing below.
  friend Exact operator+(const Exact& a, const Exact& b) {
    const int low = std::min(a.exponent, b.exponent);
    const int high = std::max(a.exponent + static_cast<int>(a.bits.size()),
                              b.exponent + static_cast<int>(b.bits.size()));
    Exact sum;
    sum.exponent = low;
    int carry = 0;
    for (int i = low; i <= high; ++i) {  // of a + b or a - b
      const int digit = int{a.at(i)} + (a.negative == b.negative ? b.at(i) : -int{b.at(i)}) + carry;
      sum.bits.push_back((digit & 1) != 0);
      carry = digit >> 1;
    }
    sum.negative = a.negative;
    if (carry < 0) {  // |a| < |b|: the digits are a two's complement
      sum.negative = !sum.negative;
      bool one = false;
      for (size_t i = 0; i < sum.bits.size(); ++i) {
        const bool bit = sum.bits[i];
        if (one) sum.bits[i] = !bit;
        one |= bit;
      }
    }
    return sum;
  }
};

// The number of the format that rounding gives.
inline uint64_t rounded(const Ieee& format, const Exact& x, Round mode) {
  const uint64_t sign = x.negative ? format.sign_bit() : 0;
  if (x.zero()) return sign;
  const int smallest_unit = 1 - format.bias() - format.fraction_bits;
  const int unit = std::max(x.top() - format.fraction_bits, smallest_unit);
  uint64_t kept = 0;  // in units
  for (int i = format.fraction_bits; i >= 0; --i) kept = kept << 1 | uint64_t{x.at(unit + i)};
  const bool half = x.at(unit - 1);
  bool rest = x.more;
  for (int i = x.exponent; i < unit - 1; ++i) rest |= x.at(i);
  const bool inexact = half || rest;
  const bool up = mode == Round::kNearest ? half && (rest || (kept & 1) != 0)
                  : mode == Round::kAway  ? half
                  : mode == Round::kDown  ? inexact && x.negative
                  : mode == Round::kUp    ? inexact && !x.negative
                                          : false;
  if (up) ++kept;
  int unit_of_kept = unit;
  if (kept >> (format.fraction_bits + 1) != 0) {
    kept >>= 1;
    ++unit_of_kept;
  }
  const bool subnormal = kept >> format.fraction_bits == 0;
  const int field = subnormal ? 0 : unit_of_kept - smallest_unit + 1;
  if (field > 2 * format.bias()) {  // too large
    const bool to_infinity =
        mode == Round::kNearest || mode == Round::kAway ||
        (mode == Round::kDown ? x.negative : mode == Round::kUp && !x.negative);
    return sign | (to_infinity ? format.infinity() : format.largest());
  }
  return sign | static_cast<uint64_t>(field) << format.fraction_bits |
         (kept & ((uint64_t{1} << format.fraction_bits) - 1));
}

// a * b + c of one format, rounded to another (usually the same).
inline uint64_t exact_fma(const Ieee& from, uint64_t a, uint64_t b, uint64_t c, const Ieee& to,
                          Round mode) {
  const bool negative = from.negative(a) != from.negative(b);
  if (from.is_nan(a) || from.is_nan(b) || from.is_nan(c)) return to.nan;
  if (from.is_infinite(a) || from.is_infinite(b)) {
    if (from.is_zero(a) || from.is_zero(b)) return to.nan;
    if (from.is_infinite(c) && from.negative(c) != negative) return to.nan;
    return (negative ? to.sign_bit() : 0) | to.infinity();
  }
  if (from.is_infinite(c)) return (from.negative(c) ? to.sign_bit() : 0) | to.infinity();
  const Exact product =
      Exact::of(negative, static_cast<unsigned __int128>(from.significand(a)) * from.significand(b),
                from.exponent(a) + from.exponent(b));
  Exact sum = product + Exact::of(from, c);
  if (sum.zero()) {  // two zeros of one sign keep it; else +0, or -0 when rounding down
    sum.negative = product.negative == from.negative(c) ? product.negative : mode == Round::kDown;
  }
  return rounded(to, sum, mode);
}
inline uint64_t exact_add(const Ieee& f, uint64_t a, uint64_t b, Round mode) {
  return exact_fma(f, a, f.one(), b, f, mode);
}
inline uint64_t exact_mul(const Ieee& f, uint64_t a, uint64_t b, Round mode) {
  const uint64_t zero = f.negative(a) != f.negative(b) ? f.sign_bit() : 0;
  return exact_fma(f, a, b, zero, f, mode);
}

inline uint64_t exact_div(const Ieee& f, uint64_t a, uint64_t b, Round mode) {
  const bool negative = f.negative(a) != f.negative(b);
  const uint64_t sign = negative ? f.sign_bit() : 0;
  if (f.is_nan(a) || f.is_nan(b)) return f.nan;
  if (f.is_infinite(a)) return f.is_infinite(b) ? f.nan : sign | f.infinity();
  if (f.is_infinite(b)) return sign;
  if (f.is_zero(b)) return f.is_zero(a) ? f.nan : sign | f.infinity();
  // Long division, with more than enough digits for the smallest divisor of a subnormal number.
  unsigned __int128 remainder = f.significand(a), quotient = 0;
  const unsigned __int128 divisor = f.significand(b);
  int exponent = f.exponent(a) - f.exponent(b);
  quotient = remainder / divisor;
  remainder %= divisor;
  while (quotient >> 70 == 0 && remainder != 0) {
    remainder <<= 1;
    quotient = quotient << 1 | (remainder >= divisor ? 1 : 0);
    if (remainder >= divisor) remainder -= divisor;
    --exponent;
  }
  return rounded(f, Exact::of(negative, quotient, exponent, remainder != 0), mode);
}

inline uint64_t exact_sqrt(const Ieee& f, uint64_t a, Round mode) {
  if (f.is_nan(a)) return f.nan;
  if (f.is_zero(a)) return a;
  if (f.negative(a)) return f.nan;
  if (f.is_infinite(a)) return a;
  unsigned __int128 x = f.significand(a);
  int exponent = f.exponent(a);
  while (x >> 124 == 0 || exponent % 2 != 0) {
    x <<= 1;
    --exponent;
  }
  unsigned __int128 root = 0;
  for (int i = 63; i >= 0; --i) {
    const unsigned __int128 next = root | static_cast<unsigned __int128>(1) << i;
    if (next * next <= x) root = next;
  }
  return rounded(f, Exact::of(false, root, exponent / 2, root * root != x), mode);
}

}  // namespace ptx_simulator::test
