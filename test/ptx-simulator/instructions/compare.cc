// Comparisons: setp, set, slct, testp, for all types.
//
// Every comparison is one of five (equal, less, less or equal, ordered and different, ordered) with
// the operands exchanged or the answer inverted; "greater, equal or unordered" is "not less".
#include "instructions/half.h"
#include "instructions/lanes.h"
#include "instructions/scalar.h"

namespace ptx_simulator {
namespace {

enum class Relation : uint8_t { kEqual, kLess, kLessOrEqual, kLessOrGreater, kOrdered };

// Flags of the op: how its answers are combined with the predicate in the last source.
inline constexpr uint32_t kInvert = 1, kHasPredicate = 2, kPredicateNegated = 4;
inline constexpr uint32_t kAnd = 0, kOr = 8, kXor = 16, kCombination = 24;

// How the operands of a type are read: as something that C++ compares.
struct FlushedFloat {  // .ftz: subnormal numbers count as zeros
  using Bits = uint32_t;
  static float read(uint32_t bits) {
    return std::bit_cast<float>((bits & 0x7f800000) == 0 ? bits & 0x80000000 : bits);
  }
};
template <class T>
struct Plain {
  using Bits = Stored<T>;
  static T read(Bits bits) { return from_stored<T>(bits); }
};
template <class Format, bool high, bool ftz>
struct Half {
  using Bits = uint32_t;
  static float read(uint32_t bits) {
    uint32_t h = high ? bits >> 16 : bits & 0xffff;
    constexpr uint32_t sign = 0x8000;
    if (ftz) h = (h & Format::kInfinity) == 0 ? h & sign : h;
    return Format::value(h);
  }
};

template <Relation relation, class T>
bool holds(T a, T b) {
  switch (relation) {
    case Relation::kEqual:
      return a == b;
    case Relation::kLess:
      return a < b;
    case Relation::kLessOrEqual:
      return a <= b;
    case Relation::kLessOrGreater:
      return (a < b) | (a > b);
    case Relation::kOrdered:
      return (a == a) & (b == b);
  }
}

// A bit per lane: whether the relation holds.
using Compare = uint32_t (*)(const Warp& warp, const Op& op);
template <class Reader, Relation relation>
uint32_t compare(const Warp& warp, const Op& op) {
  const auto* a = warp.values<typename Reader::Bits>(op.s[0]);
  const auto* b = warp.values<typename Reader::Bits>(op.s[1]);
  uint32_t bits = 0;
  for (int lane = 0; lane < kWarpSize; ++lane) {
    bits |= uint32_t{holds<relation>(Reader::read(a[lane]), Reader::read(b[lane]))} << lane;
  }
  return bits;
}

uint32_t combine(const Warp& warp, const Op& op, uint32_t bits) {
  if ((op.flags & kHasPredicate) == 0) return bits;
  uint32_t c = warp.predicate(op.s[2]);
  if ((op.flags & kPredicateNegated) != 0) c = ~c;
  switch (op.flags & kCombination) {
    case kAnd:
      return bits & c;
    case kOr:
      return bits | c;
    default:
      return bits ^ c;
  }
}

// setp: the second destination has the opposite answer, combined likewise.
template <Compare compare>
void setp(Warp& warp, const Op& op, uint32_t mask) {
  uint32_t bits = compare(warp, op);
  if ((op.flags & kInvert) != 0) bits = ~bits;
  const uint32_t p = combine(warp, op, bits);
  const uint32_t q = op.d.size() > 1 ? combine(warp, op, ~bits) : 0;
  if (!op.d[0].none()) warp.set_predicate(op.d[0], mask, p);
  if (op.d.size() > 1 && !op.d[1].none()) warp.set_predicate(op.d[1], mask, q);
}
// setp of packed halves: an answer for the low halves, one for the high ones.
template <Compare low, Compare high>
void setp_pair(Warp& warp, const Op& op, uint32_t mask) {
  const uint32_t invert = (op.flags & kInvert) != 0 ? UINT32_MAX : 0;
  const uint32_t p = combine(warp, op, low(warp, op) ^ invert);
  const uint32_t q = combine(warp, op, high(warp, op) ^ invert);
  if (!op.d[0].none()) warp.set_predicate(op.d[0], mask, p);
  if (!op.d[1].none()) warp.set_predicate(op.d[1], mask, q);
}

// set: the op's immediate is what a lane gets where the answer is yes; else it gets 0.
template <Compare compare>
void set_value(Warp& warp, const Op& op, uint32_t mask) {
  uint32_t bits = compare(warp, op);
  if ((op.flags & kInvert) != 0) bits = ~bits;
  bits = combine(warp, op, bits);
  const auto yes = static_cast<uint32_t>(op.immediate);
  write_lanes(warp.lanes<uint32_t>(op.d[0]), mask,
              [bits, yes](int lane) { return (bits >> lane & 1) != 0 ? yes : 0; });
}
template <Compare low, Compare high>
void set_value_pair(Warp& warp, const Op& op, uint32_t mask) {
  const uint32_t invert = (op.flags & kInvert) != 0 ? UINT32_MAX : 0;
  const uint32_t low_bits = combine(warp, op, low(warp, op) ^ invert);
  const uint32_t high_bits = combine(warp, op, high(warp, op) ^ invert);
  const auto yes = static_cast<uint32_t>(op.immediate);
  write_lanes(warp.lanes<uint32_t>(op.d[0]), mask, [=](int lane) {
    return ((low_bits >> lane & 1) != 0 ? yes & 0xffff : 0) |
           ((high_bits >> lane & 1) != 0 ? yes & 0xffff0000 : 0);
  });
}

// --- decoding ---

struct Comparison {
  std::string_view name;
  Relation relation;
  bool exchange;
  bool invert;
  bool of_integers;
  bool of_floats;
};
constexpr Comparison kComparisons[] = {
    {"eq", Relation::kEqual, false, false, true, true},
    {"ne", Relation::kLessOrGreater, false, false, true, true},
    {"lt", Relation::kLess, false, false, true, true},
    {"le", Relation::kLessOrEqual, false, false, true, true},
    {"gt", Relation::kLess, true, false, true, true},
    {"ge", Relation::kLessOrEqual, true, false, true, true},
    {"lo", Relation::kLess, false, false, true, false},
    {"ls", Relation::kLessOrEqual, false, false, true, false},
    {"hi", Relation::kLess, true, false, true, false},
    {"hs", Relation::kLessOrEqual, true, false, true, false},
    {"equ", Relation::kLessOrGreater, false, true, false, true},
    {"neu", Relation::kEqual, false, true, false, true},
    {"ltu", Relation::kLessOrEqual, true, true, false, true},
    {"leu", Relation::kLess, true, true, false, true},
    {"gtu", Relation::kLessOrEqual, false, true, false, true},
    {"geu", Relation::kLess, false, true, false, true},
    {"num", Relation::kOrdered, false, false, false, true},
    {"nan", Relation::kOrdered, false, true, false, true},
};

const Comparison& take_comparison(Decoder& d) {
  for (const Comparison& c : kComparisons) {
    if (d.take(c.name)) return c;
  }
  d.fail("no such comparison");
}
void take_combination(Decoder& d) {
  constexpr uint32_t flags[] = {kAnd, kOr, kXor};
  const int index = d.take_one_of({"and", "or", "xor"});
  if (index >= 0) d.op().flags |= kHasPredicate | flags[index];
}

bool is_float(Type type) {
  switch (type) {
    case Type::kF16:
    case Type::kF16x2:
    case Type::kBf16:
    case Type::kBf16x2:
    case Type::kF32:
    case Type::kF64:
      return true;
    default:
      return false;
  }
}
bool is_pair(Type type) { return type == Type::kF16x2 || type == Type::kBf16x2; }

// The executions of one type, by relation.
template <class Reader, bool to_predicate>
Execute execution(Relation relation) {
  const auto pick = [](auto r) -> Execute {
    constexpr Relation kRelation = decltype(r)::value;
    return to_predicate ? setp<compare<Reader, kRelation>> : set_value<compare<Reader, kRelation>>;
  };
  switch (relation) {
    case Relation::kEqual:
      return pick(std::integral_constant<Relation, Relation::kEqual>());
    case Relation::kLess:
      return pick(std::integral_constant<Relation, Relation::kLess>());
    case Relation::kLessOrEqual:
      return pick(std::integral_constant<Relation, Relation::kLessOrEqual>());
    case Relation::kLessOrGreater:
      return pick(std::integral_constant<Relation, Relation::kLessOrGreater>());
    case Relation::kOrdered:
      return pick(std::integral_constant<Relation, Relation::kOrdered>());
  }
  return nullptr;
}
template <class Format, bool ftz, bool to_predicate>
Execute pair_execution(Relation relation) {
  const auto pick = [](auto r) -> Execute {
    constexpr Relation kRelation = decltype(r)::value;
    constexpr Compare low = compare<Half<Format, false, ftz>, kRelation>;
    constexpr Compare high = compare<Half<Format, true, ftz>, kRelation>;
    return to_predicate ? setp_pair<low, high> : set_value_pair<low, high>;
  };
  switch (relation) {
    case Relation::kEqual:
      return pick(std::integral_constant<Relation, Relation::kEqual>());
    case Relation::kLess:
      return pick(std::integral_constant<Relation, Relation::kLess>());
    case Relation::kLessOrEqual:
      return pick(std::integral_constant<Relation, Relation::kLessOrEqual>());
    case Relation::kLessOrGreater:
      return pick(std::integral_constant<Relation, Relation::kLessOrGreater>());
    case Relation::kOrdered:
      return pick(std::integral_constant<Relation, Relation::kOrdered>());
  }
  return nullptr;
}

template <bool to_predicate>
Execute execution_of(Decoder& d, Type type, Relation relation, bool ftz) {
  switch (type) {
    case Type::kF32:
      return ftz ? execution<FlushedFloat, to_predicate>(relation)
                 : execution<Plain<float>, to_predicate>(relation);
    case Type::kF64:
      return execution<Plain<double>, to_predicate>(relation);
    case Type::kF16:
      return ftz ? execution<Half<F16, false, true>, to_predicate>(relation)
                 : execution<Half<F16, false, false>, to_predicate>(relation);
    case Type::kBf16:
      return execution<Half<Bf16, false, false>, to_predicate>(relation);
    case Type::kF16x2:
      return ftz ? pair_execution<F16, true, to_predicate>(relation)
                 : pair_execution<F16, false, to_predicate>(relation);
    case Type::kBf16x2:
      return pair_execution<Bf16, false, to_predicate>(relation);
    default:
      return for_integer(d, type, [relation](auto t) {
        return execution<Plain<typename decltype(t)::type>, to_predicate>(relation);
      });
  }
}

// Takes the sources of setp and set, and makes the execution.
template <bool to_predicate>
void finish(Decoder& d, const Comparison& comparison, Type type, bool ftz) {
  const bool with_predicate = (d.op().flags & kHasPredicate) != 0;
  if (d.operands() != (with_predicate ? 4u : 3u)) d.fail("wrong number of operands");
  if (!(is_float(type) ? comparison.of_floats : comparison.of_integers)) {
    d.fail("no such comparison of this type");
  }
  if (ftz &&
      (!is_float(type) || type == Type::kF64 || type == Type::kBf16 || type == Type::kBf16x2)) {
    d.fail("has no .ftz for this type");
  }
  const Type register_type = is_pair(type) ? Type::kB32 : type;
  d.source(comparison.exchange ? 2 : 1, register_type);
  d.source(comparison.exchange ? 1 : 2, register_type);
  if (with_predicate) {
    bool negated = false;
    d.predicate_source(d.operand(3), negated);
    if (negated) d.op().flags |= kPredicateNegated;
  }
  Relation relation = comparison.relation;
  bool invert = comparison.invert;
  if (!is_float(type) && relation == Relation::kLessOrGreater) {  // integers are all ordered
    relation = Relation::kEqual;
    invert = true;
  }
  if (invert) d.op().flags |= kInvert;
  InstructionClass kind = InstructionClass::kInteger;
  if (is_float(type)) {
    kind = type == Type::kF32   ? InstructionClass::kFloat32
           : type == Type::kF64 ? InstructionClass::kFloat64
                                : InstructionClass::kHalf;
  }
  set(d, kind, type, execution_of<to_predicate>(d, type, relation, ftz));
}

// --- slct: the first source where the third is not negative (so not where it is NaN) ---

template <class T>
T slct_integer(T a, T b, int32_t c) {
  return c >= 0 ? a : b;
}
template <class T>
T slct_float(T a, T b, float c) {
  return c >= 0 ? a : b;
}
template <class T>
T slct_flushed(T a, T b, uint32_t c) {
  return FlushedFloat::read(c) >= 0 ? a : b;
}

// --- testp ---

enum class Property { kFinite, kInfinite, kNumber, kNotANumber, kNormal, kSubnormal };
template <class T, Property property>
void testp(Warp& warp, const Op& op, uint32_t mask) {
  const auto* a = warp.values<Stored<T>>(op.s[0]);
  constexpr Stored<T> kExponent = sizeof(T) == 8 ? 0x7ff0000000000000 : 0x7f800000;
  uint32_t bits = 0;
  for (int lane = 0; lane < kWarpSize; ++lane) {
    const Stored<T> magnitude = a[lane] & static_cast<Stored<T>>(~Stored<T>{0}) >> 1;
    const bool small = (magnitude & kExponent) == 0;
    const bool is = property == Property::kFinite       ? magnitude < kExponent
                    : property == Property::kInfinite   ? magnitude == kExponent
                    : property == Property::kNumber     ? magnitude <= kExponent
                    : property == Property::kNotANumber ? magnitude > kExponent
                    : property == Property::kNormal     ? magnitude < kExponent && !small
                                                        : magnitude != 0 && small;
    bits |= uint32_t{is} << lane;
  }
  warp.set_predicate(op.d[0], mask, bits);
}
template <class T>
Execute testp_of(int property) {
  constexpr Execute executions[] = {testp<T, Property::kFinite>, testp<T, Property::kInfinite>,
                                    testp<T, Property::kNumber>, testp<T, Property::kNotANumber>,
                                    testp<T, Property::kNormal>, testp<T, Property::kSubnormal>};
  return executions[property];
}

}  // namespace

void decode_setp(Decoder& d) {
  const Comparison& comparison = take_comparison(d);
  take_combination(d);
  const bool ftz = d.take("ftz");
  const Type type = d.take_type();
  const Operand& result = d.operand(0);
  if (result.kind == Operand::Kind::kPair) {
    d.predicate_destination(result.parts[0]);
    d.predicate_destination(result.parts[1]);
  } else {
    if (is_pair(type)) d.fail("needs two predicates, p|q");
    d.predicate_destination(result);
  }
  finish<true>(d, comparison, type, ftz);
}

void decode_set(Decoder& d) {
  const Comparison& comparison = take_comparison(d);
  take_combination(d);
  const bool ftz = d.take("ftz");
  const Type result = d.take_type(), type = d.take_type();
  const bool pair = is_pair(type);
  int64_t yes = 0;
  switch (result) {
    case Type::kU32:
    case Type::kS32:
      yes = 0xffffffff;
      break;
    case Type::kF32:
      yes = 0x3f800000;
      break;
    case Type::kU16:
    case Type::kS16:
      yes = 0xffff;
      break;
    case Type::kF16:
      yes = F16::kOne;
      break;
    case Type::kBf16:
      yes = Bf16::kOne;
      break;
    case Type::kF16x2:
      yes = F16::kOne | F16::kOne << 16;
      break;
    case Type::kBf16x2:
      yes = Bf16::kOne | Bf16::kOne << 16;
      break;
    default:
      d.fail("no such type of result");
  }
  if (is_pair(result) && !pair) d.fail("a packed result needs packed sources");
  if (pair && (bits_of(result) != 32 || result == Type::kF32)) {
    d.fail("packed sources need a result of two halves");
  }
  d.op().immediate = yes;
  take_destination(d, is_pair(result) ? Type::kB32 : result);
  finish<false>(d, comparison, type, ftz);
  d.op().type2 = result;
}

void decode_slct(Decoder& d) {
  const bool ftz = d.take("ftz");
  const Type type =
      d.take_type({Type::kB16, Type::kB32, Type::kB64, Type::kU16, Type::kU32, Type::kU64,
                   Type::kS16, Type::kS32, Type::kS64, Type::kF32, Type::kF64});
  const Type by = d.take_type({Type::kS32, Type::kF32});
  if (ftz && by != Type::kF32) d.fail(".ftz is for .f32");
  if (d.operands() != 4) d.fail("takes 4 operands");
  take_destination(d, type);
  d.source(1, type);
  d.source(2, type);
  d.source(3, by);
  const Type bits = type == Type::kF32 ? Type::kB32 : type == Type::kF64 ? Type::kB64 : type;
  set(d, InstructionClass::kMove, type, for_integer(d, bits, [&](auto t) -> Execute {
        using T = typename decltype(t)::type;
        if (by == Type::kS32) return map<slct_integer<T>>;
        return ftz ? map<slct_flushed<T>> : map<slct_float<T>>;
      }));
}

void decode_testp(Decoder& d) {
  const int property =
      d.take_one_of({"finite", "infinite", "number", "notanumber", "normal", "subnormal"});
  if (property < 0) d.fail("no such property");
  const Type type = d.take_type({Type::kF32, Type::kF64});
  if (d.operands() != 2) d.fail("takes 2 operands");
  d.predicate_destination(d.operand(0));
  d.source(1, type);
  set(d, type == Type::kF32 ? InstructionClass::kFloat32 : InstructionClass::kFloat64, type,
      type == Type::kF32 ? testp_of<float>(property) : testp_of<double>(property));
}

}  // namespace ptx_simulator
