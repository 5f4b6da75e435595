// atom and red: what each operation leaves in memory and returns, on global, shared and generic
// addresses, and that operations of many blocks on many host threads lose nothing.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "check.h"
#include "tests/run_ptx.h"

namespace ptx_simulator::test {
namespace {

using altiplano::test::Random;

template <class To, class From>
To bits_as(From from) {
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

// By the definition of the format; finite.
double f16_value(uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double magnitude =
      exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}
// Of all finite numbers the nearest, of two equally near ones the even one.
uint16_t nearest_f16(double x) {
  static const std::vector<double> all = [] {
    std::vector<double> values;
    for (uint32_t bits = 0; bits < 0x7C00; ++bits) {
      values.push_back(f16_value(static_cast<uint16_t>(bits)));
    }
    return values;
  }();
  const auto above = std::lower_bound(all.begin(), all.end(), std::fabs(x));
  auto bits = static_cast<uint16_t>(above - all.begin());
  if (bits > 0) {
    const double up = *above - std::fabs(x), down = std::fabs(x) - above[-1];
    if (down < up || (down == up && bits % 2 == 1)) --bits;
  }
  return static_cast<uint16_t>(bits | (x < 0 ? 0x8000 : 0));
}

// Every thread works on an element of its own: memory old, operand b, and c; returns what was there
// and what is there afterwards.
template <class T>
struct Results {
  std::vector<T> old, now;
  LaunchReport report;
};
const char* register_of(size_t bytes) { return bytes == 8 ? "%x" : bytes == 2 ? "%h" : "%r"; }

template <class T>
Results<T> apply(const std::string& space, const std::string& operation, const std::string& type,
                 const std::vector<T>& memory, const std::vector<T>& b, const std::vector<T>& c,
                 bool returns = true) {
  const uint32_t n = static_cast<uint32_t>(memory.size());
  const Buffer<T> at(memory), operand(b), other(c);
  Buffer<T> old(n), now(n);
  const std::string r = register_of(sizeof(T)), bits = std::to_string(sizeof(T) * 8);
  const std::string size = std::to_string(sizeof(T));
  const bool shared = space.find("shared") != std::string::npos;
  const bool generic = space.find("generic") != std::string::npos;
  std::string body = R"(
  .reg .b16 %h<8>;
  .reg .b32 %r<8>;
  .reg .b64 %x<8>;
  .reg .b64 %rd<16>;
  .shared .align 8 .b8 place[8192];
  mov.u32 %r0, %tid.x;
  mul.wide.u32 %rd0, %r0, )" +
                     size + ";\n";
  int address = 1;
  for (const char* name : {"memory", "b", "c", "old", "now"}) {
    const std::string rd = "%rd" + std::to_string(address++);
    body += "ld.param.u64 " + rd + ", [" + name + "]; add.s64 " + rd + ", " + rd + ", %rd0;\n";
  }
  body += "ld.global.b" + bits + " " + r + "1, [%rd1];\n";
  body += "ld.global.b" + bits + " " + r + "2, [%rd2];\n";
  body += "ld.global.b" + bits + " " + r + "3, [%rd3];\n";
  body += "mov.b" + bits + " " + r + "4, " + r + "1;\n";
  if (shared) {
    body += "mov.u64 %rd6, place; add.s64 %rd6, %rd6, %rd0;\n";
    body += "st.shared.b" + bits + " [%rd6], " + r + "1;\n";
    if (generic) body += "cvta.shared.u64 %rd6, %rd6;\n";
  } else {
    body += "mov.u64 %rd6, %rd1;\n";
  }
  const std::string suffix = generic ? "" : shared ? ".shared" : ".global";
  const bool three = operation == "cas";
  body += std::string(returns ? "atom" : "red") + suffix + "." + operation + "." + type + " " +
          (returns ? r + "4, " : "") + "[%rd6], " + r + "2" + (three ? ", " + r + "3" : "") + ";\n";
  body += "st.global.b" + bits + " [%rd4], " + r + "4;\n";
  body += std::string("ld") + suffix + ".b" + bits + " " + r + "5, [%rd6];\n";
  body += "st.global.b" + bits + " [%rd5], " + r + "5;\nret;";
  const std::string text = kernel(
      ".param .u64 memory, .param .u64 b, .param .u64 c, .param .u64 old, .param .u64 now", body);
  Results<T> results;
  results.report = run_ptx(text, {.block = {n}}, at, operand, other, old, now);
  CHECK(clean(results.report), "%s.%s %s: %s", operation.c_str(), type.c_str(), space.c_str(),
        describe(results.report).c_str());
  results.old = old.values();
  results.now = now.values();
  return results;
}

const std::vector<std::string> kSpaces = {"global", "shared", "generic global", "generic shared"};

template <class T>
void test_operation(const std::string& operation, const std::string& type,
                    std::function<T(T, T, T)> model) {
  Random random(3);
  std::vector<T> memory, b, c;
  for (int i = 0; i < 96; ++i) {
    // Few different values, so that comparisons meet equal ones, and some extreme ones.
    const auto draw = [&] {
      const int64_t x = random.integer(-4, 4);
      return i % 3 == 0   ? static_cast<T>(x)
             : i % 3 == 1 ? static_cast<T>(uint64_t{std::numeric_limits<T>::max()} - uint64_t(x))
                          : static_cast<T>(random.integer(INT32_MIN, INT32_MAX) * 0x10001);
    };
    memory.push_back(draw());
    b.push_back(i % 5 == 0 ? memory.back() : draw());
    c.push_back(draw());
  }
  for (const std::string& space : kSpaces) {
    for (const bool returns : {true, false}) {
      if (!returns && (operation == "cas" || operation == "exch")) continue;
      const Results<T> results = apply<T>(space, operation, type, memory, b, c, returns);
      for (size_t i = 0; i < memory.size(); ++i) {
        const T expected = model(memory[i], b[i], c[i]);
        CHECK(results.old[i] == memory[i], "%s.%s returns the old value", operation.c_str(),
              type.c_str());
        CHECK(results.now[i] == expected, "%s.%s %s, element %zu: %lld, not %lld",
              operation.c_str(), type.c_str(), space.c_str(), i,
              static_cast<long long>(results.now[i]), static_cast<long long>(expected));
      }
    }
  }
}

template <class T>
void test_bits(const std::string& type) {
  test_operation<T>("and", type, [](T a, T b, T) { return a & b; });
  test_operation<T>("or", type, [](T a, T b, T) { return a | b; });
  test_operation<T>("xor", type, [](T a, T b, T) { return a ^ b; });
  test_operation<T>("exch", type, [](T, T b, T) { return b; });
}

template <class T>
void test_order(const std::string& type) {
  test_operation<T>("min", type, [](T a, T b, T) { return std::min(a, b); });
  test_operation<T>("max", type, [](T a, T b, T) { return std::max(a, b); });
}

// Sums of floats are compared as bits; `add` is made of other means than the simulator's.
template <class T>
void test_float_add(const std::string& space, const std::string& name, const std::vector<T>& a,
                    const std::vector<T>& b, std::function<T(T, T)> add) {
  const size_t dot = name.find('.');
  const std::string type = dot == std::string::npos ? name : name.substr(dot + 1);
  const Results<T> results = apply<T>(
      space, dot == std::string::npos ? "add" : "add." + name.substr(0, dot), type, a, b, b, true);
  for (size_t i = 0; i < a.size(); ++i) {
    const T expected = add(a[i], b[i]);
    CHECK(results.now[i] == expected, "add.%s %s: %llx + %llx is %llx, not %llx", name.c_str(),
          space.c_str(), static_cast<unsigned long long>(a[i]),
          static_cast<unsigned long long>(b[i]), static_cast<unsigned long long>(results.now[i]),
          static_cast<unsigned long long>(expected));
  }
}

void test_floats() {
  Random random(8);
  std::vector<uint32_t> a32, b32;
  std::vector<uint64_t> a64, b64;
  std::vector<uint16_t> a16, b16, abf, bbf;
  for (int i = 0; i < 256; ++i) {
    a32.push_back(bits_as<uint32_t>(random.normal(1e-38f)));  // half of these are subnormal
    b32.push_back(bits_as<uint32_t>(random.normal(i % 2 ? 1e-38f : 1e-39f)));
    a64.push_back(bits_as<uint64_t>(double{random.normal()} * 1e-3));
    b64.push_back(bits_as<uint64_t>(double{random.normal()} / 3));
    const auto finite16 = [&] {
      for (;;) {
        const auto x = static_cast<uint16_t>(random.integer(0, 65535));
        if ((x & 0x7FFF) < 0x7000) return x;  // so that no sum overflows
      }
    };
    a16.push_back(finite16());
    b16.push_back(static_cast<uint16_t>(a16.back() ^ random.integer(0, 0x8FFF)));
    if ((b16.back() & 0x7FFF) >= 0x7000) b16.back() = finite16();
    abf.push_back(static_cast<uint16_t>(bits_as<uint32_t>(random.normal()) >> 16));
    bbf.push_back(static_cast<uint16_t>(bits_as<uint32_t>(random.normal(30)) >> 16));
  }
  const auto flushed = [](float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.f, x) : x; };
  for (const std::string& space : kSpaces) {
    // On global memory an A100 flushes subnormal inputs and results, on shared it does not.
    const bool flush = space.find("shared") == std::string::npos;
    test_float_add<uint32_t>(space, "f32", a32, b32, [&](uint32_t x, uint32_t y) {
      const float p = bits_as<float>(x), q = bits_as<float>(y);
      return bits_as<uint32_t>(flush ? flushed(flushed(p) + flushed(q)) : p + q);
    });
    test_float_add<uint64_t>(space, "f64", a64, b64, [](uint64_t x, uint64_t y) {
      return bits_as<uint64_t>(bits_as<double>(x) + bits_as<double>(y));
    });
    const auto add16 = [](uint16_t x, uint16_t y) {
      const double sum = f16_value(x) + f16_value(y);  // exact
      return sum == 0 ? static_cast<uint16_t>(x & y & 0x8000) : nearest_f16(sum);
    };
    test_float_add<uint16_t>(space, "noftz.f16", a16, b16, add16);
    // By definition: of the two bf16 around the exact sum the nearer, or the even one.
    const auto add_bf16 = [](uint16_t x, uint16_t y) {
      const double sum =
          double{bits_as<float>(uint32_t{x} << 16)} + double{bits_as<float>(uint32_t{y} << 16)};
      uint16_t best = 0;
      double error = INFINITY;
      const auto near = static_cast<uint16_t>(bits_as<uint32_t>(static_cast<float>(sum)) >> 16);
      for (int step = -1; step <= 1; ++step) {
        const auto candidate = static_cast<uint16_t>(near + step);
        const double e = std::fabs(double{bits_as<float>(uint32_t{candidate} << 16)} - sum);
        if (e < error || (e == error && candidate % 2 == 0)) {
          best = candidate;
          error = e;
        }
      }
      return best;
    };
    test_float_add<uint16_t>(space, "noftz.bf16", abf, bbf, add_bf16);
    std::vector<uint32_t> a, b;
    for (size_t i = 0; i < a16.size(); i += 2) {
      a.push_back(a16[i] | uint32_t{a16[i + 1]} << 16);
      b.push_back(b16[i] | uint32_t{b16[i + 1]} << 16);
    }
    test_float_add<uint32_t>(space, "noftz.f16x2", a, b, [&](uint32_t x, uint32_t y) {
      return add16(static_cast<uint16_t>(x), static_cast<uint16_t>(y)) |
             uint32_t{add16(static_cast<uint16_t>(x >> 16), static_cast<uint16_t>(y >> 16))} << 16;
    });
    a.clear();
    b.clear();
    for (size_t i = 0; i < abf.size(); i += 2) {
      a.push_back(abf[i] | uint32_t{abf[i + 1]} << 16);
      b.push_back(bbf[i] | uint32_t{bbf[i + 1]} << 16);
    }
    test_float_add<uint32_t>(space, "noftz.bf16x2", a, b, [&](uint32_t x, uint32_t y) {
      return add_bf16(static_cast<uint16_t>(x), static_cast<uint16_t>(y)) |
             uint32_t{add_bf16(static_cast<uint16_t>(x >> 16), static_cast<uint16_t>(y >> 16))}
                 << 16;
    });
  }
}

// All threads of many blocks add to few places: with atom, red, and a loop of compare and swap.
void test_contention() {
  const std::string text = kernel(".param .u64 sums, .param .u64 tickets", R"(
  .reg .pred %p<2>;
  .reg .b32 %r<8>;
  .reg .b64 %rd<8>;
  .shared .align 4 .b8 sum[4];
  mov.u32 %r1, %tid.x;
  ld.param.u64 %rd1, [sums];
  ld.param.u64 %rd2, [tickets];
  setp.eq.u32 %p1, %r1, 0;
  @%p1 st.shared.u32 [sum], 0;
  bar.sync 0;
  red.shared.add.u32 [sum], %r1;
  atom.add.relaxed.gpu.global.u32 %r2, [%rd1], 1;
  mul.wide.u32 %rd3, %r2, 4;
  add.s64 %rd3, %rd2, %rd3;
  red.relaxed.gpu.global.add.u32 [%rd3], 1;
  ld.relaxed.gpu.global.u32 %r3, [%rd1 + 4];
again:
  add.u32 %r4, %r3, 3;
  mov.u32 %r5, %r3;
  atom.acq_rel.gpu.global.cas.b32 %r3, [%rd1 + 4], %r5, %r4;
  setp.ne.u32 %p1, %r3, %r5;
  @%p1 bra again;
  bar.sync 0;
  ld.shared.u32 %r6, [sum];
  setp.eq.u32 %p1, %r1, 0;
  @%p1 red.global.add.u32 [%rd1 + 8], %r6;
  atom.global.sys.inc.u32 %r2, [%rd1 + 12], 9;
  ret;)");
  const Kernel compiled(text);
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    constexpr uint32_t kBlocks = 24, kThreads = 96, kAll = kBlocks * kThreads;
    Buffer<uint32_t> sums(4), tickets(kAll);
    const LaunchReport report =
        run_ptx(compiled, {.grid = {kBlocks}, .block = {kThreads}, .seed = seed, .host_threads = 4},
                sums, tickets);
    CHECK(clean(report), "%s", describe(report).c_str());
    CHECK(sums[0] == kAll && sums[1] == 3 * kAll, "%u, %u", sums[0], sums[1]);
    CHECK(sums[2] == kBlocks * (kThreads * (kThreads - 1) / 2), "%u", sums[2]);
    CHECK(sums[3] == kAll % 10, "%u", sums[3]);
    for (uint32_t i = 0; i < kAll; ++i) CHECK(tickets[i] == 1, "ticket %u: %u", i, tickets[i]);
  }
}

void test_refused() {
  for (const char* instruction :
       {"red.global.add.v2.f32 [%rd1], {%f1, %f1};", "atom.global.add.f16 %h1, [%rd1], %h1;",
        "red.global.exch.b32 [%rd1], %r1;", "atom.global.min.f32 %f1, [%rd1], %f1;",
        "atom.local.add.u32 %r1, [%rd1], %r1;", "atom.global.and.u32 %r1, [%rd1], %r1;"}) {
    bool refused = false;
    try {
      const Kernel compiled(kernel("", std::string(".reg .b16 %h<2>; .reg .b32 %r<2>; "
                                                   ".reg .f32 %f<2>; .reg .b64 %rd<2>;\n") +
                                           instruction + "\nret;"));
    } catch (const PtxError& e) {
      refused = e.line != 0;
    }
    CHECK(refused, "%s", instruction);
  }
}

}  // namespace
}  // namespace ptx_simulator::test

int main() {
  using namespace ptx_simulator::test;
  test_operation<uint32_t>("add", "u32", [](uint32_t a, uint32_t b, uint32_t) { return a + b; });
  test_operation<uint32_t>("add", "s32", [](uint32_t a, uint32_t b, uint32_t) { return a + b; });
  test_operation<uint64_t>("add", "u64", [](uint64_t a, uint64_t b, uint64_t) { return a + b; });
  test_order<uint32_t>("u32");
  test_order<int32_t>("s32");
  test_order<uint64_t>("u64");
  test_order<int64_t>("s64");
  test_bits<uint32_t>("b32");
  test_bits<uint64_t>("b64");
  test_operation<uint16_t>("cas", "b16",
                           [](uint16_t a, uint16_t b, uint16_t c) { return a == b ? c : a; });
  test_operation<uint32_t>("cas", "b32",
                           [](uint32_t a, uint32_t b, uint32_t c) { return a == b ? c : a; });
  test_operation<uint64_t>("cas", "b64",
                           [](uint64_t a, uint64_t b, uint64_t c) { return a == b ? c : a; });
  test_operation<uint32_t>("inc", "u32",
                           [](uint32_t a, uint32_t b, uint32_t) { return a >= b ? 0 : a + 1; });
  test_operation<uint32_t>(
      "dec", "u32", [](uint32_t a, uint32_t b, uint32_t) { return a == 0 || a > b ? b : a - 1; });
  test_floats();
  test_contention();
  test_refused();
  std::printf("atomics: %d failures\n", altiplano::test::failures);
  return altiplano::test::failures != 0;
}
