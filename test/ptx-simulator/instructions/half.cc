// Arithmetic on f16 and bf16, alone or two in a register: add sub mul fma abs neg min max.
// (Comparisons are in compare.cc, ex2 and tanh in approximate.cc.)
//
// Every result is rounded once, though it is computed in a wider type: add is fma(a, 1, b), mul is
// fma(a, b, -0), and the product and the sum of an fma are formed so that nothing is lost.
//   - f16 in f32: a product has 22 bits and lies between 2^-48 and 2^32, so it is exact.
//   - bf16 in f64: a product has 16 bits and lies between 2^-266 and 2^256, exact as well. (In f32
//     it could overflow or underflow, bf16 having f32's exponents.)
//   - The sum is rounded to odd: where it is inexact, the one of the two neighbours whose last bit
//     is set. Rounding such a number again, to a format with at least 2 bits less, gives what
//     rounding the exact sum would (24 or 53 bits against 11 and 8): the set bit stands for
//     everything that was dropped, and keeps the sum off the ties. That holds where the result is
//     subnormal, too, as fewer bits are kept there.
#include "instructions/half.h"

#include <cmath>

#include "instructions/lanes.h"
#include "instructions/scalar.h"

namespace ptx_simulator {
namespace {

// What to add to the bits of a number for one step away from zero or towards it: to where the exact
// value lies, which is `error` more; or nothing if that is zero (or NaN, behind infinite or NaN
// operands). No choice is made by a condition of another width than the values: that would be no
// vector code.
template <class T>
Stored<T> step_to_odd(T x, T error) {
  const auto bits = std::bit_cast<Stored<T>>(x);
  const Stored<T> towards = (std::bit_cast<Stored<T>>(error) ^ bits) >> (8 * sizeof(T) - 1);
  const Stored<T> inexact = std::abs(error) > 0 ? ~Stored<T>{0} : 0;
  return (1 - 2 * towards) & inexact;
}

// p + c, rounded to odd. The error of the sum is exact (Knuth's two-sum).
template <class T>
T sum_to_odd(T p, T c) {
  const T sum = p + c;
  const T c_part = sum - p;
  const T error = (p - (sum - c_part)) + (c - c_part);
  const auto bits = std::bit_cast<Stored<T>>(sum);
  return std::bit_cast<T>(bits + (step_to_odd(sum, error) & ((bits & 1) - 1)));
}

// A double as a float, rounded to odd.
float to_float_odd(float x) { return x; }
float to_float_odd(double x) {
  const auto nearest = static_cast<float>(x);
  const auto bits = std::bit_cast<uint32_t>(nearest);
  const auto step = static_cast<uint32_t>(step_to_odd<double>(x, x - double{nearest}));
  return std::bit_cast<float>(bits + (step & ((bits & 1) - 1)));
}

enum class Clamp : uint8_t { kNone, kSat, kRelu };

// Functions of halves take 32 bits and ignore the upper 16, so that loops over lanes become vector
// code; what they return has no upper bits.
//
// Subnormal numbers become zeros of the same sign (.ftz).
template <class Format, bool ftz>
uint32_t flush(uint32_t h) {
  return ftz && (h & Format::kInfinity) == 0 ? h & 0x8000 : h & 0xffff;
}

template <class Format, bool ftz, Clamp clamp>
uint32_t fused(uint32_t a, uint32_t b, uint32_t c) {
  using Wide = typename Format::Wide;
  const Wide product = static_cast<Wide>(Format::value(flush<Format, ftz>(a))) *
                       static_cast<Wide>(Format::value(flush<Format, ftz>(b)));
  const Wide sum = sum_to_odd<Wide>(product, Format::value(flush<Format, ftz>(c)));
  uint32_t h = flush<Format, ftz>(Format::round(to_float_odd(sum)));
  const bool is_nan = (h & 0x7fff) > Format::kInfinity;
  const bool negative = (h & 0x8000) != 0;
  if constexpr (clamp == Clamp::kSat) {  // to [0, 1], NaN to 0
    h = is_nan | negative ? 0 : h;
    h = h > Format::kOne ? Format::kOne : h;
  } else if constexpr (clamp == Clamp::kRelu) {
    h = negative && !is_nan ? 0 : h;
  }
  return h;
}

template <class Format, bool ftz, Clamp clamp>
uint32_t fma(uint32_t a, uint32_t b, uint32_t c) {
  return fused<Format, ftz, clamp>(a, b, c);
}
template <class Format, bool ftz, Clamp clamp>
uint32_t add(uint32_t a, uint32_t b) {
  return fused<Format, ftz, clamp>(a, Format::kOne, b);
}
template <class Format, bool ftz, Clamp clamp>
uint32_t sub(uint32_t a, uint32_t b) {
  return fused<Format, ftz, clamp>(a, Format::kOne, b ^ 0x8000u);
}
template <class Format, bool ftz, Clamp clamp>
uint32_t mul(uint32_t a, uint32_t b) {
  return fused<Format, ftz, clamp>(a, b, 0x8000);
}

template <class Format, bool ftz>
uint32_t abs(uint32_t a) {
  return flush<Format, ftz>(a) & 0x7fff;
}
template <class Format, bool ftz>
uint32_t neg(uint32_t a) {
  return flush<Format, ftz>(a) ^ 0x8000;
}

// As for f32 (float.cc).
template <class Format, bool ftz, bool maximum, bool propagate, bool xorsign>
uint32_t extreme(uint32_t a, uint32_t b) {
  a = flush<Format, ftz>(a);
  b = flush<Format, ftz>(b);
  const uint32_t sign = (a ^ b) & 0x8000;
  if constexpr (xorsign) {
    a &= 0x7fff;
    b &= 0x7fff;
  }
  const auto order = [](uint32_t h) {
    const auto size = static_cast<int32_t>(h & 0x7fff);
    return (h & 0x8000) != 0 ? -1 - size : size;
  };
  const bool a_nan = (a & 0x7fff) > Format::kInfinity, b_nan = (b & 0x7fff) > Format::kInfinity;
  const uint32_t chosen = (order(a) < order(b)) != maximum ? a : b;
  uint32_t result = a_nan ? b : b_nan ? a : chosen;
  if constexpr (xorsign) result |= sign;
  return (propagate ? a_nan | b_nan : a_nan & b_nan) ? kNan16 : result;
}

// --- decoding ---

struct HalfType {
  Type type;
  bool is_bf16;
  bool pair;
};
HalfType take_half_type(Decoder& d, size_t sources) {
  const Type type = d.take_type({Type::kF16, Type::kF16x2, Type::kBf16, Type::kBf16x2});
  const HalfType result{type, type == Type::kBf16 || type == Type::kBf16x2,
                        type == Type::kF16x2 || type == Type::kBf16x2};
  take_operands(d, result.pair ? Type::kB32 : type, sources);
  return result;
}

// The functions of an instruction, as a template over format, .ftz and clamp.
template <template <class, bool, Clamp> class Function, size_t sources>
void decode_arithmetic(Decoder& d, bool may_relu) {
  const std::string_view rounding = d.peek();
  if (take_rounding(d) != Rounding::kNearest) d.fail("rounds to nearest only");
  if (may_relu && rounding == d.peek()) d.fail("needs .rn");  // fma
  const bool ftz = d.take("ftz");
  Clamp clamp = d.take("sat") ? Clamp::kSat : Clamp::kNone;
  if (may_relu && clamp == Clamp::kNone && d.take("relu")) clamp = Clamp::kRelu;
  const HalfType type = take_half_type(d, sources);
  if (type.is_bf16 && (ftz || clamp == Clamp::kSat)) d.fail("bf16 has no .ftz or .sat");
  const auto of = [&](auto function) { return function(type.pair); };
  Execute execute;
  if (type.is_bf16) {
    execute = clamp == Clamp::kRelu ? of(Function<Bf16, false, Clamp::kRelu>())
                                    : of(Function<Bf16, false, Clamp::kNone>());
  } else if (ftz) {
    execute = clamp == Clamp::kRelu  ? of(Function<F16, true, Clamp::kRelu>())
              : clamp == Clamp::kSat ? of(Function<F16, true, Clamp::kSat>())
                                     : of(Function<F16, true, Clamp::kNone>());
  } else {
    execute = clamp == Clamp::kRelu  ? of(Function<F16, false, Clamp::kRelu>())
              : clamp == Clamp::kSat ? of(Function<F16, false, Clamp::kSat>())
                                     : of(Function<F16, false, Clamp::kNone>());
  }
  set(d, InstructionClass::kHalf, type.type, execute);
}

template <class Format, bool ftz, Clamp clamp>
struct Fma {
  Execute operator()(bool pair) const {
    return pair ? map<packed3<fma<Format, ftz, clamp>>> : map<fma<Format, ftz, clamp>>;
  }
};
template <class Format, bool ftz, Clamp clamp>
struct Add {
  Execute operator()(bool pair) const {
    return pair ? map<packed2<add<Format, ftz, clamp>>> : map<add<Format, ftz, clamp>>;
  }
};
template <class Format, bool ftz, Clamp clamp>
struct Sub {
  Execute operator()(bool pair) const {
    return pair ? map<packed2<sub<Format, ftz, clamp>>> : map<sub<Format, ftz, clamp>>;
  }
};
template <class Format, bool ftz, Clamp clamp>
struct Mul {
  Execute operator()(bool pair) const {
    return pair ? map<packed2<mul<Format, ftz, clamp>>> : map<mul<Format, ftz, clamp>>;
  }
};

void decode_fma(Decoder& d) { decode_arithmetic<Fma, 3>(d, true); }
void decode_add(Decoder& d) { decode_arithmetic<Add, 2>(d, false); }
void decode_sub(Decoder& d) { decode_arithmetic<Sub, 2>(d, false); }
void decode_mul(Decoder& d) { decode_arithmetic<Mul, 2>(d, false); }

template <class Format, bool ftz>
Execute sign_execution(bool negate, bool pair) {
  if (negate) return pair ? map<packed1<neg<Format, ftz>>> : map<neg<Format, ftz>>;
  return pair ? map<packed1<abs<Format, ftz>>> : map<abs<Format, ftz>>;
}
template <bool negate>
void decode_sign(Decoder& d) {
  const bool ftz = d.take("ftz");
  const HalfType type = take_half_type(d, 1);
  if (type.is_bf16 && ftz) d.fail("bf16 has no .ftz");
  set(d, InstructionClass::kHalf, type.type,
      type.is_bf16 ? sign_execution<Bf16, false>(negate, type.pair)
      : ftz        ? sign_execution<F16, true>(negate, type.pair)
                   : sign_execution<F16, false>(negate, type.pair));
}

template <auto f>
Execute alone_or_pair(bool pair) {
  return pair ? map<packed2<f>> : map<f>;
}
template <class Format, bool ftz, bool maximum>
Execute extreme_execution(bool propagate, bool xorsign, bool pair) {
  if (propagate) {
    return xorsign ? alone_or_pair<extreme<Format, ftz, maximum, true, true>>(pair)
                   : alone_or_pair<extreme<Format, ftz, maximum, true, false>>(pair);
  }
  return xorsign ? alone_or_pair<extreme<Format, ftz, maximum, false, true>>(pair)
                 : alone_or_pair<extreme<Format, ftz, maximum, false, false>>(pair);
}
template <bool maximum>
void decode_extreme(Decoder& d) {
  const bool ftz = d.take("ftz");
  const bool propagate = d.take("NaN");
  const bool xorsign = d.take("xorsign");
  if (xorsign && !d.take("abs")) d.fail("needs .xorsign.abs");
  const HalfType type = take_half_type(d, 2);
  if (type.is_bf16 && ftz) d.fail("bf16 has no .ftz");
  set(d, InstructionClass::kHalf, type.type,
      type.is_bf16 ? extreme_execution<Bf16, false, maximum>(propagate, xorsign, type.pair)
      : ftz        ? extreme_execution<F16, true, maximum>(propagate, xorsign, type.pair)
                   : extreme_execution<F16, false, maximum>(propagate, xorsign, type.pair));
}

}  // namespace

const InstructionTable kHalfInstructions = {
    {"add", decode_add},
    {"sub", decode_sub},
    {"mul", decode_mul},
    {"fma", decode_fma},
    {"abs", decode_sign<false>},
    {"neg", decode_sign<true>},
    {"min", decode_extreme<false>},
    {"max", decode_extreme<true>},
};

}  // namespace ptx_simulator
