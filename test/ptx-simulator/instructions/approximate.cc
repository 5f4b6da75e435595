// Functions that PTX specifies up to an error only: .approx and .full.
//
// The exact value (computed in double) is moved by a part of the error that PTX allows, and rounded
// to the type of the result, so that no test can rely on the last bits. How far is a function of
// the operands and of LaunchContext::approximation_seed: as on a GPU, equal operands give equal
// results wherever and whenever they are computed, but another seed is another GPU.
//
//   instruction              error that PTX allows                        moved by at most
//   ex2.approx.f32           2 ulp                                        2^-24 relative
//   rcp.approx.f32           1 ulp                                        0.5 * 2^-24 relative
//   rsqrt.approx.f32         2^-22.9 relative                             1.1 * 2^-24 relative
//   sqrt.approx.f32          2^-23 relative                               2^-24 relative
//   div.approx, .full .f32   2 ulp                                        2^-24 relative
//   lg2.approx.f32           2^-22 absolute in (0.5, 2), else relative    0.75 * 2^-22 likewise
//   sin, cos .approx.f32     2^-20.5 absolute in [-2 pi, 2 pi],           0.9 times that
//                            2^-14.7 in [-100 pi, 100 pi]
//   tanh.approx.f32          2^-11 relative                               0.9 * 2^-11
//   ex2.approx.f16           2^-9.9 relative                              2^-10.9
//   ex2.approx.ftz.bf16      2^-7 relative                                2^-8
//   tanh.approx.f16          2^-10.987 absolute                           2^-12
//   tanh.approx.bf16         2^-8 relative                                see below
//   rcp, rsqrt .approx.ftz.f64   the upper 32 bits of an estimate         2^-20 relative
//   rsqrt.approx.f64         none stated                                  2^-50 relative
//
// Rounding to the result's type adds up to half an ulp: 2^-24 relative in f32, 2^-11 in f16, 2^-8
// in bf16. Where 2 ulp are allowed, below a power of two: 2^-24 relative is one ulp, and the result
// may be rounded above that power, where half an ulp is another one of those below. A bf16 that is
// the nearest to tanh is already 2^-8 away in the worst case: that one is not moved.
//
// Special operands give exact results as the tables of the PTX document say: ex2(+-0) = 1,
// rcp(+-inf) = +-0, lg2(+-0) = -inf, sin(inf) = NaN, ...
#include <algorithm>
#include <cmath>

#include "instructions/half.h"
#include "instructions/lanes.h"
#include "instructions/scalar.h"

namespace ptx_simulator {
namespace {

// A number in [-1, 1) that depends on all bits of its arguments.
double deviation(uint32_t seed, uint32_t bits) {
  uint32_t x = bits ^ seed;
  x = (x ^ x >> 16) * 0x7feb352du;
  x = (x ^ x >> 15) * 0x846ca68bu;
  return static_cast<int32_t>(x ^ x >> 16) * 0x1p-31;
}

float flushed(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  return std::bit_cast<float>((bits & 0x7f800000) == 0 ? bits & 0x80000000 : bits);
}
float canonical(double x) { return x == x ? static_cast<float>(x) : std::bit_cast<float>(kNan32); }

// 2^x for |x| < 1000: the series of 2^f with |f| <= 1/2, cut off at 2^-32 of it, times 2^n.
double power_of_two(double x) {
  constexpr double kRound = 0x1.8p52;  // added, it leaves the nearest integer in the low bits
  const double shifted = x + kRound;
  const double f = (x - (shifted - kRound)) * 0x1.62e42fefa39efp-1;  // ln 2
  double sum = f * (1. / 40320) + 1. / 5040;
  sum = sum * f + 1. / 720;
  sum = sum * f + 1. / 120;
  sum = sum * f + 1. / 24;
  sum = sum * f + 1. / 6;
  sum = sum * f + 0.5;
  sum = (sum * f + 1) * f + 1;
  const uint64_t n = std::bit_cast<uint64_t>(shifted) << 52;
  return std::bit_cast<double>(std::bit_cast<uint64_t>(sum) + n);
}

// --- the functions of one operand: a value, and how far it may be moved ---

struct Estimate {
  double value;
  double error;
};

struct Ex2 {
  static Estimate of(float x) {
    // Beyond these bounds everything is 0 or infinite in f32; NaN becomes the upper one.
    const double inside = std::max(-200.0, x < 200.0f ? double{x} : 200.0);
    const double value = power_of_two(inside);
    const double result = x == x ? value : double{x};
    return {result, x == 0 ? 0 : 0x1p-24 * value};
  }
};
struct Rcp {
  static Estimate of(float x) {
    const double value = 1 / double{x};
    return {value, 0.5 * 0x1p-24 * (std::abs(x) <= 0x1.fffffep127f && x != 0 ? value : 0.0)};
  }
};
struct Sqrt {
  static Estimate of(float x) {
    const double value = std::sqrt(double{x});
    return {value, 0x1p-24 * (value <= 0x1p64 ? value : 0.0)};
  }
};
struct Rsqrt {
  static Estimate of(float x) {
    const double value = 1 / std::sqrt(double{x});  // of -0, minus infinity
    return {value, 1.1 * 0x1p-24 * (std::abs(value) <= 0x1p80 ? value : 0.0)};
  }
};
struct Lg2 {
  static Estimate of(float x) {
    const double value = std::log2(double{x});
    if (!std::isfinite(value)) return {value, 0};
    return {value, 0.75 * 0x1p-22 * (x > 0.5f && x < 2 ? 1 : std::abs(value))};
  }
};
double trigonometric_error(float x) {
  const double size = std::abs(x);
  if (size <= 2 * M_PI) return 0.9 * 0x1p-21 * M_SQRT2;               // 2^-20.5
  if (size <= 100 * M_PI) return 0.9 * 0x1p-15 * 1.2311444133449163;  // 2^-14.7
  return 0;  // nothing is stated: the argument's own unit soon exceeds a period
}
struct Sin {
  static Estimate of(float x) { return {std::sin(double{x}), x == 0 ? 0 : trigonometric_error(x)}; }
};
struct Cos {
  static Estimate of(float x) { return {std::cos(double{x}), x == 0 ? 0 : trigonometric_error(x)}; }
};
struct Tanh {
  static Estimate of(float x) {
    const double value = std::tanh(double{x});
    return {value, std::abs(value) == 1 ? 0 : 0.9 * 0x1p-11 * value};
  }
};

// sin, cos and tanh stay within [-1, 1].
template <class Function>
inline constexpr bool kBounded = std::is_same_v<Function, Sin> || std::is_same_v<Function, Cos> ||
                                 std::is_same_v<Function, Tanh>;

template <class Function, bool ftz>
float approximate(uint32_t seed, float x) {
  if (ftz) x = flushed(x);
  const Estimate e = Function::of(x);
  const double nearby = e.value + e.error * deviation(seed, std::bit_cast<uint32_t>(x));
  double moved = e.error == 0 ? e.value : nearby;  // -0 + 0 would be +0
  if (kBounded<Function>) moved = std::abs(moved) > 1 ? std::copysign(1.0, moved) : moved;
  const float result = canonical(moved);
  return ftz ? flushed(result) : result;
}

template <class Function, bool ftz>
void approximate_lanes(Warp& warp, const Op& op, uint32_t mask) {
  write_lanes(warp.lanes<uint32_t>(op.d[0]), mask,
              [s = warp.values<uint32_t>(op.s[0]),
               seed = warp.block.launch.approximation_seed * 0x9e3779b9u](int lane) {
                return to_stored(approximate<Function, ftz>(seed, from_stored<float>(s[lane])));
              });
}

// --- division ---

template <bool full, bool ftz>
float quotient(uint32_t seed, float a, float b) {
  if (ftz) {
    a = flushed(a);
    b = flushed(b);
  }
  // .approx works with the reciprocal, which is subnormal and lost for |b| beyond 2^126.
  const bool lost = !full && std::abs(b) > 0x1p126f && std::abs(b) <= 0x1.fffffep127f;
  const double exact = lost ? double{a} * std::copysign(0.0, b) : double{a} / double{b};
  const double size = std::abs(exact) <= 0x1p300 ? exact : 0.0;
  const uint32_t bits = std::bit_cast<uint32_t>(a) * 0x2c1b3c6du ^ std::bit_cast<uint32_t>(b);
  const double nearby = exact + 0x1p-24 * size * deviation(seed, bits);
  const float result = canonical(size == 0 ? exact : nearby);
  return ftz ? flushed(result) : result;
}
template <bool full, bool ftz>
void quotient_lanes(Warp& warp, const Op& op, uint32_t mask) {
  write_lanes(warp.lanes<uint32_t>(op.d[0]), mask,
              [a = warp.values<uint32_t>(op.s[0]), b = warp.values<uint32_t>(op.s[1]),
               seed = warp.block.launch.approximation_seed * 0x9e3779b9u](int lane) {
                return to_stored(quotient<full, ftz>(seed, from_stored<float>(a[lane]),
                                                     from_stored<float>(b[lane])));
              });
}

// --- f64: the .ftz forms work on the upper half of the operand and give that of the result ---

template <bool root, bool upper>
double estimate_f64(uint32_t seed, uint64_t bits) {
  const double operand = std::bit_cast<double>(bits);
  if (upper) {
    bits &= 0xffffffff00000000;
    if ((bits & 0x7ff0000000000000) == 0) bits &= 0x8000000000000000;
  }
  const double x = std::bit_cast<double>(bits);
  const double exact = root ? 1 / std::sqrt(x) : 1 / x;
  const bool moves = std::isfinite(exact) && exact != 0;
  const double size = upper ? 0x1p-20 : 0x1p-50;
  const uint32_t key = static_cast<uint32_t>(bits ^ bits >> 32);
  const double moved = moves ? exact * (1 + size * deviation(seed, key)) : exact;
  if (moved != moved || operand != operand) return std::bit_cast<double>(0xfff8000000000000);
  if (!upper) return moved;
  uint64_t result = std::bit_cast<uint64_t>(moved) & 0xffffffff00000000;
  if ((result & 0x7ff0000000000000) == 0) result &= 0x8000000000000000;
  return std::bit_cast<double>(result);
}
template <bool root, bool upper>
void estimate_f64_lanes(Warp& warp, const Op& op, uint32_t mask) {
  write_lanes(warp.lanes<uint64_t>(op.d[0]), mask,
              [s = warp.values<uint64_t>(op.s[0]),
               seed = warp.block.launch.approximation_seed * 0x9e3779b9u](int lane) {
                return to_stored(estimate_f64<root, upper>(seed, s[lane]));
              });
}

// --- halves ---

template <class Function, class Format>
inline constexpr double kHalfError = 0;
template <>
inline constexpr double kHalfError<Ex2, F16> = 0x1.126p-11;  // 2^-10.9
template <>
inline constexpr double kHalfError<Ex2, Bf16> = 0x1p-8;
template <>
inline constexpr double kHalfError<Tanh, F16> = 0x1p-12;  // values are below 1

template <class Function, class Format>
uint32_t approximate_half(uint32_t seed, uint32_t h) {
  if (std::is_same_v<Format, Bf16> && std::is_same_v<Function, Ex2>) {  // only with .ftz
    h = (h & Format::kInfinity) == 0 ? h & 0x8000 : h & 0xffff;
  }
  const float x = Format::value(h);
  const Estimate e = Function::of(x);
  double moved = e.value;
  if (e.error != 0) moved += e.value * kHalfError<Function, Format> * deviation(seed, h & 0xffff);
  if (kBounded<Function>) moved = std::abs(moved) > 1 ? std::copysign(1.0, moved) : moved;
  uint32_t result = Format::round(canonical(moved));
  if (std::is_same_v<Format, Bf16> && std::is_same_v<Function, Ex2>) {
    result = (result & Format::kInfinity) == 0 ? result & 0x8000 : result;
  }
  return result;
}
template <class Function, class Format, bool pair>
void approximate_halves(Warp& warp, const Op& op, uint32_t mask) {
  write_lanes(warp.lanes<uint32_t>(op.d[0]), mask,
              [s = warp.values<uint32_t>(op.s[0]),
               seed = warp.block.launch.approximation_seed * 0x9e3779b9u](int lane) {
                const uint32_t low = approximate_half<Function, Format>(seed, s[lane]);
                if (!pair) return low;
                return low | approximate_half<Function, Format>(seed, s[lane] >> 16) << 16;
              });
}

// --- decoding ---

template <class Function>
void decode_unary(Decoder& d, bool may_flush) {
  const bool ftz = may_flush && d.take("ftz");
  const Type type = d.take_type({Type::kF32});
  take_operands(d, type, 1);
  set(d, InstructionClass::kSpecialFunction, type,
      ftz ? approximate_lanes<Function, true> : approximate_lanes<Function, false>);
}

// The f64 forms of rcp and rsqrt; false if the type is another.
template <bool root>
bool decode_f64(Decoder& d) {
  if (d.instruction().modifiers.back() != "f64") return false;
  const bool upper = d.take("ftz");
  if (!root && !upper) d.fail("needs .ftz for .f64");
  const Type type = d.take_type({Type::kF64});
  take_operands(d, type, 1);
  set(d, InstructionClass::kSpecialFunction, type,
      upper ? estimate_f64_lanes<root, true> : estimate_f64_lanes<root, false>);
  return true;
}

void take_approx(Decoder& d) {
  if (!d.take("approx")) d.fail("needs .approx");
}

// ex2 and tanh exist for halves as well.
template <class Function>
void decode_with_halves(Decoder& d, bool flushes) {
  take_approx(d);
  const std::string& last = d.instruction().modifiers.back();
  if (last == "f32") return decode_unary<Function>(d, flushes);
  const bool ftz = d.take("ftz");
  const Type type = d.take_type({Type::kF16, Type::kF16x2, Type::kBf16, Type::kBf16x2});
  const bool is_bf16 = type == Type::kBf16 || type == Type::kBf16x2;
  if (ftz != (flushes && is_bf16)) d.fail("has .ftz for bf16 only, and always there");
  const bool pair = type == Type::kF16x2 || type == Type::kBf16x2;
  take_operands(d, pair ? Type::kB32 : type, 1);
  set(d, InstructionClass::kSpecialFunction, type,
      is_bf16 ? (pair ? approximate_halves<Function, Bf16, true>
                      : approximate_halves<Function, Bf16, false>)
              : (pair ? approximate_halves<Function, F16, true>
                      : approximate_halves<Function, F16, false>));
}

}  // namespace

void decode_approximate_div(Decoder& d) {
  const bool full = d.take("full");
  if (!full) take_approx(d);
  const bool ftz = d.take("ftz");
  const Type type = d.take_type({Type::kF32});
  take_operands(d, type, 2);
  set(d, InstructionClass::kSpecialFunction, type,
      full ? (ftz ? quotient_lanes<true, true> : quotient_lanes<true, false>)
           : (ftz ? quotient_lanes<false, true> : quotient_lanes<false, false>));
}
void decode_approximate_rcp(Decoder& d) {
  take_approx(d);
  if (!decode_f64<false>(d)) decode_unary<Rcp>(d, true);
}
void decode_approximate_sqrt(Decoder& d) {
  take_approx(d);
  decode_unary<Sqrt>(d, true);
}
void decode_rsqrt(Decoder& d) {
  take_approx(d);
  if (!decode_f64<true>(d)) decode_unary<Rsqrt>(d, true);
}
void decode_sin(Decoder& d) {
  take_approx(d);
  decode_unary<Sin>(d, true);
}
void decode_cos(Decoder& d) {
  take_approx(d);
  decode_unary<Cos>(d, true);
}
void decode_lg2(Decoder& d) {
  take_approx(d);
  decode_unary<Lg2>(d, true);
}
void decode_ex2(Decoder& d) { decode_with_halves<Ex2>(d, true); }
void decode_tanh(Decoder& d) { decode_with_halves<Tanh>(d, false); }

}  // namespace ptx_simulator
