// C++ expressions compiled by the host's compiler against the same ones compiled by nvcc and run on
// the simulator: integers, floats and halves bit for bit, functions of the math library closely.
//
// Both are compiled without contraction, and every operation used is defined and correctly rounded
// in both, but for the math library: CUDA states up to 2 ulp for these functions (4 for tanhf) on
// hardware whose approximate instructions are better than PTX asks for; here they are as bad as it
// allows, so 16 ulp are granted, and near the zeros of sin, cos and log as many of 2^-23.
#include <cmath>
#include <random>

#include "check.h"
#include "kernels/host_functions.h"
#include "tests/kernel_files.h"
#include "tests/run_ptx.h"

namespace ptx_simulator::test {
namespace {

const char* const kTexts[] = {
#define TEXT(...) #__VA_ARGS__,
    HOST_FUNCTIONS(TEXT)
#undef TEXT
};
const char* const kCloseTexts[] = {
#define TEXT(expression) #expression,
    CLOSE_FUNCTIONS(TEXT)
#undef TEXT
};
static_assert(std::size(kTexts) == host_functions::kFunctions);
static_assert(std::size(kCloseTexts) == host_functions::kCloseFunctions);

// Random bits, small numbers, edges, floats of moderate size in every half of 64 bits.
uint64_t operand(std::mt19937_64& random, bool of_floats) {
  const uint64_t bits = random();
  if (!of_floats) {
    constexpr uint64_t kEdges[] = {
        0,         1,          0x7f,       0x80,       0xff,        0x7fff,    0x8000,
        0xffff,    0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, INT64_MAX, 0x8000000000000000,
        UINT64_MAX};
    const uint64_t plan = random() % 4;
    return plan == 0 ? kEdges[bits % std::size(kEdges)] : plan == 1 ? bits >> (bits & 63) : bits;
  }
  // The upper 16 bits of the lower word are the halves; the lower word a float; all of it a double.
  // An operand is made for one of them, and is whatever it is for the others.
  switch (random() % 6) {
    case 0:
      return bits;
    case 1: {  // a float that is a multiple of 1/4
      const auto x = static_cast<float>(static_cast<int32_t>(bits) >> (bits >> 32 & 31)) * 0.25f;
      uint32_t word;
      std::memcpy(&word, &x, 4);
      return (bits & 0xffffffff00000000) | word;
    }
    case 2: {  // a double
      const double x = std::ldexp(static_cast<double>(static_cast<int64_t>(bits)),
                                  -static_cast<int>(random() % 80));
      uint64_t word;
      std::memcpy(&word, &x, 8);
      return word;
    }
    case 3: {  // special values, of f32 and f64
      constexpr uint64_t kEdges[] = {0x0000000000000000, 0x8000000080000000, 0x7ff000007f800000,
                                     0xfff00000ff800000, 0x7ff800007fc00000, 0x0000000000000001,
                                     0x000fffff007fffff, 0x0010000000800000, 0x7fefffff7f7fffff,
                                     0x3ff000003f800000, 0x3fe000003f000000, 0x43e000005f000000,
                                     0x41e000004f000000, 0x477fe000477fefff, 0x3880000033000000};
      return kEdges[bits % std::size(kEdges)];
    }
    case 4:  // halves around 1
      return (bits & 0xffffffff0000ffff) | (0x3000 + (bits >> 40 & 0x1fff)) << 16;
    default:  // floats around 1
      return (bits & 0xffffffff007fffff) | (0x3c000000 + ((bits >> 40 & 15) << 23)) |
             (bits & 0x80000000);
  }
}

void test_exact() {
  using host_functions::kFunctions;
  constexpr uint32_t kCount = 16384;
  std::mt19937_64 random(1);
  std::vector<host_functions::Operands> operands(kCount);
  for (auto& row : operands) {
    for (int k = 0; k < 6; ++k) row.bits[k] = operand(random, k >= 3);
  }
  Buffer<host_functions::Operands> in(operands);
  Buffer<uint64_t> out(size_t{kCount} * kFunctions);
  const Kernel compiled(kernel_file("host_functions.ptx"), "host_functions_kernel");
  const LaunchReport report =
      run_ptx(compiled, Shape{.grid = {kCount / 128}, .block = {128}}, in, out, kCount);
  CHECK(clean(report), "%s", describe(report).c_str());
  std::vector<uint64_t> expected(kFunctions);
  for (uint32_t i = 0; i < kCount; ++i) {
    host_functions::compute(operands[i], expected.data(), 1);
    for (int k = 0; k < kFunctions; ++k) {
      const uint64_t got = out[size_t{kCount} * k + i];
      CHECK(got == expected[k],
            "%s: got %llx, the host %llx; operands %llx %llx %llx %llx %llx %llx", kTexts[k],
            static_cast<unsigned long long>(got), static_cast<unsigned long long>(expected[k]),
            static_cast<unsigned long long>(operands[i].bits[0]),
            static_cast<unsigned long long>(operands[i].bits[1]),
            static_cast<unsigned long long>(operands[i].bits[2]),
            static_cast<unsigned long long>(operands[i].bits[3]),
            static_cast<unsigned long long>(operands[i].bits[4]),
            static_cast<unsigned long long>(operands[i].bits[5]));
    }
  }
  std::printf("host versus PTX: %d expressions on %u operands\n", kFunctions, kCount);
}

void test_close() {
  using host_functions::kCloseFunctions;
  constexpr uint32_t kCount = 8192;
  std::mt19937_64 random(2);
  std::vector<float> operands;
  for (uint32_t i = 0; i < kCount; ++i) {
    const float size = std::ldexp(1.f, static_cast<int>(random() % 24) - 17);  // to 64
    operands.push_back(size * (static_cast<float>(random() >> 40) * 0x1p-23f - 1.f));
  }
  Buffer<float> in(operands), out(size_t{kCount} * kCloseFunctions);
  const Kernel compiled(kernel_file("host_functions.ptx"), "close_functions_kernel");
  const LaunchReport report =
      run_ptx(compiled, Shape{.grid = {kCount / 128}, .block = {128}}, in, out, kCount);
  CHECK(clean(report), "%s", describe(report).c_str());
  for (uint32_t i = 0; i < kCount; ++i) {
    float expected[kCloseFunctions];
    host_functions::compute_close(operands[i], expected, 1);
    for (int k = 0; k < kCloseFunctions; ++k) {
      const float got = out[size_t{kCount} * k + i], want = expected[k];
      const float size = std::abs(want);
      const bool is_power = k < 2;  // which may be small or large, and are close relatively
      const float allowed = 16 * 0x1p-23f * (is_power ? size : std::max(size, 1.f)) + 0x1p-126f;
      const bool close = std::isnan(want)   ? std::isnan(got)
                         : std::isinf(want) ? got == want
                                            : std::abs(got - want) <= allowed;
      CHECK(close, "%s of %a: got %a, the host %a", kCloseTexts[k], operands[i], got, want);
    }
  }
}

}  // namespace
}  // namespace ptx_simulator::test

int main() {
  using namespace ptx_simulator::test;
  test_exact();
  test_close();
  std::printf("host versus PTX: %d failures\n", altiplano::test::failures);
  return altiplano::test::failures == 0 ? 0 : 1;
}
