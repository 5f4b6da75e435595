// Integer arithmetic: add sub mul mad div rem, with carries, abs neg min max sad, 24-bit products,
// dot products of bytes. Bit operations are in bits.cc.
#include <algorithm>
#include <limits>

#include "instructions/lanes.h"
#include "instructions/scalar.h"

namespace ptx_simulator {
namespace {

// Arithmetic that wraps is done in unsigned types of at least 32 bits (narrower ones would be
// promoted to int, whose overflow is undefined).
template <class T>
using Bits = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;

template <class T>
T add(T a, T b) {
  return static_cast<T>(static_cast<Bits<T>>(a) + static_cast<Bits<T>>(b));
}
template <class T>
T sub(T a, T b) {
  return static_cast<T>(static_cast<Bits<T>>(a) - static_cast<Bits<T>>(b));
}

int32_t saturate(int64_t x) {
  return static_cast<int32_t>(std::clamp<int64_t>(x, INT32_MIN, INT32_MAX));
}
int32_t add_sat(int32_t a, int32_t b) { return saturate(int64_t{a} + b); }
int32_t sub_sat(int32_t a, int32_t b) { return saturate(int64_t{a} - b); }

template <class T>
struct Double;  // the type of a product
template <>
struct Double<uint16_t> {
  using type = uint32_t;
};
template <>
struct Double<int16_t> {
  using type = int32_t;
};
template <>
struct Double<uint32_t> {
  using type = uint64_t;
};
template <>
struct Double<int32_t> {
  using type = int64_t;
};
template <>
struct Double<uint64_t> {
  using type = unsigned __int128;
};
template <>
struct Double<int64_t> {
  using type = __int128;
};

template <class T>
typename Double<T>::type mul_wide(T a, T b) {
  return static_cast<typename Double<T>::type>(a) * b;
}
template <class T>
T mul_lo(T a, T b) {
  return static_cast<T>(static_cast<Bits<T>>(a) * static_cast<Bits<T>>(b));
}
template <class T>
T mul_hi(T a, T b) {
  return static_cast<T>(mul_wide<T>(a, b) >> (8 * sizeof(T)));
}

template <class T>
T mad_lo(T a, T b, T c) {
  return add<T>(mul_lo<T>(a, b), c);
}
template <class T>
T mad_hi(T a, T b, T c) {
  return add<T>(mul_hi<T>(a, b), c);
}
template <class T>
typename Double<T>::type mad_wide(T a, T b, typename Double<T>::type c) {
  return add(mul_wide<T>(a, b), c);
}
int32_t mad_hi_sat(int32_t a, int32_t b, int32_t c) {
  return saturate(int64_t{mul_hi<int32_t>(a, b)} + c);
}

// The low 24 bits of the factors; .hi is bits 16 to 47 of the product.
template <class T>
typename Double<T>::type mul24(T a, T b) {
  const auto low24 = [](T x) { return static_cast<T>(static_cast<T>(Bits<T>(x) << 8) >> 8); };
  return mul_wide<T>(low24(a), low24(b));
}
template <class T>
T mul24_lo(T a, T b) {
  return static_cast<T>(mul24<T>(a, b));
}
template <class T>
T mul24_hi(T a, T b) {
  return static_cast<T>(mul24<T>(a, b) >> 16);
}
template <class T>
T mad24_lo(T a, T b, T c) {
  return add<T>(mul24_lo<T>(a, b), c);
}
template <class T>
T mad24_hi(T a, T b, T c) {
  return add<T>(mul24_hi<T>(a, b), c);
}
int32_t mad24_hi_sat(int32_t a, int32_t b, int32_t c) {
  return saturate(int64_t{mul24_hi<int32_t>(a, b)} + c);
}

// Dividing by zero gives all ones (PTX leaves it open; GPUs do that for the remainder too), and the
// one quotient that overflows wraps.
template <class T>
T div(T a, T b) {
  if (b == 0) return static_cast<T>(-1);
  if (std::is_signed_v<T> && b == static_cast<T>(-1)) return sub<T>(0, a);
  return static_cast<T>(a / b);
}
template <class T>
T rem(T a, T b) {
  if (b == 0) return static_cast<T>(-1);
  if (std::is_signed_v<T> && b == static_cast<T>(-1)) return 0;
  return static_cast<T>(a % b);
}

template <class T>
T neg(T a) {
  return sub<T>(0, a);
}
template <class T>
T abs(T a) {
  return a < 0 ? neg<T>(a) : a;
}
template <class T>
T min(T a, T b) {
  return a < b ? a : b;
}
template <class T>
T max(T a, T b) {
  return a > b ? a : b;
}
template <class T>
T min_relu(T a, T b) {
  return max<T>(min<T>(a, b), 0);
}
template <class T>
T max_relu(T a, T b) {
  return max<T>(max<T>(a, b), 0);
}
template <class T>
T sad(T a, T b, T c) {
  return add<T>(c, a < b ? sub<T>(b, a) : sub<T>(a, b));
}

// Byte or 16-bit element i of x, sign- or zero-extended.
template <class Element>
int64_t element(uint32_t x, int i) {
  return static_cast<Element>(x >> (8 * sizeof(Element) * i));
}
template <class A, class B>
uint32_t dp4a(uint32_t a, uint32_t b, uint32_t c) {
  int64_t sum = c;
  for (int i = 0; i < 4; ++i) sum += element<A>(a, i) * element<B>(b, i);
  return static_cast<uint32_t>(sum);
}
template <class A, class B, int first>  // elements `first` and the next of b
uint32_t dp2a(uint32_t a, uint32_t b, uint32_t c) {
  return static_cast<uint32_t>(c + element<A>(a, 0) * element<B>(b, first) +
                               element<A>(a, 1) * element<B>(b, first + 1));
}

// --- carries: the flag of a lane is the carry of an addition or the borrow of a subtraction ---

enum class Term : uint8_t { kAdd, kSub, kMadLo, kMadHi };
inline constexpr uint32_t kCarryIn = 1, kCarryOut = 2;

template <class T, Term term>
void with_carry(Warp& warp, const Op& op, uint32_t mask) {
  const auto* a = warp.values<Stored<T>>(op.s[0]);
  const auto* b = warp.values<Stored<T>>(op.s[1]);
  const auto* c = op.s.size() > 2 ? warp.values<Stored<T>>(op.s[2]) : nullptr;
  auto* d = warp.lanes<Stored<T>>(op.d[0]);
  uint32_t carries = warp.carry;
  for_each_lane(mask, [&](int lane) {
    const uint32_t bit = uint32_t{1} << lane;
    const Stored<T> in = (op.flags & kCarryIn) && (warp.carry & bit) ? 1 : 0;
    Stored<T> x = a[lane], y = b[lane], result;
    bool out;
    if constexpr (term == Term::kSub) {
      out = __builtin_sub_overflow(x, y, &result);
      out |= __builtin_sub_overflow(result, in, &result);
    } else {
      if constexpr (term != Term::kAdd) {
        const T product = term == Term::kMadLo ? mul_lo<T>(static_cast<T>(x), static_cast<T>(y))
                                               : mul_hi<T>(static_cast<T>(x), static_cast<T>(y));
        x = to_stored<T>(product);
        y = c[lane];
      }
      out = __builtin_add_overflow(x, y, &result);
      out |= __builtin_add_overflow(result, in, &result);
    }
    d[lane] = result;
    carries = out ? carries | bit : carries & ~bit;
  });
  if (op.flags & kCarryOut) warp.carry = carries;
}

template <Term term>
void decode_carry(Decoder& d, bool carry_in, bool carry_out) {
  const Type type = d.take_type({Type::kU32, Type::kS32, Type::kU64, Type::kS64});
  take_operands(d, type, term == Term::kAdd || term == Term::kSub ? 2 : 3);
  d.op().flags = (carry_in ? kCarryIn : 0) | (carry_out ? kCarryOut : 0);
  set(d, InstructionClass::kInteger, type, for_integer(d, type, [](auto t) -> Execute {
        using T = typename decltype(t)::type;
        if constexpr (sizeof(T) == 2) {
          return nullptr;  // take_type refuses it
        } else {
          return with_carry<T, term>;
        }
      }));
}

void decode_addc(Decoder& d) { decode_carry<Term::kAdd>(d, true, d.take("cc")); }
void decode_subc(Decoder& d) { decode_carry<Term::kSub>(d, true, d.take("cc")); }
void decode_madc(Decoder& d) {
  const int part = d.take_one_of({"lo", "hi"});
  if (part < 0) d.fail("needs .lo or .hi");
  const bool out = d.take("cc");
  part == 0 ? decode_carry<Term::kMadLo>(d, true, out) : decode_carry<Term::kMadHi>(d, true, out);
}

// --- decoding ---

const std::initializer_list<Type> kIntegers = {Type::kU16, Type::kU32, Type::kU64,
                                               Type::kS16, Type::kS32, Type::kS64};
const std::initializer_list<Type> kWords = {Type::kU32, Type::kS32};

// An instruction of `sources` sources of any integer type, made by make(As<T>()).
template <class Make>
void decode_simple(Decoder& d, size_t sources, std::initializer_list<Type> types, Make make) {
  const Type type = d.take_type(types);
  take_operands(d, type, sources);
  set(d, InstructionClass::kInteger, type, for_integer(d, type, make));
}

// Both halves of 32-bit registers, if the type is .u16x2 or .s16x2.
bool decode_pair(Decoder& d, size_t sources, Execute of_unsigned, Execute of_signed) {
  const int pair = d.take_one_of({"u16x2", "s16x2"});
  if (pair < 0) return false;
  take_operands(d, Type::kB32, sources);
  set(d, InstructionClass::kInteger, Type::kB32, pair == 0 ? of_unsigned : of_signed);
  return true;
}

// .lo .hi .wide; makes(As<T>(), part)
enum class Part { kLo, kHi, kWide };
Part take_part(Decoder& d) {
  const int part = d.take_one_of({"lo", "hi", "wide"});
  if (part < 0) d.fail("needs .lo, .hi or .wide");
  return static_cast<Part>(part);
}
Type wide_type(Decoder& d, Type type) {
  switch (type) {
    case Type::kU16:
      return Type::kU32;
    case Type::kS16:
      return Type::kS32;
    case Type::kU32:
      return Type::kU64;
    case Type::kS32:
      return Type::kS64;
    default:
      d.fail("no product of 128 bits");
  }
}

void decode_rem(Decoder& d) {
  decode_simple(d, 2, kIntegers,
                [](auto t) -> Execute { return map<rem<typename decltype(t)::type>>; });
}
void decode_sad(Decoder& d) {
  decode_simple(d, 3, kIntegers,
                [](auto t) -> Execute { return map<sad<typename decltype(t)::type>>; });
}

void decode_mul24(Decoder& d) {
  const Part part = take_part(d);
  const Type type = d.take_type(kWords);
  take_operands(d, type, 2);
  const bool is_signed = type == Type::kS32;
  if (part == Part::kWide) d.fail("has no .wide");
  set(d, InstructionClass::kInteger, type,
      part == Part::kLo ? (is_signed ? map<mul24_lo<int32_t>> : map<mul24_lo<uint32_t>>)
                        : (is_signed ? map<mul24_hi<int32_t>> : map<mul24_hi<uint32_t>>));
}

void decode_mad24(Decoder& d) {
  const Part part = take_part(d);
  const bool sat = part == Part::kHi && d.take("sat");
  const Type type = d.take_type(kWords);
  take_operands(d, type, 3);
  const bool is_signed = type == Type::kS32;
  if (part == Part::kWide) d.fail("has no .wide");
  if (sat && !is_signed) d.fail(".sat is for .s32");
  set(d, InstructionClass::kInteger, type,
      sat                 ? map<mad24_hi_sat>
      : part == Part::kLo ? (is_signed ? map<mad24_lo<int32_t>> : map<mad24_lo<uint32_t>>)
                          : (is_signed ? map<mad24_hi<int32_t>> : map<mad24_hi<uint32_t>>));
}

// The result and the sum are unsigned only if both factors are; the bits are the same.
void decode_dp4a(Decoder& d) {
  const Type a = d.take_type(kWords), b = d.take_type(kWords);
  take_operands(d, Type::kB32, 3);
  set(d, InstructionClass::kInteger, b,
      a == Type::kU32 ? (b == Type::kU32 ? map<dp4a<uint8_t, uint8_t>> : map<dp4a<uint8_t, int8_t>>)
                      : (b == Type::kU32 ? map<dp4a<int8_t, uint8_t>> : map<dp4a<int8_t, int8_t>>));
}

template <int first>
Execute dp2a_of(bool a_signed, bool b_signed) {
  return a_signed
             ? (b_signed ? map<dp2a<int16_t, int8_t, first>> : map<dp2a<int16_t, uint8_t, first>>)
             : (b_signed ? map<dp2a<uint16_t, int8_t, first>>
                         : map<dp2a<uint16_t, uint8_t, first>>);
}
void decode_dp2a(Decoder& d) {
  const int part = d.take_one_of({"lo", "hi"});
  if (part < 0) d.fail("needs .lo or .hi");
  const Type a = d.take_type(kWords), b = d.take_type(kWords);
  take_operands(d, Type::kB32, 3);
  const bool a_signed = a == Type::kS32, b_signed = b == Type::kS32;
  set(d, InstructionClass::kInteger, b,
      part == 0 ? dp2a_of<0>(a_signed, b_signed) : dp2a_of<2>(a_signed, b_signed));
}

void decode_add(Decoder& d) {
  if (d.take("cc")) return decode_carry<Term::kAdd>(d, false, true);
  if (d.take("sat")) {
    take_operands(d, d.take_type({Type::kS32}), 2);
    return set(d, InstructionClass::kInteger, Type::kS32, map<add_sat>);
  }
  if (decode_pair(d, 2, map<packed2<add<uint16_t>>>, map<packed2<add<int16_t>>>)) return;
  decode_simple(d, 2, kIntegers,
                [](auto t) -> Execute { return map<add<typename decltype(t)::type>>; });
}

void decode_sub(Decoder& d) {
  if (d.take("cc")) return decode_carry<Term::kSub>(d, false, true);
  if (d.take("sat")) {
    take_operands(d, d.take_type({Type::kS32}), 2);
    return set(d, InstructionClass::kInteger, Type::kS32, map<sub_sat>);
  }
  decode_simple(d, 2, kIntegers,
                [](auto t) -> Execute { return map<sub<typename decltype(t)::type>>; });
}

void decode_mul(Decoder& d) {
  const Part part = take_part(d);
  if (part != Part::kWide) {
    return decode_simple(d, 2, kIntegers, [part](auto t) -> Execute {
      using T = typename decltype(t)::type;
      return part == Part::kLo ? map<mul_lo<T>> : map<mul_hi<T>>;
    });
  }
  const Type type = d.take_type(kIntegers);
  if (d.operands() != 3) d.fail("takes 3 operands");
  take_destination(d, wide_type(d, type));
  d.source(1, type);
  d.source(2, type);
  set(d, InstructionClass::kInteger, type, for_integer(d, type, [](auto t) -> Execute {
        using T = typename decltype(t)::type;
        if constexpr (sizeof(T) == 8) {
          return nullptr;  // wide_type refuses it
        } else {
          return map<mul_wide<T>>;
        }
      }));
}

void decode_mad(Decoder& d) {
  const Part part = take_part(d);
  if (part == Part::kLo && d.take("cc")) return decode_carry<Term::kMadLo>(d, false, true);
  if (part == Part::kHi && d.take("cc")) return decode_carry<Term::kMadHi>(d, false, true);
  if (part == Part::kHi && d.take("sat")) {
    take_operands(d, d.take_type({Type::kS32}), 3);
    return set(d, InstructionClass::kInteger, Type::kS32, map<mad_hi_sat>);
  }
  if (part != Part::kWide) {
    return decode_simple(d, 3, kIntegers, [part](auto t) -> Execute {
      using T = typename decltype(t)::type;
      return part == Part::kLo ? map<mad_lo<T>> : map<mad_hi<T>>;
    });
  }
  const Type type = d.take_type(kIntegers);
  if (d.operands() != 4) d.fail("takes 4 operands");
  take_destination(d, wide_type(d, type));
  d.source(1, type);
  d.source(2, type);
  d.source(3, wide_type(d, type));
  set(d, InstructionClass::kInteger, type, for_integer(d, type, [](auto t) -> Execute {
        using T = typename decltype(t)::type;
        if constexpr (sizeof(T) == 8) {
          return nullptr;  // wide_type refuses it
        } else {
          return map<mad_wide<T>>;
        }
      }));
}

void decode_div(Decoder& d) {
  decode_simple(d, 2, kIntegers,
                [](auto t) -> Execute { return map<div<typename decltype(t)::type>>; });
}

void decode_abs(Decoder& d) {
  decode_simple(d, 1, {Type::kS16, Type::kS32, Type::kS64},
                [](auto t) -> Execute { return map<abs<typename decltype(t)::type>>; });
}
void decode_neg(Decoder& d) {
  decode_simple(d, 1, {Type::kS16, Type::kS32, Type::kS64},
                [](auto t) -> Execute { return map<neg<typename decltype(t)::type>>; });
}

void decode_min(Decoder& d) {
  if (d.take("relu")) {
    if (decode_pair(d, 2, nullptr, map<packed2<min_relu<int16_t>>>)) {
      if (d.op().execute == nullptr) d.fail(".relu is for signed types");
      return;
    }
    take_operands(d, d.take_type({Type::kS32}), 2);
    return set(d, InstructionClass::kInteger, Type::kS32, map<min_relu<int32_t>>);
  }
  if (decode_pair(d, 2, map<packed2<min<uint16_t>>>, map<packed2<min<int16_t>>>)) return;
  decode_simple(d, 2, kIntegers,
                [](auto t) -> Execute { return map<min<typename decltype(t)::type>>; });
}

void decode_max(Decoder& d) {
  if (d.take("relu")) {
    if (decode_pair(d, 2, nullptr, map<packed2<max_relu<int16_t>>>)) {
      if (d.op().execute == nullptr) d.fail(".relu is for signed types");
      return;
    }
    take_operands(d, d.take_type({Type::kS32}), 2);
    return set(d, InstructionClass::kInteger, Type::kS32, map<max_relu<int32_t>>);
  }
  if (decode_pair(d, 2, map<packed2<max<uint16_t>>>, map<packed2<max<int16_t>>>)) return;
  decode_simple(d, 2, kIntegers,
                [](auto t) -> Execute { return map<max<typename decltype(t)::type>>; });
}

}  // namespace

const InstructionTable kIntegerInstructions = {
    {"add", decode_add},     {"sub", decode_sub},     {"mul", decode_mul},
    {"mad", decode_mad},     {"addc", decode_addc},   {"subc", decode_subc},
    {"madc", decode_madc},   {"div", decode_div},     {"rem", decode_rem},
    {"abs", decode_abs},     {"neg", decode_neg},     {"min", decode_min},
    {"max", decode_max},     {"sad", decode_sad},     {"mul24", decode_mul24},
    {"mad24", decode_mad24}, {"dp4a", decode_dp4a},   {"dp2a", decode_dp2a},
    {"and", decode_and},     {"or", decode_or},       {"xor", decode_xor},
    {"not", decode_not},     {"cnot", decode_cnot},   {"lop3", decode_lop3},
    {"shl", decode_shl},     {"shr", decode_shr},     {"shf", decode_shf},
    {"popc", decode_popc},   {"clz", decode_clz},     {"bfind", decode_bfind},
    {"fns", decode_fns},     {"brev", decode_brev},   {"bfe", decode_bfe},
    {"bfi", decode_bfi},     {"szext", decode_szext}, {"bmsk", decode_bmsk},
    {"setp", decode_setp},   {"set", decode_set},     {"slct", decode_slct},
};

}  // namespace ptx_simulator
