// cvt between all types, in all roundings, against exact arithmetic (exact.h) and, for floats that
// become integers, against the rounding functions of C on long double (in which every operand is
// exact).
#include <cfenv>

#include "forms.h"

namespace ptx_simulator::test {
namespace {

struct Integer {
  std::string name;
  int bits;
  bool is_signed;
  Kind kind() const {
    return bits == 8    ? Kind::kInt8
           : bits == 16 ? Kind::kInt16
           : bits == 32 ? Kind::kInt32
                        : Kind::kInt64;
  }
  __int128 low() const { return is_signed ? -(static_cast<__int128>(1) << (bits - 1)) : 0; }
  __int128 high() const { return (static_cast<__int128>(1) << (is_signed ? bits - 1 : bits)) - 1; }
  __int128 value(uint64_t x) const {
    const __int128 wrapped = x & static_cast<uint64_t>((static_cast<__int128>(1) << bits) - 1);
    return wrapped > high() ? wrapped - (static_cast<__int128>(1) << bits) : wrapped;
  }
};
const Integer kIntegers[] = {{"u8", 8, false},   {"s8", 8, true},    {"u16", 16, false},
                             {"s16", 16, true},  {"u32", 32, false}, {"s32", 32, true},
                             {"u64", 64, false}, {"s64", 64, true}};

struct Float {
  std::string name;
  Kind kind;
  const Ieee& format;
};
const Float kFloats[] = {{"f16", Kind::kF16, kHalfFormat},
                         {"bf16", Kind::kBf16, kBrainFormat},
                         {"f32", Kind::kF32, kSingleFormat},
                         {"f64", Kind::kF64, kDoubleFormat}};
const Float& kF32 = kFloats[2];

const struct {
  std::string name;
  Round mode;
  int host;
} kModes[] = {{"rn", Round::kNearest, FE_TONEAREST},
              {"rz", Round::kZero, FE_TOWARDZERO},
              {"rm", Round::kDown, FE_DOWNWARD},
              {"rp", Round::kUp, FE_UPWARD}};

void test_integers() {
  for (const Integer& from : kIntegers) {
    for (const Integer& to : kIntegers) {
      // The result extends to the register's width as its type says.
      for (const std::string reg : {"b16", "b32", "b64"}) {
        if (mask_of(reg) >> (to.bits - 1) == 0) continue;
        for (const bool saturate : {false, true}) {
          check(
              std::string("cvt.") + (saturate ? "sat." : "") + to.name + "." + from.name, reg,
              {from.kind()},
              [&](const Values& x) {
                __int128 value = from.value(x[0]);
                if (saturate) value = std::min(std::max(value, to.low()), to.high());
                return static_cast<uint64_t>(to.value(static_cast<uint64_t>(value)));
              },
              1024);
        }
      }
      // Sources in registers that are wider than the type.
      check(
          "cvt." + to.name + "." + from.name, "b64", {Kind::kInt64},
          [&](const Values& x) {
            return static_cast<uint64_t>(to.value(static_cast<uint64_t>(from.value(x[0]))));
          },
          1024);
    }
  }
}

uint64_t integer_of(const Float& from, const Integer& to, int host_mode, uint64_t x) {
  const long double value = from.format.value(x);
  if (std::isnan(value)) {
    // As the PTX document has it: 0, or the value of the sign bit where 64 bits are involved.
    return from.name == "f64" || to.bits == 64 ? uint64_t{1} << (to.bits - 1) : 0;
  }
  std::fesetround(host_mode);
  const long double whole = std::nearbyint(value);
  std::fesetround(FE_TONEAREST);
  if (whole <= static_cast<long double>(to.low())) return static_cast<uint64_t>(to.low());
  if (whole >= static_cast<long double>(to.high())) return static_cast<uint64_t>(to.high());
  return static_cast<uint64_t>(static_cast<__int128>(whole));
}

void test_floats_to_integers() {
  for (const Float& from : kFloats) {
    for (const Integer& to : kIntegers) {
      const std::string reg = to.bits <= 16 ? "b16" : to.bits == 32 ? "b32" : "b64";
      for (const auto& mode : kModes) {
        for (const std::string modifiers : {"", ".ftz", ".sat"}) {
          if (modifiers == ".ftz" && from.name != "f32") continue;
          check(
              "cvt." + mode.name + "i" + modifiers + "." + to.name + "." + from.name, reg,
              {from.kind},
              [&](const Values& x) {
                const uint64_t operand = modifiers == ".ftz" ? from.format.flushed(x[0]) : x[0];
                const auto value = to.value(integer_of(from, to, mode.host, operand));
                return static_cast<uint64_t>(value);
              },
              2048);
        }
      }
    }
  }
}

void test_integers_to_floats() {
  for (const Integer& from : kIntegers) {
    for (const Float& to : kFloats) {
      for (const auto& mode : kModes) {
        check("cvt." + mode.name + "." + to.name + "." + from.name, register_of(to.kind),
              {from.kind()}, [&](const Values& x) {
                const __int128 value = from.value(x[0]);
                const __int128 size = value < 0 ? -value : value;
                return rounded(to.format,
                               Exact::of(value < 0, static_cast<unsigned __int128>(size), 0),
                               mode.mode);
              });
      }
      check(
          "cvt.rn.sat." + to.name + "." + from.name, register_of(to.kind), {from.kind()},
          [&](const Values& x) { return from.value(x[0]) > 0 ? to.format.one() : 0; }, 1024);
    }
  }
}

uint64_t other_format(const Ieee& from, const Ieee& to, uint64_t x, Round mode) {
  if (from.is_nan(x)) return to.nan;
  const uint64_t sign = from.negative(x) ? to.sign_bit() : 0;
  return from.is_infinite(x) ? sign | to.infinity() : rounded(to, Exact::of(from, x), mode);
}

void test_floats() {
  for (const Float& from : kFloats) {
    for (const Float& to : kFloats) {
      const Ieee &f = from.format, &t = to.format;
      const bool widens = t.fraction_bits >= f.fraction_bits && t.exponent_bits >= f.exponent_bits;
      for (const auto& mode : kModes) {
        if (widens && mode.mode != Round::kNearest) continue;
        for (const bool flush : {false, true}) {
          if (flush && from.name != "f32" && to.name != "f32") continue;
          for (const bool saturate : {false, true}) {
            const auto expected = [&](const Values& x) {
              const uint64_t operand = flush && from.name == "f32" ? f.flushed(x[0]) : x[0];
              uint64_t y = other_format(f, t, operand, mode.mode);
              if (flush && to.name == "f32") y = t.flushed(y);
              if (saturate) y = t.is_nan(y) || t.negative(y) ? 0 : std::min(y, t.one());
              return y;
            };
            // Numbers of (0, 1] stay so: clamping before or behind the rounding is the same.
            check("cvt" + (widens ? "" : "." + mode.name) + (flush ? ".ftz" : "") +
                      (saturate ? ".sat" : "") + "." + to.name + "." + from.name,
                  register_of(to.kind), {from.kind}, expected);
          }
        }
      }
    }
    // To integral values of the same type; the sign of zeros stays.
    for (const auto& mode : kModes) {
      check("cvt." + mode.name + "i." + from.name + "." + from.name, register_of(from.kind),
            {from.kind}, [&](const Values& x) {
              const Ieee& f = from.format;
              if (f.is_nan(x[0])) return f.nan;
              if (f.is_infinite(x[0])) return x[0];
              std::fesetround(mode.host);
              const long double y = std::nearbyint(f.value(x[0]));
              std::fesetround(FE_TONEAREST);
              const uint64_t sign = x[0] & f.sign_bit();
              if (y == 0) return sign;
              int exponent = 0;
              const long double fraction = std::frexp(std::abs(y), &exponent);
              const auto integer = static_cast<uint64_t>(std::ldexp(fraction, 64));
              return rounded(f, Exact::of(sign != 0, integer, exponent - 64), Round::kZero);
            });
    }
  }
}

void test_halves_from_f32() {
  for (const Float& to : {kFloats[0], kFloats[1]}) {
    const Ieee& t = to.format;
    for (const auto& mode : {kModes[0], kModes[1]}) {
      for (const bool relu : {false, true}) {
        const auto one = [&](uint64_t x) {
          const uint64_t y = other_format(kSingleFormat, t, x, mode.mode);
          return relu && !t.is_nan(y) && t.negative(y) ? 0 : y;
        };
        const std::string name = "cvt." + mode.name + (relu ? ".relu." : ".") + to.name;
        check(name + ".f32", "b16", {Kind::kF32}, [&](const Values& x) { return one(x[0]); });
        check(name + "x2.f32", "b32", {Kind::kF32, Kind::kF32},
              [&](const Values& x) { return one(x[0]) << 16 | one(x[1]); });
      }
    }
  }
}

void test_tf32() {
  // 8 bits of exponent and 10 of fraction, where f32 has them; the rest is zero.
  const Ieee format{8, 10, 0x3ffff};
  check(
      "cvt.rna.tf32.f32", "b32", {Kind::kF32},
      [&](const Values& x) {
        return other_format(kSingleFormat, format, x[0], Round::kAway) << 13;
      },
      16384);
}

void test_pack() {
  for (const int bits : {16, 8, 4, 2}) {
    for (const bool is_signed : {false, true}) {
      const std::string type = (is_signed ? "s" : "u") + std::to_string(bits);
      const Integer to{type, bits, is_signed};
      const auto element = [&](uint64_t x) {
        const __int128 value = kIntegers[5].value(x);
        const __int128 clamped = value < to.low()    ? to.low()
                                 : value > to.high() ? to.high()
                                                     : value;
        return static_cast<uint64_t>(clamped) & ((uint64_t{1} << bits) - 1);
      };
      const std::vector<Kind> two = {Kind::kInt32, Kind::kInt32};
      if (bits == 16) {
        check("cvt.pack.sat." + type + ".s32", "b32", two,
              [&](const Values& x) { return element(x[0]) << 16 | element(x[1]); });
      } else {
        check("cvt.pack.sat." + type + ".s32.b32", "b32",
              {Kind::kInt32, Kind::kInt32, Kind::kInt32}, [&](const Values& x) {
                return x[2] << (2 * bits) | element(x[0]) << bits | element(x[1]);
              });
      }
    }
  }
}

void test_refusals() {
  const std::string registers = ".reg .b32 %a; .reg .b64 %l; .reg .b16 %h;\n";
  check_refused("cvt.s32.f32 %a, %a;", registers, ".rni");
  check_refused("cvt.f32.s32 %a, %a;", registers, ".rn");
  check_refused("cvt.f16.f32 %h, %a;", registers, ".rn");
  check_refused("cvt.rn.f64.f32 %l, %a;", registers, "exact");
  check_refused("cvt.rn.s64.s32 %l, %a;", registers, "between integers");
  check_refused("cvt.rn.tf32.f32 %a, %a;", registers, "rna");
  check_refused("cvt.rni.f32.f64 %a, %l;", registers, "within a type");
  check_refused("cvt.rn.f16x2.f32 %a, %a;", registers, "operands");
  check_refused("cvt.rn.relu.f32.f64 %a, %l;", registers, "relu");
  check_refused("cvt.b32.b64 %a, %l;", registers, "types");
}

}  // namespace
}  // namespace ptx_simulator::test

int main() {
  using namespace ptx_simulator::test;
  test_integers();
  test_floats_to_integers();
  test_integers_to_floats();
  test_floats();
  test_halves_from_f32();
  test_tf32();
  test_pack();
  test_refusals();
  return report_result("conversions");
}
