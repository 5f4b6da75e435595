// Arithmetic on f32 and f64, in all roundings and with .ftz and .sat, bit for bit against exact
// arithmetic (exact.h).
#include "forms.h"

namespace ptx_simulator::test {
namespace {

struct Type {
  const char* name;
  const char* reg;
  Kind kind;
  const Ieee& format;
};
const Type kF32{"f32", "b32", Kind::kF32, kSingleFormat};
const Type kF64{"f64", "b64", Kind::kF64, kDoubleFormat};

const struct {
  const char* name;
  Round mode;
} kRoundings[] = {{"", Round::kNearest},
                  {".rn", Round::kNearest},
                  {".rz", Round::kZero},
                  {".rm", Round::kDown},
                  {".rp", Round::kUp}};

// With the modifiers of f32: operands and results flushed, results clamped.
struct Modifiers {
  const char* name;
  bool flush, saturate;
};
const Modifiers kPlain{"", false, false}, kFtz{".ftz", true, false};
const Modifiers kAll[] = {kPlain, kFtz, {".sat", false, true}, {".ftz.sat", true, true}};

uint64_t saturated(const Ieee& f, uint64_t x) {
  if (f.is_nan(x) || f.negative(x)) return 0;
  return std::min(x, f.one());
}

using Function = std::function<uint64_t(const Ieee&, const Values&, Round)>;

// `name` in every rounding (without any only where `optional`) and with every modifier.
void check_rounded(const std::string& name, size_t operands, bool optional, bool may_saturate,
                   const Function& f) {
  for (const Type& type : {kF32, kF64}) {
    for (const auto& rounding : kRoundings) {
      if (rounding.name[0] == '\0' && !optional) continue;
      for (const Modifiers& modifiers : kAll) {
        if (modifiers.saturate && !may_saturate) continue;
        if (type.format.width() == 64 && (modifiers.flush || modifiers.saturate)) continue;
        check(name + rounding.name + modifiers.name + "." + type.name, type.reg,
              std::vector<Kind>(operands, type.kind), [&](Values x) {
                if (modifiers.flush) {
                  for (uint64_t& value : x) value = type.format.flushed(value);
                }
                uint64_t y = f(type.format, x, rounding.mode);
                if (modifiers.flush) y = type.format.flushed(y);
                return modifiers.saturate ? saturated(type.format, y) : y;
              });
      }
    }
  }
}

void test_rounded() {
  check_rounded("add", 2, true, true, [](const Ieee& f, const Values& x, Round mode) {
    return exact_add(f, x[0], x[1], mode);
  });
  check_rounded("sub", 2, true, true, [](const Ieee& f, const Values& x, Round mode) {
    return exact_add(f, x[0], x[1] ^ f.sign_bit(), mode);
  });
  check_rounded("mul", 2, true, true, [](const Ieee& f, const Values& x, Round mode) {
    return exact_mul(f, x[0], x[1], mode);
  });
  for (const char* name : {"fma", "mad"}) {
    check_rounded(name, 3, false, true, [](const Ieee& f, const Values& x, Round mode) {
      return exact_fma(f, x[0], x[1], x[2], f, mode);
    });
  }
  check_rounded("div", 2, false, false, [](const Ieee& f, const Values& x, Round mode) {
    return exact_div(f, x[0], x[1], mode);
  });
  check_rounded("rcp", 1, false, false, [](const Ieee& f, const Values& x, Round mode) {
    return exact_div(f, f.one(), x[0], mode);
  });
  check_rounded("sqrt", 1, false, false, [](const Ieee& f, const Values& x, Round mode) {
    return exact_sqrt(f, x[0], mode);
  });
}

// fma where the product and c nearly cancel, and where c decides a tie of the product: random
// operands seldom do that.
void test_fma_at_its_limits() {
  for (const Type& type : {kF32, kF64}) {
    const Ieee& f = type.format;
    for (const auto& rounding : kRoundings) {
      if (rounding.name[0] == '\0') continue;
      const std::string name = std::string("fma") + rounding.name + "." + type.name;
      const std::string round_product = std::string("mul.rn.") + type.name + " %d, %a, %b;\n";
      // c = -(a * b rounded) is what is lost, exactly.
      check_form(
          {round_product + "@%g neg." + type.name + " %d, %d;\n@%g " + name + " %d, %a, %b, %d;",
           {type.reg},
           {type.kind, type.kind}},
          [&](const Values& x) {
            const uint64_t product = exact_mul(f, x[0], x[1], Round::kNearest);
            return Values{exact_fma(f, x[0], x[1], product ^ f.sign_bit(), f, rounding.mode)};
          });
      // Odd significands of half the bits, times 1 + 2^-k: products that end in a tie or near it.
      for (const uint64_t c : {uint64_t{1}, f.sign_bit() | 1}) {
        check_form(
            {name + " %d, %a, %b, 0" + (f.width() == 32 ? "f" : "d") +
                 [&] {
                   char digits[17];
                   std::snprintf(digits, sizeof digits, "%0*llx", f.width() / 4,
                                 static_cast<unsigned long long>(c));
                   return std::string(digits);
                 }() +
                 ";",
             {type.reg},
             {type.kind, type.kind}},
            [&](const Values& x) { return Values{exact_fma(f, x[0], x[1], c, f, rounding.mode)}; });
      }
    }
  }
}

void test_signs() {
  for (const Type& type : {kF32, kF64}) {
    const Ieee& f = type.format;
    for (const Modifiers& modifiers : {kPlain, kFtz}) {
      if (f.width() == 64 && modifiers.flush) continue;
      const auto operand = [&](uint64_t x) { return modifiers.flush ? f.flushed(x) : x; };
      const std::string suffix = std::string(modifiers.name) + "." + type.name;
      check("abs" + suffix, type.reg, {type.kind},
            [&](const Values& x) { return f.magnitude(operand(x[0])); });
      check("neg" + suffix, type.reg, {type.kind},
            [&](const Values& x) { return operand(x[0]) ^ f.sign_bit(); });
    }
    check(std::string("copysign.") + type.name, type.reg, {type.kind, type.kind},
          [&](const Values& x) { return (x[0] & f.sign_bit()) | f.magnitude(x[1]); });
  }
}

// The pseudo-code of the PTX document, with -0 below +0.
uint64_t extreme(const Ieee& f, uint64_t a, uint64_t b, bool maximum, bool propagate,
                 bool xorsign) {
  const bool negative = f.negative(a) != f.negative(b);
  if (xorsign) {
    a = f.magnitude(a);
    b = f.magnitude(b);
  }
  uint64_t result;
  if (f.is_nan(a) && f.is_nan(b)) return f.nan;
  if (propagate && (f.is_nan(a) || f.is_nan(b))) return f.nan;
  if (f.is_nan(a)) {
    result = b;
  } else if (f.is_nan(b)) {
    result = a;
  } else if (f.is_zero(a) && f.is_zero(b)) {
    result = f.negative(a) != maximum ? a : b;
  } else {
    const bool less = f.value(a) < f.value(b);
    result = less != maximum ? a : b;
  }
  return xorsign && negative ? result | f.sign_bit() : result;
}

void test_extremes() {
  for (const bool maximum : {false, true}) {
    const std::string name = maximum ? "max" : "min";
    check(name + ".f64", "b64", {Kind::kF64, Kind::kF64}, [&](const Values& x) {
      return extreme(kDoubleFormat, x[0], x[1], maximum, false, false);
    });
    for (const Modifiers& modifiers : {kPlain, kFtz}) {
      for (const bool propagate : {false, true}) {
        for (const bool xorsign : {false, true}) {
          check(name + modifiers.name + (propagate ? ".NaN" : "") +
                    (xorsign ? ".xorsign.abs" : "") + ".f32",
                "b32", {Kind::kF32, Kind::kF32}, [&](const Values& x) {
                  const Ieee& f = kSingleFormat;
                  const uint64_t a = modifiers.flush ? f.flushed(x[0]) : x[0];
                  const uint64_t b = modifiers.flush ? f.flushed(x[1]) : x[1];
                  return extreme(f, a, b, maximum, propagate, xorsign);
                });
        }
      }
    }
  }
}

void test_constants() {
  check_form(
      {"fma.rn.f32 %d, %a, 0f3FC00000, 0fBF800000;", {"b32"}, {Kind::kF32}}, [](const Values& x) {
        return Values{
            exact_fma(kSingleFormat, x[0], 0x3fc00000, 0xbf800000, kSingleFormat, Round::kNearest)};
      });
  check_form({"mul.f64 %d, 0d3FB999999999999A, %a;", {"b64"}, {Kind::kF64}}, [](const Values& x) {
    return Values{exact_mul(kDoubleFormat, 0x3fb999999999999a, x[0], Round::kNearest)};
  });
}

void test_refusals() {
  const std::string registers = ".reg .f32 %a; .reg .f64 %l;\n";
  check_refused("fma.f32 %a, %a, %a, %a;", registers, "rounding");
  check_refused("div.f32 %a, %a, %a;", registers, "rounding");
  check_refused("add.ftz.f64 %l, %l, %l;", registers, "ftz");
  check_refused("min.NaN.f64 %l, %l, %l;", registers, "modifier");
  check_refused("min.xorsign.f32 %a, %a, %a;", registers, "abs");
  check_refused("add.rni.f32 %a, %a, %a;", registers, "rni");
}

}  // namespace
}  // namespace ptx_simulator::test

int main() {
  using namespace ptx_simulator::test;
  test_rounded();
  test_fma_at_its_limits();
  test_signs();
  test_extremes();
  test_constants();
  test_refusals();
  return report_result("floats");
}
