// The functions that PTX specifies up to an error: every result lies within it (computed here in
// long double), special operands give exact results, the last bits differ from the best ones and
// between devices, and equal operands give equal results everywhere.
#include <cmath>
#include <map>

#include "forms.h"

namespace ptx_simulator::test {
namespace {

using Function = std::function<long double(long double)>;

// What is allowed for a result near `exact`, in absolute terms.
using Bound = std::function<long double(long double x, long double exact)>;

// The unit of the format's subnormal numbers.
long double smallest_unit(const Ieee& f) {
  return std::ldexp(1.0L, 1 - f.bias() - f.fraction_bits);
}
long double ulp(const Ieee& f, long double exact) {
  int exponent = 0;
  std::frexp(exact, &exponent);
  return std::ldexp(1.0L, std::max(exponent - 1, 1 - f.bias()) - f.fraction_bits);
}

struct Case {
  std::string name;
  Kind kind;  // F32, F16, BF16, F64
  Function function;
  Bound bound;
  bool flush = false;
  long double largest_argument = INFINITY;  // beyond, nothing is stated
};

const Ieee& format_of(Kind kind) {
  return kind == Kind::kF16    ? kHalfFormat
         : kind == Kind::kBf16 ? kBrainFormat
         : kind == Kind::kF32  ? kSingleFormat
                               : kDoubleFormat;
}

// Runs `text` (operands %a %b, result %d) on the operands; [index].
std::vector<uint64_t> results(const std::string& text, const std::vector<Kind>& kinds,
                              const std::vector<std::vector<uint64_t>>& values, uint32_t device) {
  const size_t count = values[0].size();
  Form form{text, {register_of(kinds[0])}, kinds};
  Buffer<uint64_t> in(count * (1 + kinds.size()), 1), out(count, 0);
  for (size_t k = 0; k < kinds.size(); ++k) {
    for (size_t i = 0; i < count; ++i) in[count * (k + 1) + i] = values[k][i];
  }
  const Shape shape{.grid = {static_cast<uint32_t>(count / kThreads)},
                    .block = {kThreads},
                    .approximation_seed = device};
  const LaunchReport report =
      run_ptx(kernel_of(form, false), shape, in, out, static_cast<uint32_t>(count));
  CHECK(clean(report), "%s: %s", text.c_str(), describe(report).c_str());
  std::vector<uint64_t> all;
  for (size_t i = 0; i < count; ++i) all.push_back(out[i] & mask_of(register_of(kinds[0])));
  return all;
}

// Whether a result is one that the exact value allows.
bool allowed(const Ieee& f, uint64_t got, long double exact, long double error, bool flush) {
  if (std::isnan(exact)) return got == f.nan;
  if (std::isinf(exact)) return f.is_infinite(got) && f.negative(got) == (exact < 0);
  if (exact == 0 && error == 0) return f.is_zero(got) && f.negative(got) == std::signbit(exact);
  if (f.is_nan(got)) return false;
  // Too large or too small for the type: the neighbours' rounding decides.
  const long double largest = f.value(f.largest()),
                    smallest = f.value(uint64_t{1} << f.fraction_bits);
  if (f.is_infinite(got)) {
    return f.negative(got) == (exact < 0) && std::abs(exact) + error >= largest;
  }
  if (flush && f.is_zero(got)) return std::abs(exact) - error <= smallest;
  return std::abs(f.value(got) - exact) <= error;
}

void check_case(const Case& c) {
  ++forms_checked;
  const Ieee& f = format_of(c.kind);
  Operands operands(static_cast<uint32_t>(std::hash<std::string>()(c.name)));
  std::vector<std::vector<uint64_t>> values = operands.make({c.kind}, 16384);
  const std::string text = c.name + " %d, %a;";
  const auto first = results(text, {c.kind}, values, 1), again = results(text, {c.kind}, values, 1);
  const auto other = results(text, {c.kind}, values, 2);
  CHECK(first == again, "%s: two launches differ", c.name.c_str());
  std::map<uint64_t, uint64_t> by_operand;
  int inexact = 0, moved = 0, differ = 0;
  for (size_t i = 0; i < first.size(); ++i) {
    const uint64_t x = c.flush ? f.flushed(values[0][i]) : values[0][i];
    const long double argument = f.value(x), exact = c.function(argument);
    if (std::isfinite(argument) && std::abs(argument) > c.largest_argument) continue;
    // Zeros are exact, but for lg2(1).
    const bool normal = std::isfinite(exact) && (exact != 0 || argument == 1);
    // Subnormal results are coarser than any relative bound.
    const long double error = normal ? c.bound(argument, exact) + smallest_unit(f) / 2 : 0;
    for (const uint64_t got : {first[i], other[i]}) {
      CHECK(allowed(f, got, exact, error, c.flush), "%s of %La: got %La, exact %La, allowed %Lg",
            c.name.c_str(), argument, f.value(got), exact, error);
    }
    const auto [place, is_new] = by_operand.emplace(x, first[i]);
    CHECK(place->second == first[i], "%s of %La: two results", c.name.c_str(), argument);
    if (!normal || std::abs(exact) > 1e30L || std::abs(exact) < 1e-30L) continue;
    ++inexact;
    moved += std::abs(f.value(first[i]) - exact) > ulp(f, exact) * 0.5000001L;
    differ += first[i] != other[i];
  }
  // At least a few in a hundred; f16 and bf16 results move by less than their last bit.
  if (c.kind == Kind::kF32) {
    CHECK(moved > inexact / 50, "%s: only %d of %d results moved", c.name.c_str(), moved, inexact);
    CHECK(differ > inexact / 50, "%s: %d of %d differ between devices", c.name.c_str(), differ,
          inexact);
  }
}

long double relative(int power, long double factor, long double exact) {
  return std::ldexp(factor, power) * std::abs(exact);
}

void test_f32() {
  const Ieee& f = kSingleFormat;
  for (const bool flush : {false, true}) {
    const std::string suffix = flush ? ".approx.ftz.f32" : ".approx.f32";
    const auto ulps = [&](long double n) {
      return [n, &f](long double, long double exact) { return n * ulp(f, exact); };
    };
    const auto one = [&](const std::string& name, const Function& function, const Bound& bound,
                         long double largest = INFINITY) {
      check_case({name + suffix, Kind::kF32, function, bound, flush, largest});
    };
    one(
        "ex2", [](long double x) { return std::exp2(x); }, ulps(2));
    one(
        "rcp", [](long double x) { return 1 / x; }, ulps(1));
    one(
        "sqrt", [](long double x) { return std::sqrt(x); },
        [](long double, long double y) { return relative(-23, 1, y); });
    one(
        "rsqrt", [](long double x) { return 1 / std::sqrt(x); },
        [](long double, long double y) { return relative(-23, 1.0717734625362931L, y); });
    one(
        "lg2", [](long double x) { return std::log2(x); },
        [](long double x, long double y) {
          return x > 0.5L && x < 2 ? std::ldexp(1.0L, -22) : relative(-22, 1, y);
        });
    const Bound trigonometric = [](long double x, long double) {
      return std::exp2(std::abs(x) <= 2 * M_PIl ? -20.5L : -14.7L);
    };
    one(
        "sin", [](long double x) { return std::sin(x); }, trigonometric, 100 * M_PIl);
    one(
        "cos", [](long double x) { return std::cos(x); }, trigonometric, 100 * M_PIl);
  }
  check_case({"tanh.approx.f32", Kind::kF32, [](long double x) { return std::tanh(x); },
              [](long double, long double y) { return relative(-11, 1, y); }});
}

void test_halves() {
  const Function power = [](long double x) { return std::exp2(x); };
  const Function tanh = [](long double x) { return std::tanh(x); };
  check_case({"ex2.approx.f16", Kind::kF16, power,
              [](long double, long double y) { return relative(-10, 1.0717734625362931L, y); }});
  check_case({"ex2.approx.ftz.bf16", Kind::kBf16, power,
              [](long double, long double y) { return relative(-7, 1, y); }, true});
  check_case({"tanh.approx.f16", Kind::kF16, tanh,
              [](long double, long double) { return std::exp2(-10.987L); }});
  check_case({"tanh.approx.bf16", Kind::kBf16, tanh,
              [](long double, long double y) { return relative(-8, 1, y); }});
  // Pairs are the same function, twice.
  for (const std::string name :
       {"ex2.approx.f16", "ex2.approx.ftz.bf16", "tanh.approx.f16", "tanh.approx.bf16"}) {
    const Kind half = name.find("bf16") != std::string::npos ? Kind::kBf16 : Kind::kF16;
    Operands operands(5);
    auto low = operands.make({half}, 4096), high = operands.make({half}, 4096);
    std::vector<std::vector<uint64_t>> pairs(1);
    for (size_t i = 0; i < low[0].size(); ++i) pairs[0].push_back(low[0][i] | high[0][i] << 16);
    const Kind pair = half == Kind::kF16 ? Kind::kF16x2 : Kind::kBf16x2;
    const auto both = results(name + "x2 %d, %a;", {pair}, pairs, 1);
    const auto lows = results(name + " %d, %a;", {half}, low, 1);
    const auto highs = results(name + " %d, %a;", {half}, high, 1);
    for (size_t i = 0; i < both.size(); ++i) {
      CHECK(both[i] == (lows[i] | highs[i] << 16), "%sx2 of %llx", name.c_str(),
            static_cast<unsigned long long>(pairs[0][i]));
    }
  }
}

void test_division() {
  const Ieee& f = kSingleFormat;
  for (const std::string form :
       {"div.approx.f32", "div.approx.ftz.f32", "div.full.f32", "div.full.ftz.f32"}) {
    ++forms_checked;
    const bool flush = form.find("ftz") != std::string::npos;
    const bool full = form.find("full") != std::string::npos;
    Operands operands(7);
    const auto values = operands.make({Kind::kF32, Kind::kF32}, 16384);
    const auto first = results(form + " %d, %a, %b;", {Kind::kF32, Kind::kF32}, values, 1);
    int moved = 0;
    for (size_t i = 0; i < first.size(); ++i) {
      const long double a = f.value(flush ? f.flushed(values[0][i]) : values[0][i]);
      const long double b = f.value(flush ? f.flushed(values[1][i]) : values[1][i]);
      long double exact = a / b;
      // Beyond 2^126, .approx gives 0 for finite a and NaN for infinite ones.
      if (!full && std::isfinite(b) && std::abs(b) > 0x1p126L && !std::isnan(a)) {
        exact = std::isinf(a) ? NAN : std::copysign(0.0L, exact);
      }
      const long double error = std::isfinite(exact) && exact != 0 ? 2 * ulp(f, exact) : 0;
      CHECK(allowed(f, first[i], exact, error, flush), "%s: %La / %La: got %La, exact %La",
            form.c_str(), a, b, f.value(first[i]), exact);
      if (std::isfinite(exact) && exact != 0) {
        moved += std::abs(f.value(first[i]) - exact) > 0.51L * ulp(f, exact);
      }
    }
    CHECK(moved > 1000, "%s: only %d results moved", form.c_str(), moved);
  }
}

void test_f64() {
  check_case({"rsqrt.approx.f64", Kind::kF64, [](long double x) { return 1 / std::sqrt(x); },
              [](long double, long double y) { return relative(-49, 1, y); }});
  // Of the upper 32 bits; those of the result are the estimate. 20 bits of fraction are cut off.
  for (const bool root : {false, true}) {
    const std::string name = root ? "rsqrt.approx.ftz.f64" : "rcp.approx.ftz.f64";
    check_case({name, Kind::kF64,
                [root](long double x) {
                  const auto upper = std::bit_cast<uint64_t>(static_cast<double>(x)) >> 32 << 32;
                  const long double y = std::bit_cast<double>(upper);
                  return std::isnan(x) ? x : root ? 1 / std::sqrt(y) : 1 / y;
                },
                [](long double, long double y) { return relative(-18, 1, y); }, true});
  }
}

// What the tables of the PTX document list.
void test_special_operands() {
  constexpr uint32_t kInf = 0x7f800000, kMinusInf = 0xff800000, kNan = 0x7fffffff,
                     kOne = 0x3f800000;
  constexpr uint32_t kMinusZero = 0x80000000;
  const struct {
    const char* name;
    uint32_t operand, result;
  } rows[] = {
      {"ex2.approx.f32", 0, kOne},
      {"ex2.approx.f32", kMinusZero, kOne},
      {"ex2.approx.ftz.f32", 1, kOne},
      {"ex2.approx.ftz.f32", 0x80000001, kOne},
      {"ex2.approx.f32", kInf, kInf},
      {"ex2.approx.f32", kMinusInf, 0},
      {"ex2.approx.f32", 0xff8fffff, kNan},
      {"ex2.approx.ftz.f32", 0xc3000000, 0},  // -128
      {"ex2.approx.f32", 0x43010000, kInf},   // 129
      {"rcp.approx.f32", 0, kInf},
      {"rcp.approx.f32", kMinusZero, kMinusInf},
      {"rcp.approx.ftz.f32", 0x80000001, kMinusInf},
      {"rcp.approx.f32", kInf, 0},
      {"rcp.approx.f32", kMinusInf, kMinusZero},
      {"sqrt.approx.f32", kMinusZero, kMinusZero},
      {"sqrt.approx.f32", 0xbf800000, kNan},
      {"sqrt.approx.f32", kInf, kInf},
      {"rsqrt.approx.f32", 0, kInf},
      {"rsqrt.approx.f32", kMinusZero, kMinusInf},
      {"rsqrt.approx.f32", kInf, 0},
      {"rsqrt.approx.f32", 0xbf800000, kNan},
      {"lg2.approx.f32", 0, kMinusInf},
      {"lg2.approx.f32", kMinusZero, kMinusInf},
      {"lg2.approx.f32", kInf, kInf},
      {"lg2.approx.f32", 0xbf800000, kNan},
      {"sin.approx.f32", kMinusZero, kMinusZero},
      {"sin.approx.f32", kInf, kNan},
      {"cos.approx.f32", 0, kOne},
      {"cos.approx.f32", kMinusInf, kNan},
      {"tanh.approx.f32", kInf, kOne},
      {"tanh.approx.f32", kMinusInf, 0xbf800000},
      {"tanh.approx.f32", kMinusZero, kMinusZero},
      {"tanh.approx.f32", kNan, kNan},
  };
  for (const auto& row : rows) {
    const std::vector<std::vector<uint64_t>> values = {
        std::vector<uint64_t>(kThreads, row.operand)};
    for (const uint32_t device : {1, 2, 3}) {
      const auto got = results(std::string(row.name) + " %d, %a;", {Kind::kF32}, values, device);
      CHECK(got[0] == row.result && got[127] == row.result, "%s of %x: got %llx, want %x", row.name,
            row.operand, static_cast<unsigned long long>(got[0]), row.result);
    }
  }
}

void test_refusals() {
  const std::string registers = ".reg .f32 %a; .reg .b16 %h; .reg .f64 %l;\n";
  check_refused("ex2.f32 %a, %a;", registers, "approx");
  check_refused("tanh.approx.ftz.f32 %a, %a;", registers, "ftz");
  check_refused("ex2.approx.bf16 %h, %h;", registers, "ftz");
  check_refused("rcp.approx.f64 %l, %l;", registers, "ftz");
  check_refused("sin.approx.f64 %l, %l;", registers, "f64");
}

}  // namespace
}  // namespace ptx_simulator::test

int main() {
  using namespace ptx_simulator::test;
  test_f32();
  test_halves();
  test_division();
  test_f64();
  test_special_operands();
  test_refusals();
  return report_result("approximate functions");
}
