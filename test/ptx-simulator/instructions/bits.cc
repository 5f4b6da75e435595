// Instructions on bits: logic, shifts, bit fields, counting.
#include <algorithm>

#include "instructions/lanes.h"
#include "instructions/scalar.h"

namespace ptx_simulator {
namespace {

template <class T>
T bit_and(T a, T b) {
  return a & b;
}
template <class T>
T bit_or(T a, T b) {
  return a | b;
}
template <class T>
T bit_xor(T a, T b) {
  return a ^ b;
}
template <class T>
T bit_not(T a) {
  return static_cast<T>(~a);
}
template <class T>
T cnot(T a) {
  return a == 0;
}

// Any function of three bits as a choice by a, then b, then c between the 8 bits of the table;
// entry 4a + 2b + c. `x ^ (s & (x ^ y))` is y where s is set, else x.
uint32_t lop3(Constants k, uint32_t a, uint32_t b, uint32_t c) {
  const auto entry = [&](int i) { return 0u - static_cast<uint32_t>(k.immediate >> i & 1); };
  const auto choose = [](uint32_t s, uint32_t x, uint32_t y) { return x ^ (s & (x ^ y)); };
  const uint32_t c0 = choose(c, entry(0), entry(1)), c1 = choose(c, entry(2), entry(3));
  const uint32_t c2 = choose(c, entry(4), entry(5)), c3 = choose(c, entry(6), entry(7));
  return choose(a, choose(b, c0, c1), choose(b, c2, c3));
}

// Shifts take all bits of their amount: too far gives zeros, or the sign.
template <class T>
T shl(T a, uint32_t n) {
  constexpr uint32_t bits = 8 * sizeof(T);
  using U = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
  return n < bits ? static_cast<T>(static_cast<U>(a) << (n & (bits - 1))) : T{0};
}
template <class T>
T shr(T a, uint32_t n) {
  constexpr uint32_t bits = 8 * sizeof(T);
  if constexpr (std::is_signed_v<T>) {
    return static_cast<T>(a >> (n < bits ? n : bits - 1));
  } else {
    return n < bits ? static_cast<T>(a >> (n & (bits - 1))) : T{0};
  }
}

// Funnel shifts of b:a, 64 bits.
uint32_t shift_amount(Constants k, uint32_t n) {
  constexpr uint32_t kWrap = 1;
  return (k.flags & kWrap) != 0 ? n & 31 : std::min(n, 32u);
}
uint32_t shf_left(Constants k, uint32_t a, uint32_t b, uint32_t n) {
  return static_cast<uint32_t>((uint64_t{b} << 32 | a) << shift_amount(k, n) >> 32);
}
uint32_t shf_right(Constants k, uint32_t a, uint32_t b, uint32_t n) {
  return static_cast<uint32_t>((uint64_t{b} << 32 | a) >> shift_amount(k, n));
}

template <class T>
uint32_t popc(T a) {
  return std::popcount(a);
}
template <class T>
uint32_t clz(T a) {
  return std::countl_zero(a);
}
template <class T, bool shift_amount>
uint32_t bfind(T a) {
  using U = std::make_unsigned_t<T>;
  const U x = static_cast<U>(std::is_signed_v<T> && a < 0 ? ~a : a);
  if (x == 0) return UINT32_MAX;
  const uint32_t zeros = std::countl_zero(x);
  return shift_amount ? zeros : 8 * sizeof(T) - 1 - zeros;
}

// The position of the n-th set bit, counted from bit `base` (itself counts) up or down.
uint32_t fns(uint32_t mask, uint32_t base, int32_t n) {
  if (n == 0) return base < 32 && (mask >> base & 1) != 0 ? base : UINT32_MAX;
  int64_t left = n < 0 ? -int64_t{n} : n;
  for (int64_t i = base; i >= 0 && i<32; i += n> 0 ? 1 : -1) {
    if ((mask >> i & 1) != 0 && --left == 0) return static_cast<uint32_t>(i);
  }
  return UINT32_MAX;
}

template <class T>
T brev(T a) {
  T result = 0;
  for (size_t i = 0; i < 8 * sizeof(T); ++i) result |= (a >> i & 1) << (8 * sizeof(T) - 1 - i);
  return result;
}

// `length` bits of a from bit `position`; beyond the end there are zeros, or copies of the sign.
// The sign of a signed field is its last bit, or that of a where the field reaches beyond it.
template <class T>
T bfe(T a, uint32_t position, uint32_t length) {
  constexpr uint32_t bits = 8 * sizeof(T);
  position &= 0xff;
  length &= 0xff;
  if (length == 0) return 0;
  const T field = shr<T>(a, position);
  const uint32_t unused = length < bits ? bits - length : 0;
  return static_cast<T>(shl<T>(field, unused) >> unused);
}
// b with `length` bits of a in it from bit `position`; what would lie beyond the end is lost.
template <class T>
T bfi(T a, T b, uint32_t position, uint32_t length) {
  position &= 0xff;
  length &= 0xff;
  const T ones = static_cast<T>(~T{0});
  const T low = length < 8 * sizeof(T) ? static_cast<T>(shl<T>(1, length) - 1) : ones;
  const T field = shl<T>(low, position);
  return (b & ~field) | (shl<T>(a, position) & field);
}

// The low n bits of a, extended to 32.
template <class T, bool wrap>
T szext(T a, uint32_t n) {
  if (!wrap && n >= 32) return a;
  n &= 31;
  return n == 0 ? T{0} : static_cast<T>(shl<T>(a, 32 - n) >> (32 - n));
}

// n ones from bit `position`.
template <bool wrap>
uint32_t bmsk(uint32_t position, uint32_t n) {
  if (wrap) {
    position &= 31;
    n &= 31;
  }
  const uint64_t ones = n < 32 ? (uint64_t{1} << n) - 1 : UINT32_MAX;
  return position < 32 ? static_cast<uint32_t>(ones << position) : 0;
}

// --- decoding ---

// Logic on predicates is done for all lanes at once.
enum class Logic { kAnd, kOr, kXor, kNot };
inline constexpr uint32_t kNegated0 = 1, kNegated1 = 2;

uint32_t predicate_source(Warp& warp, const Op& op, int index) {
  const uint32_t value = warp.predicate(op.s[index]);
  return (op.flags & (kNegated0 << index)) != 0 ? ~value : value;
}
template <Logic logic>
void on_predicates(Warp& warp, const Op& op, uint32_t mask) {
  const uint32_t a = predicate_source(warp, op, 0);
  const uint32_t b = logic == Logic::kNot ? 0 : predicate_source(warp, op, 1);
  warp.set_predicate(op.d[0], mask,
                     logic == Logic::kAnd   ? a & b
                     : logic == Logic::kOr  ? a | b
                     : logic == Logic::kXor ? a ^ b
                                            : ~a);
}

template <Logic logic, class Make>
void decode_logic(Decoder& d, Make make) {
  const size_t sources = logic == Logic::kNot ? 1 : 2;
  const Type type = d.take_type({Type::kPred, Type::kB16, Type::kB32, Type::kB64});
  if (type != Type::kPred) {
    take_operands(d, type, sources);
    return set(d, InstructionClass::kInteger, type, for_integer(d, type, make));
  }
  if (d.operands() != sources + 1) d.fail("takes " + std::to_string(sources + 1) + " operands");
  d.predicate_destination(d.operand(0));
  for (size_t i = 0; i < sources; ++i) {
    bool negated = false;
    d.predicate_source(d.operand(i + 1), negated);
    if (negated) d.op().flags |= kNegated0 << i;
  }
  set(d, InstructionClass::kInteger, type, on_predicates<logic>);
}

// lop3 that also says whether the result is not zero, combined with another predicate.
inline constexpr uint32_t kLopAnd = 1, kLopNegated = 2;

void lop3_with_predicate(Warp& warp, const Op& op, uint32_t mask) {
  const auto* a = warp.values<uint32_t>(op.s[0]);
  const auto* b = warp.values<uint32_t>(op.s[1]);
  const auto* c = warp.values<uint32_t>(op.s[2]);
  uint32_t* d = op.d[0].none() ? nullptr : warp.lanes<uint32_t>(op.d[0]);
  uint32_t nonzero = 0;
  for_each_lane(mask, [&](int lane) {
    const uint32_t result = lop3({op.immediate, 0}, a[lane], b[lane], c[lane]);
    if (d != nullptr) d[lane] = result;
    nonzero |= uint32_t{result != 0} << lane;
  });
  uint32_t q = warp.predicate(op.s[3]);
  if ((op.flags & kLopNegated) != 0) q = ~q;
  warp.set_predicate(op.d[1], mask, (op.flags & kLopAnd) != 0 ? nonzero & q : nonzero | q);
}

const std::initializer_list<Type> kUntyped = {Type::kB16, Type::kB32, Type::kB64};
const std::initializer_list<Type> kLong = {Type::kB32, Type::kB64};

// d of type .u32, one source of the type.
template <class Make>
void decode_count(Decoder& d, std::initializer_list<Type> types, Make make) {
  const Type type = d.take_type(types);
  if (d.operands() != 2) d.fail("takes 2 operands");
  take_destination(d, Type::kU32);
  d.source(1, type);
  set(d, InstructionClass::kInteger, type, for_integer(d, type, make));
}

// The first `values` sources of the type, the rest (positions, amounts) of .u32.
template <class Make>
void decode_field(Decoder& d, std::initializer_list<Type> types, size_t values, size_t sources,
                  Make make) {
  const Type type = d.take_type(types);
  if (d.operands() != sources + 1) d.fail("takes " + std::to_string(sources + 1) + " operands");
  take_destination(d, type);
  for (size_t i = 1; i <= sources; ++i) d.source(i, i <= values ? type : Type::kU32);
  set(d, InstructionClass::kInteger, type, for_integer(d, type, make));
}

bool take_wrap(Decoder& d) {
  const int mode = d.take_one_of({"clamp", "wrap"});
  if (mode < 0) d.fail("needs .clamp or .wrap");
  return mode == 1;
}

}  // namespace

void decode_and(Decoder& d) {
  decode_logic<Logic::kAnd>(
      d, [](auto t) -> Execute { return map<bit_and<typename decltype(t)::type>>; });
}
void decode_or(Decoder& d) {
  decode_logic<Logic::kOr>(
      d, [](auto t) -> Execute { return map<bit_or<typename decltype(t)::type>>; });
}
void decode_xor(Decoder& d) {
  decode_logic<Logic::kXor>(
      d, [](auto t) -> Execute { return map<bit_xor<typename decltype(t)::type>>; });
}
void decode_not(Decoder& d) {
  decode_logic<Logic::kNot>(
      d, [](auto t) -> Execute { return map<bit_not<typename decltype(t)::type>>; });
}
void decode_cnot(Decoder& d) {
  const Type type = d.take_type(kUntyped);
  take_operands(d, type, 1);
  set(d, InstructionClass::kInteger, type, for_integer(d, type, [](auto t) -> Execute {
        return map<cnot<typename decltype(t)::type>>;
      }));
}

void decode_lop3(Decoder& d) {
  const int combine = d.take_one_of({"or", "and"});
  const Type type = d.take_type({Type::kB32});
  const bool with_predicate = combine >= 0;
  if (d.operands() != (with_predicate ? 6u : 5u)) d.fail("wrong number of operands");
  if (with_predicate) {
    if (d.operand(0).kind != Operand::Kind::kPair) d.fail("needs d|p");
    d.destination(d.operand(0).parts[0], type);
    d.predicate_destination(d.operand(0).parts[1]);
  } else {
    take_destination(d, type);
  }
  for (size_t i = 1; i <= 3; ++i) d.source(i, type);
  d.op().immediate = d.immediate(4);
  if (d.op().immediate < 0 || d.op().immediate > 255) d.fail("a lookup table has 8 bits");
  if (with_predicate) {
    bool negated = false;
    d.predicate_source(d.operand(5), negated);
    d.op().flags = (combine == 1 ? kLopAnd : 0) | (negated ? kLopNegated : 0);
  }
  set(d, InstructionClass::kInteger, type, with_predicate ? lop3_with_predicate : map<lop3>);
}

void decode_shl(Decoder& d) {
  decode_field(d, kUntyped, 1, 2,
               [](auto t) -> Execute { return map<shl<typename decltype(t)::type>>; });
}
void decode_shr(Decoder& d) {
  decode_field(d,
               {Type::kB16, Type::kB32, Type::kB64, Type::kU16, Type::kU32, Type::kU64, Type::kS16,
                Type::kS32, Type::kS64},
               1, 2, [](auto t) -> Execute { return map<shr<typename decltype(t)::type>>; });
}
void decode_shf(Decoder& d) {
  const int direction = d.take_one_of({"l", "r"});
  if (direction < 0) d.fail("needs .l or .r");
  d.op().flags = take_wrap(d) ? 1 : 0;
  const Type type = d.take_type({Type::kB32});
  take_operands(d, type, 3);
  set(d, InstructionClass::kInteger, type, direction == 0 ? map<shf_left> : map<shf_right>);
}

void decode_popc(Decoder& d) {
  decode_count(d, kLong, [](auto t) -> Execute {
    return map<popc<std::make_unsigned_t<typename decltype(t)::type>>>;
  });
}
void decode_clz(Decoder& d) {
  decode_count(d, kLong, [](auto t) -> Execute {
    return map<clz<std::make_unsigned_t<typename decltype(t)::type>>>;
  });
}
void decode_bfind(Decoder& d) {
  const bool amount = d.take("shiftamt");
  decode_count(d, {Type::kU32, Type::kU64, Type::kS32, Type::kS64}, [amount](auto t) -> Execute {
    using T = typename decltype(t)::type;
    return amount ? map<bfind<T, true>> : map<bfind<T, false>>;
  });
}
void decode_fns(Decoder& d) {
  const Type type = d.take_type({Type::kB32});
  take_operands(d, type, 3);
  set(d, InstructionClass::kInteger, type, map<fns>);
}
void decode_brev(Decoder& d) {
  decode_field(d, kLong, 1, 1,
               [](auto t) -> Execute { return map<brev<typename decltype(t)::type>>; });
}
void decode_bfe(Decoder& d) {
  decode_field(d, {Type::kU32, Type::kU64, Type::kS32, Type::kS64}, 1, 3,
               [](auto t) -> Execute { return map<bfe<typename decltype(t)::type>>; });
}
void decode_bfi(Decoder& d) {
  decode_field(d, kLong, 2, 4,
               [](auto t) -> Execute { return map<bfi<typename decltype(t)::type>>; });
}
void decode_szext(Decoder& d) {
  const bool wrap = take_wrap(d);
  const Type type = d.take_type({Type::kU32, Type::kS32});
  take_operands(d, type, 2);
  set(d, InstructionClass::kInteger, type,
      type == Type::kS32 ? (wrap ? map<szext<int32_t, true>> : map<szext<int32_t, false>>)
                         : (wrap ? map<szext<uint32_t, true>> : map<szext<uint32_t, false>>));
}
void decode_bmsk(Decoder& d) {
  const bool wrap = take_wrap(d);
  const Type type = d.take_type({Type::kB32});
  take_operands(d, type, 2);
  set(d, InstructionClass::kInteger, type, wrap ? map<bmsk<true>> : map<bmsk<false>>);
}

}  // namespace ptx_simulator
