// Arithmetic on f16, bf16 and pairs of them, bit for bit against exact arithmetic (exact.h).
#include "forms.h"

namespace ptx_simulator::test {
namespace {

struct Type {
  const char* name;
  Kind kind, pair_kind;
  const Ieee& format;
  bool is_bf16() const { return format.exponent_bits == 8; }
};
const Type kTypes[] = {{"f16", Kind::kF16, Kind::kF16x2, kHalfFormat},
                       {"bf16", Kind::kBf16, Kind::kBf16x2, kBrainFormat}};

// The function of each half.
void check_both(const std::string& name, const Type& type, size_t operands,
                const std::function<uint64_t(const Values&)>& f) {
  check(name + "." + type.name, "b16", std::vector<Kind>(operands, type.kind), f);
  check(name + "." + type.name + "x2", "b32", std::vector<Kind>(operands, type.pair_kind),
        [&](const Values& x) {
          Values low = x, high = x;
          for (uint64_t& value : low) value &= 0xffff;
          for (uint64_t& value : high) value >>= 16;
          return f(high) << 16 | f(low);
        });
}

void check_arithmetic(const std::string& name, size_t operands, bool fma,
                      const std::function<uint64_t(const Ieee&, const Values&)>& f) {
  struct Modifiers {
    const char* name;
    bool flush, saturate, relu;
  };
  const Modifiers all[] = {{"", false, false, false},     {".ftz", true, false, false},
                           {".sat", false, true, false},  {".ftz.sat", true, true, false},
                           {".relu", false, false, true}, {".ftz.relu", true, false, true}};
  for (const Type& type : kTypes) {
    const Ieee& format = type.format;
    for (const Modifiers& m : all) {
      if (type.is_bf16() && (m.flush || m.saturate)) continue;
      if (m.relu && !fma) continue;
      const auto expected = [&](Values x) {
        if (m.flush) {
          for (uint64_t& value : x) value = format.flushed(value);
        }
        uint64_t y = f(format, x);
        if (m.flush) y = format.flushed(y);
        if (m.saturate) y = format.is_nan(y) || format.negative(y) ? 0 : std::min(y, format.one());
        if (m.relu && !format.is_nan(y) && format.negative(y)) y = 0;
        return y;
      };
      check_both(name + ".rn" + m.name, type, operands, expected);
      if (!fma) check_both(name + m.name, type, operands, expected);
    }
  }
}

void test_arithmetic() {
  check_arithmetic("add", 2, false, [](const Ieee& f, const Values& x) {
    return exact_add(f, x[0], x[1], Round::kNearest);
  });
  check_arithmetic("sub", 2, false, [](const Ieee& f, const Values& x) {
    return exact_add(f, x[0], x[1] ^ f.sign_bit(), Round::kNearest);
  });
  check_arithmetic("mul", 2, false, [](const Ieee& f, const Values& x) {
    return exact_mul(f, x[0], x[1], Round::kNearest);
  });
  check_arithmetic("fma", 3, true, [](const Ieee& f, const Values& x) {
    return exact_fma(f, x[0], x[1], x[2], f, Round::kNearest);
  });
}

// A product that lies on a tie, and a c so small that only an exact sum sees it: rounding twice
// would take the tie's even neighbour.
void test_ties_that_c_decides() {
  for (const Type& type : kTypes) {
    const Ieee& f = type.format;
    for (const uint64_t c : {uint64_t{1}, f.sign_bit() | 1, uint64_t{0}}) {
      check_form(
          {"mov.b16 %d, " + std::to_string(c) + ";\n@%g fma.rn." + type.name + " %d, %a, %b, %d;",
           {"b16"},
           {type.kind, type.kind}},
          [&](const Values& x) { return Values{exact_fma(f, x[0], x[1], c, f, Round::kNearest)}; },
          16384);
    }
    // (1 + i * ulp) * (1.5) is a tie for every odd i; c is far below.
    const uint64_t one_and_a_half = f.one() + (uint64_t{1} << (f.fraction_bits - 1));
    const uint64_t ones = (uint64_t{1} << f.fraction_bits) - 1;
    check_form(
        {std::string("and.b16 %a, %a, ") + std::to_string(ones) + ";\n@%g add.u16 %a, %a, " +
             std::to_string(f.one()) + ";\n@%g mov.b16 %d, " + std::to_string(one_and_a_half) +
             ";\n@%g fma.rn." + type.name + " %d, %a, %d, %b;",
         {"b16"},
         {Kind::kInt16, type.kind}},
        [&](const Values& x) {
          return Values{
              exact_fma(f, (x[0] & ones) + f.one(), one_and_a_half, x[1], f, Round::kNearest)};
        },
        16384);
  }
}

void test_signs() {
  for (const Type& type : kTypes) {
    const Ieee& f = type.format;
    for (const bool flush : {false, true}) {
      if (flush && type.is_bf16()) continue;
      const std::string suffix = flush ? ".ftz" : "";
      const auto operand = [&](uint64_t x) { return flush ? f.flushed(x) : x; };
      check_both("abs" + suffix, type, 1,
                 [&](const Values& x) { return f.magnitude(operand(x[0])); });
      check_both("neg" + suffix, type, 1,
                 [&](const Values& x) { return operand(x[0]) ^ f.sign_bit(); });
    }
  }
}

// The order of all values but NaN, with -0 below +0: steps from zero.
int64_t rank(const Ieee& f, uint64_t x) {
  const auto steps = static_cast<int64_t>(f.magnitude(x));
  return f.negative(x) ? -steps - 1 : steps;
}

void test_extremes() {
  for (const Type& type : kTypes) {
    const Ieee& f = type.format;
    for (const bool maximum : {false, true}) {
      for (const bool flush : {false, true}) {
        if (flush && type.is_bf16()) continue;
        for (const bool propagate : {false, true}) {
          for (const bool xorsign : {false, true}) {
            const std::string name = std::string(maximum ? "max" : "min") + (flush ? ".ftz" : "") +
                                     (propagate ? ".NaN" : "") + (xorsign ? ".xorsign.abs" : "");
            check_both(name, type, 2, [&](const Values& x) {
              uint64_t a = flush ? f.flushed(x[0]) : x[0], b = flush ? f.flushed(x[1]) : x[1];
              const bool nan_a = f.is_nan(a), nan_b = f.is_nan(b);
              if ((nan_a && nan_b) || (propagate && (nan_a || nan_b))) return f.nan;
              const uint64_t sign = xorsign ? (a ^ b) & f.sign_bit() : 0;
              if (xorsign) {
                a = f.magnitude(a);
                b = f.magnitude(b);
              }
              if (nan_a) return b | sign;
              if (nan_b) return a | sign;
              const bool a_wins = maximum ? rank(f, a) >= rank(f, b) : rank(f, a) <= rank(f, b);
              return (a_wins ? a : b) | sign;
            });
          }
        }
      }
    }
  }
}

void test_refusals() {
  const std::string registers = ".reg .b16 %h; .reg .b32 %a;\n";
  check_refused("fma.f16 %h, %h, %h, %h;", registers, ".rn");
  check_refused("add.rz.f16 %h, %h, %h;", registers, "nearest");
  check_refused("add.ftz.bf16 %h, %h, %h;", registers, "bf16");
  check_refused("add.f16x2 %h, %h, %h;", registers, "b16");
  check_refused("fma.rn.oob.f16 %h, %h, %h, %h;", registers, "oob");
}

}  // namespace
}  // namespace ptx_simulator::test

int main() {
  using namespace ptx_simulator::test;
  test_arithmetic();
  test_ties_that_c_decides();
  test_signs();
  test_extremes();
  test_refusals();
  return report_result("halves");
}
