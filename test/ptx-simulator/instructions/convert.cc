// cvt, in all its forms. The frequent ones are vector loops; all others go lane by lane through
// convert(), which is exact by construction: integers become a sign and 64 bits, floats become
// doubles (of which f16, bf16 and f32 are subsets), and the result is rounded once from those.
#include <algorithm>
#include <cmath>
#include <limits>

#include "instructions/half.h"
#include "instructions/lanes.h"
#include "instructions/rounding.h"

namespace ptx_simulator {
namespace {

// What convert() needs to know; a value of it lies in Op::flags.
struct Form {
  RoundTo to_float;  // .rn .rz .rm .rp .rna
  bool to_integral;  // .rni .rzi .rmi .rpi, in to_float's mode
  bool flush;        // .ftz
  bool saturate;     // .sat
  bool relu;         // .relu
  uint8_t width;     // of the destination's register, in bits
  uint32_t packed() const {
    return static_cast<uint32_t>(to_float) | uint32_t{to_integral} << 3 | uint32_t{flush} << 4 |
           uint32_t{saturate} << 5 | uint32_t{relu} << 6 | uint32_t{width} << 8;
  }
  static Form of(uint32_t flags) {
    return {static_cast<RoundTo>(flags & 7),
            (flags & 8) != 0,
            (flags & 16) != 0,
            (flags & 32) != 0,
            (flags & 64) != 0,
            static_cast<uint8_t>(flags >> 8)};
  }
};

bool is_signed(Type type) {
  return type == Type::kS8 || type == Type::kS16 || type == Type::kS32 || type == Type::kS64;
}
bool is_float(Type type) {
  return type == Type::kF16 || type == Type::kBf16 || type == Type::kTf32 || type == Type::kF32 ||
         type == Type::kF64;
}

// The value of an integer type's bits, as two's complement of 128 bits.
__int128 integer_value(Type type, uint64_t bits) {
  const int unused = 64 - bits_of(type);
  if (is_signed(type)) return static_cast<int64_t>(bits << unused) >> unused;
  return bits << unused >> unused;
}
__int128 smallest(Type type) {
  return is_signed(type) ? -(static_cast<__int128>(1) << (bits_of(type) - 1)) : 0;
}
__int128 largest(Type type) {
  return (static_cast<__int128>(1) << (bits_of(type) - (is_signed(type) ? 1 : 0))) - 1;
}

double float_value(Type type, uint64_t bits, bool flush) {
  switch (type) {
    case Type::kF16:
      return F16::value(static_cast<uint32_t>(bits & 0xffff));
    case Type::kBf16:
      return Bf16::value(static_cast<uint32_t>(bits & 0xffff));
    case Type::kF64:
      return std::bit_cast<double>(bits);
    default: {
      auto word = static_cast<uint32_t>(bits);
      if (flush && (word & 0x7f800000) == 0) word &= 0x80000000;
      return std::bit_cast<float>(word);
    }
  }
}

const FloatFormat& format_of(Type type) {
  switch (type) {
    case Type::kF16:
      return kFormatF16;
    case Type::kBf16:
      return kFormatBf16;
    case Type::kTf32:
      return kFormatTf32;
    case Type::kF32:
      return kFormatF32;
    default:
      return kFormatF64;
  }
}

double to_integral(double x, RoundTo mode) {
  switch (mode) {
    case RoundTo::kZero:
      return std::trunc(x);
    case RoundTo::kDown:
      return std::floor(x);
    case RoundTo::kUp:
      return std::ceil(x);
    default:
      return std::nearbyint(x);  // the processor's mode is to nearest
  }
}

uint64_t finish_float(Type type, const Form& form, uint64_t bits) {
  if (form.flush && type == Type::kF32 && (bits & 0x7f800000) == 0) bits &= 0x80000000;
  return type == Type::kTf32 ? bits << 13 : bits;  // the low bits of an f32 are left out
}

uint64_t to_float(Type to, const Form& form, double x) {
  if (form.to_integral) x = to_integral(x, form.to_float);
  if (form.saturate) x = x > 0 ? std::min(x, 1.0) : 0.0;
  if (form.relu && x <= 0) x = 0;
  return finish_float(to, form, encode(format_of(to), x, form.to_float));
}

uint64_t to_integer(Type from, Type to, const Form& form, double x) {
  if (std::isnan(x)) {
    // Zero, but the lowest bit pattern of the sign where 64 bits are involved.
    const bool is_long = from == Type::kF64 || bits_of(to) == 64;
    return is_long ? uint64_t{1} << (bits_of(to) - 1) : 0;
  }
  x = to_integral(x, form.to_float);
  if (x < static_cast<double>(smallest(to))) return static_cast<uint64_t>(smallest(to));
  // The largest of 64 bits is no double: compare with the power of two above.
  if (x >= static_cast<double>(largest(to) + 1)) return static_cast<uint64_t>(largest(to));
  return static_cast<uint64_t>(static_cast<__int128>(x));
}

uint64_t convert(Type from, Type to, const Form& form, uint64_t bits) {
  uint64_t result;
  if (is_float(to)) {
    if (is_float(from)) return to_float(to, form, float_value(from, bits, form.flush));
    const __int128 value = integer_value(from, bits);
    const auto magnitude = static_cast<uint64_t>(value < 0 ? -value : value);
    if (form.saturate) return to_float(to, form, value > 0 ? 1.0 : 0.0);
    return finish_float(to, form, encode(format_of(to), value < 0, magnitude, 0, form.to_float));
  }
  if (is_float(from)) {
    result = to_integer(from, to, form, float_value(from, bits, form.flush));
  } else {
    __int128 value = integer_value(from, bits);
    if (form.saturate) value = std::clamp(value, smallest(to), largest(to));
    result = static_cast<uint64_t>(value);
  }
  // Extended to the width of the register as the type says.
  result = static_cast<uint64_t>(integer_value(to, result));
  return form.width == 64 ? result : result & ((uint64_t{1} << form.width) - 1);
}

void write(Warp& warp, Slot slot, int lane, uint64_t value) {
  if (slot.bytes == 8) {
    warp.lanes<uint64_t>(slot)[lane] = value;
  } else {
    warp.lanes<uint32_t>(slot)[lane] = static_cast<uint32_t>(value);
  }
}

void convert_lanes(Warp& warp, const Op& op, uint32_t mask) {
  const Form form = Form::of(op.flags);
  for_each_lane(mask, [&](int lane) {
    write(warp, op.d[0], lane, convert(op.type2, op.type, form, warp.value(op.s[0], lane)));
  });
}
// d = {high: s[0], low: s[1]}
void convert_pairs(Warp& warp, const Op& op, uint32_t mask) {
  const Form form = Form::of(op.flags);
  for_each_lane(mask, [&](int lane) {
    const uint64_t high = convert(Type::kF32, op.type, form, warp.value(op.s[0], lane));
    const uint64_t low = convert(Type::kF32, op.type, form, warp.value(op.s[1], lane));
    write(warp, op.d[0], lane, high << 16 | low);
  });
}

// --- frequent forms ---

// Between integers: extended from the type to the register. The op's immediate has the register's
// bits set.
template <class To, class From, class Register>
Register between_integers(Constants k, From a) {
  return static_cast<Register>(static_cast<To>(a)) & static_cast<Register>(k.immediate);
}
template <class T>
float word_to_float(T a) {
  return static_cast<float>(a);
}
double word_to_double(int32_t a) { return a; }
template <class T>
T float_to_word(double integral) {
  constexpr double low = std::numeric_limits<T>::min(), high = std::numeric_limits<T>::max();
  const double clamped = integral > low ? integral : low;  // also of NaN
  const double value = clamped < high ? clamped : high;
  return integral == integral ? static_cast<T>(static_cast<int64_t>(value)) : 0;
}
template <class T>
T truncated(float a) {
  return float_to_word<T>(std::trunc(a));
}
template <class T>
T nearest(float a) {
  return float_to_word<T>(std::nearbyint(a));
}
template <class T>
T lowered(float a) {
  return float_to_word<T>(std::floor(a));
}
template <class T>
T raised(float a) {
  return float_to_word<T>(std::ceil(a));
}
float half_to_float(uint32_t a) {
  const float x = F16::value(a & 0xffff);
  return x == x ? x : std::bit_cast<float>(kNan32);
}
float bf16_to_float(uint32_t a) {
  const float x = Bf16::value(a & 0xffff);
  return x == x ? x : std::bit_cast<float>(kNan32);
}
double float_to_double(float a) {
  return a == a ? double{a} : std::bit_cast<double>(kFormatF64.nan);
}
float double_to_float(double a) {
  return a == a ? static_cast<float>(a) : std::bit_cast<float>(kNan32);
}
template <class Format>
uint32_t float_to_half(float a) {
  return Format::round(a);
}
template <class Format>
uint32_t floats_to_halves(float high, float low) {
  return Format::round(high) << 16 | Format::round(low);
}

template <class Make>
Execute for_any_integer(Decoder& d, Type type, Make make) {
  if (type == Type::kU8) return make(As<uint8_t>());
  if (type == Type::kS8) return make(As<int8_t>());
  return for_integer(d, type, make);
}

// Or null: then convert_lanes does it.
Execute frequent(Decoder& d, Type from, Type to, const Form& form) {
  const Slot s = d.op().s[0], t = d.op().d[0];
  if (form.flush || form.saturate || form.relu || s.bytes != (bits_of(from) == 64 ? 8 : 4)) {
    return nullptr;
  }
  if (!is_float(from) && !is_float(to)) {
    d.op().immediate = static_cast<int64_t>(UINT64_MAX >> (64 - form.width));
    return for_any_integer(d, from, [&](auto a) -> Execute {
      using From = typename decltype(a)::type;
      return for_any_integer(d, to, [&](auto b) -> Execute {
        using To = typename decltype(b)::type;
        if (t.bytes == 8) return map<between_integers<To, From, uint64_t>>;
        return map<between_integers<To, From, uint32_t>>;
      });
    });
  }
  if (t.bytes != (bits_of(to) == 64 ? 8 : 4) || form.width != bits_of(to)) return nullptr;
  const bool nearest_even = form.to_float == RoundTo::kNearest && !form.to_integral;
  if (to == Type::kF32 && nearest_even) {
    if (from == Type::kS32) return map<word_to_float<int32_t>>;
    if (from == Type::kU32) return map<word_to_float<uint32_t>>;
    if (from == Type::kF16) return map<half_to_float>;
    if (from == Type::kBf16) return map<bf16_to_float>;
    if (from == Type::kF64) return map<double_to_float>;
  }
  if (to == Type::kF64 && from == Type::kF32) return map<float_to_double>;
  if (to == Type::kF64 && from == Type::kS32) return map<word_to_double>;
  if (from == Type::kF32 && nearest_even) {
    if (to == Type::kF16) return map<float_to_half<F16>>;
    if (to == Type::kBf16) return map<float_to_half<Bf16>>;
  }
  if (from == Type::kF32 && (to == Type::kS32 || to == Type::kU32)) {
    const bool to_signed = to == Type::kS32;
    switch (form.to_float) {
      case RoundTo::kZero:
        return to_signed ? map<truncated<int32_t>> : map<truncated<uint32_t>>;
      case RoundTo::kDown:
        return to_signed ? map<lowered<int32_t>> : map<lowered<uint32_t>>;
      case RoundTo::kUp:
        return to_signed ? map<raised<int32_t>> : map<raised<uint32_t>>;
      default:
        return to_signed ? map<nearest<int32_t>> : map<nearest<uint32_t>>;
    }
  }
  return nullptr;
}

// --- cvt.pack: two saturated integers, beside the low bits of a third operand ---

// Flags: bits of an element; whether it is signed.
inline constexpr uint32_t kPackSigned = 256;

void pack(Warp& warp, const Op& op, uint32_t mask) {
  const int bits = static_cast<int>(op.flags & 255);
  const bool to_signed = (op.flags & kPackSigned) != 0;
  const int64_t low = to_signed ? -(int64_t{1} << (bits - 1)) : 0;
  const int64_t high = (int64_t{1} << (to_signed ? bits - 1 : bits)) - 1;
  const uint32_t ones = (uint32_t{1} << bits) - 1;
  for_each_lane(mask, [&](int lane) {
    const auto element = [&](int i) {
      const auto value = static_cast<int32_t>(warp.value(op.s[i], lane));
      return static_cast<uint32_t>(std::clamp<int64_t>(value, low, high)) & ones;
    };
    uint32_t result = element(0) << bits | element(1);
    if (op.s.size() > 2) {
      result |= static_cast<uint32_t>(warp.value(op.s[2], lane)) << (2 * bits);
    }
    warp.lanes<uint32_t>(op.d[0])[lane] = result;
  });
}

void decode_pack(Decoder& d) {
  if (!d.take("sat")) d.fail("needs .sat");
  constexpr int bits[] = {16, 16, 8, 8, 4, 4, 2, 2};
  const int type = d.take_one_of({"u16", "s16", "u8", "s8", "u4", "s4", "u2", "s2"});
  if (type < 0) d.fail("no such type of result");
  d.take_type({Type::kS32});
  d.op().flags = static_cast<uint32_t>(bits[type]) | (type % 2 == 1 ? kPackSigned : 0);
  if (bits[type] < 16) d.take_type({Type::kB32});
  take_operands(d, Type::kB32, bits[type] < 16 ? 3 : 2);
  set(d, InstructionClass::kConvert, Type::kS32, pack);
}

// --- decoding ---

// Which modes a form may and must have follows from the types; a missing one where PTX requires it
// is an error of the kernel.
void check_rounding(Decoder& d, Type from, Type to, bool has_float_mode, bool has_integral_mode) {
  const bool same = from == to;
  if (is_float(from) && !is_float(to)) {
    if (!has_integral_mode) d.fail("a float becomes an integer with .rni .rzi .rmi or .rpi");
  } else if (!is_float(from) && is_float(to)) {
    if (!has_float_mode) d.fail("an integer becomes a float with .rn .rz .rm or .rp");
  } else if (is_float(from) && is_float(to)) {
    const bool narrows = format_of(to).precision < format_of(from).precision ||
                         format_of(to).lowest_exponent > format_of(from).lowest_exponent;
    if (has_integral_mode && !same) d.fail("rounds to an integral value within a type only");
    if (!has_integral_mode && narrows && !has_float_mode) d.fail("needs .rn .rz .rm or .rp");
    if (has_float_mode && !narrows) d.fail("is exact: takes no rounding");
  } else if (has_float_mode || has_integral_mode) {
    d.fail("takes no rounding between integers");
  }
}

void decode_cvt(Decoder& d) {
  if (d.take("pack")) return decode_pack(d);
  Form form{};
  const int float_mode = d.take_one_of({"rn", "rz", "rm", "rp", "rna"});
  const int integral_mode = float_mode >= 0 ? -1 : d.take_one_of({"rni", "rzi", "rmi", "rpi"});
  form.to_float = static_cast<RoundTo>(std::max({float_mode, integral_mode, 0}));
  form.to_integral = integral_mode >= 0;
  form.relu = d.take("relu");
  form.flush = d.take("ftz");
  form.saturate = d.take("sat");
  Type to = d.take_type();
  const Type from = d.take_type();
  const bool pair = to == Type::kF16x2 || to == Type::kBf16x2;
  if (pair) to = to == Type::kF16x2 ? Type::kF16 : Type::kBf16;
  const auto known = [](Type type) {
    return is_float(type) || is_signed(type) || type == Type::kU8 || type == Type::kU16 ||
           type == Type::kU32 || type == Type::kU64;
  };
  if (!known(to) || !known(from) || from == Type::kTf32) d.fail("does not convert these types");
  if (pair && from != Type::kF32) d.fail("packs .f32");
  if (form.relu && (!is_float(to) || from != Type::kF32 || bits_of(to) != 16)) {
    d.fail(".relu is for halves from .f32");
  }
  if ((to == Type::kTf32) != (form.to_float == RoundTo::kNearestAway)) {
    d.fail(".rna is for .tf32, which needs it");
  }
  if (form.flush && from != Type::kF32 && to != Type::kF32) d.fail(".ftz is for .f32");
  check_rounding(d, from, to, float_mode >= 0, integral_mode >= 0);
  if (d.operands() != (pair ? 3u : 2u)) d.fail("wrong number of operands");

  const Type register_type = pair || to == Type::kTf32 ? Type::kB32 : to;
  take_destination(d, register_type);
  d.source(1, from);
  if (pair) d.source(2, from);
  form.width = static_cast<uint8_t>(pair ? 32 : d.register_bits(d.operand(0)));
  d.op().flags = form.packed();
  d.op().type2 = from;
  Execute execute = pair ? convert_pairs : convert_lanes;
  if (pair && form.to_float == RoundTo::kNearest && !form.flush && !form.relu) {
    execute = to == Type::kF16 ? map<floats_to_halves<F16>> : map<floats_to_halves<Bf16>>;
  } else if (!pair) {
    if (const Execute fast = frequent(d, from, to, form)) execute = fast;
  }
  set(d, InstructionClass::kConvert, to, execute);
}

}  // namespace

const InstructionTable kConvertInstructions = {{"cvt", decode_cvt}};

}  // namespace ptx_simulator
