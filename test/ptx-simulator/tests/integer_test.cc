// Integer arithmetic against 128-bit integers: every operation is done without wrapping, and the
// low bits of that are what must come out.
#include "forms.h"

namespace ptx_simulator::test {
namespace {

using Wide = __int128;

struct IntegerType {
  const char* name;
  int bits;
  bool is_signed;
  Kind kind() const { return bits == 16 ? Kind::kInt16 : bits == 32 ? Kind::kInt32 : Kind::kInt64; }
  const char* reg() const { return bits == 16 ? "b16" : bits == 32 ? "b32" : "b64"; }
  const char* wide_reg() const { return bits == 16 ? "b32" : "b64"; }
  Kind wide_kind() const { return bits == 16 ? Kind::kInt32 : Kind::kInt64; }
  // The number that the bits mean: a sign bit weighs minus twice what it would.
  Wide value(uint64_t x) const {
    Wide sum = 0;
    for (int i = 0; i < bits; ++i) {
      const Wide weight = Wide{1} << i;
      if ((x >> i & 1) != 0) sum += is_signed && i == bits - 1 ? -weight : weight;
    }
    return sum;
  }
  Wide low() const { return is_signed ? -(Wide{1} << (bits - 1)) : 0; }
  Wide high() const { return (Wide{1} << (is_signed ? bits - 1 : bits)) - 1; }
  uint64_t clamped(Wide x) const {
    return static_cast<uint64_t>(x < low() ? low() : x > high() ? high() : x);
  }
};
const IntegerType kU16{"u16", 16, false}, kS16{"s16", 16, true}, kU32{"u32", 32, false},
    kS32{"s32", 32, true}, kU64{"u64", 64, false}, kS64{"s64", 64, true};
const IntegerType kTypes[] = {kU16, kS16, kU32, kS32, kU64, kS64};

uint64_t low64(Wide x) { return static_cast<uint64_t>(x); }

// The product of two 64-bit numbers needs all 128 bits, and unsigned ones for the high half.
Wide high_part(const IntegerType& t, uint64_t a, uint64_t b) {
  if (t.bits < 64 || t.is_signed) return (t.value(a) * t.value(b)) >> t.bits;
  // By halves, as on paper.
  const uint64_t a0 = a & UINT32_MAX, a1 = a >> 32, b0 = b & UINT32_MAX, b1 = b >> 32;
  const uint64_t middle = (a0 * b0 >> 32) + (a1 * b0 & UINT32_MAX) + a0 * b1 % (UINT64_C(1) << 32);
  return a1 * b1 + (a1 * b0 >> 32) + (a0 * b1 >> 32) + (middle >> 32);
}

Wide magnitude(Wide x) { return x < 0 ? -x : x; }
// Rounds to zero, from magnitudes.
Wide quotient(Wide a, Wide b) {
  const Wide q = magnitude(a) / magnitude(b);
  return (a < 0) != (b < 0) ? -q : q;
}

void test_sums_and_products() {
  for (const IntegerType& t : kTypes) {
    const std::string type = std::string(".") + t.name;
    const std::vector<Kind> two = {t.kind(), t.kind()}, three = {t.kind(), t.kind(), t.kind()};
    const auto binary = [&](const std::string& name, const std::function<Wide(Wide, Wide)>& f) {
      check(name + type, t.reg(), two,
            [&](const Values& x) { return low64(f(t.value(x[0]), t.value(x[1]))); });
    };
    binary("add", [](Wide a, Wide b) { return a + b; });
    binary("sub", [](Wide a, Wide b) { return a - b; });
    binary("min", [](Wide a, Wide b) { return a < b ? a : b; });
    binary("max", [](Wide a, Wide b) { return b < a ? a : b; });
    binary("div", [](Wide a, Wide b) { return b == 0 ? -1 : quotient(a, b); });
    binary("rem", [](Wide a, Wide b) { return b == 0 ? -1 : a - quotient(a, b) * b; });
    check("mul.lo" + type, t.reg(), two, [&](const Values& x) { return x[0] * x[1]; });
    check("mul.hi" + type, t.reg(), two,
          [&](const Values& x) { return low64(high_part(t, x[0], x[1])); });
    check("mad.lo" + type, t.reg(), three, [&](const Values& x) { return x[0] * x[1] + x[2]; });
    check("mad.hi" + type, t.reg(), three,
          [&](const Values& x) { return low64(high_part(t, x[0], x[1])) + x[2]; });
    check("sad" + type, t.reg(), three,
          [&](const Values& x) { return low64(magnitude(t.value(x[0]) - t.value(x[1]))) + x[2]; });
    if (t.bits < 64) {
      check("mul.wide" + type, t.wide_reg(), two,
            [&](const Values& x) { return low64(t.value(x[0]) * t.value(x[1])); });
      check("mad.wide" + type, t.wide_reg(), {t.kind(), t.kind(), t.wide_kind()},
            [&](const Values& x) { return low64(t.value(x[0]) * t.value(x[1])) + x[2]; });
    }
    if (t.is_signed) {
      check("abs" + type, t.reg(), {t.kind()},
            [&](const Values& x) { return low64(magnitude(t.value(x[0]))); });
      check("neg" + type, t.reg(), {t.kind()},
            [&](const Values& x) { return low64(-t.value(x[0])); });
    }
  }
}

void test_saturation() {
  const std::vector<Kind> two = {Kind::kInt32, Kind::kInt32},
                          three = {Kind::kInt32, Kind::kInt32, Kind::kInt32};
  const auto value = [](uint64_t x) { return kS32.value(x); };
  check("add.sat.s32", "b32", two,
        [&](const Values& x) { return kS32.clamped(value(x[0]) + value(x[1])); });
  check("sub.sat.s32", "b32", two,
        [&](const Values& x) { return kS32.clamped(value(x[0]) - value(x[1])); });
  check("mad.hi.sat.s32", "b32", three,
        [&](const Values& x) { return kS32.clamped(high_part(kS32, x[0], x[1]) + value(x[2])); });
  for (const bool maximum : {false, true}) {
    const std::string name = maximum ? "max.relu" : "min.relu";
    const auto extreme = [maximum](Wide a, Wide b) {
      const Wide chosen = (a < b) != maximum ? a : b;
      return chosen < 0 ? Wide{0} : chosen;
    };
    check(name + ".s32", "b32", two,
          [&](const Values& x) { return low64(extreme(value(x[0]), value(x[1]))); });
    check(name + ".s16x2", "b32", two, [&](const Values& x) {
      uint64_t result = 0;
      for (const int shift : {0, 16}) {
        const Wide half = extreme(kS16.value(x[0] >> shift), kS16.value(x[1] >> shift));
        result |= (low64(half) & 0xffff) << shift;
      }
      return result;
    });
  }
}

void test_pairs() {
  for (const IntegerType& t : {kU16, kS16}) {
    const auto pair = [&](const std::string& name, const std::function<Wide(Wide, Wide)>& f) {
      check(name + "." + t.name + "x2", "b32", {Kind::kInt32, Kind::kInt32}, [&](const Values& x) {
        const uint64_t low = low64(f(t.value(x[0]), t.value(x[1]))) & 0xffff;
        const uint64_t high = low64(f(t.value(x[0] >> 16), t.value(x[1] >> 16))) & 0xffff;
        return high << 16 | low;
      });
    };
    pair("add", [](Wide a, Wide b) { return a + b; });
    pair("min", [](Wide a, Wide b) { return a < b ? a : b; });
    pair("max", [](Wide a, Wide b) { return a < b ? b : a; });
  }
}

void test_24_bits() {
  const std::vector<Kind> two = {Kind::kInt32, Kind::kInt32},
                          three = {Kind::kInt32, Kind::kInt32, Kind::kInt32};
  for (const IntegerType& t : {kU32, kS32}) {
    const IntegerType t24{"", 24, t.is_signed};
    const std::string type = std::string(".") + t.name;
    const auto product = [t24](const Values& x) { return t24.value(x[0]) * t24.value(x[1]); };
    check("mul24.lo" + type, "b32", two, [&](const Values& x) { return low64(product(x)); });
    check("mul24.hi" + type, "b32", two, [&](const Values& x) { return low64(product(x) >> 16); });
    check("mad24.lo" + type, "b32", three,
          [&](const Values& x) { return low64(product(x)) + x[2]; });
    check("mad24.hi" + type, "b32", three,
          [&](const Values& x) { return low64(product(x) >> 16) + x[2]; });
    if (t.is_signed) {
      check("mad24.hi.sat.s32", "b32", three, [&](const Values& x) {
        const Wide high = kS32.value(low64(product(x) >> 16));
        return kS32.clamped(high + kS32.value(x[2]));
      });
    }
  }
}

void test_dot_products() {
  const std::vector<Kind> three = {Kind::kInt32, Kind::kInt32, Kind::kInt32};
  for (const bool a_signed : {false, true}) {
    for (const bool b_signed : {false, true}) {
      const std::string types =
          std::string(a_signed ? ".s32" : ".u32") + (b_signed ? ".s32" : ".u32");
      const IntegerType a8{"", 8, a_signed}, a16{"", 16, a_signed}, b8{"", 8, b_signed};
      check("dp4a" + types, "b32", three, [&](const Values& x) {
        Wide sum = kU32.value(x[2]);
        for (int i = 0; i < 4; ++i) sum += a8.value(x[0] >> (8 * i)) * b8.value(x[1] >> (8 * i));
        return low64(sum);
      });
      for (const int first : {0, 2}) {
        check((first == 0 ? "dp2a.lo" : "dp2a.hi") + types, "b32", three, [&](const Values& x) {
          Wide sum = kU32.value(x[2]);
          for (int i = 0; i < 2; ++i) {
            sum += a16.value(x[0] >> (16 * i)) * b8.value(x[1] >> (8 * (i + first)));
          }
          return low64(sum);
        });
      }
    }
  }
}

// Chains of two words: with the low results in %e, the high ones in %d.
void test_carries() {
  for (const int bits : {32, 64}) {
    const Kind kind = bits == 32 ? Kind::kInt32 : Kind::kInt64;
    const std::string reg = bits == 32 ? "b32" : "b64";
    const uint64_t ones = mask_of(reg);
    for (const std::string sign : {"u", "s"}) {
      const std::string type = "." + sign + std::to_string(bits);
      const auto chain = [&](const std::string& text, const Expected& expected) {
        check_form({text, {reg, reg}, {kind, kind, kind, kind}}, expected);
      };
      // (b:a) + (f:c)
      chain("add.cc" + type + " %e, %a, %c;\n@%g addc" + type + " %d, %b, %f;",
            [&](const Values& x) {
              const uint64_t low = (x[0] + x[2]) & ones;
              return Values{x[1] + x[3] + (low < x[0] ? 1 : 0), low};
            });
      chain("sub.cc" + type + " %e, %a, %c;\n@%g subc" + type + " %d, %b, %f;",
            [&](const Values& x) {
              return Values{x[1] - x[3] - (x[0] < x[2] ? 1 : 0), x[0] - x[2]};
            });
      // Three words of ones and zeros: the carry goes through, and .cc on addc gives it on.
      chain("add.cc" + type + " %e, %a, %c;\n@%g addc.cc" + type + " %e, %b, %f;\n@%g addc" + type +
                " %d, 0, 0;",
            [&](const Values& x) {
              const Wide middle = Wide{x[1]} + x[3] + ((((x[0] + x[2]) & ones) < x[0]) ? 1 : 0);
              return Values{static_cast<uint64_t>(middle >> bits), low64(middle)};
            });
      chain("sub.cc" + type + " %e, %a, %c;\n@%g subc.cc" + type + " %e, %b, %f;\n@%g subc" + type +
                " %d, 0, 0;",
            [&](const Values& x) {
              const Wide middle = Wide{x[1]} - x[3] - (x[0] < x[2] ? 1 : 0);
              return Values{middle < 0 ? ones : 0, low64(middle)};
            });
      // c * a + (f:b): low word, then high word.
      const IntegerType t{"", bits, sign == "s"};
      chain("mad.lo.cc" + type + " %e, %a, %c, %b;\n@%g madc.hi" + type + " %d, %a, %c, %f;",
            [&](const Values& x) {
              const uint64_t low = (x[0] * x[2] + x[1]) & ones;
              return Values{low64(high_part(t, x[0], x[2])) + x[3] + (low < x[1] ? 1 : 0), low};
            });
      chain("mad.hi.cc" + type + " %e, %a, %c, %b;\n@%g madc.lo.cc" + type +
                " %e, %a, %c, %f;\n@%g addc" + type + " %d, 0, 0;",
            [&](const Values& x) {
              const uint64_t high = (low64(high_part(t, x[0], x[2])) + x[1]) & ones;
              const Wide sum = Wide{x[0] * x[2] & ones} + x[3] + (high < x[1] ? 1 : 0);
              return Values{static_cast<uint64_t>(sum >> bits), low64(sum)};
            });
    }
  }
}

void test_constants() {
  check_form({"add.s32 %d, %a, -7;", {"b32"}, {Kind::kInt32}},
             [](const Values& x) { return Values{x[0] - 7}; });
  check_form({"mad.lo.u32 %d, 1000003, %a, 0xffffffff;", {"b32"}, {Kind::kInt32}},
             [](const Values& x) { return Values{x[0] * 1000003 - 1}; });
  check_form({"mul.wide.s32 %d, %a, -4;", {"b64"}, {Kind::kInt32}},
             [](const Values& x) { return Values{low64(kS32.value(x[0]) * -4)}; });
  check_form({"sub.u16 %d, 5, %a;", {"b16"}, {Kind::kInt16}},
             [](const Values& x) { return Values{5 - x[0]}; });
  check_form({"add.s64 %d, %a, 0x7fffffffffffffff;", {"b64"}, {Kind::kInt64}},
             [](const Values& x) { return Values{x[0] + INT64_MAX}; });
}

void test_refusals() {
  const std::string registers = ".reg .b32 %a; .reg .b64 %l; .reg .b16 %h;\n";
  check_refused("mul.wide.s64 %l, %l, %l;", registers, "128 bits");
  check_refused("mul.s32 %a, %a, %a;", registers, ".lo");
  check_refused("add.sat.u32 %a, %a, %a;", registers, "u32");
  check_refused("add.s32 %a, %a;", registers, "3 operands");
  check_refused("add.s32 %a, %a, %l;", registers, "%l");
  check_refused("add.s32 _, %a, %a;", registers, "result");
  check_refused("min.relu.u16x2 %a, %a, %a;", registers, "signed");
  check_refused("add.cc.u16 %h, %h, %h;", registers, "u16");
}

}  // namespace
}  // namespace ptx_simulator::test

int main() {
  using namespace ptx_simulator::test;
  test_sums_and_products();
  test_saturation();
  test_pairs();
  test_24_bits();
  test_dot_products();
  test_carries();
  test_constants();
  test_refusals();
  return report_result("integer arithmetic");
}
