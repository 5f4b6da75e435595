// Parameters and results of calls: .param variables of all sizes, registers and constants in their
// place, calls within calls, under guards, and the local memory that all of it lies in.
#include <cstdio>
#include <string>
#include <vector>

#include "check.h"
#include "tests/run_ptx.h"

namespace {

using namespace ptx_simulator;
using namespace ptx_simulator::test;

// Each thread t stores %r9; its number is in %r1.
const std::string kBegin = R"(
  .reg .pred %p<4>; .reg .b16 %h<4>; .reg .b32 %r<16>; .reg .b64 %rd<8>; .reg .f32 %f<4>;
  ld.param.u64 %rd1, [out];
  mov.u32 %r1, %tid.x;
  mul.wide.u32 %rd2, %r1, 4;
  add.u64 %rd1, %rd1, %rd2;
  mov.u32 %r9, 0;
)";
const std::string kEnd = "\n  st.global.u32 [%rd1], %r9;\n  ret;";

template <class Expected>
void check_calls(const char* name, const std::string& functions, const std::string& body,
                 Expected expected) {
  Buffer<uint32_t> out(64, 0xdead);
  const LaunchReport report = run_ptx(kernel(".param .u64 out", kBegin + body + kEnd, functions),
                                      {.grid = {1}, .block = {64}}, out);
  CHECK(clean(report), "%s: %s", name, describe(report).c_str());
  for (uint32_t t = 0; t < 64; ++t) {
    CHECK(out[t] == expected(t), "%s: thread %u has %u, not %u", name, t, out[t], expected(t));
  }
}

const std::string kMultiplyAdd = R"(
.func (.param .b32 result) multiply_add(.param .b32 a, .param .b32 b, .param .b32 c) {
  .reg .b32 %r<4>;
  ld.param.u32 %r0, [a]; ld.param.u32 %r1, [b]; ld.param.u32 %r2, [c];
  mad.lo.u32 %r3, %r0, %r1, %r2;
  st.param.b32 [result], %r3;
  ret;
}
)";

void test_registers_and_constants() {
  check_calls("registers and constants", kMultiplyAdd, "call (%r9), multiply_add, (%r1, 3, -1);",
              [](uint32_t t) { return 3 * t - 1; });
  check_calls("a thrown-away result", kMultiplyAdd, "call (_), multiply_add, (%r1, 3, -1);",
              [](uint32_t) { return 0u; });
  check_calls("a variable among them", kMultiplyAdd, R"(
    .param .b32 x; .param .b32 y;
    st.param.b32 [x], 7;
    call (y), multiply_add, (%r1, x, %r1);
    ld.param.b32 %r9, [y];)",
              [](uint32_t t) { return 8 * t; });
}

void test_narrow_and_wide() {
  check_calls("8, 16 and 64 bits", R"(
.func (.param .b64 sum) widen(.param .b8 a, .param .b16 b, .param .b64 c) {
  .reg .b16 %h<2>; .reg .b64 %rd<4>;
  ld.param.s8 %h0, [a]; ld.param.u16 %h1, [b]; ld.param.u64 %rd0, [c];
  cvt.s64.s16 %rd1, %h0; cvt.u64.u16 %rd2, %h1;
  add.u64 %rd0, %rd0, %rd1; add.u64 %rd0, %rd0, %rd2;
  st.param.b64 [sum], %rd0;
  ret;
})",
              R"(
    .param .b8 narrow;
    st.param.b8 [narrow], -3;
    cvt.u16.u32 %h1, %r1;
    call (%rd3), widen, (narrow, %h1, 0x100000000);
    shr.u64 %rd4, %rd3, 32;
    cvt.u32.u64 %r2, %rd3; cvt.u32.u64 %r3, %rd4;
    mad.lo.u32 %r9, %r3, 1000, %r2;)",
              // t - 3 of 2^32 + t - 3: below three the carry of the upper half is missing.
              [](uint32_t t) { return t < 3 ? t - 3 : 1000 + t - 3; });
}

void test_structures() {
  // The arguments of two calls are set before either is made; the results are read after both.
  check_calls("structures", R"(
.func (.param .align 8 .b8 r[12]) rotate(.param .align 8 .b8 s[12], .param .b32 add) {
  .reg .b32 %r<4>; .reg .b64 %rd<2>;
  mov.b64 %rd0, s;
  ld.param.u32 %r0, [%rd0]; ld.param.u32 %r1, [%rd0+4]; ld.param.u32 %r2, [s+8];
  ld.param.u32 %r3, [add];
  add.u32 %r0, %r0, %r3;
  st.param.b32 [r+8], %r0; st.param.b32 [r], %r1; st.param.b32 [r+4], %r2;
  ret;
})",
              R"(
    { .param .align 8 .b8 x[12]; .param .align 8 .b8 y[12];
      .param .align 8 .b8 z[12]; .param .align 8 .b8 w[12];
      st.param.v2.b32 [x], {%r1, 20}; st.param.b32 [x+8], 30;
      st.param.v2.b32 [y], {1, 2}; st.param.b32 [y+8], %r1;
      call (z), rotate, (x, 100);
      call (w), rotate, (y, 200);
      ld.param.u32 %r2, [z]; ld.param.u32 %r3, [z+4]; ld.param.u32 %r4, [z+8];
      ld.param.u32 %r5, [w]; ld.param.u32 %r6, [w+4]; ld.param.u32 %r7, [w+8]; }
    add.u32 %r9, %r2, %r3; add.u32 %r9, %r9, %r4;
    mul.lo.u32 %r5, %r5, 1000; add.u32 %r9, %r9, %r5;
    mad.lo.u32 %r9, %r6, 100000, %r9; mad.lo.u32 %r9, %r7, 7, %r9;)",
              [](uint32_t t) { return 20 + 30 + (t + 100) + 2 * 1000 + t * 100000 + 201 * 7; });
}

void test_calls_within_calls() {
  check_calls("calls within calls", kMultiplyAdd + R"(
.func (.param .b32 result) square_add(.param .b32 a) {
  .reg .b32 %r<4>;
  ld.param.u32 %r0, [a];
  call (%r1), multiply_add, (%r0, %r0, 1);
  call (%r2), multiply_add, (%r1, 2, %r0);
  st.param.b32 [result], %r2;
  ret;
}
)",
              R"(
    call (%r2), square_add, (%r1);
    call (%r3), multiply_add, (%r2, 10, 5);
    call (%r9), square_add, (%r3);)",
              [](uint32_t t) {
                const auto square_add = [](uint32_t a) { return (a * a + 1) * 2 + a; };
                return square_add(square_add(t) * 10 + 5);
              });
}

void test_guards_and_divergence() {
  // Arguments and results of lanes that do not call stay as they are.
  check_calls("guards", kMultiplyAdd, R"(
    mov.u32 %r9, 77;
    and.b32 %r2, %r1, 1;
    setp.eq.u32 %p1, %r2, 0;
    @%p1 call (%r9), multiply_add, (%r1, 2, 1);
    setp.eq.u32 %p2, %r1, 5;
    @!%p2 call (%r9), multiply_add, (%r9, 1, 1);)",
              [](uint32_t t) {
                const uint32_t first = t % 2 == 0 ? 2 * t + 1 : 77;
                return t == 5 ? first : first + 1;
              });
  check_calls("both sides of a branch", kMultiplyAdd, R"(
    setp.lt.u32 %p1, %r1, 13;
    @%p1 bra LOW;
    call (%r9), multiply_add, (%r1, 5, 0);
    bra DONE;
LOW: call (%r9), multiply_add, (%r1, 7, 3);
DONE: add.u32 %r9, %r9, %r1;)",
              [](uint32_t t) { return t < 13 ? 8 * t + 3 : 6 * t; });
}

void test_local_variables() {
  // A function's own variables, beside the caller's.
  check_calls("local variables", R"(
.func (.param .b32 result) pick(.param .b32 index) {
  .local .align 4 .b8 values[16];
  .reg .b32 %r<4>; .reg .b64 %rd<4>;
  ld.param.u32 %r0, [index];
  st.local.u32 [values], 5; st.local.u32 [values+4], 6; st.local.u32 [values+8], 7;
  st.local.u32 [values+12], %r0;
  and.b32 %r1, %r0, 3;
  mul.wide.u32 %rd0, %r1, 4;
  mov.u64 %rd1, values;
  add.u64 %rd0, %rd0, %rd1;
  ld.local.u32 %r2, [%rd0];
  st.param.b32 [result], %r2;
  ret;
})",
              R"(
    .local .align 4 .b8 mine[8];
    st.local.u32 [mine+4], %r1;
    call (%r2), pick, (%r1);
    ld.local.u32 %r3, [mine+4];
    mad.lo.u32 %r9, %r3, 1000, %r2;)",
              [](uint32_t t) { return 1000 * t + (t % 4 == 3 ? t : 5 + t % 4); });
}

}  // namespace

int main() {
  test_registers_and_constants();
  test_narrow_and_wide();
  test_structures();
  test_calls_within_calls();
  test_guards_and_divergence();
  test_local_variables();
  std::printf("calls: %d failures\n", altiplano::test::failures);
  return altiplano::test::failures == 0 ? 0 : 1;
}
